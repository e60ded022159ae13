"""The pages of the study: the same from runs and from published tables, computed and not typed, readable without a
network, silent about what is missing."""

import json
import os
import re
import subprocess
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

from har_ls.core import HarLsError
from har_ls.evidence import claims, figures, judging, pages, report, results, stories, words
from har_ls.evidence.effects import cell_effects, pieces
from har_ls.evidence.render import render
from har_ls.runs import folder as runs

ROOT = Path(__file__).parent.parent
STUDY = ROOT / "nbs" / "study"
PAGES = ("answer", "dataset", "models", "gallery", "explorer")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "One dataset, one model, two strengths: what `make study` leaves without any archive, made up."
    return write_study(tmp_path_factory.mktemp("small"), people=4)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    "Three datasets, two models, two protocols, three strengths, and synthetic variants, as published tables."
    out, tables = tmp_path_factory.mktemp("wide"), tmp_path_factory.mktemp("tables")
    more = dict(models=("resnet1d", "moderntcn"), seeds=(0, 1, 2), people=5, alphas=(0.0, 0.01, 0.1))
    write_study(out, datasets=("uci_har",), **more)
    write_study(out, datasets=("wisdm", "dsads"), protocols=("random", "subject"), **more)
    write_study(out, options=dict(label_noise=0.1), people=4, seeds=(0, 1, 2))
    everything = results.collect(out, pictured=(0.0, 0.1))
    for name in results.TABLES:
        getattr(everything, name).to_parquet(tables / f"{name}.parquet")
    return tables


@pytest.fixture(scope="module")
def shown_by(tmp_path_factory):
    "A page, executed: everything it displays as one text, without the pictures' bytes."
    made = {}

    def show(page, runs, **parameters):
        if (page, runs) not in made:
            out = tmp_path_factory.mktemp(page)
            render(page, out, dict(runs=str(runs), **parameters))
            outputs = [
                output for cell in nbformat.read(out / f"{page}.ipynb", 4).cells for output in cell.get("outputs", [])
            ]
            assert not [output for output in outputs if output.output_type == "stream"]  # no warnings, no stray prints
            data = [output.data for output in outputs if "data" in output]
            made[page, runs] = "\n".join(each.get("text/html") or each.get("text/markdown") or "" for each in data)
        return re.sub(r"data:image[^\"]+", "", made[page, runs])

    return show


@pytest.mark.parametrize(
    "page, parameters", [(page, dict(dataset="wisdm") if page == "dataset" else {}) for page in PAGES]
)
def test_a_page_of_many_cells(wide, shown_by, page, parameters):
    text = shown_by(page, wide, **parameters)
    plain = re.sub(r"<[^>]+>", " ", text)
    assert "nan" not in plain.lower().replace("resonan", "").split() and "Traceback" not in text
    images = re.findall(r"<img [^>]+>", text)
    assert images and all(re.search(r'alt="[^"]{40,}"', image) for image in images)
    expected = dict(
        answer=("Figure 1", "Figure 3", "Figure 4", "Figure 5", "Figure 6", "ECE gets worse, except for ModernTCN"),
        dataset=("original, none", "0.961", "the front trouser pocket", "jogging", "ModernTCN, subject split."),
        models=("ModernTCN profits more in accuracy.", "official"),
        gallery=("Change in accuracy, cell by cell", "WISDM v1.1"),
        explorer=("random (known people)", "Changes in ECE of the published cells", '["dsads", "moderntcn"'),
    )[page]
    assert [each for each in expected if each not in text] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_synthetic_data_says_what_is_missing(small, shown_by, page):
    text = shown_by(page, small)
    if page == "answer":
        assert (
            text.count("Not measured yet") >= 8
            and "none of this is evidence about people" in text
            and "Figure 4.</b>" not in text
        )
    assert page != "models" or "Not measured yet" in text


def test_the_answer_is_one_page_of_words(wide, shown_by):
    cells = nbformat.read(STUDY / "answer.ipynb", 4).cells
    by_hand = " ".join(cell.source for cell in cells if cell.cell_type == "markdown")
    outputs = [output.data for cell in cells for output in cell.get("outputs", []) if "data" in output]
    shown = " ".join(data["text/markdown"] for data in outputs if "text/markdown" in data)  # of a reading one outcome
    assert 1000 <= len(by_hand.split()) + len(shown.split()) <= 1800
    text = shown_by("answer", wide)
    assert 3 <= text.count("<img") <= 8
    assert set(re.findall(r"<b>Figure (\d)\.</b>", text)) <= set(
        re.findall(r"Figure (\d)", by_hand)
    )  # every figure is referred to


