"""Studies with real processes: workers, clusters, kills, faults, two at once, a thousand runs."""

import contextlib
import functools
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from har_ls.core import HarLsError
from har_ls.runs import folder as runs
from har_ls.runs import grid as study
from har_ls.runs.cluster import execute, existing_cluster
from har_ls.runs.identity import data_facts
from har_ls.runs.spec import RunSpec

ROOT = Path(__file__).parent.parent
MAIN = "from har_ls.cli import main; raise SystemExit(main())"
AXES = "--datasets synthetic --models resnet1d --alphas 0 0.1 --seeds 2 --epochs 12 --max-windows 100".split()
GRID = study.Grid(("synthetic",), ("resnet1d",), (0.0, 0.1), seeds=2, epochs=12, max_windows=100)


def begin(out, *more, axes=AXES):
    "Start `har-ls study` in a process group of its own."
    command = [sys.executable, "-c", MAIN, "study", *axes, "--out", str(out), "--no-report", *more]
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    ctrl_c = functools.partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # a job in the background inherits that it is ignored
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=ctrl_c,
    )


def finish(process, timeout=240):
    "Its exit code and what it said."
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, said


def until(condition, timeout=120):
    "Wait for a condition and return its value."
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise TimeoutError


def kernels(process):
    "The kernels below a process."
    with contextlib.suppress(psutil.NoSuchProcess):
        return [
            child for child in process.children(recursive=True) if "ipykernel_launcher" in " ".join(child.cmdline())
        ]
    return []


def gone(processes):
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def results(out):
    "The tables of a folder, after checking that every run is there once and nothing is left of others."
    names = sorted(entry.name for entry in Path(out).iterdir())
    assert [name for name in names if name.startswith(".")] in ([".locks"], [])
    assert len([name for name in names if name.startswith("synthetic")]) == len(GRID.alphas)
    for folder in runs.run_folders(out):
        assert {file.name for file in folder.iterdir()} == {
            "run.ipynb",
            "spec.json",
            "metrics.parquet",
            "predictions.npz",
            "history.parquet",
        }
    return runs.load(out).sort_values(["run", "seed", "part"], ignore_index=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    "A study on two local workers."
    out = tmp_path_factory.mktemp("undisturbed")
    code, said = finish(begin(out, "--workers", "2"))
    assert code == 0, said
    assert "2 of 2 runs are done" in said and "Dask's dashboard: http" in said and "[2/2]" in said
    return out


def test_two_local_workers(undisturbed):
    table = results(undisturbed)
    assert len(table) == 2 * 2 * 2
    [kept] = (undisturbed / "grids").iterdir()
    assert study.make_grid(None, kept) == GRID


def test_started_again_it_does_nothing(undisturbed):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("*/*") if path.parent.name != "grids"}
    code, said = finish(begin(undisturbed))
    assert code == 0 and "2 of 2 runs are done" in said
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.glob("*/*") if path.parent.name != "grids"}


def test_a_killed_worker_and_its_run_are_replaced(undisturbed, tmp_path):
    process = begin(tmp_path, "--workers", "2")
    at_work = until(lambda: list(tmp_path.glob(".*.part")) and kernels(psutil.Process(process.pid)))
    until(lambda: list(tmp_path.glob(".*.part")))
    kernel = at_work[0]
    kernel.parent().send_signal(signal.SIGKILL)
    until(lambda: gone([kernel]), 30)  # a kernel does not outlive its worker
    code, said = finish(process)
    assert code == 0, said
    pd.testing.assert_frame_equal(results(tmp_path), results(undisturbed))


