"""The write-up: from runs or from published tables, the same; computed, not written; readable without a network."""
import re
import sys
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from literals import assert_no_literal_results
from made_up import write_run, write_study

from har_ls.evidence import pages
from har_ls.evidence import figures as plots
from har_ls.evidence import results as report
from har_ls.runs import folder as runs
from har_ls.core import HarLsError

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "nbs" / "study" / "report.ipynb"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "One dataset, one model, two strengths: what `make study` leaves without any archive, made up."
    return write_study(tmp_path_factory.mktemp("small"), people=4)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    "Two datasets, two models, two protocols, three strengths, two folds, and synthetic variants."
    more = dict(models=("resnet1d", "moderntcn"), folds=2, seeds=(0, 1), people=3)
    out = write_study(tmp_path_factory.mktemp("wide"), datasets=("uci_har",), alphas=(0.0, 0.01, 0.1), **more)
    write_study(out, datasets=("wisdm",), protocols=("random", "subject"), **more)
    for options in ({}, dict(label_noise=0.1), dict(label_noise=0.2)):
        write_study(out, options=options, people=3, seeds=(0, 1))
    return out


def words_of(folder, monkeypatch, **parameters):
    "Execute the notebook's code in this process: everything it displays, as one text."
    shown = []

    def display(thing):
        shown.append(thing.data)

    monkeypatch.setattr(pages, "display", display)
    monkeypatch.setattr(matplotlib.pyplot, "show", lambda *a, **k: None)
    space = {}
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, space)
            if "parameters" in cell.metadata.get("tags", []):
                space.update(runs=str(folder), **parameters)
    return "\n".join(shown)


def without_images(text):
    return re.sub(r"data:image[^\"]+", "", text)


