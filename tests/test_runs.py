"""Runs: specs that check themselves, names made from everything that matters, folders that are whole, locks, faults,
reading many runs."""

import ast
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from har_ls.core import HarLsError
from har_ls.data.catalog import DATASETS, load
from har_ls.data.splits import split
from har_ls.evidence import publishing
from har_ls.predictions import load_predictions
from har_ls.runs import execution, grid, identity, ledger
from har_ls.runs import folder as runs
from har_ls.runs.identity import Identity, study_notebook
from har_ls.runs.spec import RunSpec, identity_fields

TINY = dict(seeds=2, epochs=1, max_windows=60)


@st.composite
def specs(draw):
    folds = draw(st.integers(2, 30))
    return RunSpec(
        draw(st.sampled_from([*DATASETS, "./own.csv"])),
        draw(st.sampled_from(["resnet1d", "moderntcn"])),
        draw(st.floats(0, 1, exclude_max=True)),
        draw(st.sampled_from(["random", "segment", "subject", ""])),
        draw(st.integers(0, folds - 1)),
        folds,
        tuple(draw(st.lists(st.integers(0, 2**31), min_size=1, max_size=4, unique=True))),
        draw(st.none() | st.integers(1, 99)),
        draw(st.none() | st.integers(1, 9999)),
        draw(
            st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False) | st.integers() | st.booleans(), max_size=2)
        ),
        **draw(
            st.just({})
            | st.fixed_dictionaries(
                dict(
                    notebook=st.sampled_from(["trained", "distil"]),
                    settings=st.dictionaries(
                        st.text(max_size=5), st.integers() | st.lists(st.integers(), max_size=3), max_size=2
                    ),
                )
            )
        ),
    )


def named(spec, **changes):
    "The name of a run on made-up data."
    usual = dict(data="f", division="d", scaling="s", recipe={"m": {"epochs": 15}}, code="c")
    return Identity(spec, **{**usual, **changes}).name


@settings(deadline=None, max_examples=60)
@given(specs())
def test_specs_survive_json(spec):
    again = RunSpec(**json.loads(json.dumps(spec.as_json())))
    assert again == spec and named(again) == named(spec)


@settings(deadline=None, max_examples=60)
@given(specs(), specs())
def test_names_tell_specs_data_and_code_apart(a, b):
    assert (named(a) == named(b)) == (a == b)
    others = [dict(data="g"), dict(division="e"), dict(scaling="t"), dict(recipe={"m": {"epochs": 16}}), dict(code="d")]
    assert len({named(a), *(named(a, **other) for other in others)}) == 6
    assert "/" not in named(a)


@settings(deadline=None, max_examples=60)
@given(specs())
def test_a_new_field_renames_nothing(spec):
    """What is as usual is not in the name, so that a field that is added later, with its default, changes no name."""
    usual = (
        RunSpec(spec.dataset, spec.model, spec.alpha, spec.protocol, spec.fold, seeds=spec.seeds)
        if spec.fold < 5
        else None
    )
    if usual is not None:
        assert set(identity_fields(usual)) == {"dataset", "model", "alpha", "protocol", "fold", "seeds"}
    assert RunSpec(**identity_fields(spec)) == spec


@pytest.mark.parametrize(
    "field, value",
    [
        ("dataset", "nosuch"),
        ("dataset", "../own.csv"),
        ("dataset", "./a/b.csv"),
        ("dataset", ""),
        ("dataset", None),
        ("model", "vgg"),
        ("alpha", 1.0),
        ("alpha", -0.1),
        ("alpha", float("nan")),
        ("alpha", "0.1"),
        ("alpha", True),
        ("protocol", "holdout"),
        ("fold", 5),
        ("fold", -1),
        ("fold", 0.5),
        ("folds", 1),
        ("folds", "all"),
        ("seeds", ()),
        ("seeds", 0),
        ("seeds", (1, 1)),
        ("seeds", (-1,)),
        ("seeds", (0.5,)),
        ("seeds", "3"),
        ("seeds", True),
        ("epochs", 0),
        ("epochs", 1.5),
        ("max_windows", 0),
        ("options", [1]),
        ("options", {1: 2}),
        ("notebook", "report"),
        ("notebook", None),
        ("settings", [1]),
        ("settings", {"draws": 5}),
    ],
)
def test_wrong_specs_are_refused_by_name(field, value):
    with pytest.raises(HarLsError, match=field):
        RunSpec(**{**dict(dataset="synthetic", model="resnet1d"), field: value})


