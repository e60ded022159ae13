"""What a newcomer's machine may lack ends in a sentence that says what to do, and leaves nothing that the next
attempt would trip over."""

import configparser
import os
import re
import shutil
import subprocess
import sys
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
    *"pip "*"install"*) echo "ERROR: {said}" >&2; exit {no_network} ;;
    *compileall*) exit 0 ;;
    *) exit 99 ;;
esac
"""
FINE = dict(version="3.12.1", too_old=0, no_venv=0, free=9000, no_network=0, said="no matching distribution")


def make_environment(folder, without=(), **lacks):
    "Run .ci/environment in `folder` with a made-up Python and no network."
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("mkdir", "cp", "rm", "touch", "cat", "env", "mktemp", "tr"):
        if not (tools / name).exists():
            (tools / name).symlink_to(shutil.which(name))
    if "python3" not in without:
        (tools / "python3").write_text(PYTHON.format(**FINE | lacks))
        (tools / "python3").chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "VENV", "VIRTUAL_ENV")}
    return subprocess.run(
        [SH, ROOT / ".ci" / "environment"],
        cwd=folder,
        env=env | dict(PATH=str(tools)),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "lacks, says, does",
    [
        (dict(without=["python3"]), "no 'python3' on the PATH", "make PYTHON=python3.12"),
        (dict(version="3.8.10", too_old=1), "Python 3.8.10 is too old", "make PYTHON=python3.12"),
        (dict(no_venv=1), "cannot make environments", "apt install python3-venv"),
        (dict(free=700), "only 700 MB are free", "make room"),
        (dict(no_network=1), "could not be installed", "check the network"),
        (
            dict(no_network=1, said="x 4.1 requires-python >=3.13"),
            "does not go with Python 3.12.1",
            "name another Python",
        ),
        (dict(no_network=1, said="[Errno 28] No space left on device"), "the disk is full", "make room"),
    ],
)
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
    done = subprocess.run(
        ["make", "study", "PYTHON=python-that-is-not-there"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (
        done.returncode == 2
        and "no 'python-that-is-not-there' on the PATH" in done.stderr
        and "har-ls" not in done.stdout
    )


def checkout_with_environment(folder):
    "What `make` needs of this checkout, with an environment that is ready and only knows nbdev's command for hooks."
    folder.mkdir()
    for name in ("Makefile", "settings.ini", "setup.py", "constraints.txt", ".ci"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / ".ready").touch()
    (folder / ".venv" / "bin" / "nbdev_install_hooks").symlink_to(Path(sys.executable).parent / "nbdev_install_hooks")
    return folder


def all_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(not (shutil.which("make") and shutil.which("git")), reason="no make or no git on the PATH")
def test_hooks_stay_in_the_checkout(tmp_path):
    checkout, home = checkout_with_environment(tmp_path / "checkout"), tmp_path / "home"
    home.mkdir()
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "JUPYTER", "GIT_", "VENV"))
    }
    env |= dict(HOME=str(home), GIT_CEILING_DIRECTORIES=str(tmp_path))

    def make_hooks():
        return subprocess.run(["make", "hooks"], cwd=checkout, env=env, capture_output=True, text=True)

    outside = [path for path in Path("/").iterdir()]
    done = make_hooks()
    assert (
        done.returncode and "no git checkout" in done.stderr and not all_in(home) and [*Path("/").iterdir()] == outside
    )
    subprocess.run(["git", "init", "--quiet", "."], cwd=checkout, env=env, check=True)
    done = make_hooks()
    assert done.returncode == 0, done.stderr
    assert not list(home.iterdir()) and sorted(p.name for p in tmp_path.iterdir()) == ["checkout", "home"]
    for hook in ("pre-commit", "post-merge"):
        assert os.access(checkout / ".git" / "hooks" / hook, os.X_OK)
    assert "nbdev" in (checkout / ".venv" / "etc" / "jupyter" / "jupyter_server_config.py").read_text()
    (home / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {home}/every project\n"
    )  # hooks that a user has for all projects
    before = all_in(home)
    assert make_hooks().returncode == 0 and all_in(home) == before


def test_the_tested_versions_can_be_installed_on_every_python_that_is_promised(tmp_path):
    "A resolver is asked for one answer that holds from the first Python of settings.ini on; nothing is installed."
    uv = shutil.which("uv") or Path(sys.executable).with_name("uv")
    if not Path(uv).exists():
        pytest.skip("uv is not here")
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    settings = settings["DEFAULT"]
    wanted = settings["requirements"].split() + settings["dev_requirements"].split()
    (tmp_path / "wanted.in").write_text("\n".join(wanted) + "\n")
    env = dict(os.environ, UV_FIND_LINKS=os.environ.get("UV_FIND_LINKS", os.environ.get("PIP_FIND_LINKS", "")))

    def ask(constraints):
        asked = [
            uv,
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--python-version",
            settings["min_python"] + ".0",
            "-c",
            constraints,
            "wanted.in",
        ]
        return subprocess.run(asked, env=env, cwd=tmp_path, capture_output=True, text=True)

    done = ask(ROOT / "constraints.txt")
    if "error sending request" in done.stderr or "Failed to fetch" in done.stderr:
        pytest.skip("the package index does not answer")
    assert done.returncode == 0, done.stderr
    tested = (ROOT / "constraints.txt").read_text()
    (tmp_path / "newer.txt").write_text(re.sub(r"soupsieve==.*", "soupsieve==4.1.1", tested))  # which wants 3.11.5
    assert ask(tmp_path / "newer.txt").returncode, "the resolver lets everything pass"