def test_published_tables_give_the_same_write_up(small, tmp_path, monkeypatch):
    from_runs = words_of(small, monkeypatch)
    report.publish(report.collect(small), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([report.COPIES, *(f"{name}.parquet" for name in report.TABLES)])
    assert words_of(tmp_path, monkeypatch) == from_runs
    changed = report.collect(tmp_path)
    metrics = changed.metrics
    smoothed = metrics.alpha > 0
    metrics.loc[smoothed, "accuracy"] = metrics.loc[smoothed, "accuracy"] - 0.2
    report.publish(changed, tmp_path)
    other = words_of(tmp_path, monkeypatch)
    assert "lowered test accuracy in the only cell" in other and "lowered test accuracy" not in from_runs


def test_many_cells(wide, monkeypatch):
    text = words_of(wide, monkeypatch)
    assert "Traceback" not in text and "nan" not in re.sub(r"<[^>]+>", "", without_images(text)).lower().replace("resonan", "").split()
    for expected in ("UCI-HAR, official split, ModernTCN", "WISDM v1.1, random split, ResNet", "original study", "not measured here", "Few people", "label_noise=0.1"):
        assert expected in text
    images = re.findall(r"<img [^>]+>", text)
    assert len(images) > 15 and all(re.search(r'alt="[^"]{20,}"', image) for image in images)


@pytest.mark.parametrize("seeds, people", [((0,), 4), ((0, 1), 1), ((3,), 1)])
def test_too_little_for_an_interval(tmp_path, monkeypatch, seeds, people):
    write_study(tmp_path, seeds=seeds, people=people)
    text = words_of(tmp_path, monkeypatch)
    assert "Few seeds" in text and ("no interval" in text) == (seeds == (3,))


def test_rendered_page_needs_no_network(small, tmp_path):
    notebook, page = report.report(small, tmp_path)
    assert notebook.is_file() and page.is_file()
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and not re.findall(r'(?:src|href)="(?!data:|#)', text) and "@import" not in text
    assert str(tmp_path) not in text and str(small) not in text and str(ROOT) not in text
    assert "<math" in text and "The answer in five sentences" in text and "import numpy" not in text
    assert text.count("<h1") == 1 and 'lang="en"' in text
    left = [cell for cell in nbformat.read(notebook, 4).cells if any(output.output_type == "stream" for output in cell.get("outputs", []))]
    assert not left  # no warnings, no stray prints


def test_no_literal_result_in_the_notebook():
    assert_no_literal_results(NOTEBOOK, floats={0.0, 0.01, 2.0}, percentages={"95 %"})  # no smoothing, the strength in question, a base of powers; intervals


def test_older_versions_and_other_data_are_kept_apart(tmp_path):
    for alpha in (0.0, 0.01):
        write_run(tmp_path, alpha=alpha, people=3, code="old", gain=1.0)
        write_run(tmp_path, alpha=alpha, people=3, code="new", finished="2027-01-01T00:00:00+00:00")
        write_run(tmp_path, alpha=alpha, people=3, options=dict(label_noise=0.2))
    write_run(tmp_path, alpha=0.1, people=3, code="old")
    results = report.collect(tmp_path)
    assert set(results.metrics.dataset) == {"synthetic", "synthetic (label_noise=0.2)"}
    plain = results.runs[results.runs.label == "synthetic"]
    assert set(plain.code) == {"new"} and len(plain) == 2 and plain.superseded.iloc[0] == 3
    assert 0.1 not in set(results.metrics.alpha) and not results.metrics.duplicated(["dataset", "alpha", "seed", "part"]).any()
    evidence = report.weigh(results)
    assert set(evidence.found.dataset) == {"synthetic"} and set(evidence.effects.dataset) == set(results.metrics.dataset)
    assert report.doses(results, "label_noise") == {"synthetic": 0.0, "synthetic (label_noise=0.2)": 0.2}
    assert report.doses(results, "overlap") == {"synthetic": 0.6}


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(HarLsError, match="no finished runs there"):
        report.collect(tmp_path)
    with pytest.raises(HarLsError, match="no such folder"):
        report.collect(tmp_path / "nowhere")
    write_run(tmp_path, alpha=0.1, people=2)
    with pytest.raises(HarLsError, match="no cell has runs with alpha 0 and 0.01; there are runs with 0.1"):
        report.weigh(report.collect(tmp_path))


def evidence_from(effects, measure, gaps=None, variants=None):
    "Evidence made of effects that are means over people: {(dataset, model, protocol): [people, seeds]}."
    rows, left = [], []
    for (dataset, model, protocol), d in effects.items():
        for seed in range(d.shape[1]):
            for alpha in (0.0, 0.01):
                mine = d[:, seed] * (alpha > 0) + 0.5
                key = dict(run="r", dataset=dataset, model=model, protocol=protocol, fold=0, alpha=alpha, seed=seed, part="test")
                rows.append(key | {measure: mine.mean()})
                left += [key | {"subject": j, "n": 1, measure: np.delete(mine, j).mean()} for j in range(len(d))]
                rows.append(key | {"part": "validation", measure: 0.5, "overconfidence": (gaps or {}).get((dataset, model, protocol), 0.0)})
    about = pd.DataFrame([dict(dataset=label.split(" (")[0], label=label, options=options) for label, options in (variants or {}).items()] or [dict(dataset="", label="", options="{}")])
    results = report.Results(pd.DataFrame(rows), pd.DataFrame(left), pd.DataFrame(), pd.DataFrame(), about)
    return report.weigh(results, measures=(measure,))


def table(mean, rng, people=8, seeds=5, spread=0.004):
    return rng.normal(mean, spread, (people, seeds)) + rng.normal(0, spread, (people, 1))


def test_judges_of_comparisons():
    rng = np.random.default_rng(0)
    datasets = ["uci_har", "wisdm", "dsads", "motionsense", "own"]
    better = {(d, m, "subject"): table(0.03 if m == "moderntcn" else 0.0, rng) for d in datasets[:2] for m in ("resnet1d", "moderntcn")}
    evidence = evidence_from(better, "accuracy")
    row = report.judge_models(evidence, "n", "s")
    assert (row["verdict"], row["cells"], row["agree"]) == ("supported", 2, 2) and row["low"] < 0.03 < row["high"]
    row = report.judge_models(evidence, "n", "s", more="resnet1d", less="moderntcn")
    assert (row["verdict"], row["why"]) == ("contradicted", "the other way")
    assert report.judge_models(evidence, "n", "s", where=dict(dataset=["mars"]))["verdict"] == "not measured here"
    differing = evidence_from({(d, "resnet1d", "subject"): table(0.02 * k, rng) for k, d in enumerate(datasets[:3])}, "accuracy")
    assert report.judge_depends(differing, "n", "s")["verdict"] == "supported"
    same = evidence_from({(d, "resnet1d", "subject"): table(0.0, rng, spread=0.001) for d in datasets[:3]}, "accuracy")
    assert report.judge_depends(same, "n", "s")["verdict"] == "contradicted"
    gaps = {(d, "resnet1d", "subject"): gap for d, gap in zip(datasets, (0.08, 0.05, 0.03, -0.03, -0.06))}
    follow = evidence_from({cell: table(-gap / 2, rng) for cell, gap in gaps.items()}, "ece", gaps)
    row = report.judge_gap(follow, "n", "s")
    assert row["verdict"] == "supported" and np.isclose(row["estimate"], -1) and row["agree"] == 5
    against = evidence_from({cell: table(gap / 2, rng) for cell, gap in gaps.items()}, "ece", gaps)
    assert report.judge_gap(against, "n", "s")["verdict"] == "contradicted"


def test_judges_of_hypotheses_two_and_three():
    rng = np.random.default_rng(1)
    moves = evidence_from({("wisdm", "resnet1d", p): table(mean, rng) for p, mean in (("random", 0.02), ("subject", -0.02))}, "ece")
    assert report.judge_protocol(moves, "n", "s")["verdict"] == "supported"
    stays = evidence_from({("wisdm", "resnet1d", p): table(0.01, rng, spread=0.001) for p in ("random", "subject")}, "ece")
    assert report.judge_protocol(stays, "n", "s")["verdict"] == "contradicted"
    variants = {"synthetic": "{}", "synthetic (label_noise=0.1)": '{"label_noise": 0.1}', "synthetic (label_noise=0.2)": '{"label_noise": 0.2}'}
    grows = evidence_from({(d, "resnet1d", "subject"): table(-0.1 * k, rng) for k, d in enumerate(variants)}, "ece_true", variants=variants)
    row = report.judge_dose(grows, "n", "s", "label_noise")
    assert row["verdict"] == "supported" and row["low"] < 1.0 < row["high"]
    assert report.judge_dose(grows, "n", "s", "overlap")["verdict"] == "not measured here"
    assert list(report.dose_response(grows, "label_noise").dose) == [0.0, 0.1, 0.2]


def test_original_study_as_published():
    table = report.original()
    assert len(table) == 16 and set(table.columns) == {"dataset", "model", "alpha", *report.MAIN}
    assert all(tuple(group.alpha) == (0.0, 0.01) for _, group in table.groupby(["dataset", "model"]))
    changes = report.as_effects(table)
    ours = changes[(changes.dataset == "wisdm") & (changes.model == "resnet1d") & (changes.measure == "accuracy")].iloc[0]
    assert np.isclose(ours.estimate, 0.9830 - 0.9613) and ours.as_original and not ours.new_people


def test_summary_by_hand():
    rows = [dict(dataset="d", model="m", protocol="p", fold=f, alpha=0.0, seed=s, part=part, accuracy=0.9 + 0.01 * s + 0.02 * f)
            for f in range(2) for s in range(3) for part in ("validation", "test")]
    assert report.summary(pd.DataFrame(rows)).accuracy.tolist() == ["0.920 ± 0.010"]
    assert report.summary(pd.DataFrame(rows[:2])).accuracy.tolist() == ["0.900"]


def test_counts_carry_the_calibration_error(small):
    results = report.collect(small)
    bins = plots.coarser(results.counts[results.counts.quantity == "max_conf"])
    bins["gap"] = (bins.total - bins.right).abs()
    ece = bins.groupby(["alpha", "seed"])[["gap", "n"]].sum()
    test = results.metrics[results.metrics.part == "test"].set_index(["alpha", "seed"]).ece
    assert np.allclose((ece.gap / ece.n).loc[test.index], test)


def test_colours_and_markers_mean_the_same_everywhere():
    alphas = [0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5]
    assert len({plots.colour(a) for a in alphas}) == len(alphas)
    assert plots.colour(0.1) == plots.colour(np.float64(0.1)) and plots.marker("own") == plots.marker("own") != ""
    white = [matplotlib.colors.to_rgb(plots.colour(a)) for a in alphas]

    def luminance(c):
        c = np.array(c)
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    assert all(1.05 / (luminance(c) + 0.05) > 1.9 for c in white)


def test_pages_turn_formulas_into_mathml_and_leave_code_alone():
    assert pages.with_mathml("costs 5$ and 6$, `$x$`, ```\n$y$\n```") == "costs 5$ and 6$, `$x$`, ```\n$y$\n```"
    text = pages.with_mathml("a $\\frac{a}{b}$ and\n\n$$\nx_1 \\le \\alpha\n$$\n")
    assert text.count("<math") == 2 and "<mfrac>" in text and "$" not in text
    frame = pd.DataFrame({"a": ["<script>", None], "b": [1.5, 2]})
    html = pages.table_html(frame, "c")
    assert "&lt;script&gt;" in html and "<caption>c</caption>" in html and html.count('scope="row"') == 2


def test_runs_module_reads_what_the_fixture_writes(small):
    about = runs.specs(small)
    assert set(about.columns) >= {"run", "path", "dataset", "options", "latest", "data", "code", "cpu", "seconds_train"}
    assert len(runs.load(small)) == 2 * 3 * 2