def test_stopped_in_three_ways_and_taken_up_each_time(undisturbed, tmp_path):
    """Ctrl-C, a polite request to stop, and a kill. Nothing is left behind, nothing finished is repeated, and the
    results are the same."""
    kept = {}
    for send, expected in [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]:
        process = begin(tmp_path, "--workers", "1")
        family = psutil.Process(process.pid)
        until(
            lambda process=process, family=family: (
                process.poll() is not None or list(tmp_path.glob(".*.part")) and kernels(family)
            )
        )
        if send == signal.SIGKILL:  # not before a run is done
            until(lambda: runs.run_folders(tmp_path))
        descendants = family.children(recursive=True)
        if send == signal.SIGINT:
            os.killpg(process.pid, send)  # as a terminal does: to all of them
        else:
            process.send_signal(send)
        code, said = finish(process)
        until(functools.partial(gone, descendants), 30)
        assert code == expected and "Traceback" not in said, said
        if send != signal.SIGKILL:
            assert (
                "the same command goes on from here" in said
                and not list(tmp_path.glob(".*.part"))
                and not (tmp_path / "failed").exists()
            ), said
        assert kept == {folder: folder.stat().st_mtime_ns for folder in kept}
        kept = {folder: folder.stat().st_mtime_ns for folder in runs.run_folders(tmp_path)}
    assert len(kept) == 1
    code, said = finish(begin(tmp_path, "--workers", "1"))
    assert code == 0, said
    assert kept == {folder: folder.stat().st_mtime_ns for folder in kept}
    pd.testing.assert_frame_equal(results(tmp_path), results(undisturbed))


DASK = [sys.executable, "-m", "dask"]


def dask_scheduler():
    "A free address, and the command that starts a scheduler there."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = ["--host", "127.0.0.1", "--port", port, "--dashboard-address", ":0"]
    return f"tcp://127.0.0.1:{port}", [*DASK, "scheduler", *options]


@pytest.fixture
def scheduler(tmp_path):
    "A Dask scheduler and two workers, three processes that are not ours."
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    common = dict(env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address, command = dask_scheduler()
    started = [subprocess.Popen(command, **common)]
    worker = [*DASK, "worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard"]
    started += [subprocess.Popen(worker, **common) for _ in range(2)]
    yield address
    processes = [
        child
        for process in started
        for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    ]
    for process in reversed(started):
        process.terminate()
    for process in started:
        process.wait(30)
    until(lambda: gone(processes), 30)


def test_an_external_scheduler_with_two_workers(scheduler, undisturbed, tmp_path):
    out = tmp_path / "runs"
    code, said = finish(begin(out, "--scheduler", scheduler))
    assert code == 0, said
    pd.testing.assert_frame_equal(results(out), results(undisturbed))


def test_a_scheduler_without_workers(tmp_path):
    """A sentence while it waits, and one at the end."""
    address, command = dask_scheduler()
    scheduler, said = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), []
    try:
        with (
            pytest.raises(HarLsError, match="no worker came within 1 seconds"),
            until_it_answers(address, 1, said.append),
        ):
            pass
    finally:
        scheduler.terminate()
        scheduler.wait(30)
    assert "has no workers yet; waiting 1 seconds" in said[0]


@contextlib.contextmanager
def until_it_answers(address, wait, say):
    "The cluster at an address, as soon as the scheduler there has started."
    for _ in range(20):
        try:
            with existing_cluster(address, wait, say) as client:
                yield client
            return
        except HarLsError as error:
            if "no Dask scheduler answers" not in str(error):
                raise