def test_usual_protocols():
    assert RunSpec("uci_har", "resnet1d").protocol == "official"
    assert RunSpec("synthetic", "resnet1d").protocol == RunSpec("./mine.csv", "resnet1d").protocol == "subject"


def test_ordinary_runs_know_nothing_of_templates():
    plain = RunSpec("synthetic", "resnet1d")
    assert not {"notebook", "settings"} & set(plain.as_json())
    other = RunSpec(
        "synthetic", "resnet1d", notebook="distil", settings={"teacher": "moderntcn", "temperatures": [1, 4]}
    )
    assert RunSpec(**json.loads(json.dumps(other.as_json()))) == other
    assert "-distil-" in named(other) and "distil" not in named(plain)
    assert (
        named(plain) == "synthetic-resnet1d-a0-subject-f0-e5f740e6"
    )  # as it has always been: another formula would rename every published run


FILES = [
    "core",
    "predictions",
    "recipes",
    "training",
    "loss/smoothing",
    "loss/focal",
    "loss/objectives",
    "models/registry",
    "models/replicas",
    "models/resnet1d",
    "models/moderntcn",
    "models/moderntcn_fast",
    "data/splits",
    "data/wisdm",
    "metrics/table",
    "metrics/calibration",
    "runs/folder",
    "evidence/figures",
    "paper/distillation",
]
IMPORTS = {
    "training": "from .core import x\nfrom .loss.smoothing import x\nfrom .models.registry import x\n"
    "from .predictions import x\nfrom .recipes import x\n",
    "models/registry": "import importlib\n",
    "models/resnet1d": "from ..core import x\nfrom .replicas import x\n",
    "models/moderntcn": "from .moderntcn_fast import x\n",
    "metrics/table": "from . import calibration\nfrom ..predictions import x\n",
    "paper/distillation": "from ..training import x\nfrom ..metrics.calibration import x\n",
}
CELLS = {
    "compute": "from har_ls.training import train\ny = train()",
    "measure": "from har_ls.metrics.table import measure",
    "": "from har_ls.evidence import figures",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package of the same shape, and a function that gives the digests of a run and of the measures, after a
    change of one file or cell."""
    place = tmp_path / "har_ls"
    for file in FILES:
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / f"{file}.py").write_text(
            f'"""Words."""\n{IMPORTS.get(file, "")}x = 1  # one\ndef f():\n    "Words."\n'
        )
    monkeypatch.setattr(identity.har_ls, "__file__", str(place / "__init__.py"))
    monkeypatch.setattr(identity, "study_notebook", lambda name: tmp_path / f"{name}.ipynb")

    def digests(spec, cells=None, words="# Words", **changes):
        before = {file: (place / f"{file}.py").read_text() for file in FILES}
        for file, new in changes.items():
            file = file.replace("__", "/")
            (place / f"{file}.py").write_text(before[file].replace(*new))
        made = [nbformat.v4.new_markdown_cell(words)]
        for tag, code in {**CELLS, **(cells or {})}.items():
            made.append(nbformat.v4.new_code_cell(code, metadata=dict(tags=[tag] if tag else [])))
        for name in ("run", "distil"):
            nbformat.write(nbformat.v4.new_notebook(cells=made), tmp_path / f"{name}.ipynb")
        caches = (identity.package_sources, identity._code_digest, identity.measures_digest)
        for cached in caches:
            cached.cache_clear()
        found = identity.code_digest(spec), identity.measures_digest()
        for file, text in before.items():
            (place / f"{file}.py").write_text(text)
        return found

    yield digests
    for cached in (identity.package_sources, identity._code_digest, identity.measures_digest):
        cached.cache_clear()


RESNET, MODERN = RunSpec("synthetic", "resnet1d"), RunSpec("synthetic", "moderntcn")
CHANGE = ("x = 1", "x = 2")


def test_words_and_pictures_leave_a_name_alone(package):
    code, measures = package(RESNET)
    assert package(RESNET, words="# Other words", cells={"": "figures.plot(size=12)"}) == (code, measures)
    assert package(RESNET, cells={"compute": "# Why\nfrom har_ls.training import train\n\ny  =  train()"}) == (
        code,
        measures,
    )
    reworded = package(
        RESNET, training=('"Words."', '"""Others\n    on two lines."""'), models__resnet1d=("# one", "# two")
    )
    assert reworded == (code, measures)


def test_what_computes_is_in_the_name(package):
    code, measures = package(RESNET)
    assert package(RESNET, cells={"compute": "from har_ls.training import train\ny = train(2)"})[0] != code
    for file in ("training", "loss__smoothing", "models__resnet1d", "models__replicas"):
        assert package(RESNET, **{file: CHANGE})[0] != code, file
        assert package(RESNET, **{file: CHANGE})[1] == measures
    assert package(MODERN)[0] != code


def test_measures_and_what_carries_are_not_in_the_name(package):
    code, measures = package(RESNET)
    for file in ("metrics__table", "metrics__calibration"):
        assert package(RESNET, **{file: CHANGE})[0] == code and package(RESNET, **{file: CHANGE})[1] != measures
    assert package(RESNET, cells={"measure": "other"}) == (code, measures)
    for file in (
        "core",
        "predictions",
        "recipes",
        "data__splits",
        "data__wisdm",
        "runs__folder",
        "evidence__figures",
        "paper__distillation",
    ):
        assert package(RESNET, **{file: CHANGE}) == (code, measures), file


def test_other_models_and_objectives_are_not_in_the_name(package):
    code, _ = package(RESNET)
    assert package(RESNET, models__moderntcn=CHANGE)[0] == code == package(RESNET, loss__focal=CHANGE)[0]
    modern, _ = package(MODERN)
    assert package(MODERN, models__resnet1d=CHANGE)[0] == modern != package(MODERN, models__moderntcn_fast=CHANGE)[0]
    focal = RunSpec("synthetic", "resnet1d", 2.0, objective="focal")
    assert package(focal)[0] not in (code, package(focal, loss__focal=CHANGE)[0])
    student = RunSpec("synthetic", "resnet1d_small", notebook="distil", settings={"teacher": "moderntcn"})
    assert package(student)[0] not in (
        package(student, models__moderntcn=CHANGE)[0],
        package(student, models__resnet1d=CHANGE)[0],
    )


def test_the_templates_tags_reach_what_trains():
    """The real templates: the training loop is in every closure, the measures are in none of the run's."""
    for name in ("run", "trained", "distil"):
        cells = identity.tagged_cells(study_notebook(name))
        found = identity.closure(identity.imported("\n".join(cells)), dict(models=("resnet1d",), loss=("smoothing",)))
        assert {"training", "models.resnet1d", "models.replicas", "loss.smoothing"} <= set(found)
        assert not {module for module in found if module.split(".")[0] in ("data", "runs", "core", "recipes")}
    assert not {module for module in identity.closure({"training"}) if module.startswith("metrics")}


def test_other_folds_have_other_names_wherever_they_come_from(tmp_path, monkeypatch):
    """A division by another rule, as another version of a library once gave, is another run."""
    from dataclasses import replace

    windows = load("synthetic", n_subjects=12)
    parts = split(windows, "subject")
    spec = RunSpec("synthetic", "resnet1d", options={"n_subjects": 12})
    one = identity.identity_of(spec, parts)
    people = sorted(set(windows.subject[parts.test].tolist()))
    swapped = [*people[1:], next(p for p in sorted(set(windows.subject[parts.train].tolist())))]
    index = np.arange(len(windows))
    test = index[np.isin(windows.subject, swapped)]
    other = replace(parts, test=test, train=np.setdiff1d(index, np.r_[test, parts.validation]))
    assert identity.identity_of(spec, other).name != one.name == identity.identify(spec).name


def test_words_are_removed_and_nothing_else():
    source = Path(runs.__file__).read_text()
    stripped = identity.code_without_words(source)
    names = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert names == {
        node.name for node in ast.walk(ast.parse(stripped)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    assert "Hold the run's lock" in source and "Hold the run's lock" not in stripped


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    heard = []
    folder = execution.run(
        RunSpec("synthetic", "resnet1d", 0.1, **TINY), out, on_progress=lambda done, total: heard.append((done, total))
    )
    assert heard == [(1, 2), (2, 2)]
    return folder


def test_a_run_leaves_its_four_files_and_its_history(finished):
    assert {file.name for file in finished.iterdir()} == {
        "run.ipynb",
        "spec.json",
        "metrics.parquet",
        "predictions.npz",
        "history.parquet",
    }
    table = pd.read_parquet(finished / "metrics.parquet")
    assert list(table.columns[:8]) == ["run", "dataset", "model", "protocol", "fold", "alpha", "seed", "part"]
    assert len(table) == 4 and not table.duplicated(["seed", "part"]).any() and set(table["alpha"]) == {0.1}
    assert (table[["share_samples", "share_subject"]] == 0).all(axis=None), (
        "the audit of a split by people finds no leak"
    )
    about = json.loads((finished / "spec.json").read_text())
    assert about["name"] == finished.name and RunSpec(**about["spec"]) == RunSpec("synthetic", "resnet1d", 0.1, **TINY)
    assert set(about["seconds"]) == {"load", "train", "measure"} and about["windows"]["train"] == 60
    assert {"python", "torch", "numpy", "scipy", "scikit-learn", "har_ls", "division", "measures"} <= set(about)
    people = [set(names) for names in about["people"].values()]
    assert len(people) == 3 and not people[0] & people[1] and not people[0] & people[2] and not people[1] & people[2]
    assert table["train_accuracy"].between(0, 1).all()
    test = load_predictions(finished / "predictions.npz")["test"]
    assert test.seeds.tolist() == [0, 1] and len(test.y) == about["windows"]["test"]
    accuracy = table[table["part"] == "test"].set_index("seed")["accuracy"]
    np.testing.assert_allclose(accuracy, (test.logits.argmax(-1) == test.y).mean(-1))


def test_no_path_of_this_machine_remains(finished):
    text = (finished / "run.ipynb").read_text() + (finished / "spec.json").read_text()
    for place in {str(finished.parent), str(Path.home()), sys.prefix, str(Path(runs.__file__).parent)}:
        assert place not in text
    nbformat.validate(nbformat.read(finished / "run.ipynb", 4))


def test_running_again_does_nothing_and_removal_reproduces(finished, tmp_path):
    spec = RunSpec("synthetic", "resnet1d", 0.1, **TINY)
    before = {file.name: file.stat().st_mtime_ns for file in finished.iterdir()}
    assert execution.run(spec, finished.parent) == finished
    assert before == {file.name: file.stat().st_mtime_ns for file in finished.iterdir()}
    again = execution.run(spec, tmp_path)
    pd.testing.assert_frame_equal(
        pd.read_parquet(finished / "metrics.parquet"), pd.read_parquet(again / "metrics.parquet")
    )


def test_a_failing_run_keeps_its_notebook_and_leaves_nothing_else(tmp_path):
    spec = RunSpec("synthetic", "resnet1d", 0.1, seeds=1, epochs=1, max_windows=1)
    with pytest.raises(execution.RunFailed, match="training part") as error:
        execution.run(spec, tmp_path)
    [kept] = (tmp_path / "failed").iterdir()
    assert str(kept / "run.ipynb") in str(error.value) and "\n" not in str(error.value)
    assert "training part" in (kept / "run.ipynb").read_text()
    assert {entry.name for entry in tmp_path.iterdir()} == {"failed", ".locks"}
    assert len(runs.load(tmp_path)) == 0


def test_a_later_success_removes_the_failed_notebook(tmp_path, finished):
    kept = tmp_path / "failed" / finished.name / "run.ipynb"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    left = tmp_path / f".{finished.name}.0123.part"  # of a killed process
    left.mkdir()
    execution.run(RunSpec("synthetic", "resnet1d", 0.1, **TINY), tmp_path)
    assert not kept.parent.exists() and not left.exists()


def hold(out, name, ready, leave):
    with runs.lock(out, name):
        ready.set()
        leave.wait(60)


@pytest.mark.parametrize("end", ["orderly", "killed"])
def test_a_lock_lasts_as_long_as_its_holder(tmp_path, end):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path, "a", ready, leave))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(runs.Busy), runs.lock(tmp_path, "a"):
        pass
    with runs.lock(tmp_path, "b"):  # another run
        pass
    leave.set() if end == "orderly" else os.kill(holder.pid, signal.SIGKILL)
    holder.join(30)
    with runs.lock(tmp_path, "a"):
        pass


def read_only(folder):
    "Make a folder read-only even for root: a read-only mount; otherwise by its mode."
    if os.geteuid() == 0:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(folder)], capture_output=True)
        if mounted.returncode == 0:
            return lambda: subprocess.run(["umount", str(folder)], check=True)
        pytest.skip("root without the right to mount cannot be kept from writing")
    folder.chmod(0o555)
    return lambda: folder.chmod(0o755)


