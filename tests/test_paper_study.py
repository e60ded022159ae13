"""The paper's experiments: run once and resumed, collected and published, judged rightly, and a page that is
computed and not written."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from literals import assert_no_literal_results

from har_ls import cli
from har_ls.runs import execution
from har_ls.runs import folder as runs
from har_ls.core import HarLsError
from har_ls.data.catalog import load
from har_ls.data.splits import split
from har_ls.paper import experiment
from har_ls.paper.information import confusable_pair, disturbed_copies, logit_information
from har_ls.predictions import load_predictions
from har_ls.evidence.results import KEY
from har_ls.training import Recipe, train

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "nbs" / "study" / "paper.ipynb"
SMALL = ["paper", "--profile", "quick", "--seeds", "2", "--epochs", "2", "--max-windows", "200", "--workers", "1"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    "The quick form from the command line, in a process of its own: runs, tables and page."
    folder = tmp_path_factory.mktemp("paper")
    code = "from har_ls.cli import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *SMALL, "--out", "here", "--publish", "tables"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    assert done.returncode == 0, done.stderr
    assert "4 of 4 runs are done" in done.stdout and "The page: " in done.stdout
    return folder


@pytest.fixture(scope="module")
def results(quick):
    return experiment.collect(quick / "here")


def test_the_same_command_trains_nothing(quick, capsys, monkeypatch):
    monkeypatch.chdir(quick)
    monkeypatch.setattr(execution, "execute_notebook", lambda *a, **k: pytest.fail("a finished run was done again"))
    before = {path: path.stat().st_mtime_ns for path in runs.run_folders("here")}
    assert cli.main([*SMALL, "--out", "here", "--no-page"]) == 0
    assert "4 of 4 runs are done" in capsys.readouterr().out
    assert cli.main([*SMALL, "--out", "here", "--dry-run"]) == 0
    assert "4 runs: 4 done, nothing is left to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in runs.run_folders("here")} == before


def only(results, chosen):
    "The results of some runs: `chosen` of (fold, alpha)."
    tables = {name: getattr(results, name) for name in experiment.TABLES}
    keep = {name: [chosen(*key) for key in zip(table.fold, table.alpha)] for name, table in tables.items()}
    return experiment.Results(**{name: table[keep[name]] for name, table in tables.items()})


def rows(results):
    "All rows as text, in one order."
    seeds = [list(map(int, some)) for some in results.runs.seeds]
    results = replace(results, runs=results.runs.assign(seeds=seeds))
    tables = {name: getattr(results, name) for name in experiment.TABLES}
    return {name: sorted(map(str, table[sorted(table)].to_numpy().tolist())) for name, table in tables.items()}


def test_published_tables_grow_and_hold_nothing_twice(results, tmp_path):
    "Runs that are published in two parts, one of them twice, are the same tables; other code drives the old ones out."
    folder = tmp_path / "tables"
    hard, smooth = (only(results, lambda fold, alpha, on=on: (alpha > 0) == on) for on in (False, True))
    for part in (hard, smooth, hard):
        both = experiment.publish(part, folder)
    assert rows(both) == rows(results) == rows(experiment.collect(folder))
    newer = replace(smooth, runs=smooth.runs.assign(code="another"))
    assert rows(experiment.publish(newer, folder)) == rows(newer)


def test_a_publication_that_is_stopped_midway_is_made_whole_by_the_next(results, tmp_path, monkeypatch):
    hard, smooth = (only(results, lambda fold, alpha, on=on: (alpha > 0) == on) for on in (False, True))
    experiment.publish(hard, tmp_path)
    write, count = pd.DataFrame.to_parquet, iter(range(100))

    def stopping(self, *args, **more):
        if next(count) == 4:
            raise KeyboardInterrupt
        return write(self, *args, **more)

    monkeypatch.setattr(pd.DataFrame, "to_parquet", stopping)
    with pytest.raises(KeyboardInterrupt):
        experiment.publish(smooth, tmp_path)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", write)
    assert set(pd.read_parquet(tmp_path / "runs.parquet").run) == set(hard.runs.run)
    assert rows(experiment.publish(smooth, tmp_path)) == rows(results)


def test_what_is_published_is_not_planned_again(quick, monkeypatch, capsys):
    monkeypatch.chdir(quick)
    monkeypatch.setattr(experiment, "published", lambda: quick / "tables")
    assert cli.main([*SMALL, "--out", "elsewhere", "--dry-run"]) == 0
    assert "4 runs: 4 done, nothing is left to do" in capsys.readouterr().out


def test_runs_of_the_paper_and_ordinary_ones_are_kept_apart(quick):
    assert len(runs.load(quick / "here")) == 0 and len(runs.specs(quick / "here")) == 0
    about = runs.specs(quick / "here", None)
    assert about.notebook.value_counts().to_dict() == {"trained": 2, "distil": 2}
    assert all(f"-{row.notebook}-" in row.run for row in about.itertuples())
    assert set(runs.load(quick / "here", "distil").role) == {"teacher", "direct", "distilled"}
    names = {item.name for item in (quick / "here").iterdir()}
    assert {Path(path).name for path in about.path} <= names


def test_what_a_run_keeps(quick):
    about = runs.specs(quick / "here", None)
    trained = Path(about[(about.notebook == "trained") & (about.alpha == 0.1)].path.iloc[0])
    parts = load_predictions(trained / "predictions.npz")
    assert set(parts) == {"train", "validation", "test"} and parts["train"].seeds.tolist() == [0, 1]
    history = pd.read_parquet(trained / "history.parquet")
    assert history.information.notna().tolist() == [True, True] * 2  # after the first and the last of two epochs
    distilled = Path(about[(about.notebook == "distil") & (about.alpha == 0)].path.iloc[0])
    table = pd.read_parquet(distilled / "metrics.parquet")
    counted = table[table.part == "test"].groupby(["role", "temperature"]).seed.apply(list).to_dict()
    assert counted == {
        ("teacher", 1.0): [0, 1],
        ("direct", 1.0): [0, 1],
        ("distilled", 1.0): [0, 1],
        ("distilled", 4.0): [0, 1],
    }
    soft = table[table.role == "distilled"].groupby("temperature").gamma.mean()
    assert soft[4.0] > soft[1.0]  # a temperature makes targets softer


def test_published_tables_are_the_collected_ones(quick, results, tmp_path):
    published = experiment.collect(quick / "tables")
    assert rows(published) == rows(results)
    pd.testing.assert_frame_equal(experiment.scorecard(published), experiment.scorecard(results))
    assert sorted(item.name for item in (quick / "tables").iterdir()) == sorted(
        f"{name}.parquet" for name in experiment.TABLES
    )
    with pytest.raises(HarLsError, match="no finished runs of the paper's experiments"):
        experiment.collect(tmp_path)


def test_page_needs_no_network_and_names_no_machine(quick):
    page = (quick / "here" / "page" / "paper.html").read_text(encoding="utf-8")
    assert (
        "<script" not in page
        and not re.findall(r'src="(?!data:)', page)
        and str(quick) not in page
        and str(ROOT) not in page
    )
    assert "<math" in page and "</math><mrow>" not in page
    for heading in ("Figure 1", "Figure 2 and Table 3", "Figure 4", "Figure 5", "Figure 6", "What is weak"):
        assert heading in page
    assert "no real recordings were run" in page and "import numpy" not in page
    words = re.sub(r"<[^>]+>", " ", re.sub(r"data:image[^\"]+", "", page))
    assert not re.search(r"\bnan\b", words)
    images = re.findall(r"<img [^>]+>", page)
    assert len(images) == 6 and all(re.search(r'alt="[^"]{20,}"', image) for image in images)
    left = [
        cell
        for cell in nbformat.read(quick / "here" / "page" / "paper.ipynb", 4).cells
        if any(o.output_type == "stream" for o in cell.get("outputs", []))
    ]
    assert not left


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--seeds", "2"], "name a --profile too"),
        (["--dry-run"], "name a --profile too"),
        (["--profile", "slow"], "unknown profile 'slow'"),
        (["--profile", "quick", "--datasets", "nosuch"], "unknown dataset"),
        (["--runs", "nowhere"], "no such folder"),
    ],
)
def test_what_the_user_can_mend(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["paper", *arguments]) == 1
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_specs_of_the_profiles():
    full = experiment.experiment_specs(experiment.make_experiment("full"))
    trained, taught = ([spec for spec in full if spec.notebook == name] for name in ("trained", "distil"))
    assert {spec.protocol for spec in trained} == {"subject"} and {spec.fold for spec in trained} == set(range(5))
    assert {spec.protocol for spec in taught} == {"random"} and len({spec.dataset for spec in full}) >= 3
    assert all(spec.epochs is None and spec.max_windows is None for spec in full)  # the recipe, all windows
    hard = [spec for spec in full if spec.notebook == "distil" and spec.alpha == 0]
    assert all(spec.settings["temperatures"] == [1, 2, 3, 4, 8, 12, 16] for spec in hard)
    assert all(spec.settings["temperatures"] == [1] for spec in full if spec.notebook == "distil" and spec.alpha > 0)
    assert {0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2} == {spec.alpha for spec in trained}
    assert all(spec.settings["draws"] >= 100 for spec in full if spec.notebook == "trained")
    assert all(
        len(spec.seeds) == 2 for spec in experiment.experiment_specs(experiment.make_experiment("full", seeds=2))
    )
    with pytest.raises(HarLsError, match="datasets is empty"):
        experiment.make_experiment("full", datasets=())


def made_up(results, **wanted):
    """Tables of eight people and five seeds in which each comparison has the wanted mean difference, with a little
    noise."""
    rng, rows = (
        np.random.default_rng(0),
        {"people": [], "distillation_people": [], "temperature": [], "distillation": []},
    )
    rows["information"] = []

    def change(name):
        return 10 * (wanted.get(name, 0) + rng.normal(0, 0.0005))  # ten windows of each person

    for alpha in (0.0, 0.1):
        on = alpha > 0
        for seed in range(5):
            key = dict(
                dataset="wisdm", model="resnet1d", protocol="subject", fold=0, alpha=alpha, seed=seed, part="test"
            )
            for j in range(8):
                person = key | dict(subject=j, n=10) | {m: 5 + on * change(m) for m in experiment.SHARED}
                person |= dict(intra=5.0, accuracy=9.0)
                for name, start in (("ece", 1.0), ("ece_temperature", 0.2)):
                    person[name] = person[f"{name}_spread"] = start + on * change("ece")
                rows["people"].append(person | dict(nll_temperature=5 + on * change("nll")))
                pupil = key | dict(model="resnet1d_small", subject=j, n=10)
                alone = dict(role="direct", temperature=1.0, accuracy=6 + rng.normal(0, 0.05))
                rows["distillation_people"].append(pupil | alone)
                rows["distillation_people"].append(
                    pupil | dict(role="teacher", temperature=1.0, accuracy=9 + on * change("teacher"))
                )
                for T in (1.0,) if on else (1.0, 4.0):
                    accuracy = 8 + 0.5 * (T == 4) + on * change("student")
                    rows["distillation_people"].append(pupil | dict(role="distilled", temperature=T, accuracy=accuracy))
            rows["temperature"].append(key | dict(part="validation", scaled=False, ece=0.1, nll=0.5))
            for T in (1.0,) if on else (1.0, 4.0):
                pupil = dict(model="resnet1d_small", part="validation", role="distilled", temperature=T, nll=1.0)
                rows["distillation"].append(key | pupil | dict(accuracy=0.8 + 0.05 * (T == 4)))
            for epoch, fold in ((e, f) for e in (1, 10) for f in range(5)):
                within = 1.0 + on * change("information") / 10 if epoch == 10 else 5.0
                told = dict(part="train", epoch=epoch, fold=fold, information=within + np.log(2), within=within)
                rows["information"].append(key | told)
    return replace(results, **{name: pd.DataFrame(some) for name, some in rows.items()})


def test_verdicts_on_tables_of_known_truth(results):
    as_claimed = dict(
        spread=-0.2, tilt=-0.1, scale=-0.3, ece=-0.075, nll=0.05, teacher=0.02, student=-0.05, information=-0.5
    )
    card = experiment.scorecard(made_up(results, **as_claimed)).set_index("name")
    assert set(card.verdict) == {"supported"}, card[["verdict", "why", "estimate", "low", "high"]]
    assert (
        card.loc["tighter", "low"] < -0.2 < card.loc["tighter", "high"]
        and card.loc["tighter", "n"] == "8 people, 5 seeds"
    )
    assert card.loc["information", "n"] == "5 folds, 5 seeds"
    # against the hard teacher's student at its best T
    assert np.isclose(card.loc["student", "estimate"], -0.05 - 0.05, atol=0.002)
    against = {name: -value for name, value in as_claimed.items()} | dict(student=0.1)
    card = experiment.scorecard(made_up(results, **against)).set_index("name")
    assert set(card.verdict) == {"contradicted"} and set(card.why) <= {"it rises", "it falls"}
    card = experiment.scorecard(made_up(results, student=0.05)).set_index("name")
    assert card.loc["tighter", ["verdict", "why"]].tolist() == ["contradicted", "too small to matter"]
    with pytest.raises(HarLsError, match="no runs with alpha 0.3 beside alpha 0; there are runs with 0.1"):
        experiment.scorecard(made_up(results), alpha=0.3)


def test_shares_of_people_are_right_to_first_order():
    "Windows of one person counted a little more often move every number as their share says."
    rng = np.random.default_rng(0)
    y, x, w = rng.integers(4, size=240), rng.normal(size=(2, 240, 6)), rng.normal(size=(2, 4, 6))
    x, who = x + 2 * np.eye(6)[y], np.repeat(np.arange(6), 40)
    logits = np.einsum("rnd,rkd->rnk", x, w)

    def of(index):
        return experiment.Predictions(
            "test",
            logits[:, index],
            x[:, index],
            w,
            np.zeros((2, 4)),
            y[index],
            who[index],
            np.array([0.0, 0.1]),
            np.zeros(2, int),
        )

    once = np.repeat(np.arange(240), 60)
    more = np.concatenate([once, np.flatnonzero(who == 2)])
    values, numbers = (
        experiment.cluster_values(of(np.arange(240))),
        [experiment.cluster_numbers(of(i)) for i in (once, more)],
    )
    for name in experiment.SHARED:
        assert np.allclose(values[name].mean(1), numbers[0][name])
        share = (values[name] - values[name].mean(1, keepdims=True))[:, who == 2].sum(1) / 240 / 60
        assert np.allclose(numbers[1][name] - numbers[0][name], share, rtol=0.05, atol=2e-6), name


def test_a_seed_trained_twice_counts_once(quick, tmp_path):
    import shutil

    for place in runs.run_folders(quick / "here"):
        shutil.copytree(place, tmp_path / place.name)
    about = runs.specs(tmp_path, "trained")
    place = Path(about.path.iloc[0])
    again = tmp_path / "later"
    shutil.copytree(place, again)
    spec = json.loads((again / "spec.json").read_text())
    spec["spec"]["seeds"], spec["name"], spec["finished"] = [1], "later", "2099-01-01T00:00:00+00:00"
    (again / "spec.json").write_text(json.dumps(spec))
    table = experiment.collect(tmp_path).clusters
    assert not table.duplicated([*KEY, "part"]).any()
    assert set(table.seed) == {0, 1}


def test_the_pair_is_found_without_a_network_and_copies_are_scaled():
    parts = split(load("synthetic", overlap=0.9), "subject", max_windows=400)
    a, b = confusable_pair(parts)
    assert a < b and confusable_pair(parts) == (a, b)
    copies, first = disturbed_copies(parts, (a, b), windows=30, copies=40)
    assert copies.shape == (40, 30, 6, 64) and copies.dtype == np.float32 and first == 15
    assert np.array_equal(copies, disturbed_copies(parts, (a, b), windows=30, copies=40)[0])
    x, y, *_ = parts.part("train")
    chosen = np.concatenate(
        [np.flatnonzero(y == c)[np.linspace(0, (y == c).sum() - 1, 15).round().astype(int)] for c in (a, b)]
    )
    assert abs(np.corrcoef(copies.mean(0).ravel(), x[chosen].ravel())[0, 1]) > 0.9
    trained = train("resnet1d", parts, 0.0, (0, 1), Recipe(epochs=1), progress=False, parts=("test",)).model
    both, within = logit_information(trained, (copies, first), (a, b), held_out=10)
    assert both.shape == within.shape == (2,) and (both < np.log(30)).all() and (within < np.log(15)).all()
    for parameter in trained.parameters():
        parameter.data[1] = np.nan
    for some in logit_information(trained, (copies, first), (a, b), held_out=10):
        assert np.isnan(some).tolist() == [False, True]


class Said:
    "A network whose logit difference is written into the first sample of each window."

    templates = __import__("torch").zeros(1, 2, 1)

    def eval(self):
        return self

    def fold(self):
        return self

    def __call__(self, x):
        import torch

        return None, torch.stack([x[..., 0, 0], torch.zeros_like(x[..., 0, 0])], -1)


@pytest.mark.parametrize("apart, truth", [(0.0, (np.log(2), 0.0)), (50.0, (np.log(20), np.log(10)))])
def test_what_is_known_of_a_window_beyond_its_class(apart, truth):
    "Ten windows of each class, all on one point of their class or each on a point of its own."
    rng = np.random.default_rng(0)
    place = np.repeat([0.0, 1e4], 10) + apart * np.tile(np.arange(10), 2)
    draws = (place + rng.normal(size=(220, 20)))[:, :, None, None].astype(np.float32)
    found = logit_information(Said(), (draws, 10), (0, 1))
    assert np.allclose(np.concatenate(found), truth, atol=0.03)


def test_the_interval_of_the_information_is_a_t_interval_over_folds():
    from scipy import stats

    rng = np.random.default_rng(0)
    base, value = rng.normal(size=(2, 5))
    effect, wanted = experiment.over_folds(base, value, 2), stats.ttest_rel(value, base).confidence_interval(0.95)
    assert np.allclose(effect.interval(), wanted)
    assert "no interval from 3 folds" in experiment.over_folds(base[:3], value[:3], 2).reason


def test_only_a_better_teacher_has_something_to_teach(results):
    def of(ahead):
        school = made_up(results).distillation_people
        alone = (school.role == "direct") & (school.alpha == 0)
        noise = np.random.default_rng(1).normal(0, 0.05, len(school))
        accuracy = school.accuracy.where(~alone, 9 - 10 * ahead + noise)
        return replace(made_up(results), distillation_people=school.assign(accuracy=accuracy))

    better, no_better = (experiment.advantage(of(ahead)).iloc[0] for ahead in (0.1, 0.0))
    assert better.low > 0 and np.isclose(better.estimate, 0.1, atol=0.02) and no_better.low < 0
    assert experiment.schools(of(0.1)) == [("wisdm", "resnet1d_small", "subject")] and not experiment.schools(of(0.0))
    card = experiment.scorecard(of(0.0)).set_index("name")
    assert set(card.verdict[["teacher", "student"]]) == {"not measured here"}


def test_tilt_sees_only_what_matters():
    templates = 3 * np.eye(5)[None]
    rng = np.random.default_rng(0)
    base = experiment.Predictions(
        "test",
        rng.normal(size=(1, 5, 5)),
        9.0 * np.eye(5)[None],
        templates,
        np.zeros((1, 5)),
        np.arange(5),
        np.arange(5),
        np.zeros(1),
        np.zeros(1, int),
    )
    assert np.isclose(experiment.cluster_numbers(base).tilt[0], 0)
    more = replace(
        base, features=base.features + 100.0
    )  # every window moved along the diagonal: as far from each template as before, relative to the others
    assert np.isclose(experiment.cluster_numbers(more).tilt[0], 0, atol=1e-6)
    aside = replace(base, features=base.features + 2 * np.eye(5)[[1, 2, 3, 4, 0]])
    squared = ((aside.features[0][:, None] - templates[0]) ** 2).sum(-1)
    others = np.array([np.delete(squared[n], n) for n in range(5)])
    assert np.isclose(
        experiment.cluster_numbers(aside).tilt[0], others.std(1).mean() / (others.mean(1) - np.diag(squared)).mean()
    )


def test_numbers_of_the_paper_as_printed():
    paper = experiment.printed()
    assert list(paper.columns) == ["source", "dataset", "architecture", "quantity", "alpha", "value"]
    wide = paper[paper.source.str.endswith("Table 3")].pivot(index="dataset", columns="quantity", values="value")
    assert wide.loc["CIFAR-100"].to_dict() == {
        "ECE, hard targets": 0.150,
        "ECE, temperature scaling": 0.021,
        "temperature": 1.9,
        "ECE, label smoothing": 0.024,
    }
    assert wide.loc["ImageNet", "ECE, label smoothing"] == 0.035 and wide.loc["EN-DE", "temperature"] == 1.13
    assert set(paper[paper.dataset == "MNIST"].value) == {0.002, 0.056}


def test_no_literal_result_in_the_page():
    assert_no_literal_results(
        NOTEBOOK, floats={0.0, 0.1, 1.0}
    )  # no smoothing, the strength in question, no temperature
