"""Run folders with made-up predictions, in the layout that `har_ls.runs.folder` writes, for tests of what comes
after training."""

import json
from pathlib import Path

import numpy as np

from har_ls.predictions import Predictions, save_predictions
from har_ls.runs.folder import measured


def predictions(rng, part, alpha, seeds, subjects, windows=40, classes=4, features=5, gain=3.0):
    """Overconfident logits (`gain` times too large) that smoothing shrinks; subjects differ in difficulty."""
    subject = np.repeat(subjects, windows)
    y = rng.integers(classes, size=len(subject))
    difficulty = np.random.default_rng(subjects).normal(0, 0.4, len(subjects)).repeat(windows)
    noise = np.stack(
        [np.random.default_rng([seed, len(subject)]).normal(size=(len(subject), classes)) for seed in seeds]
    )
    logits = gain * (1 - 4 * alpha) * (noise + (1.6 + difficulty)[:, None] * np.eye(classes)[y])
    weights = rng.normal(size=(classes, features))
    values = logits @ np.linalg.pinv(weights).T
    r = len(seeds)
    return Predictions(
        part,
        logits.astype(np.float32),
        values.astype(np.float32),
        np.tile(weights, (r, 1, 1)).astype(np.float32),
        np.zeros((r, classes), np.float32),
        y,
        subject,
        np.full(r, alpha),
        np.array(seeds),
    )


def write_run(
    out,
    dataset="synthetic",
    model="resnet1d",
    alpha=0.0,
    protocol="subject",
    fold=0,
    folds=5,
    seeds=(0, 1, 2),
    people=6,
    options=None,
    epochs=None,
    max_windows=None,
    code="c0de",
    finished="2026-01-01T00:00:00+00:00",
    gain=3.0,
    learnt=0.99,
):
    "Write one run's folder; return its path."
    options = options or {}
    label = "".join(f"{key}{value}" for key, value in options.items())
    name = f"{dataset}{label}-{model}-a{alpha:g}-{protocol}-f{fold}-{code}{finished[:4]}{epochs or ''}"
    folder = Path(out) / name
    folder.mkdir(parents=True)
    rng = np.random.default_rng([fold, people])
    test_people = np.arange(people) + (fold * people if protocol == "subject" else 0)
    parts = {
        "validation": predictions(rng, "validation", alpha, seeds, np.arange(people) + 1000, gain=gain),
        "test": predictions(rng, "test", alpha, seeds, test_people, gain=gain),
    }
    save_predictions(folder / "predictions.npz", parts)
    table = measured(parts).assign(
        run=name, dataset=dataset, model=model, protocol=protocol, fold=fold, train_accuracy=learnt
    )
    first = ["run", "dataset", "model", "protocol", "fold", "alpha", "seed", "part"]
    table[first + [column for column in table if column not in first]].to_parquet(
        folder / "metrics.parquet", index=False
    )
    spec = dict(
        dataset=dataset,
        model=model,
        alpha=alpha,
        protocol=protocol,
        fold=fold,
        folds=folds,
        seeds=list(seeds),
        epochs=epochs,
        max_windows=max_windows,
        options=options,
    )
    about = dict(
        name=name,
        spec=spec,
        data="f" * 64,
        code=code,
        har_ls="0",
        python="3",
        torch="2",
        numpy="2",
        hardware=dict(cpu="a processor", cores=2, gpu=None),
        threads=1,
        epochs=epochs or 15,
        windows=dict(train=400, validation=240, test=240),
        seconds=dict(load=0.1, train=12.0, measure=0.1),
        finished=finished,
    )
    (folder / "spec.json").write_text(json.dumps(about))
    return folder


def write_study(
    out, datasets=("synthetic",), models=("resnet1d",), alphas=(0.0, 0.01), protocols=("subject",), folds=1, **more
):
    "Write all runs of a grid."
    for dataset in datasets:
        for model in models:
            for protocol in ("official",) if dataset == "uci_har" else protocols:
                for fold in range(1 if protocol == "official" else folds):
                    for alpha in alphas:
                        gain = (3.0 if protocol in ("subject", "official") else 0.8) * (
                            1.1 if model == "moderntcn" else 1.0
                        )
                        write_run(out, dataset, model, alpha, protocol, fold, gain=gain, **more)
    return Path(out)
