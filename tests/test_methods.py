"""Methods side by side: chosen without a look at the test part, paired with cross-entropy, and a page that waits until
all are there."""

import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from literals import assert_no_literal_results

from har_ls.core import HarLsError
from har_ls.evidence import methods
from har_ls.evidence.render import render
from har_ls.evidence.statistics import CELL

STUDY = Path(__file__).parent.parent / "nbs" / "study"
DATASETS = ("mhealth", "wisdm", "uci_har")


def trainings(objectives, strengths=(0.1, 0.3), best=0.3, gain=-0.05, seeds=3, people=6, folds=4):
    """Metrics and people of made-up trainings: every objective lowers the NLL of each window by `gain` at its best
    strength and by half of that at the others."""
    rng, metrics, persons = np.random.default_rng(0), [], []
    for dataset in DATASETS:
        for objective, alpha in [("smoothing", 0.0), *((o, a) for o in objectives for a in strengths)]:
            lower = 0.0 if alpha == 0 else gain if alpha == best else gain / 2
            for fold in range(folds):
                for seed in range(seeds if objective == "smoothing" else 2):
                    key = dict(dataset=dataset, model="resnet1d", protocol="subject", fold=fold, alpha=alpha, seed=seed)
                    key |= dict(objective=objective, epoch_factor=1.0)
                    for part in ("validation", "test"):
                        metrics.append(key | dict(part=part, nll=0.5 + lower))
                    for k in range(people):
                        noise = rng.normal(0, 0.05, 6)
                        sums = dict(accuracy=8 + noise[0], nll=5 + 10 * lower + noise[1], ece=1 + noise[2])
                        sums |= dict(ece_spread=1 + noise[2], aurc=0.5 + noise[3], set_size_90=12 + noise[4])
                        after = dict(nll_temperature=4.8 + noise[1], ece_temperature=0.8 + noise[2])
                        after |= dict(ece_temperature_spread=0.8 + noise[2], brier_temperature=1.0)
                        persons.append(key | dict(part="test", subject=f"{fold}.{k}", n=10) | sums | after)
    return pd.DataFrame(metrics), pd.DataFrame(persons)


def test_the_test_part_chooses_nothing():
    metrics, _ = trainings(("smoothing", "maxsup"))
    chosen = methods.chosen_strengths(metrics)
    assert set(chosen.alpha) == {0.3} and set(chosen.tried) == {2} and len(chosen) == 2 * len(DATASETS)
    test = metrics.part == "test"
    lied = metrics.assign(nll=metrics.nll.where(~test, -metrics.alpha))
    pd.testing.assert_frame_equal(methods.chosen_strengths(lied), chosen)
    pd.testing.assert_frame_equal(methods.chosen_strengths(metrics[~test]), chosen)


def test_a_method_is_paired_with_cross_entropy_of_its_own_folds_and_seeds():
    "The difference is the mean over people, folds and the two seeds that both have."
    metrics, people = trainings(("smoothing", "maxsup"))
    found = methods.compared(methods.in_methods(people, methods.chosen_strengths(metrics)))
    row = found[(found.dataset == "wisdm") & (found.method == "maxsup") & (found.measure == "nll")].iloc[0]
    mine = people[(people.dataset == "wisdm") & (people.seed < 2)]
    per = mine.set_index([*CELL, "fold", "seed", "subject", "objective", "alpha"]).nll / 10
    key = (slice(None), slice(None), slice(None), slice(None), slice(None), slice(None))
    smooth, plain = (per.loc[(*key, *which)].to_numpy() for which in (("maxsup", 0.3), ("smoothing", 0.0)))
    assert np.isclose(row.estimate, (smooth - plain).mean()) and row.seeds == 2 and row.folds == 4
    assert row.low < -0.05 < row.high < 0
    temperature = found[(found.method == "temperature") & (found.dataset == "wisdm")].set_index("measure").estimate
    assert np.isclose(temperature["nll"], -0.02, atol=0.01) and np.isclose(temperature["ece"], -0.02, atol=0.01)
    assert temperature["accuracy"] == 0 and not {"aurc", "set_size_90"} & set(temperature.index)


def test_the_mean_over_datasets_lies_where_the_truth_is_and_moves_with_it():
    for gain in (-0.05, 0.05):
        metrics, people = trainings(("smoothing", "flsd"), gain=gain, best=0.1)
        chosen = methods.chosen_strengths(metrics[metrics.alpha.isin([0.0, 0.1])])
        pooled = methods.pooled_methods(methods.in_methods(people, chosen))
        nll = pooled[pooled.measure == "nll"].set_index("method")
        assert nll.low["flsd"] < gain < nll.high["flsd"] and nll.verdict["flsd"] == ("helps" if gain < 0 else "hurts")
        each = methods.compared(methods.in_methods(people, chosen))
        each = each[(each.method == "flsd") & (each.measure == "nll")]
        assert np.isclose(nll.equal["flsd"], each.estimate.mean())
        assert stats.ttest_1samp(each.estimate, 0).pvalue < 0.05


def test_unequal_chances_are_refused_and_half_a_comparison_is_none():
    metrics, _ = trainings(("smoothing", "maxsup"))
    chosen = methods.chosen_strengths(metrics[(metrics.objective != "maxsup") | (metrics.alpha != 0.1)])
    with pytest.raises(HarLsError, match="one objective was tried at 1 strengths, another at 2"):
        methods.chosen_table(chosen)
    assert methods.whole_methods(chosen).empty and len(methods.whole_methods(chosen, ("smoothing",))) == 3
    one_fold = metrics[(metrics.objective != "maxsup") | (metrics.alpha != 0.3) | (metrics.fold == 0)]
    assert set(methods.chosen_strengths(one_fold).query("objective == 'maxsup'").alpha) == {0.1}


def shown(folder, out):
    "The page, executed: its words, without the pictures' bytes."
    render("methods", out, dict(runs=str(folder)))
    cells = nbformat.read(out / "methods.ipynb", 4).cells
    data = [output.data for cell in cells for output in cell.get("outputs", []) if "data" in output]
    text = "\n".join(each.get("text/html") or each.get("text/markdown") or "" for each in data)
    return re.sub(r"data:image[^\"]+", "", text)


@pytest.mark.parametrize("objectives", [("smoothing", "maxsup"), tuple(methods.OBJECTIVES)])
def test_the_page_shows_the_figure_when_every_objective_is_there(objectives, tmp_path):
    metrics, people = trainings(objectives)
    for name, table in dict(metrics=metrics, people=people, runs=metrics[["dataset"]]).items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    text = shown(tmp_path, tmp_path / "page")
    whole = len(objectives) == len(methods.OBJECTIVES)
    assert text.count("<img") == whole and ("Not measured yet" in text) != whole
    if whole:
        assert text.count("0.3 (of 2)") == len(DATASETS) * len(objectives)
        for words in ("temperature", *methods.OBJECTIVES.values()):
            assert words in text


def test_the_page_holds_words_and_calls_and_no_result():
    assert_no_literal_results(STUDY / "methods.ipynb", floats=set(), percentages={"95 %"})