def test_no_scheduler_there(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        code, said = finish(begin(tmp_path, "--scheduler", f"tcp://127.0.0.1:{free.getsockname()[1]}"))
    assert code == 1 and "no Dask scheduler answers there" in said and "Traceback" not in said, said


def test_two_studies_on_one_folder(undisturbed, tmp_path):
    both = [begin(tmp_path, "--workers", "1"), begin(tmp_path, "--workers", "1")]
    said = [finish(process) for process in both]
    assert [code for code, _ in said] == [0, 0], said
    pd.testing.assert_frame_equal(results(tmp_path), results(undisturbed))
    trained = [line for _, text in said for line in text.splitlines() if "] synthetic" in line]
    assert all("done" in line for line in trained)


def test_a_full_disk_stops_the_study(tmp_path):
    """A file system on which one run fits and two do not. Then there is room again."""
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=700k", "none", str(tmp_path)], capture_output=True
        ).returncode
    ):
        pytest.skip("needs the right to mount a small file system")
    try:
        code, said = finish(begin(tmp_path, "--workers", "1"))
        assert code == 1 and "Traceback" not in said, said
        assert "no space left" in said or "cannot write results there (No space left" in said, said
        for folder in runs.run_folders(tmp_path):
            assert len(list(folder.iterdir())) == 5
        assert not list(tmp_path.glob(".*.part")) and len(runs.run_folders(tmp_path)) < 2
        subprocess.run(["mount", "-o", "remount,size=50m", str(tmp_path)], check=True)
        code, said = finish(begin(tmp_path, "--workers", "1"))
        assert code == 0 and "2 of 2 runs are done" in said, said
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_read_only_folder(tmp_path):
    if os.geteuid() == 0:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(tmp_path)], capture_output=True).returncode:
            pytest.skip("root without the right to mount cannot be kept from writing")
    else:
        tmp_path.chmod(0o555)
    try:
        code, said = finish(begin(tmp_path))
        assert code == 1 and "cannot write results there" in said and "Traceback" not in said, said
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_failing_run_does_not_stop_the_others(tmp_path):
    good = study.plan([RunSpec("synthetic", "resnet1d", seeds=1, epochs=1, max_windows=60)], tmp_path)
    bad = study.plan([RunSpec("synthetic", "resnet1d", seeds=1, epochs=1, max_windows=1)], tmp_path)
    outcome = execute([*bad, *good], tmp_path, workers=1)
    assert outcome.done == [good[0].name] and list(outcome.failed) == [bad[0].name]
    assert (
        "training part" in outcome.failed[bad[0].name] and (tmp_path / "failed" / bad[0].name / "run.ipynb").is_file()
    )
    states = {item.state for item in study.plan([good[0].spec, bad[0].spec], tmp_path)}
    assert states == {"done", "failed"}
    axes = "--datasets synthetic --models resnet1d --alphas 0 --seeds 1 --epochs 1 --max-windows 1".split()
    code, said = finish(begin(tmp_path, "--failed", axes=axes))
    assert code == 1 and f"failed: {bad[0].name}: " in said and "0 of 1 runs are done" in said, said


def test_grids():
    grid = study.make_grid("seed", seeds=2)
    assert grid.seeds == 2 and study.make_grid() == study.make_grid("quick")
    for wrong in [
        dict(alphas=[]),
        dict(datasets="synthetic"),
        dict(folds="some"),
        dict(folds=[]),
        dict(epoch_factors=[]),
        dict(objectives="focal"),
    ]:
        with pytest.raises(HarLsError):
            study.make_grid("quick", **wrong)
    with pytest.raises(HarLsError, match="unknown profile"):
        study.make_grid("slow")


def test_the_whole_grid():
    """Its blocks in the order of their importance, with folds before seeds."""
    grids = study.make_grids(None, ROOT / "nbs" / "study" / "grids" / "full.toml")
    names = list(dict.fromkeys(grid.name for grid in grids))
    assert names == ["new people", "the original's test", "known people", "leaks", "training length", "known noise"]
    assert {0.0, 0.01, 0.1} <= {*grids[0].alphas} and grids[0].folds == "all" and grids[0].of_folds == 5
    assert all(0.0 in grid.alphas for grid in grids)


def test_a_grid_file_with_mistakes(tmp_path):
    file = tmp_path / "mine.toml"
    for text, words in [
        ("alpha = [0.1]", "unknown key 'alpha'"),
        ("[[block]]\nfold = [1]", "unknown key 'fold'"),
        ("block = 3", "block"),
        ("x = ", "not a readable TOML file"),
    ]:
        file.write_text(text)
        with pytest.raises(HarLsError, match=words) as error:
            study.make_grids(None, file)
        assert str(file) in str(error.value)
    file.write_bytes('name = "\xe9"'.encode("latin-1"))
    with pytest.raises(HarLsError, match="not a readable TOML file"):
        study.make_grids(None, file)