@pytest.mark.parametrize("page", [*PAGES, "advise"])
def test_study_notebooks_hold_words_and_calls(page):
    for cell in nbformat.read(STUDY / f"{page}.ipynb", 4).cells:
        if cell.cell_type == "code":
            assert not re.search(r"^\s*(def|class|lambda)\b", cell.source, re.M), cell.source
            assert page == "advise" or len(cell.source.splitlines()) <= 10, cell.source


@pytest.mark.parametrize("page", PAGES)
def test_no_literal_result_in_a_page(page):
    assert_no_literal_results(
        STUDY / f"{page}.ipynb", floats={0.0, 0.01, 0.1}, percentages={"95 %"}
    )  # no smoothing, the two strengths


def test_pages_stay_small():
    for path in STUDY.rglob("*.ipynb"):
        assert path.stat().st_size < 2e6, path
        if path.stem in PAGES or path.parent.name == "datasets":
            assert len(pages.page(path)) < 1.5e6, path


def test_rendered_page_needs_no_network(small, tmp_path):
    notebook, page = report.report(small, tmp_path)
    assert notebook.is_file() and page.is_file()
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and not re.findall(r'(?:src|href)="(?!data:|#)', text) and "@import" not in text
    assert str(tmp_path) not in text and str(small) not in text and str(ROOT) not in text
    assert "import report" not in text and text.count("<h1") == 1 and 'lang="en"' in text
    left = [
        cell
        for cell in nbformat.read(notebook, 4).cells
        if any(output.output_type == "stream" for output in cell.get("outputs", []))
    ]
    assert not left  # no warnings, no stray prints


