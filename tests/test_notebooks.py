"""Every component notebook runs top to bottom from a clean start, in its own folder, without an archive or a
download."""

import multiprocessing
import os
import sys
import traceback
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NBS = ROOT / "nbs"
COMPONENTS = sorted(
    p.relative_to(NBS).as_posix()
    for p in NBS.rglob("*.ipynb")
    if "study" not in p.relative_to(NBS).parts
    and not any(part.startswith((".", "_")) for part in p.relative_to(NBS).parts)
)
# A server that has imported what nearly every notebook imports, and knows nothing else, forks once per notebook: clean,
# and without seconds of imports.
PRELOAD = [
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "sklearn.metrics",
    "matplotlib.pyplot",
    "torch",
    "nbdev.test",
]
CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(PRELOAD)


def _run(path, log):
    "In a process of its own: run the notebook, say everything into the log, exit with 1 if a cell failed."
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        os.environ.update(PYTHONPATH=str(ROOT), MPLBACKEND="agg")
        os.environ.pop("HAR_LS_DATA", None)  # tests/test_data_catalog.py reads the archives
        sys.path.insert(0, str(ROOT))
        os.chdir(NBS)
        try:
            from nbdev.test import test_nb

            ok, _ = test_nb(Path(path), skip_flags=["slow"])
        except BaseException:
            traceback.print_exc()
            ok = False
        sys.stdout.flush()
        sys.stderr.flush()
    sys.exit(not ok)


@pytest.mark.parametrize("name", COMPONENTS)
def test_notebook_runs(name, tmp_path):
    process = CLEAN.Process(target=_run, args=(str(NBS / name), str(tmp_path / "log")))
    process.start()
    process.join()
    assert process.exitcode == 0, (tmp_path / "log").read_text()[-8000:]


def test_a_cell_that_fails_is_a_test_that_fails(tmp_path):
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 + 1 == 3")])
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    process = CLEAN.Process(target=_run, args=(str(tmp_path / "wrong.ipynb"), str(tmp_path / "log")))
    process.start()
    process.join()
    assert process.exitcode == 1 and "AssertionError" in (tmp_path / "log").read_text()