def test_blocks_come_in_their_order_and_share_runs(tmp_path):
    long = study.Grid(("synthetic",), ("resnet1d",), seeds=1, folds=(1, 2), epoch_factors=(1.0, 3.0), name="long")
    short = study.Grid(("synthetic",), ("resnet1d",), seeds=1, folds=(0, 1), name="short")
    planned, _ = study.plan_grids([short, long], tmp_path)
    assert [item.block for item in planned] == ["short"] * 4 + ["long"] * 6
    seconds = [item.seconds for item in planned]
    assert seconds[4:] == sorted(seconds[4:], reverse=True) and seconds[4] > seconds[0]
    assert len({item.name for item in planned}) == 10
    table = study.summary_of(planned).set_index("block")
    assert table.left.to_dict() == {"short": 4, "long": 6}
    assert table.core_hours["long"] == pytest.approx(sum(seconds[4:]) / 3600, abs=0.01)


def test_strength_nothing_is_trained_once_for_all_objectives():
    specs, _ = study.grid_specs(
        study.Grid(("synthetic",), ("resnet1d",), (0.0, 0.1), objectives=("smoothing", "focal"))
    )
    assert sorted((spec.objective, spec.alpha) for spec in specs) == [
        ("focal", 0.1),
        ("smoothing", 0.0),
        ("smoothing", 0.1),
    ]


def test_grid_specs():
    grid = study.Grid(
        ("synthetic",),
        ("resnet1d", "moderntcn"),
        (0.0, 0.1),
        ("official", "random", "subject"),
        folds="all",
        of_folds=3,
    )
    specs, notes = study.grid_specs(grid)
    assert len(specs) == 2 * 2 * 2 * 3 and notes == ["synthetic has no official split: left out"]
    assert len({json.dumps(spec.as_json()) for spec in specs}) == len(specs)
    loo, _ = study.grid_specs(
        study.Grid(("synthetic",), ("resnet1d",), (0.0,), ("subject",), folds="all", of_folds="loo")
    )
    assert len(loo) == data_facts("synthetic", None, "{}").subjects
    with pytest.raises(HarLsError, match="fold = 3"):
        study.grid_specs(study.Grid(("synthetic",), ("resnet1d",), folds=(3,), of_folds=3))
    with pytest.raises(HarLsError, match="unknown dataset"):
        study.grid_specs(study.Grid(("nosuch",)))
    with pytest.raises(HarLsError, match="of_folds = 41: synthetic has 40 people"):
        study.grid_specs(study.Grid(("synthetic",), of_folds=41))
    with pytest.raises(HarLsError, match="alpha"):
        study.grid_specs(study.Grid(("synthetic",), alphas=(1.5,)))


def test_many_runs(undisturbed, tmp_path):
    """Planning, resuming and collecting a thousand runs. The bench has ten thousand, and says how fast."""
    alphas = [index / 2000 for index in range(50)]
    specs = [
        RunSpec("synthetic", "resnet1d", alpha, "random", fold, 10, seed)
        for alpha, fold, seed in itertools.product(alphas, range(10), (1, 2))
    ]
    planned = study.plan(specs, tmp_path)
    assert len(planned) == 1000 and {item.state for item in planned} == {"missing"}
    model = runs.run_folders(undisturbed)[0]
    about = json.loads((model / "spec.json").read_text())
    for item in planned[:999]:
        folder = tmp_path / item.name
        folder.mkdir()
        (folder / "spec.json").write_text(json.dumps({**about, "name": item.name, "spec": item.spec.as_json()}))
        os.link(model / "metrics.parquet", folder / "metrics.parquet")
    again = study.plan(specs, tmp_path)
    assert sum(item.state == "missing" for item in again) == 1
    assert len(runs.load(tmp_path)) == 999 * 4
