"""The command line: one clear line and an exit code for what the user can mend, and each command once on small data."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from har_ls import cli

ROOT = Path(__file__).parent.parent
SMALL = ["--seeds", "1", "--epochs", "1", "--max-windows", "60"]


def har_ls(*arguments, cwd=None, **env):
    "Run the command in a process of its own."
    code = "from har_ls.cli import main; raise SystemExit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=dict(os.environ, PYTHONPATH=str(ROOT), **env),
        capture_output=True,
        text=True,
    )


def refused(capsys, *arguments):
    "Exit code 1, one line on stderr, and that line."
    assert cli.main([str(argument) for argument in arguments]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("har-ls: ") and said.err.count("\n") == 1 and not said.out.count("Traceback")
    return said.err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run", "nosuch", "resnet1d"], "unknown dataset 'nosuch'"),
        (["run", "synthetic", "vgg"], "unknown model 'vgg'"),
        (["run", "synthetic", "resnet1d", "--alpha", "1.5"], "alpha = 1.5"),
        (["run", "synthetic", "resnet1d", "--fold", "7"], "fold = 7"),
        (["run", "synthetic", "resnet1d", "--seeds", "0"], "seeds"),
        (["run", "./no/such.csv", "resnet1d"], "no such file or folder"),
        (["run", "wisdm", "resnet1d", "--data", "/nonexistent"], "not found"),
        (["study", "--profile", "slow"], "unknown profile 'slow'"),
        (["study", "--grid", "/nonexistent.toml"], "/nonexistent.toml"),
        (["study", "--datasets", "nosuch"], "unknown dataset"),
        (["study", "--datasets", "synthetic", "--alphas", "2"], "alpha = 2"),
        (["report", "--runs", "/nonexistent"], "no such folder"),
        (["study", "--workers", "-1"], "--workers -1"),
        (["study", "--workers", "0"], "--workers 0"),
        (["study", "--scheduler", "tls://10.0.0.1:1"], "tls://"),
        (["study", "--profile", "full"], "full.toml"),
        (["study", "--datasets", "synthetic", "--of-folds", "50"], "40 people"),
        (["advise", "synthetic", "--alphas", "0"], "name a strength above 0"),
        (["advise", "synthetic", "--workers", "0"], "--workers 0"),
        (["publish", "/nonexistent"], "no such folder"),
        (["measure", "/nonexistent"], "no such folder"),
        (["run", "synthetic", "resnet1d", "--objective", "hinge"], "unknown objective 'hinge'"),
        (["data", "verify"], "name a dataset"),
        (["data", "describe", "nosuch"], "nosuch"),
        (["bench", "--only", "nosuch"], "unknown benchmark"),
    ],
)
def test_what_the_user_can_mend_is_one_line(capsys, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in refused(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_commands_in_messages_can_be_typed_as_they_stand(tmp_path):
    script = tmp_path / ".venv" / "bin" / "har-ls"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!{sys.executable}\nfrom har_ls.cli import main\nraise SystemExit(main())\n")
    script.chmod(0o755)
    for arguments in (["run", "wisdm", "resnet1d", "--data", "."], ["data", "list", "--data", "."]):
        done = subprocess.run(
            [".venv/bin/har-ls", *arguments],
            cwd=tmp_path,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
        )
        assert ".venv/bin/har-ls data fetch wisdm" in done.stdout + done.stderr


def test_a_report_of_nothing_is_refused(capsys, tmp_path):
    assert "no finished runs" in refused(capsys, "report", "--runs", tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nosuch"],
        ["run"],
        ["run", "synthetic", "resnet1d", "--alpha", "much"],
        ["study", "--workers", "1", "--scheduler", "x"],
    ],
)
def test_wrong_usage_ends_with_2(arguments):
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    assert error.value.code == 2


def test_help_does_not_wait_for_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from har_ls.cli import main; main(['--help'])"],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    assert done.returncode == 0 and "advise" in done.stdout
    assert not {"torch", "pandas", "distributed"} & {
        line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()
    }


def test_dry_run_and_grid_file(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(
        'datasets = ["synthetic"]\nmodels = ["resnet1d"]\nalphas = [0.0, 0.1]\n'
        "seeds = [3, 5]\nmax_windows = 60\nepochs = 1\n"
    )
    assert cli.main(["study", "--grid", "mine.toml", "--dry-run", "--alphas", "0", "0.1", "0.2", "--workers", "2"]) == 0
    said = capsys.readouterr().out
    assert (
        said.count("missing") == 3
        and "3 runs: 0 done, 3 to do, about" in said
        and "on 2 workers" in said
        and "core_hours" in said
    )
    assert not Path("runs").exists()
    Path("wrong.toml").write_text("alpha = [0.1]\n")
    assert "unknown key 'alpha'" in refused(capsys, "study", "--grid", "wrong.toml")


def test_a_study_without_archives_and_of_hardly_any_windows_ends_in_its_report(tmp_path):
    "Any grid that has 0 and one more strength will do, and test parts too small for a picture."
    grid = ["--models", "resnet1d", "--alphas", "0", "0.1", "--seeds", "1", "--epochs", "1", "--max-windows", "10"]
    done = har_ls("study", *grid, "--data", tmp_path / "nothing", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Not found, so left out: uci_har" in done.stdout and "har-ls data fetch uci_har" in done.stdout
    [file] = (tmp_path / "runs" / "quick" / "grids").iterdir()
    assert tomllib.loads(file.read_text())["block"][0]["max_windows"] == 10
    page = (tmp_path / "runs" / "quick" / "report" / "answer.html").read_text()
    text = re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page, flags=re.S)
    assert "Traceback" not in text and "nan" not in text.split() and "α = 0.01" not in text
    assert "needs trainings without and with smoothing whose test part is large enough for a picture" in text
    cut = "at most 1 epoch, where the recipe has 20 and at most 10 windows in each part"
    assert f"These trainings were shortened: {cut}" in " ".join(text.split())
    assert "With whole trainings the published study found:" in text and "α = 0.1" in text


def own_recordings(folder, people=4, seconds=40, rate=20):
    "A table of own recordings: people who sit, walk and jump, told apart by how much they move."
    rng, tables = np.random.default_rng(0), []
    for subject in range(people):
        for k, activity in enumerate(["sit", "walk", "jump"]):
            n = seconds * rate
            t = np.arange(n) / rate
            signal = (0.1 + k) * np.sin(2 * np.pi * (1 + k) * t)[:, None] + rng.normal(0, 0.6, (n, 2))
            tables.append(
                pd.DataFrame(
                    dict(
                        subject=f"person {subject}",
                        activity=activity,
                        time=1000 * k + t,
                        ax=signal[:, 0],
                        ay=signal[:, 1],
                    )
                )
            )
    path = folder / "mine.csv"
    pd.concat(tables).to_csv(path, index=False)
    return path


def test_run_needs_a_person_for_each_fold(capsys, tmp_path):
    told = refused(
        capsys,
        "run",
        own_recordings(tmp_path),
        "resnet1d",
        "--protocol",
        "subject",
        "--set",
        "time=time",
        "--out",
        tmp_path / "runs",
    )
    assert "at least 5 people, found 4" in told and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [["run", "resnet1d"], ["advise"]])
def test_one_activity_is_no_task(capsys, tmp_path, command):
    path = own_recordings(tmp_path)
    table = pd.read_csv(path)
    table[table.activity == "sit"].to_csv(path, index=False)
    told = refused(capsys, command[0], path, *command[1:], "--out", tmp_path / "out")
    assert "one activity, 'sit'" in told and not (tmp_path / "out").exists()


def test_advise_needs_people(capsys, tmp_path):
    assert "at least three" in refused(
        capsys, "advise", own_recordings(tmp_path, people=2), "--out", tmp_path / "advice", "--set", "time=time"
    )


def test_a_narrow_terminal_gets_blocks_of_columns(capsys, monkeypatch):
    table = pd.DataFrame(
        [
            dict(dataset="synthetic", model=m, alpha=0.1, **{f"measure_{i}": "0.123 ± 0.045" for i in range(9)})
            for m in ("resnet1d", "moderntcn")
        ]
    )
    for width, terminal in ((80, True), (300, True), (80, False)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setenv("COLUMNS", str(width))
        cli.show_table(table)
        lines = capsys.readouterr().out.splitlines()
        if width == 80 and terminal:
            assert max(map(len, lines)) <= 80 and sum("resnet1d" in line for line in lines) > 2
        else:
            assert len(lines) == 3 and max(map(len, lines)) > 80


def test_data_commands(capsys, tmp_path):
    assert cli.main(["data", "list", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "motionsense" in said and "har-ls data fetch wisdm" in said
    assert cli.main(["data", "describe", "synthetic"]) == 0
    assert "windows of 64 samples" in capsys.readouterr().out
    assert cli.main(["data", "verify", "synthetic"]) == 0
    assert "nothing to fetch" in refused(capsys, "data", "fetch", "synthetic")
