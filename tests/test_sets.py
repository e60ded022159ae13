"""Prediction sets of published trainings: from a ledger by hand, the same as from predictions; the page on many cells,
on few, on none."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from literals import assert_no_literal_results
from made_up import write_study

from har_ls.evidence import judging, results, sets
from har_ls.evidence.publishing import compact, logit_rows
from har_ls.evidence.render import render
from har_ls.metrics import calibration, conformal
from har_ls.metrics.confidence import log_probabilities
from har_ls.predictions import load_predictions
from har_ls.runs import folder as runs

STUDY = Path(__file__).parent.parent / "nbs" / "study"
ALPHAS = (0.0, 0.01, 0.1)


def publish(out, tables, seeds, change=lambda name, table: table):
    "The tables of made-up runs as a ledger with the logits of some seeds of the validation part."
    (tables / "logits").mkdir(parents=True)
    found = results.collect(out, pictured=())
    for name in results.TABLES:
        table = getattr(found, name)
        if name == "runs":
            table = table.assign(objective="smoothing", epoch_factor=1.0)
        change(name, table).to_parquet(tables / f"{name}.parquet")
    about = runs.specs(out)
    about = about.assign(label=about.dataset)
    for dataset, group in about.groupby("dataset"):
        rows = pd.concat([logit_rows(row) for row in group.itertuples()])
        more = []
        for row in group.itertuples():
            part = load_predictions(Path(row.path) / "predictions.npz")["validation"]
            for r in seeds:
                keys = dict(run=row.run, part="validation", fold=row.fold, alpha=part.alphas[r], seed=part.seeds[r])
                keys |= dict(position=np.arange(len(part.y)), subject=part.subject, y=part.y)
                more.append(pd.DataFrame(keys | dict(logits=list(compact(part.logits[r])))))
        table = pd.concat([rows[rows.part == "test"], *more], ignore_index=True)
        table.sample(frac=1, random_state=0).to_parquet(tables / "logits" / f"{dataset}.parquet")
    return tables


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    "One dataset of two folds, one model; its folder of runs, and its ledger with one seed of the validation part."
    out = write_study(tmp_path_factory.mktemp("one"), datasets=("wisdm",), folds=2, people=4, alphas=ALPHAS)
    return out, publish(out, tmp_path_factory.mktemp("tables") / "ledger", (0,))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    "Three datasets, two models, two seeds of the validation part."
    out = tmp_path_factory.mktemp("many")
    more = dict(models=("resnet1d", "moderntcn"), people=5, alphas=ALPHAS, seeds=(0, 1))
    write_study(out, datasets=("uci_har",), **more)
    write_study(out, datasets=("wisdm",), protocols=("random", "subject"), folds=2, **more)
    write_study(out, datasets=("dsads",), folds=2, **more)
    return publish(out, tmp_path_factory.mktemp("tables") / "ledger", (0, 1))


def test_the_sums_are_those_of_the_published_logits_window_by_window(one):
    out, tables = one
    people = sets.published_sets(tables)
    assert len(people) == 2 * 3 * 2 * 4 and set(people.seed) == {0} and set(people.fold) == {0, 1}
    about = runs.specs(out).set_index(["fold", "alpha"])
    for fold, alpha in ((0, 0.0), (1, 0.1)):
        parts = load_predictions(Path(about.loc[(fold, alpha)].path) / "predictions.npz")
        test, validation = parts["test"], parts["validation"]
        z = {name: compact(part.logits[0]).astype(float) for name, part in parts.items()}
        t = temperature(z, validation)
        for scaled, divisor in ((False, 1.0), (True, t)):
            fit = {name: one_by_one(np.exp(log_probabilities(logits / divisor))) for name, logits in z.items()}
            old = np.sort(fit["validation"][np.arange(len(validation.y)), validation.y])
            least = old[int(np.floor(0.1 * (len(old) + 1) + 1e-9)) - 1]
            inside = fit["test"] >= least - 1e-12
            mine = people[(people.fold == fold) & (people.alpha == alpha) & (people.scaled == scaled)]
            for row in mine.itertuples():
                who = test.subject == row.subject
                assert row.n == who.sum() and row.calibrated == len(validation.y)
                assert row.calibrators == len(set(validation.subject.tolist()))
                assert row.covered == inside[who, test.y[who]].sum() and row.size == inside[who].sum()


def temperature(z, validation):
    "Of one training, fitted on its published logits."
    some = {name: getattr(validation, name)[:1] for name in ("features", "templates", "bias", "alphas", "seeds")}
    return calibration.fit_temperature(replace(validation, logits=z["validation"][None], **some))[0][0]


def one_by_one(p):
    "APS without lots: one minus what lies above, by sorting each window."
    fit = np.empty_like(p)
    for i, row in enumerate(p):
        order = np.argsort(-row)
        fit[i, order] = 1 - np.concatenate([[0], np.cumsum(row[order])[:-1]])
    return fit


def test_variants_and_other_objectives_and_half_trainings_are_left_out(one, tmp_path):
    _, tables = one
    place = tmp_path / "ledger"
    (place / "logits").mkdir(parents=True)
    about = pd.read_parquet(tables / "runs.parquet")
    logits = pd.read_parquet(tables / "logits" / "wisdm.parquet")
    logits.to_parquet(place / "logits" / "wisdm.parquet")
    about.loc[about.alpha == 0.01, "objective"] = "focal"
    about.loc[(about.alpha == 0.1) & (about.fold == 0), "label"] = "wisdm (stride=64)"
    about.to_parquet(place / "runs.parquet")
    people = sets.published_sets(tmp_path)
    assert set(zip(people.fold, people.alpha)) == {(0, 0.0), (1, 0.0), (1, 0.1)}
    logits[logits.part == "test"].to_parquet(place / "logits" / "wisdm.parquet")
    assert sets.published_sets(tmp_path).empty and list(sets.published_sets(tmp_path)) == sets.COLUMNS


def test_a_promise_is_broken_where_luck_does_not_explain_it():
    row = dict(dataset="d", model="m", protocol="subject", fold=0, alpha=0.0, scaled=False, calibrated=999, size=100)
    law = stats.betabinom(100, 900, 100)
    least = next(k for k in range(101) if law.cdf(k) > 0.025)
    assert law.cdf(least - 1) <= 0.025
    people = pd.DataFrame([row | dict(seed=0, subject=k, n=100, covered=least - 1 + k) for k in range(3)])
    assert sets.broken_promises(people).broken.tolist() == [True, False, False]
    twice = pd.concat([people, people.assign(seed=1, covered=100), people.assign(seed=2)])  # two of three trainings
    found = sets.broken_promises(twice)
    assert found.broken.tolist() == [True, False, False]
    assert np.isclose(found.coverage[0], (2 * (least - 1) + 100) / 300)
    few = people.assign(calibrated=5, covered=100)  # nothing is left out, and nothing broken
    assert not sets.broken_promises(few).broken.any()
    assert conformal.coverage_law(5, 100)[-1] == 1


def test_intervals_come_with_a_second_seed(one, many):
    few = sets.way_effects(sets.published_sets(one[1]), 0.1)
    assert few.low.isna().all() and few.reason.str.contains("one seed").all()
    people = sets.published_sets(many)
    assert set(people.seed) == {0, 1}
    enough = sets.way_effects(people, 0.1)
    folds = enough[enough.protocol != "official"]
    assert folds.low.notna().all() and (folds.low <= folds.estimate).all() and (folds.estimate <= folds.high).all()
    assert np.allclose(enough.value - enough.base, enough.estimate)


def shown(runs, out):
    "The page, executed: its words, without the pictures' bytes."
    render("sets", out, dict(runs=str(runs)))
    outputs = [output for cell in nbformat.read(out / "sets.ipynb", 4).cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "stream"]
    data = [output.data for output in outputs if "data" in output]
    text = "\n".join(each.get("text/html") or each.get("text/markdown") or "" for each in data)
    return re.sub(r"data:image[^\"]+", "", text)


def test_the_page_of_many_cells(many, tmp_path):
    text = shown(many, tmp_path)
    plain = re.sub(r"<[^>]+>", " ", text)
    assert "nan" not in plain.lower().split() and "Not measured yet" not in text
    assert text.count("<img") == 1 and "random split" not in text  # new people only
    assert text.count("the sets hold the truth for") == 6 and text.count("Each threshold is from 5 people.") == 6
    assert "α = 0.01" in text
    assert re.search(r"[+−]0\.\d+ \([+−]0\.\d+ to", text)


def test_the_page_without_logits_or_people_says_so(tmp_path):
    out = write_study(tmp_path / "runs", people=4)
    text = shown(out, tmp_path / "page")
    assert text.count("Not measured yet") >= 4 and "<img" not in text


def test_words_for_most_cells(many):
    people = sets.published_sets(many)
    kept = people.assign(covered=people.n)
    assert sets.broken_for_many(kept) is False and sets.broken_for_many(kept, share=0.0) is True
    assert sets.from_few_people(people) is True and sets.from_few_people(people.assign(calibrators=9)) is False
    effects = sets.way_effects(people, 0.1)
    for word, sign in (("raises", 2.0), ("lowers", -2.0), ("equivalent", 0.5)):
        assert sets.agreed(effects.assign(estimate=sign * effects.margin), "temperature", "size") == word
    mixed = effects.assign(estimate=effects.margin * np.where(effects.model == "moderntcn", 2, -2))
    assert sets.agreed(mixed, "temperature", "size") == "undecided"
    assert sets.agreed(effects[:0], "temperature", "size") is None


def test_threshold_sets_have_the_effects_of_the_table_of_people(many):
    evidence = judging.weigh(results.collect(many), 0.1, tuple(sets.THRESHOLD_SETS))
    table = sets.threshold_effects(evidence, (0.1,))
    assert len(table) == 6 and list(table) == ["cell", "α", "change in coverage", "change in size"]
    people = results.collect(many).people
    cell = people[(people.dataset == "wisdm") & (people.model == "resnet1d") & (people.protocol == "subject")]
    by_fold = cell.groupby(["alpha", "fold", "seed"])[["covered_90", "n"]].sum()
    mean = (by_fold.covered_90 / by_fold.n).groupby("alpha").mean()
    row = table[table.cell.str.contains("WISDM") & table.cell.str.contains("ResNet")].iloc[0]
    assert row["change in coverage"].startswith(f"{mean[0.1] - mean[0.0]:+.3f}".replace("-", "−")[:5].rstrip())
    assert set(sets.pooled_sets(evidence).measure) == set(sets.THRESHOLD_SETS)


def test_the_page_holds_words_and_calls_and_no_result():
    assert_no_literal_results(STUDY / "sets.ipynb", floats={0.0, 0.01, 0.1}, percentages={"95 %"})
    for cell in nbformat.read(STUDY / "sets.ipynb", 4).cells:
        assert cell.cell_type != "code" or not re.search(r"^\s*(def|class|lambda)\b", cell.source, re.M)