def test_a_read_only_folder_is_refused_at_once(tmp_path):
    undo = read_only(tmp_path)
    try:
        with pytest.raises(HarLsError, match="cannot write results there"):
            execution.run(RunSpec("synthetic", "resnet1d", **TINY), tmp_path)
        with pytest.raises(HarLsError, match="cannot write results there"):
            runs.check_writable(tmp_path / "deeper")
    finally:
        undo()


def test_a_full_disk_is_told_from_a_failing_run(tmp_path, monkeypatch):
    """The notebook meets the fault of a full disk: the error that the operating system gives."""
    cells = [
        nbformat.v4.new_code_cell("x = 1", metadata=dict(tags=["parameters"])),
        nbformat.v4.new_code_cell("import errno, os", metadata=dict(tags=["compute"])),
        nbformat.v4.new_code_cell("raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))"),
    ]
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    )
    nbformat.write(notebook, tmp_path / "run.ipynb")
    monkeypatch.setenv("HAR_LS_STUDY", str(tmp_path))
    with pytest.raises(runs.DiskFull, match="no space left"):
        execution.run(RunSpec("synthetic", "resnet1d", **TINY), tmp_path / "out")
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {".locks"}


def test_load_takes_the_latest_of_each_spec(finished, tmp_path):
    import shutil

    for index, (name, code, when) in enumerate(
        [("new", "2", "2026-01-02T00:00:00+00:00"), ("old", "1", "2026-01-01T00:00:00+00:00")]
    ):
        shutil.copytree(finished, tmp_path / "deep" / name)
        about = json.loads((finished / "spec.json").read_text())
        (tmp_path / "deep" / name / "spec.json").write_text(
            json.dumps({**about, "name": name, "code": code, "finished": when})
        )
        table = pd.read_parquet(finished / "metrics.parquet").assign(run=name, only_here=index)
        table.to_parquet(tmp_path / "deep" / name / "metrics.parquet", index=False)
    (tmp_path / ".deep.part").mkdir()
    table = runs.load(tmp_path)
    assert set(table["run"]) == {"new"} and len(table) == 4
    about = runs.specs(tmp_path).set_index("run")
    assert about["latest"].to_dict() == {"new": True, "old": False}


