"""The checkout is in order: exports in sync, notebooks clean, README current, no machine's paths in what is
published."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(
    p
    for p in (ROOT / "nbs").rglob("*.ipynb")
    if not any(part.startswith((".", "_")) for part in p.relative_to(ROOT).parts)
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of the sources in which nbdev may write."
    target = tmp_path_factory.mktemp("copy")
    for name in ("settings.ini", "README.md"):
        shutil.copy(ROOT / name, target)
    for name in ("nbs", "har_ls"):
        shutil.copytree(
            ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "results")
        )
    return target


def nbdev(command, folder):
    done = subprocess.run([Path(sys.executable).parent / command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_modules_are_what_the_notebooks_export(copy):
    nbdev("nbdev_export", copy)
    for module in sorted((ROOT / "har_ls").rglob("*.py")):
        fresh = copy / module.relative_to(ROOT)
        assert fresh.read_text() == module.read_text(), (
            f"{module.relative_to(ROOT)} differs from its notebook: run `make export`"
        )
    assert {p.relative_to(copy) for p in (copy / "har_ls").rglob("*.py")} == {
        p.relative_to(ROOT) for p in (ROOT / "har_ls").rglob("*.py")
    }


def test_notebooks_are_clean(copy):
    nbdev("nbdev_clean", copy)
    for path in NOTEBOOKS:
        assert (copy / path.relative_to(ROOT)).read_text() == path.read_text(), (
            f"{path.relative_to(ROOT)} is not clean: run `make export`"
        )


def test_readme_is_the_index_notebook():
    done = subprocess.run([sys.executable, ROOT / ".ci" / "readme.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_plan_of_the_house_is_that_of_the_code():
    done = subprocess.run([sys.executable, ROOT / ".ci" / "house.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_notebook_opens_as_agreed_and_names_no_machine(path):
    cells = json.loads(path.read_text())["cells"]
    first = "".join(cells[0]["source"])
    assert re.fullmatch(r"# .+\n\n> .+\n?", first), (
        "the first cell has a title and one line in a quote, and nothing else: Quarto would drop it"
    )
    outputs = json.dumps([cell.get("outputs", []) for cell in cells if cell["cell_type"] == "code"])
    outputs = re.sub(r'"image/png": "[^"]*"', "", outputs)
    assert not re.search(r"(?<![\w.~*-])/(root|home|tmp|work|Users)/\w", outputs), (
        "an output holds a path of some machine"
    )
    errors = [cell for cell in cells if any(o.get("output_type") == "error" for o in cell.get("outputs", []))]
    assert not errors, "an output holds a traceback"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_figure_says_what_is_seen(path):
    "In the option fig-alt; the run template, whose code is part of every run's name, says it in the paragraph above."
    cells = json.loads(path.read_text())["cells"]
    for above, cell in zip(cells, cells[1:]):
        drawn = any(kind.startswith("image/") for output in cell.get("outputs", []) for kind in output.get("data", {}))
        assert drawn or "#| fig-alt:" not in "".join(cell["source"]), (
            "a figure without its picture: run the notebook and save it"
        )
        if drawn:
            said = re.search(r"#\| fig-alt: (.*)", "".join(cell["source"])) or (
                path.name == "run.ipynb" and re.search(r"(.*):?$", "".join(above["source"]))
            )
            assert said and len(said[1]) > 40, "".join(cell["source"])[:200]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_exported_cells_are_short(path):
    "At most 60 lines of at most 120 columns."
    for cell in json.loads(path.read_text())["cells"]:
        lines = "".join(cell["source"]).split("\n")
        if cell["cell_type"] == "code" and lines[0].startswith("#| export"):
            assert len(lines) <= 60 and max(map(len, lines)) <= 120, "\n".join(lines[:3])


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.parent.name == "study"], ids=lambda p: p.stem)
def test_study_notebooks_hold_words_and_calls(path):
    "No cell above ten lines, except papermill's parameters, and no definitions."
    for cell in json.loads(path.read_text())["cells"]:
        code = "".join(cell["source"])
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", []):
            assert len(code.split("\n")) <= 10 and not re.search(r"^\s*(def|class) ", code, re.M), code[:200]