def test_a_dataset_has_a_page_of_its_own(wide, tmp_path):
    path = report.dataset_page("wisdm", wide, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert path.name == "wisdm.ipynb" and "# WISDM v1.1" in text and str(wide) not in text and str(tmp_path) not in text
    assert f'runs = \\"{os.path.relpath(wide, tmp_path)}\\"' in text


# --- paragraphs and their evidence ------------------------------------------------------------------------------------


def test_other_results_are_told_apart_from_the_published_ones(wide, tmp_path, shown_by):
    changed = results.collect(wide)
    people = changed.people
    for column in ("ece", "nll"):
        people[column] = people[column].astype(float) + 0.2 * people.n * (people.alpha > 0)
    for name in results.TABLES:
        getattr(changed, name).to_parquet(tmp_path / f"{name}.parquet")
    text = shown_by("answer", tmp_path)
    assert "promises less and keeps more" not in text and "says less truly how sure it may be" in text


def test_four_answers_to_a_question(monkeypatch):
    shown = []
    monkeypatch.setattr(words, "display", lambda thing: shown.append(thing.data))
    for holds in (True, "undecided", None):
        words.finding("Does it?", "It does.", holds)
    words.finding("Does it?", "It does.", False, published=False)
    assert [text.split(".")[0] for text in shown] == [
        "It does",
        "**Not decided yet",
        "**Not measured yet",
        "**These results say otherwise** than the published ones",
    ]
    with pytest.raises(HarLsError, match="refute"):
        words.finding("Does it?", "It does.", False)
    with pytest.raises(HarLsError, match="refute"):
        words.reading("Does it?", "hurts", helps="Yes.")


# --- tables -----------------------------------------------------------------------------------------------------------


def test_published_tables_give_the_same_evidence(small, tmp_path):
    one = results.collect(small)
    for name in results.TABLES:
        getattr(one, name).to_parquet(tmp_path / f"{name}.parquet")
    again = results.collect(tmp_path)
    pd.testing.assert_frame_equal(judging.weigh(one).effects, judging.weigh(again).effects, check_dtype=False)
    (tmp_path / "ledger").mkdir()
    for name in results.TABLES:  # a ledger within the folder counts more, and only its usual trainings
        table = getattr(one, name).assign(objective="smoothing", epoch_factor=1.0)
        pd.concat([table, table.assign(epoch_factor=3.0)]).to_parquet(tmp_path / "ledger" / f"{name}.parquet")
    pd.testing.assert_frame_equal(
        judging.weigh(one).effects, judging.weigh(results.collect(tmp_path)).effects, check_dtype=False
    )
    assert set(results.of_every_length(tmp_path).epoch_factor) == {1.0, 3.0}


def test_windows_that_were_cut_otherwise_are_no_further_dataset(tmp_path):
    for alpha in (0.0, 0.1):
        write_run(tmp_path, dataset="usc_had", alpha=alpha, people=4)
        write_run(tmp_path, dataset="usc_had", alpha=alpha, people=4, options=dict(stride=128))
    evidence = judging.weigh(results.collect(tmp_path), 0.1)
    assert set(evidence.effects.dataset) == {"usc_had", "usc_had (stride=128)"} and set(evidence.found.dataset) == {
        "usc_had"
    }
    assert set(report.dataset_dots(evidence).dataset) == set(report.real(evidence.pieces).dataset) == {"usc_had"}
    assert results.strengths(tmp_path) == dict(alpha=0.1, strong=0.1)


def test_runs_with_other_people_are_not_paired(tmp_path):
    for alpha, people in ((0.0, ["1", "2"]), (0.01, ["1", "3"])):
        place = write_run(tmp_path, alpha=alpha, people=4)
        about = json.loads((place / "spec.json").read_text()) | dict(people=dict(test=people))
        (place / "spec.json").write_text(json.dumps(about))
    with pytest.raises(HarLsError, match="-a0-.* and .*-a0.01-.* cannot be compared: their people differs"):
        results.collect(tmp_path)


def test_lengths_are_compared_on_the_same_people():
    rows = [
        dict(
            dataset="wisdm",
            model="resnet1d",
            protocol="subject",
            fold=fold,
            alpha=alpha,
            seed=0,
            epoch_factor=factor,
            part="test",
            train_accuracy=0.9,
            accuracy=0.9,
            nll=0.3,
            overconfidence=0.02 + factor / 75 - 1 / 300 - alpha * factor,
            ece=0.1 + fold - alpha * factor,
        )
        for factor, folds in ((0.25, 2), (1.0, 5))
        for fold in range(folds)
        for alpha in (0.0, 0.1)
    ]
    rows.append(rows[-1] | dict(dataset="dsads"))  # a cell of one length
    found = report.by_length(pd.DataFrame(rows), 0.1)
    assert list(found.dataset) == ["wisdm", "wisdm"] and np.allclose(found.ece, [-0.025, -0.1])
    assert np.allclose(found.gap, [0.02, 0.03]) and np.allclose(found.overconfidence, [-0.025, -0.1])
    assert set(report.in_every_length(pd.DataFrame(rows)).fold) == {0, 1}


def test_intervals_against_training_length_are_those_of_the_people_that_all_lengths_share():
    from har_ls.evidence import effects

    tables, rows = [], []
    for factor, folds in ((0.25, 2), (1.0, 3)):
        study = effects.imaginary_study(np.random.default_rng(0), people=9, folds=3)[:folds]
        tables.append(effects.people_table(study, dataset="wisdm", model="resnet1d").assign(epoch_factor=factor))
        key = dict(dataset="wisdm", model="resnet1d", protocol="subject", part="test", epoch_factor=factor)
        values = dict(accuracy=0.9, nll=0.3, ece=0.1, overconfidence=0.0, train_accuracy=1.0)
        for fold in range(folds):
            rows += [key | values | dict(fold=fold, alpha=a, seed=s) for a in (0.0, 0.1) for s in range(3)]
    people = pd.concat(tables)
    found = report.by_length(pd.DataFrame(rows), 0.1, people).set_index("epoch_factor")
    for factor, table in people[people.fold < 2].groupby("epoch_factor"):
        wanted = effects.cell_effects(effects.pieces(table, ("nll", "ece"))).set_index("measure")
        for name in ("nll", "ece"):
            ends = found.loc[factor, [f"{name}_low", f"{name}_high"]].to_list()
            assert np.allclose(ends, wanted.loc[name, ["low", "high"]].to_list())


def test_collecting_draws_nothing():
    code = (
        "import sys, har_ls.evidence.results, har_ls.evidence.judging, har_ls.evidence.words;"
        " sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_older_versions_and_other_data_are_kept_apart(tmp_path):
    for alpha in (0.0, 0.01):
        write_run(tmp_path, alpha=alpha, people=4, code="old", gain=1.0)
        write_run(tmp_path, alpha=alpha, people=4, code="new", finished="2027-01-01T00:00:00+00:00")
        write_run(tmp_path, alpha=alpha, people=4, options=dict(label_noise=0.2))
    write_run(tmp_path, alpha=0.1, people=4, code="old")
    found = results.collect(tmp_path)
    assert set(found.metrics.dataset) == {"synthetic", "synthetic (label_noise=0.2)"}
    plain = found.runs[found.runs.label == "synthetic"]
    assert set(plain.code) == {"new"} and len(plain) == 2 and plain.superseded.iloc[0] == 3
    assert (
        0.1 not in set(found.metrics.alpha) and not found.metrics.duplicated(["dataset", "alpha", "seed", "part"]).any()
    )
    evidence = judging.weigh(found)
    assert set(evidence.found.dataset) == {"synthetic"} and set(evidence.effects.dataset) == set(found.metrics.dataset)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(HarLsError, match="no finished runs there"):
        results.collect(tmp_path)
    with pytest.raises(HarLsError, match="no such folder"):
        results.collect(tmp_path / "nowhere")
    write_run(tmp_path, alpha=0.1, people=4)
    with pytest.raises(HarLsError, match="no cell has runs with alpha 0 and 0.01; there are runs with 0.1"):
        judging.weigh(results.collect(tmp_path))


def test_a_missing_fold_is_named_and_voids_no_interval(tmp_path):
    for fold in range(3):
        for alpha in (0.0, 0.01):
            if (fold, alpha) != (2, 0.01):
                write_run(tmp_path, dataset="wisdm", alpha=alpha, fold=fold, folds=3, people=4)
    found = results.collect(tmp_path)
    effect = cell_effects(pieces(found.people, ["ece"])).iloc[0]
    assert effect.folds == 2 and effect.people == 8 and effect.low < effect.estimate < effect.high and not effect.reason
    [said] = [line for line in report.weaknesses(found) if line.startswith("Unfinished")]
    assert "WISDM v1.1, subject split, ResNet: fold 2 lacks α = 0.01" in said
    write_run(tmp_path, dataset="wisdm", alpha=0.01, fold=2, folds=3, people=4)
    whole = results.collect(tmp_path)
    assert not [line for line in report.weaknesses(whole) if line.startswith("Unfinished")]


def test_undertrained_cells_are_marked(tmp_path):
    for alpha in (0.0, 0.01):
        write_run(tmp_path, dataset="wisdm", alpha=alpha, people=4, learnt=0.93)
        write_run(tmp_path, dataset="dsads", alpha=alpha, people=4, learnt=0.99)
    table = report.behind_table(results.collect(tmp_path))
    assert table.cell.tolist() == [
        "WISDM v1.1, subject split, ResNet (undertrained)",
        "DSADS, subject split, ResNet",
    ]
    assert table[["people", "folds", "seeds"]].to_numpy().tolist() == [["4", "1", "3"]] * 2


def test_summary_by_hand():
    rows = [
        dict(
            dataset="d",
            model="m",
            protocol="p",
            fold=f,
            alpha=0.0,
            seed=s,
            part=part,
            accuracy=0.9 + 0.01 * s + 0.02 * f,
        )
        for f in range(2)
        for s in range(3)
        for part in ("validation", "test")
    ]
    assert results.summary(pd.DataFrame(rows)).accuracy.tolist() == ["0.920 ± 0.010"]
    assert results.summary(pd.DataFrame(rows[:2])).accuracy.tolist() == ["0.900"]


def test_counts_carry_the_calibration_error(small):
    found = results.collect(small)
    bins = results.coarser(found.counts[found.counts.quantity == "max_conf"])
    bins["gap"] = (bins.total - bins.right).abs()
    ece = bins.groupby(["alpha", "seed"])[["gap", "n"]].sum()
    test = found.metrics[found.metrics.part == "test"].set_index(["alpha", "seed"]).ece
    assert np.allclose((ece.gap / ece.n).loc[test.index], test)


def test_people_and_classes_add_up(small):
    found = results.collect(small)
    test = found.metrics[found.metrics.part == "test"].set_index(["alpha", "seed"])
    sums = found.people.groupby(["alpha", "seed"])[["n", "accuracy", "nll"]].sum()
    assert np.allclose(sums.accuracy / sums.n, test.accuracy.loc[sums.index]) and np.allclose(
        sums.nll / sums.n, test.nll.loc[sums.index], rtol=1e-5
    )
    right = found.classes[found.classes.true == found.classes.predicted].groupby(["alpha", "seed"]).n.sum() / sums.n
    assert np.allclose(right, test.accuracy.loc[right.index])


# --- claims that compare cells ----------------------------------------------------------------------------------------


def evidence_from(effects, measure, gaps=None):
    "Evidence made of effects that are means over people: {(dataset, model, protocol): [people, seeds]}."
    rows, sums = [], []
    for (dataset, model, protocol), d in effects.items():
        for seed in range(d.shape[1]):
            for alpha in (0.0, 0.01):
                mine = d[:, seed] * (alpha > 0) + 0.5
                key = dict(dataset=dataset, model=model, protocol=protocol, fold=0, alpha=alpha, seed=seed, part="test")
                rows.append(key | {measure: mine.mean(), "max_conf": 0.9 - 0.02 * (alpha > 0)})
                sums += [key | {"subject": j, "n": 1, measure: mine[j]} for j in range(len(d))]
                gap = (gaps or {}).get((dataset, model, protocol), 0.0)
                rows.append(key | {"part": "validation", measure: 0.5, "overconfidence": gap})
    tables = dict(metrics=pd.DataFrame(rows), people=pd.DataFrame(sums))
    found = {name: tables.get(name, pd.DataFrame()) for name in results.TABLES}
    return judging.weigh(results.Results(**found), measures=(measure,))


def table(mean, rng, people=8, seeds=5, spread=0.004):
    return rng.normal(mean, spread, (people, seeds)) + rng.normal(0, spread, (people, 1))


def test_two_models_are_compared_by_their_difference():
    rng = np.random.default_rng(0)
    better = {
        (d, m, "subject"): table(0.03 if m == "moderntcn" else 0.0, rng)
        for d in ("uci_har", "wisdm")
        for m in ("resnet1d", "moderntcn")
    }
    averages = report.model_averages(evidence_from(better, "accuracy"), ("accuracy",))
    assert averages.verdict.tolist() == ["supported"] and averages.datasets.tolist() == [2]
    worse = {(d, "resnet1d" if m == "moderntcn" else "moderntcn", p): effect for (d, m, p), effect in better.items()}
    averages = report.model_averages(evidence_from(worse, "accuracy"), ("accuracy",))
    assert averages.verdict.tolist() == ["contradicted (the other way)"]
    one = {cell: effect for cell, effect in better.items() if cell[1] == "resnet1d"}
    assert report.model_averages(evidence_from(one, "accuracy"), ("accuracy",)).empty


def test_new_people_against_known_people():
    rng, datasets = np.random.default_rng(1), ("wisdm", "dsads", "motionsense", "usc_had")
    apart = {
        (d, "resnet1d", p): table(mean, rng) for d in datasets for p, mean in (("random", 0.02), ("subject", -0.02))
    }
    assert report.differs(evidence_from(apart, "ece"), "ece", 0.01) == "lowers"
    turned = {(d, m, "subject" if p == "random" else "random"): effect for (d, m, p), effect in apart.items()}
    assert report.differs(evidence_from(turned, "ece"), "ece", 0.01) == "raises"
    two = {cell: effect for cell, effect in apart.items() if cell[0] in datasets[:2]}
    assert report.differs(evidence_from(two, "ece"), "ece", 0.01) == "lowers_here"  # and nothing about others


@pytest.mark.parametrize("dataset", stories.FOUND)
def test_what_is_said_about_a_dataset_holds_on_its_published_tables(dataset):
    mine = report.of_dataset(results.collect(STUDY / "results", pictured=()), dataset)
    for paragraph in stories.FOUND[dataset]:
        assert paragraph.holds(mine, dataset, 0.01) is True, paragraph.words


def test_the_gap_is_set_beside_the_effect_and_predicts_it():
    rng, datasets = np.random.default_rng(2), ("uci_har", "wisdm", "dsads", "motionsense")
    gaps = {(d, "resnet1d", "subject"): gap for d, gap in zip(datasets, (0.08, 0.05, -0.03, -0.06))}
    moved = {cell: np.abs(gap - 0.02) - np.abs(gap) for cell, gap in gaps.items()}
    evidence = evidence_from({cell: table(change, rng) for cell, change in moved.items()}, "ece", gaps)
    found = judging.gaps(evidence).set_index("dataset")
    assert np.allclose(found.gap.loc[list(datasets)], list(gaps.values()))
    assert np.allclose(found.predicted, [moved[d, "resnet1d", "subject"] for d in found.index])
    assert "better than both" in report.prediction_score(found.reset_index())


def test_claims_of_the_original_study(wide):
    table = results.original()
    assert len(table) == 16 and set(table.columns) == {"dataset", "model", "alpha", *results.MAIN}
    assert all(tuple(group.alpha) == (0.0, 0.01) for _, group in table.groupby(["dataset", "model"]))
    own = {
        claim.name: claims.judge_everywhere(claim, claims.original_effects(table)) for claim in claims.original_claims()
    }
    assert (own["nll"]["agree"], own["nll"]["judged"]) == (3, 4)  # its text says always; its table says three of four
    card = report.claims_table(judging.weigh(results.collect(wide))).set_index("claim")
    words = card["splits like its own, every cell"]["Smoothing lowers confidence and margin and raises entropy."]
    assert words.startswith("supported")  # so the made-up logits were made
    assert "not measured yet" in set(card["splits like its own, every cell"])  # mHealth and PAMAP2 are not among them


# --- figures and pages ------------------------------------------------------------------------------------------------


def test_colours_and_markers_mean_the_same_everywhere():
    alphas = [0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5]
    assert len({figures.colour(a) for a in alphas}) == len(alphas)
    assert (
        figures.colour(0.1) == figures.colour(np.float64(0.1)) and figures.marker("own") == figures.marker("own") != ""
    )
    white = [matplotlib.colors.to_rgb(figures.colour(a)) for a in alphas]

    def luminance(c):
        c = np.array(c)
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    assert all(1.05 / (luminance(c) + 0.05) > 1.9 for c in white)


def test_no_axis_is_set_by_one_interval():
    for huge in (1.0, 100.0):
        low, high = figures.reach([0.01, -0.01], [0.0, -huge], [0.02, huge], 0.005)
        assert -0.04 < low < -0.01 and 0.01 < high < 0.04


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


# --- the explorer -----------------------------------------------------------------------------------------------------


def carried(text):
    "The effects that a page with the explorer carries."
    data = json.loads(re.search(r'class="explorer-data">(.*?)</script>', text, re.S)[1])
    return data, pd.DataFrame(data["rows"], columns=data["columns"])


def test_the_explorer_carries_the_effects_of_the_published_tables():
    found = judging.weigh(results.collect(STUDY / "results", pictured=()), 0.01).effects
    cells = nbformat.read(STUDY / "explorer.ipynb", 4).cells
    text = "".join(output.data["text/html"] for cell in cells for output in cell.get("outputs", []))
    data, rows = carried(text)
    key = ["dataset", "model", "protocol", "alpha", "measure"]
    numbers = ["base", "value", "estimate", "low", "high", "people", "folds", "seeds", "margin"]
    expected = report.real(found).set_index(key).sort_index()
    shown = rows.set_index(key).sort_index()
    assert shown.index.equals(expected.index)  # otherwise the page is older than the tables: run `make pages`
    np.testing.assert_allclose(shown[numbers].astype(float), expected[numbers].astype(float), rtol=1e-9)
    assert (shown.verdict == expected.verdict).all() and set(data["measures"]) == set(found.measure)


def test_the_explorer_of_many_cells_holds_no_made_up_data_and_starts_with_one_strength(wide, shown_by):
    text = shown_by("explorer", wide)
    data, rows = carried(text)
    assert set(rows.dataset) == {"uci_har", "wisdm", "dsads"} and data["start"]["alpha"] == "0.01"
    assert set(rows.protocol) >= {"random", "subject"} and set(rows.alpha) == {0.01, 0.1}
    static = text[text.index("explorer-static") : text.index("explorer-data")]
    first = rows[(rows.measure == data["start"]["measure"]) & (rows.alpha == 0.01)]
    assert static.count("<tr>") == 1 + len(first) and all(f"{value:.4f}" in static for value in first.base)


def test_what_stands_when_all_questions_are_counted_together():
    questions = [(measure, population) for measure in ("ece", "nll") for population in report.POPULATIONS]
    pooled = pd.DataFrame(questions, columns=["measure", "population"]).assign(alpha=0.01)
    pooled["stands"] = [question == ("ece", "known people") for question in questions]
    told = report.counted_together(pooled, 0.01)
    assert "4 of α = 0.01" in told and "*ECE of known people* stands; the others may still be luck" in told
    assert "none stands: each may still be luck." in report.counted_together(pooled.assign(stands=False), 0.01)
    assert "may still be luck" not in report.counted_together(pooled.assign(stands=True), 0.01)
    assert report.counted_together(pooled, 0.1) == ""