def test_a_damaged_table_is_named(finished, tmp_path):
    import shutil

    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "metrics.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(HarLsError, match="metrics.parquet: cannot be read"):
        runs.load(tmp_path)
    (tmp_path / "run" / "spec.json").write_text("{")
    with pytest.raises(HarLsError, match="spec.json: not valid JSON"):
        runs.specs(tmp_path)
    with pytest.raises(HarLsError, match="no such folder"):
        runs.load(tmp_path / "nowhere")


def test_other_tools_read_the_tables(finished):
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql(
        f"select alpha, part, avg(accuracy) as mean from read_parquet('{finished.parent}/*/metrics.parquet',"
        " union_by_name = true) group by all"
    )
    ours = runs.load(finished.parent).groupby(["alpha", "part"])["accuracy"].mean()
    theirs = {(alpha, part): mean for alpha, part, mean in rows.fetchall()}
    assert theirs == pytest.approx(ours.to_dict())


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(epoch=1), "unknown parameter 'epoch': did you mean epochs"),
        (dict(seed=7), "unknown parameter 'seed': did you mean seeds"),
        (dict(dataset="my.csv"), "own recordings are named './my.csv'"),
    ],
)
def test_parameters_that_do_not_exist_are_refused_before_training(tmp_path, wrong, words):
    import papermill

    import har_ls.runs.kernel  # noqa: F401, registers the engine

    with pytest.raises(papermill.PapermillExecutionError) as error:
        papermill.execute_notebook(
            study_notebook("run"),
            tmp_path / "out.ipynb",
            wrong,
            engine_name="har_ls",
            folder=str(tmp_path),
            progress_bar=False,
        )
    assert words in str(error.value) and not (tmp_path / "runs").exists()


