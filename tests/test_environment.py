"""What a newcomer's machine may lack ends in a sentence that says what to do, and leaves nothing that the next attempt would trip over."""
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SH = shutil.which("sh")
PYTHON = """#!/bin/sh
# A Python that knows only what .ci/environment asks of it.
case "$*" in
    --version) echo "Python {version}" ;;
    *version_info*) exit {too_old} ;;
    *"ensurepip, venv"*) exit {no_venv} ;;
    *disk_usage*) echo {free} ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip --version") [ -x "$0" ] ;;
    *"pip "*"install"*) echo "ERROR: no matching distribution" >&2; exit {no_network} ;;
    *) exit 99 ;;
esac
"""
FINE = dict(version="3.12.1", too_old=0, no_venv=0, free=9000, no_network=0)


def make_environment(folder, without=(), **lacks):
    "Run .ci/environment in `folder` with a made-up Python and no network."
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("mkdir", "cp", "rm", "touch"):
        if not (tools / name).exists():
            (tools / name).symlink_to(shutil.which(name))
    if "python3" not in without:
        (tools / "python3").write_text(PYTHON.format(**FINE | lacks))
        (tools / "python3").chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "VENV", "VIRTUAL_ENV")}
    return subprocess.run([SH, ROOT / ".ci" / "environment"], cwd=folder, env=env | dict(PATH=str(tools)), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("lacks, says, does", [
    (dict(without=["python3"]), "no 'python3' on the PATH", "make PYTHON=python3.12"),
    (dict(version="3.8.10", too_old=1), "Python 3.8.10 is too old", "make PYTHON=python3.12"),
    (dict(no_venv=1), "cannot make environments", "apt install python3-venv"),
    (dict(free=700), "only 700 MB are free", "make room"),
    (dict(no_network=1), "could not be installed", "check the network"),
])
def test_what_is_missing_is_said_with_what_to_do(tmp_path, lacks, says, does):
    done = make_environment(tmp_path, **lacks)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("har_ls: ") and says in last and does in last
    assert not (tmp_path / ".venv" / ".ready").exists()


def test_the_next_attempt_goes_on_from_a_broken_one(tmp_path):
    assert make_environment(tmp_path, no_network=1).returncode == 1
    (tmp_path / ".venv" / "bin" / "python").unlink()
    (tmp_path / ".venv" / "bin" / "python").symlink_to(tmp_path / "a Python that is gone")
    done = make_environment(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv" / ".ready").exists() and "ready" in done.stdout


@pytest.mark.skipif(not shutil.which("make"), reason="no make on the PATH")
def test_make_says_it_too(tmp_path):
    for name in ("Makefile", "settings.ini", "setup.py", "constraints.txt", ".ci"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(["make", "study", "PYTHON=python-that-is-not-there"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "no 'python-that-is-not-there' on the PATH" in done.stderr and "har-ls" not in done.stdout
