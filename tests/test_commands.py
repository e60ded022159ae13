"""The commands that the pages tell readers to type are commands that exist."""

import re
import shlex
from pathlib import Path

import nbformat
import pytest

from har_ls.cli import parser

ROOT = Path(__file__).parent.parent


def texts():
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "nbs").rglob("*.md"))]:
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            cells = nbformat.read(path, 4).cells
            yield (
                path.relative_to(ROOT).as_posix(),
                "\n".join(cell.source for cell in cells if cell.cell_type == "markdown"),
            )


def typed(program):
    "What is typed into a shell block after the program's name."
    for name, text in texts():
        for block in re.findall(r"```sh\n(.*?)```", text, re.S):
            for line in re.findall(rf"^(?:\S+=\S+ )*(?:\S*/)?{program} (.+)$", block, re.M):
                yield pytest.param(shlex.split(line, comments=True), id=f"{name}: {line.strip()}")


@pytest.mark.parametrize("arguments", list(typed("har-ls")))
def test_the_command_understands(arguments):
    parser().parse_args(arguments)


@pytest.mark.parametrize("arguments", list(typed("make")))
def test_the_makefile_has_the_target(arguments):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {a for a in arguments if "=" not in a} <= set(targets)