def test_measures_are_made_again_where_their_code_changed(finished, tmp_path, monkeypatch):
    import shutil

    from har_ls.metrics import table as measures

    shutil.copytree(finished, tmp_path / finished.name)
    place, before = tmp_path / finished.name, pd.read_parquet(finished / "metrics.parquet")
    assert not runs.measure_again(place)
    monkeypatch.setattr(runs, "measures_digest", lambda: "another definition")
    monkeypatch.setattr(measures, "measure", lambda *parts, old=measures.measure: old(*parts).assign(ece=0.5))
    assert runs.measure_again(place) and not runs.measure_again(place)
    after = pd.read_parquet(place / "metrics.parquet")
    assert (after["ece"] == 0.5).all()
    pd.testing.assert_frame_equal(
        after.drop(columns="ece"), before.drop(columns="ece"), check_like=True
    )  # training accuracy and leaks included
    about = json.loads((place / "spec.json").read_text())
    assert about["measures"] == "another definition" and about["name"] == finished.name


@pytest.fixture(scope="module")
def two_strengths(finished):
    "A folder with a run without smoothing and one with it."
    execution.run(RunSpec("synthetic", "resnet1d", 0.0, **TINY), finished.parent)
    return finished.parent


def tables(ledger):
    return {file.relative_to(ledger).as_posix(): file.read_bytes() for file in sorted(Path(ledger).rglob("*.parquet"))}


