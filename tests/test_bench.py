"""The bench: what an entry says, alternation, the operation count, refusals."""

import json
import time

import pytest
import torch

from har_ls import bench as module
from har_ls.bench import BENCHES, bench, compare, gemm_ceiling, in_turn, operations, summary
from har_ls.core import HarLsError
from har_ls.runs.identity import study_notebook
from har_ls.evidence.render import render


def spinning(seconds):
    "Prepare work that needs so much processor time."

    def work():
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    return work


def failing():
    raise ValueError("cannot prepare")


def test_sides_take_turns_and_their_ratio_is_found():
    seconds = in_turn({"slow": (spinning, (0.06,)), "fast": (spinning, (0.02,))}, rounds=3)
    assert [len(column) for column in seconds.values()] == [3, 3]
    entry = compare("spin", seconds["slow"], seconds["fast"], "s")
    assert 2.5 < entry["ratio"] < 3.5 and entry["low"] <= entry["ratio"] <= entry["high"]


def test_a_side_that_stops_is_named():
    with pytest.raises(RuntimeError, match="process of 'bad' stopped"):
        in_turn({"bad": (failing, ())}, rounds=1)


def test_entries_are_written_whole_and_have_what_the_page_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(BENCHES, "one", lambda name: compare(name, [3.0, 4.0, 5.0], [1.0, 2.0, 1.0], "ms"))
    monkeypatch.setitem(BENCHES, "none", lambda name: dict(name=name, absent="no such thing here"))
    lines = []
    entries = bench(tmp_path / "bench.json", ["one", "none"], say=lines.append)
    assert json.loads((tmp_path / "bench.json").read_text()) == entries
    first = entries[0]
    assert (first["baseline"], first["candidate"], first["ratio"], first["low"], first["high"], first["unit"]) == (
        4.0,
        1.0,
        3.0,
        2.0,
        5.0,
        "ms",
    )
    assert "3.00 times (2.00 to 5.00)" in lines[0] and "not measured: no such thing here" in lines[1]
    assert set(first["machine"]) == {"processor", "system", "python", "torch"}
    assert summary(first) == lines[0]


def test_unknown_names_are_refused_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setitem(BENCHES, "one", lambda name: pytest.fail("ran"))
    with pytest.raises(HarLsError, match="unknown benchmark 'two'"):
        bench(tmp_path / "b.json", ["one", "two"])
    assert not (tmp_path / "b.json").exists()


def test_the_promised_names_are_there():
    models = {
        "moderntcn.train.9x128",
        "moderntcn.train.27x125",
        "moderntcn.infer.9x128",
        "resnet1d.train.9x128",
        "gpu.replicas16",
    }
    rooms = {
        "data.parse.pamap2",
        "data.reload",
        "metrics.scalar",
        "metrics.tsne",
        "runs.collect",
        "study.overhead",
        "study.two_workers",
    }
    assert models | rooms <= set(BENCHES)


def test_parsing_and_reloading_are_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("HAR_LS_CACHE", str(tmp_path / "mine"))
    monkeypatch.delenv("HAR_LS_DATA", raising=False)
    monkeypatch.setattr("har_ls.data.catalog.find", lambda name, root=None: None)
    entry = module.reload("data.reload")
    assert entry["unit"] == "s for 1 datasets" and entry["second_load_each"].keys() == {"synthetic"}
    assert entry["baseline"] > 0 and entry["candidate"] > 0
    assert module.os.environ["HAR_LS_CACHE"] == str(tmp_path / "mine")
    entry = module.parse_pamap2("data.parse.pamap2", share=0.02, rounds=1)
    assert entry["baseline"] > 0 and entry["candidate"] > 0 and entry["archive"] > 0 and 0 < entry["peak_gb"] < 4


def test_collecting_runs_is_measured_on_both_sides():
    entry = module.collect_runs("runs.collect", runs=12, rounds=1)
    assert entry["unit"] == "s for 12 runs" and entry["baseline"] > 0 and entry["candidate"] > 0


@pytest.mark.parametrize("model", ["resnet1d", "moderntcn"])
def test_operations_grow_with_the_batch_and_with_the_backward_pass(model):
    one = operations(model, 9, 128, 6, batch=1, training=False)
    assert operations(model, 9, 128, 6, batch=4, training=False) == 4 * one
    assert operations(model, 9, 128, 6, batch=1) == 3 * one


def test_both_training_sides_learn_the_same_task():
    "The work of both sides is one epoch of training, on the same windows."
    for make in (module.plain_training, module.fast_training):
        make("resnet1d", 2, 32, 3)()


def test_ceiling_leaves_the_number_of_threads():
    before = torch.get_num_threads()
    assert gemm_ceiling(size=128, repeats=2) > 0
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_entry_gives_the_reason():
    assert "no GPU" in BENCHES["gpu.replicas16"]("gpu.replicas16")["absent"]


def test_the_page_says_what_the_file_says(tmp_path):
    machine = dict(processor="a processor", system="Linux", python="3", torch="2")
    more = dict(gflops=2.0, ceiling_gflops=80.0, share=0.25)
    entries = [
        compare("moderntcn.train.9x128", [400.0, 410.0, 450.0], [100.0, 100.0, 100.0], "ms per batch of 64", **more)
        | dict(machine=machine),
        dict(name="gpu.replicas16", absent="no such device", machine=machine),
    ]
    (tmp_path / "some.json").write_text(json.dumps(entries))
    page = render("speed", tmp_path / "page", dict(bench=str(tmp_path / "some.json"), runs="nowhere")).read_text()
    assert (
        "4.10" in page
        and "4.00 to 4.50" in page
        and "20 GFLOP/s" in page
        and "No such device" in page
        and "a processor" in page
    )
    assert str(tmp_path) not in page


def test_published_measurements_are_whole():
    entries = json.loads((study_notebook("speed").parent / "results" / "bench.json").read_text())
    assert {entry["name"] for entry in entries} <= set(BENCHES)
    for entry in entries:
        assert "absent" in entry or entry["low"] <= entry["ratio"] <= entry["high"]
