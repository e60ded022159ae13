"""Runs: specs that check themselves, names made from everything that matters, folders that are whole, locks, faults, reading many runs."""
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

from har_ls.runs import run as runs
from har_ls.core import HarLsError
from har_ls.data.catalog import DATASETS
from har_ls.predictions import load_predictions
from har_ls.runs.run import RunSpec

TINY = dict(seeds=2, epochs=1, max_windows=60)


@st.composite
def specs(draw):
    folds = draw(st.integers(2, 30))
    return RunSpec(
        draw(st.sampled_from([*DATASETS, "./own.csv"])), draw(st.sampled_from(["resnet1d", "moderntcn"])),
        draw(st.floats(0, 1, exclude_max=True)), draw(st.sampled_from(["random", "segment", "subject", ""])),
        draw(st.integers(0, folds - 1)), folds, tuple(draw(st.lists(st.integers(0, 2**31), min_size=1, max_size=4, unique=True))),
        draw(st.none() | st.integers(1, 99)), draw(st.none() | st.integers(1, 9999)),
        draw(st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False) | st.integers() | st.booleans(), max_size=2)),
        **draw(st.just({}) | st.fixed_dictionaries(dict(
            notebook=st.sampled_from(["trained", "distil"]), settings=st.dictionaries(st.text(max_size=5), st.integers() | st.lists(st.integers(), max_size=3), max_size=2),
        ))),
    )


@settings(deadline=None, max_examples=60)
@given(specs())
def test_specs_survive_json(spec):
    again = RunSpec(**json.loads(json.dumps(spec.as_json())))
    assert again == spec
    assert runs.run_name(again, "f", "c") == runs.run_name(spec, "f", "c")


@settings(deadline=None, max_examples=60)
@given(specs(), specs())
def test_names_tell_specs_data_and_code_apart(a, b):
    assert (runs.run_name(a, "f", "c") == runs.run_name(b, "f", "c")) == (a == b)
    assert len({runs.run_name(a, *other) for other in [("f", "c"), ("g", "c"), ("f", "d")]}) == 3
    assert "/" not in runs.run_name(a, "f", "c")


@pytest.mark.parametrize("field, value", [
    ("dataset", "nosuch"), ("dataset", "../own.csv"), ("dataset", "./a/b.csv"), ("dataset", ""), ("dataset", None), ("model", "vgg"),
    ("alpha", 1.0), ("alpha", -0.1), ("alpha", float("nan")), ("alpha", "0.1"), ("alpha", True), ("protocol", "holdout"),
    ("fold", 5), ("fold", -1), ("fold", 0.5), ("folds", 1), ("folds", "all"), ("seeds", ()), ("seeds", 0), ("seeds", (1, 1)), ("seeds", (-1,)),
    ("seeds", (0.5,)), ("seeds", "3"), ("seeds", True), ("epochs", 0), ("epochs", 1.5), ("max_windows", 0), ("options", [1]), ("options", {1: 2}),
    ("notebook", "report"), ("notebook", None), ("settings", [1]), ("settings", {"draws": 5}),
])
def test_wrong_specs_are_refused_by_name(field, value):
    with pytest.raises(HarLsError, match=field):
        RunSpec(**{**dict(dataset="synthetic", model="resnet1d"), field: value})


def test_usual_protocols():
    assert RunSpec("uci_har", "resnet1d").protocol == "official"
    assert RunSpec("synthetic", "resnet1d").protocol == RunSpec("./mine.csv", "resnet1d").protocol == "subject"


def test_ordinary_runs_know_nothing_of_templates():
    plain = RunSpec("synthetic", "resnet1d")
    assert not {"notebook", "settings"} & set(plain.as_json())
    other = RunSpec("synthetic", "resnet1d", notebook="distil", settings={"teacher": "moderntcn", "temperatures": [1, 4]})
    assert RunSpec(**json.loads(json.dumps(other.as_json()))) == other
    assert "-distil-" in runs.run_name(other, "f", "c") and "distil" not in runs.run_name(plain, "f", "c")
    assert runs.run_name(plain, "f", "c") == "synthetic-resnet1d-a0-subject-f0-48c6324a"


def test_code_digest_sees_code_and_not_words(tmp_path, monkeypatch):
    package = tmp_path / "har_ls"
    files = ["training.py", "loss.py", "predictions.py", "models/resnet1d.py", "models/moderntcn.py", "data/wisdm.py", "metrics/table.py", "plots.py"]
    for file in [*files, "paper/distillation.py", "paper/experiment.py"]:
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text('"""Words."""\nx = 1  # one\ndef f():\n    "Words."\n')
    monkeypatch.setattr(runs.har_ls, "__file__", str(package / "__init__.py"))
    monkeypatch.setattr(runs, "study_notebook", lambda name: tmp_path / "run.ipynb")

    def digest(words="# Words", code="y = 1", notebook="run"):
        cells = [nbformat.v4.new_markdown_cell(words), nbformat.v4.new_code_cell(code)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "run.ipynb")
        runs.upstream_code.cache_clear()
        runs._digest.cache_clear()
        return runs.code_digest("synthetic", "resnet1d", notebook)

    first, paper = digest(), digest(notebook="distil")
    assert first != paper
    assert digest("# Other words") == first
    (package / "training.py").write_text('"""Others."""\nx = 1\n\n\ndef f():\n    """Others\n    on two lines."""\n')
    (package / "plots.py").write_text("x = 2\n")
    (package / "data/wisdm.py").write_text("x = 2\n")
    assert digest(notebook="distil") == paper
    (package / "models/moderntcn.py").write_text("x = 2\n")
    (package / "paper/experiment.py").write_text("x = 2\n")
    assert digest() == first and digest(notebook="distil") != paper  # a run of the paper may train any model
    paper = digest(notebook="distil")
    (package / "paper/distillation.py").write_text("x = 2\n")
    assert digest() == first and digest(notebook="distil") != paper
    assert digest(code="y = 2") != first
    for file in ["training.py", "metrics/table.py", "models/resnet1d.py"]:
        before = (package / file).read_text()
        (package / file).write_text(before.replace("x = 1", "x = 2"))
        assert digest() != first
        (package / file).write_text(before)
    assert digest() == first
    runs.upstream_code.cache_clear()
    runs._digest.cache_clear()