def test_publishing_twice_is_publishing_once_and_order_does_not_matter(two_strengths, tmp_path):
    added = publishing.publish(two_strengths, tmp_path / "both")
    assert len(added) == 2 and publishing.publish(two_strengths, tmp_path / "both") == []
    for name in sorted(added, reverse=True):
        publishing.publish(two_strengths / name, tmp_path / "one by one")
    assert tables(tmp_path / "both") == tables(tmp_path / "one by one")
    assert ledger.published_names(tmp_path / "both") == set(added)


def test_publishing_that_is_killed_midway_loses_nothing(two_strengths, tmp_path, monkeypatch):
    first, second = sorted(path.name for path in runs.run_folders(two_strengths))
    publishing.publish(two_strengths / first, tmp_path)
    kept = {name: ledger.read_table(tmp_path, name) for name in ("metrics", "people", "classes")}
    whole = tmp_path.with_name("whole")
    publishing.publish(two_strengths, whole)
    write = ledger.write_grouped
    for written in range(9):
        calls = iter(range(99))

        def dies(*args, calls=calls, written=written, **more):
            if next(calls) == written:
                raise KeyboardInterrupt
            write(*args, **more)

        monkeypatch.setattr(ledger, "write_grouped", dies)
        with pytest.raises(KeyboardInterrupt):
            publishing.publish(two_strengths, tmp_path)
        assert ledger.published_names(tmp_path) == {first}
        for name, table in kept.items():
            pd.testing.assert_frame_equal(ledger.read_table(tmp_path, name), table)
    monkeypatch.setattr(ledger, "write_grouped", write)
    assert publishing.publish(two_strengths, tmp_path) == [second]
    assert tables(tmp_path) == tables(whole)


def changed(place, **fields):
    "Another run in a folder, as if it had been made with other data, code or people."
    about = json.loads((place / "spec.json").read_text())
    about.update(fields)
    about["spec"]["alpha"] = 0.2
    about["name"] = Identity(
        RunSpec(**about["spec"]), **{key: about[key] for key in ("data", "division", "scaling", "recipe", "code")}
    ).name
    (place / "spec.json").write_text(json.dumps(about))
    table = pd.read_parquet(place / "metrics.parquet").assign(run=about["name"], alpha=0.2)
    table.to_parquet(place / "metrics.parquet", index=False)
    return place.rename(place.with_name(about["name"]))


@pytest.mark.parametrize(
    "fields",
    [
        dict(data="0" * 64),
        dict(code="0" * 16),
        dict(division="0" * 16),
        dict(people={"train": [], "validation": [], "test": ["1", "2"]}),
    ],
)
def test_runs_that_do_not_belong_together_are_refused_by_name(two_strengths, finished, tmp_path, fields):
    import shutil

    published = publishing.publish(two_strengths, tmp_path / "ledger")
    shutil.copytree(finished, tmp_path / "runs" / finished.name)
    other = changed(tmp_path / "runs" / finished.name, **fields)
    before = tables(tmp_path / "ledger")
    with pytest.raises(HarLsError, match="do not belong together") as error:
        publishing.publish(tmp_path / "runs", tmp_path / "ledger")
    assert other.name in str(error.value) and any(name in str(error.value) for name in published)
    assert tables(tmp_path / "ledger") == before
    publishing.publish(tmp_path / "runs", tmp_path / "ledger", replace=True)
    assert ledger.published_names(tmp_path / "ledger") == {other.name}


def test_measures_that_were_made_again_replace_the_published_ones(two_strengths, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(two_strengths, tmp_path / "runs")
    added = publishing.publish(tmp_path / "runs", tmp_path / "ledger")
    place = next(path for path in runs.run_folders(tmp_path / "runs") if path.name == added[0])
    about = json.loads((place / "spec.json").read_text())
    (place / "spec.json").write_text(json.dumps({**about, "measures": "older code"}))
    pd.read_parquet(place / "metrics.parquet").assign(ece=0.5).to_parquet(place / "metrics.parquet", index=False)
    assert (
        publishing.publish(tmp_path / "runs", tmp_path / "ledger")
        == added[:1]
        == publishing.old_measures(tmp_path / "ledger")
    )
    assert runs.measure_again(place) and publishing.publish(tmp_path / "runs", tmp_path / "ledger") == added[:1]
    assert publishing.old_measures(tmp_path / "ledger") == []
    pd.testing.assert_frame_equal(
        ledger.read_table(tmp_path / "ledger", "metrics")
        .query("run == @added[0]")[["seed", "part", "ece"]]
        .reset_index(drop=True),
        pd.read_parquet(two_strengths / added[0] / "metrics.parquet")[["seed", "part", "ece"]],
    )


def test_published_logits_give_the_published_measures(two_strengths, tmp_path):
    publishing.publish(two_strengths, tmp_path)
    again = publishing.from_logits(publishing.read_logits(tmp_path, "synthetic"))
    both = again.merge(
        ledger.read_table(tmp_path, "metrics"), on=["run", "part", "alpha", "seed"], suffixes=("", "_published")
    )
    assert len(both) == len(again) == 2 * (2 + 1)
    assert (both["accuracy"] == both["accuracy_published"]).all()
    np.testing.assert_allclose(both["nll"], both["nll_published"], rtol=2**-8)
    np.testing.assert_allclose(both["ece"], both["ece_published"], atol=2**-7)


def test_a_published_run_is_done(two_strengths, tmp_path):
    publishing.publish(two_strengths, tmp_path)
    specs = [RunSpec("synthetic", "resnet1d", alpha, **TINY) for alpha in (0.0, 0.1, 0.2)]
    planned = grid.plan(specs, tmp_path / "another machine", published=ledger.published_names(tmp_path))
    assert sorted((item.spec.alpha, item.state) for item in planned) == [
        (0.0, "published"),
        (0.1, "published"),
        (0.2, "missing"),
    ]