def test_words_are_removed_and_nothing_else():
    source = Path(runs.__file__).read_text()
    stripped = runs.code_without_words(source)
    names = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert names == {node.name for node in ast.walk(ast.parse(stripped)) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert "Where a number comes from" not in stripped and len(stripped) < len(source)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    heard = []
    folder = runs.run(RunSpec("synthetic", "resnet1d", 0.1, **TINY), out, on_progress=lambda done, total: heard.append((done, total)))
    assert heard == [(1, 2), (2, 2)]
    return folder


def test_a_run_leaves_its_four_files_and_its_history(finished):
    assert {file.name for file in finished.iterdir()} == {"run.ipynb", "spec.json", "metrics.parquet", "predictions.npz", "history.parquet"}
    table = pd.read_parquet(finished / "metrics.parquet")
    assert list(table.columns[:8]) == ["run", "dataset", "model", "protocol", "fold", "alpha", "seed", "part"]
    assert len(table) == 4 and not table.duplicated(["seed", "part"]).any() and set(table["alpha"]) == {0.1}
    assert (table[["share_samples", "share_subject"]] == 0).all(axis=None), "the audit of a split by people finds no leak"
    about = json.loads((finished / "spec.json").read_text())
    assert about["name"] == finished.name and RunSpec(**about["spec"]) == RunSpec("synthetic", "resnet1d", 0.1, **TINY)
    assert set(about["seconds"]) == {"load", "train", "measure"} and about["windows"]["train"] == 60
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
    assert runs.run(spec, finished.parent) == finished
    assert before == {file.name: file.stat().st_mtime_ns for file in finished.iterdir()}
    again = runs.run(spec, tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(finished / "metrics.parquet"), pd.read_parquet(again / "metrics.parquet"))


def test_a_failing_run_keeps_its_notebook_and_leaves_nothing_else(tmp_path):
    spec = RunSpec("synthetic", "resnet1d", 0.1, seeds=1, epochs=1, max_windows=1)
    with pytest.raises(runs.RunFailed, match="training part") as error:
        runs.run(spec, tmp_path)
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
    runs.run(RunSpec("synthetic", "resnet1d", 0.1, **TINY), tmp_path)
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
            runs.run(RunSpec("synthetic", "resnet1d", **TINY), tmp_path)
        with pytest.raises(HarLsError, match="cannot write results there"):
            runs.check_writable(tmp_path / "deeper")
    finally:
        undo()


def test_a_full_disk_is_told_from_a_failing_run(tmp_path, monkeypatch):
    """The notebook meets the fault of a full disk: the error that the operating system gives."""
    cells = [nbformat.v4.new_code_cell("x = 1", metadata=dict(tags=["parameters"])), nbformat.v4.new_code_cell("import errno, os"),
             nbformat.v4.new_code_cell("raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")))
    nbformat.write(notebook, tmp_path / "run.ipynb")
    monkeypatch.setenv("HAR_LS_STUDY", str(tmp_path))
    with pytest.raises(runs.DiskFull, match="no space left"):
        runs.run(RunSpec("synthetic", "resnet1d", **TINY), tmp_path / "out")
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {".locks"}


def test_load_takes_the_latest_of_each_spec(finished, tmp_path):
    import shutil

    for index, (name, code, when) in enumerate([("new", "2", "2026-01-02T00:00:00+00:00"), ("old", "1", "2026-01-01T00:00:00+00:00")]):
        shutil.copytree(finished, tmp_path / "deep" / name)
        about = json.loads((finished / "spec.json").read_text())
        (tmp_path / "deep" / name / "spec.json").write_text(json.dumps({**about, "name": name, "code": code, "finished": when}))
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
    rows = duckdb.sql(f"select alpha, split, avg(accuracy) as mean from read_parquet('{finished.parent}/*/metrics.parquet', union_by_name = true) group by all")
    ours = runs.load(finished.parent).groupby(["alpha", "part"])["accuracy"].mean()
    theirs = {(alpha, split): mean for alpha, split, mean in rows.fetchall()}
    assert theirs == pytest.approx(ours.to_dict())


def test_plain_papermill(tmp_path):
    """The command of the README, with the parameters of a small run."""
    command = [sys.executable, "-m", "papermill", str(runs.study_notebook("run")), "out.ipynb", "-p", "dataset", "synthetic", "-p", "model",
               "resnet1d", "-p", "alpha", "0.01", "-p", "epochs", "1", "-p", "seeds", "1", "-p", "max_windows", "60", "--no-progress-bar"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    table = runs.load(tmp_path / "runs")
    assert set(table["alpha"]) == {0.01} and len(table) == 2
    [folder] = (tmp_path / "runs").iterdir()
    assert folder.name == json.loads((folder / "spec.json").read_text())["name"] and (tmp_path / "out.ipynb").is_file()
