"""The catalogue, UCI-HAR and own recordings: caches, downloads, published counts, and the faults a reader can meet."""
import ast
import contextlib
import hashlib
import http.server
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from har_ls.core import HarLsError
from har_ls.data import catalog, dataset, synthetic, uci_har, usc_had
from har_ls.data.windows import window
from har_ls.evidence.results import published_tables


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HAR_LS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# UCI-HAR
# ----------------------------------------------------------------------------------------------------------------


def uci_files(people, newline="\n"):
    "Files of UCI-HAR for a list of (part, subject, code, signal [9, T])."
    files = {}
    for part in ("train", "test"):
        rows = [
            (subject, code, signal[:, s : s + 128])
            for p, subject, code, signal in people if p == part for s in range(0, signal.shape[1] - 127, 64)
        ]  # fmt: skip
        files[f"UCI HAR Dataset/{part}/subject_{part}.txt"] = newline.join(str(row[0]) for row in rows) + newline
        files[f"UCI HAR Dataset/{part}/y_{part}.txt"] = newline.join(str(row[1]) for row in rows) + newline
        for c, channel in enumerate(uci_har.CHANNELS):
            text = newline.join("".join(f" {value: .7e}" for value in row[2][c]) for row in rows) + newline
            files[f"UCI HAR Dataset/{part}/Inertial Signals/{channel}_{part}.txt"] = text
    return files


def zip_of(path, files):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("UCI HAR Dataset.zip", inner.getvalue())
    return path


def people(rng=None):
    rng = rng or np.random.default_rng(0)
    signal = [np.float32(rng.standard_normal((9, t)).round(4)) for t in (512, 320, 448, 256)]
    return [
        ("train", 1, 5, signal[0]),
        ("train", 1, 4, signal[1]),
        ("train", 3, 1, signal[2]),
        ("test", 2, 6, signal[3]),
    ]


def test_uci_har_recordings_come_back(tmp_path):
    for newline in ("\n", "\r\n"):
        r = uci_har.read(zip_of(tmp_path / "uci.zip", uci_files(people(), newline)))
        read = zip(r.signals, r.labels, r.subject, r.part)
        for (part, subject, code, signal), (got, label, who, p) in zip(people(), read, strict=True):
            np.testing.assert_allclose(got, signal, rtol=1e-6)
            assert (p, who, set(label)) == (part, subject, {code - 1})
        assert r.rate == 50 and r.units == ("g",) * 6 + ("rad/s",) * 3


def test_uci_har_from_folders(tmp_path):
    files = uci_files(people())
    inner = zip_of(tmp_path / "outer.zip", files)
    with zipfile.ZipFile(inner) as archive:
        archive.extractall(tmp_path / "once")
    for name, content in files.items():
        path = tmp_path / "twice" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    reference = uci_har.read(inner)
    for place in ("once", "once/UCI HAR Dataset.zip", "twice", "twice/UCI HAR Dataset"):
        signals = uci_har.read(tmp_path / place).signals
        np.testing.assert_array_equal(np.concatenate(signals, 1), np.concatenate(reference.signals, 1))


def test_uci_har_does_not_join_people_nor_unequal_windows():
    same = np.tile(np.arange(64.0), (9, 3))[None, :, :128].astype(np.float32)  # every window continues every other
    x = np.concatenate([same] * 4)
    _, _, subject, spans = uci_har.stitch(x, np.zeros(4, int), np.array([1, 1, 2, 2]))
    assert subject.tolist() == [1, 2] and spans[:, 0].tolist() == [0, 0, 1, 1]
    x[1, 0, 3] += 1  # one number of one channel differs
    assert uci_har.stitch(x, np.zeros(4, int), np.array([1, 1, 2, 2]))[2].tolist() == [1, 1, 2]


def test_uci_har_shift_of_any_size():
    signal = np.random.default_rng(0).standard_normal((9, 1000)).astype(np.float32)
    starts = np.cumsum([0, 1, 127, 64, 100, 63])
    x = np.stack([signal[:, s : s + 128] for s in starts])
    assert uci_har.shifts(x).tolist() == np.diff(starts).tolist()
    assert uci_har.stitch(x, np.zeros(6, int), np.ones(6, int))[3][:, 1].tolist() == starts.tolist()


BODY = "UCI HAR Dataset/train/Inertial Signals/body_acc_x_train.txt"
Y, SUBJECT = (f"UCI HAR Dataset/test/{name}_test.txt" for name in ("y", "subject"))


def edited(files, name, line, change):
    lines = files[name].split("\n")
    lines[line - 1] = change(lines[line - 1])
    return files | {name: "\n".join(lines)}


@pytest.mark.parametrize(
    "fault, message",
    [
        (
            lambda f: edited(f, BODY, 3, lambda x: x.replace("e", "q", 1)),
            "body_acc_x_train.txt, line 3, field 1: expected a num",
        ),
        (
            lambda f: edited(f, BODY, 5, lambda x: x + " 1.0"),
            "body_acc_x_train.txt, line 5: expected 128 fields, found 129",
        ),
        (lambda f: edited(f, BODY, 2, lambda x: ""), "body_acc_x_train.txt: 16 windows, but y_train.txt has 17"),
        (lambda f: edited(f, Y, 2, lambda x: "7"), "y_test.txt, row 2: expected a whole number from 1 to 6, found 7"),
        (lambda f: edited(f, SUBJECT, 1, lambda x: "2.5"), "subject_test.txt, row 1: expected a whole number"),
        (lambda f: f | {BODY: ""}, "body_acc_x_train.txt: no data in it"),
        (
            lambda f: {k: v for k, v in f.items() if k != BODY},
            "found 0 files like 'train/Inertial Signals/body_acc_x_train.txt'",
        ),
        (lambda f: f | {"../evil": "1"}, "points outside"),
    ],
)
def test_uci_har_faults_are_named(tmp_path, fault, message):
    with pytest.raises(HarLsError, match=message):
        uci_har.read(zip_of(tmp_path / "uci.zip", fault(uci_files(people()))))


# Loading
# ----------------------------------------------------------------------------------------------------------------


def uci_in(folder, **kwargs):
    folder.mkdir(exist_ok=True)
    return zip_of(folder / catalog.info("uci_har").archive, uci_files(people(**kwargs)))


def test_load_maps_the_cache_and_names_what_it_is_made_from(tmp_path, cache):
    path = uci_in(tmp_path / "data")
    first = catalog.load("uci_har", tmp_path / "data")
    os.rename(path, tmp_path / "elsewhere.zip")
    os.rename(tmp_path / "elsewhere.zip", path)  # same size and time of change
    second = catalog.load("uci_har", tmp_path / "data")
    assert isinstance(second.x, np.memmap) and len(list(cache.iterdir())) == 1
    for name in ("x", "y", "subject", "span", "part"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ("channels", "units", "activities", "rate", "faults"):
        assert getattr(first, name) == getattr(second, name)
    assert not any(p.name.startswith(".") for p in cache.iterdir())


def test_parameters_sources_and_code_never_meet_a_stale_cache(tmp_path, cache, monkeypatch):
    path = uci_in(tmp_path / "data")
    loaded = [catalog.load("uci_har", tmp_path / "data")]
    for length, stride in ((100, 50), (100, 25)):
        loaded.append(catalog.load("uci_har", tmp_path / "data", length=length, stride=stride))
        assert loaded[-1].x.shape[2] == length
    zip_of(path, uci_files(people(np.random.default_rng(1))))  # other numbers under the same name
    loaded.append(catalog.load("uci_har", tmp_path / "data"))
    assert len({w.fingerprint for w in loaded}) == 4 == len(list(cache.iterdir()))
    code = tmp_path / "uci_har.py"
    code.write_text(open(uci_har.__file__).read() + "\n# another reader\n")
    monkeypatch.setattr(uci_har, "__file__", str(code))
    again = catalog.load("uci_har", tmp_path / "data")
    assert len(list(cache.iterdir())) == 5  # read anew
    assert again.fingerprint == loaded[-1].fingerprint  # but a comment in the reader changes no number


def test_a_module_that_a_reader_uses_belongs_to_its_code(tmp_path, monkeypatch):
    from har_ls import parsing

    before = catalog._code("har_ls.data.uci_har")
    code = tmp_path / "parsing.py"
    code.write_text(open(parsing.__file__).read() + "\n# another parser\n")
    monkeypatch.setattr(parsing, "__file__", str(code))
    after = catalog._code("har_ls.data.uci_har")
    assert {name for name in before if before[name] != after[name]} == {
        "har_ls.parsing"
    } and before.keys() == after.keys()


@pytest.mark.parametrize("name", [name for name in catalog.DATASETS if catalog.info(name).archive])
def test_fingerprint_is_that_of_the_content(name, tmp_path):
    "From the archive, from the folder it was unpacked into, and with one number changed."
    options = dict(length=24, stride=12) if name in ("pamap2", "mhealth") else {}
    path = importlib.import_module(f"har_ls.data.{name}").tiny(tmp_path / "packed" / catalog.info(name).archive)
    shutil.unpack_archive(path, tmp_path / "unpacked" / name)
    packed, unpacked = (catalog.load(name, tmp_path / place, **options) for place in ("packed", "unpacked"))
    assert packed.fingerprint == unpacked.fingerprint == catalog.fingerprint(packed) and len(packed.fingerprint) == 64
    x = packed.x.copy()
    x[-1, -1, -1] = np.nextafter(x[-1, -1, -1], np.float32(1e9))
    assert catalog.fingerprint(replace(packed, x=x)) != packed.fingerprint


@pytest.mark.parametrize("change", [
    dict(name="other"), dict(rate=26.0), dict(units=("g",) * 6), dict(channels=tuple("abcdef")),
    dict(activities=tuple("abcdef")),
    dict(y=np.zeros(120, np.int64)), dict(subject=np.ones(120, np.int64)), dict(span=np.zeros((120, 3), np.int64)),
    dict(part=np.array(["train"] * 119 + ["test"])), dict(posterior=None), dict(posterior=np.full((120, 6), 1 / 6)),
])
def test_every_part_of_the_content_is_in_the_fingerprint(change):
    w = window(synthetic.generate(2, 60))
    assert catalog.fingerprint(replace(w, **change)) != catalog.fingerprint(w)


def test_what_is_no_content_is_not_in_the_fingerprint():
    w = window(synthetic.generate(2, 60))
    same = replace(
        w, x=np.asfortranarray(w.x), y=w.y.astype(np.int32), span=w.span.astype(">i8"), faults={"gaps": 1},
        fingerprint="old",
        posterior=w.posterior + 1e-12,  # computed: the last bits are the library's
    )
    assert catalog.fingerprint(same) == catalog.fingerprint(w)
    labelled = replace(w, part=np.array(["train", "test"] * 60))
    assert catalog.fingerprint(replace(labelled, part=labelled.part.astype("<U40"))) == catalog.fingerprint(labelled)


def test_two_processes_build_the_same_cache(tmp_path, cache):
    uci_in(tmp_path / "data")
    code = "import sys; from har_ls.data.catalog import load; print(load('uci_har', sys.argv[1]).x.sum())"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "data")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert said[0][0] == said[1][0] and [p.name.startswith("uci_har-") for p in cache.iterdir()] == [True]


def test_a_failed_read_leaves_no_cache(tmp_path, cache):
    path = uci_in(tmp_path / "data")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(HarLsError, match="fetch it again"):
        catalog.load("uci_har", tmp_path / "data")
    assert not cache.exists() or not list(cache.iterdir())


def test_a_cache_that_cannot_be_written_or_read_is_named(tmp_path, cache, monkeypatch):
    catalog.load("synthetic", n_subjects=2)
    (next(cache.iterdir()) / "x.npy").write_bytes(b"")
    with pytest.raises(HarLsError, match="damaged cache .* delete this folder"):
        catalog.load("synthetic", n_subjects=2)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HAR_LS_CACHE", str(tmp_path / "file"))
    with pytest.raises(HarLsError, match="HAR_LS_CACHE"):
        catalog.load("synthetic", n_subjects=2)


def test_results_written_beside_own_tables_do_not_matter(tmp_path, cache):
    (tmp_path / "own").mkdir()
    t = np.arange(200) / 25
    noise = np.random.default_rng(0).normal(size=200)
    table = pd.DataFrame(dict(time=t, subject=1, activity=np.where(t < 4, "walk", "sit"), ax=noise))
    table.to_csv(tmp_path / "own" / "a.csv", index=False)
    first = catalog.load(tmp_path / "own", time="time").fingerprint
    (tmp_path / "own" / "notes.txt").write_text("run 1")
    assert catalog.load(tmp_path / "own", time="time").fingerprint == first and len(list(cache.iterdir())) == 1


def test_load_refusals(tmp_path):
    with pytest.raises(HarLsError, match="neither a path that exists nor a dataset; datasets are uci_har, wisdm"):
        catalog.load("uci-har")
    with pytest.raises(HarLsError, match="mhealth.dataset.zip not found in .*har-ls data fetch mhealth.*HAR_LS_DATA"):
        catalog.load("mhealth", tmp_path)
    with pytest.raises(HarLsError, match="unknown dataset"):
        catalog.info("uci-har")
    with pytest.raises(HarLsError, match="posteriors"):
        catalog.load("synthetic", length=32)


@pytest.mark.parametrize("options, message", [
    (dict(length=0), "length=0: expected a whole number of samples, 2 or more"), (dict(length=1), "length=1: "),
    (dict(length=-3), "length=-3: "), (dict(length=True), "length=True: "), (dict(length=64.0), "length=64.0: "),
    (dict(length="64"), "length='64': "), (dict(length=float("nan")), "length=nan: "), (dict(length=[]), "length="),
    (dict(stride=0), "stride=0: expected a whole number of samples, 1 or more"), (dict(stride=False), "stride=False: "),
    (dict(length=64, stride=0), "stride=0: "), (dict(stride=""), "stride='': "),
    (dict(length=64, stride=0.0), "stride=0.0: "),
    (dict(lenght=64), "unknown option 'lenght' (did you mean 'length'?); there are length, stride, rate"),
    (dict(strid=64), "did you mean 'stride'"),
    (dict(heart=True), "unknown option 'heart'"), (dict(hart_rate=True), "did you mean 'heart_rate'"),
    (dict(heart_rate=1), "heart_rate=1: expected true or false"), (dict(heart_rate=""), "heart_rate='': "),
    (dict(rate="fast"), "rate='fast': expected a number"), (dict(rate=True), "rate=True: "), (dict(rate=[]), "rate="),
    (dict(rate=0), "rate=0.0: expected samples per second"), (dict(rate=-5), "rate=-5.0: "),
    (dict(rate=float("inf")), "rate=inf: "),
    (dict(longest_gap=2.5), "longest_gap=2.5: expected a whole number"), (dict(longest_gap=-1), "longest_gap=-1: "),
    (dict(path="elsewhere"), "unknown option 'path'"),
])
def test_settings_are_refused_by_name(options, message, tmp_path, cache):
    from har_ls.data import pamap2

    pamap2.tiny(tmp_path / catalog.info("pamap2").archive, subjects=(109,))
    with pytest.raises(HarLsError, match=re.escape(message)):
        catalog.load("pamap2", tmp_path, **options)
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize("name", ["uci_har", "synthetic"])
def test_a_step_without_a_length_is_not_ignored(name, tmp_path):
    uci_in(tmp_path / "data")
    with pytest.raises(HarLsError, match=f"{name}: stride=32 without length, but the windows come with the dataset"):
        catalog.load(name, tmp_path / "data", stride=32)


def test_a_given_length_or_stride_alone(tmp_path):
    usc_had.tiny(tmp_path / catalog.info("usc_had").archive, subjects=(1,), trials=1)  # 12 recordings of 600 samples
    assert len(catalog.load("usc_had", tmp_path)) == 12 * 2  # 256 and 256
    assert len(catalog.load("usc_had", tmp_path, length=100)) == 12 * 6  # the step is the length
    assert len(catalog.load("usc_had", tmp_path, stride=86)) == 12 * 5
    assert len(catalog.load("usc_had", tmp_path, length=np.int64(600), stride=1)) == 12


def test_find_and_list(tmp_path, monkeypatch):
    monkeypatch.setenv("HAR_LS_DATA", str(tmp_path))
    assert catalog.find("wisdm") is None
    (tmp_path / "WISDM_ar_v1.1").mkdir()
    (tmp_path / "pamap2").mkdir()
    assert catalog.find("wisdm").name == "WISDM_ar_v1.1" and catalog.find("pamap2").name == "pamap2"
    table = catalog.list_datasets()
    assert list(table.index) == list(catalog.DATASETS)
    assert table.found["mhealth"].startswith("not found") and table.found["wisdm"].endswith("WISDM_ar_v1.1")
    assert table.licence.drop("synthetic").all() and table.citation.all()


@pytest.mark.parametrize("name", [name for name in catalog.DATASETS if catalog.info(name).archive])
def test_every_reader_comes_through_the_same_door(tmp_path, cache, name):
    importlib.import_module(f"har_ls.data.{name}").tiny(tmp_path / catalog.info(name).archive)
    options = dict(length=24, stride=12) if name in ("pamap2", "mhealth") else {}  # the examples have short bouts
    w = catalog.load(name, tmp_path, **options)
    again = catalog.load(name, tmp_path, **options)
    assert again.fingerprint == w.fingerprint and len(list(cache.iterdir())) == 1
    assert len(w) == len(w.y) == len(w.span) > 0 and w.x.shape[1] == len(w.channels) == len(w.units)
    assert w.x.dtype == np.float32 and np.isfinite(w.x).all() and 0 <= w.y.min() <= w.y.max() < len(w.activities)
    assert len(w.activities) == catalog.info(name).activities and set(w.subject) <= set(
        catalog.info(name).published.subjects
    )
    table, ok = catalog.verify(name, tmp_path)
    assert not ok and {"missing"} <= set(table.verdict)  # a small example is not the published archive


# The catalogue
# ----------------------------------------------------------------------------------------------------------


def test_listing_loads_no_heavy_library():
    "What takes time is not measured but named: libraries that listing does without."
    code = (
        "import sys; from har_ls.cli import main; main(['data', 'list']); "
        "heavy = {'pandas', 'scipy', 'sklearn', 'torch', 'matplotlib', 'papermill', 'dask', 'nbformat'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert all(f"{name}: " in done.stdout for name in catalog.DATASETS)


def test_importing_the_catalogue_imports_no_reader():
    readers = f"[n for n in {catalog.DATASETS} if f'har_ls.data.{{n}}' in sys.modules]"
    code = f"import sys, har_ls.data.catalog; print({readers})"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_dataset_is_one_module_of_under_sixty_lines_of_code():
    """What CONTRIBUTING promises, by the dataset that it points to: lines of code, without imports, docstrings,
    comments and blanks."""
    tree = ast.parse(Path(usc_had.__file__).read_text())
    lines = set()
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.FunctionDef)) or ast.unparse(node).startswith("__all__"):
            continue
        lines |= set(range(node.lineno, node.end_lineno + 1))
        for inner in ast.walk(node):
            if isinstance(inner, (ast.Import, ast.ImportFrom)):
                lines -= {inner.lineno}
            if isinstance(inner, ast.FunctionDef) and ast.get_docstring(inner):
                lines -= set(range(inner.body[0].lineno, inner.body[0].end_lineno + 1))
    source = Path(usc_had.__file__).read_text().splitlines()
    code = [n for n in lines if source[n - 1].strip() and not source[n - 1].strip().startswith("#")]
    assert len(code) < 60, len(code)
    text = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
    assert "usc_had" in text[text.index("## Add a dataset") :]


@pytest.mark.parametrize("name", catalog.DATASETS)
def test_facts_add_up(name):
    d = catalog.info(name)
    assert d.name == name and d.title and d.citation and (d.licence or not d.archive) and (d.url or not d.archive)
    for edition in (d.published, *d.copies):
        total = sum(edition.activities) + (edition.other or 0)
        assert len(edition.activities) == d.activities and len(set(edition.subjects)) == len(edition.subjects)
        assert edition.per_subject is None or (
            sum(edition.per_subject) == total and len(edition.per_subject) == len(edition.subjects)
        )
    assert all(copy.note for copy in d.copies) and not d.published.note
    assert (d.length is None) == (d.stride is None) and (d.length is None or 1 <= d.stride <= d.length)
    assert all(len(pinned) == 64 and int(pinned, 16) for pinned in d.files.values()) and len(
        set(d.files.values())
    ) == len(d.files)


def test_sizes_that_the_publishers_state():
    totals = dict(
        uci_har=10_299,
        wisdm=1_098_207,
        pamap2=2_872_533,
        mhealth=1_215_745,
        dsads=1_140_000,
        motionsense=1_412_865,
        usc_had=2_811_490,
    )
    for name, total in totals.items():
        published = catalog.info(name).published
        assert sum(published.activities) + (published.other or 0) == total


# Fetching
# ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def publisher(answer):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, length, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_fetch(tmp_path, capfd):
    whole = zip_of(tmp_path / "made.zip", {"x.txt": "1\n" * 1000}).read_bytes()
    answers = {
        "/whole": (200, len(whole), whole),
        "/cut": (200, len(whole), whole[:100]),
        "/gone": (404, 2, b"no"),
        "/page": (200, 13, b"<html></html>"),
        "/short": (200, len(whole) // 2, whole[: len(whole) // 2]),
    }
    data = tmp_path / "data"
    with publisher(lambda path: answers[path]) as address:
        page = "a text that begins with '<html></html>'"
        for bad, message in [("cut", "could not fetch"), ("gone", "404"), ("page", page), ("short", "damaged")]:
            with pytest.raises(HarLsError, match=message):
                catalog.fetch("mhealth", data, f"{address}/{bad}", progress=False)
            assert not list(data.iterdir())  # neither half a file nor a record
        path = catalog.fetch("mhealth", data, f"{address}/whole")
        assert "100%" in capfd.readouterr().err
    assert path == catalog.find("mhealth", data) and path.read_bytes() == whole
    assert sorted(p.name for p in data.iterdir()) == ["mhealth+dataset.zip", "mhealth+dataset.zip.sha256"]
    assert catalog.fetch("mhealth", data, "http://nobody.is.asked") == path
    with pytest.raises(HarLsError, match="could not fetch"):
        catalog.fetch("dsads", data, address, progress=False)
    with pytest.raises(HarLsError, match="nothing to fetch"):
        catalog.fetch("synthetic", data)


def test_a_recorded_checksum_is_held_against_the_next_download(tmp_path):
    first, second = (zip_of(tmp_path / "made.zip", {"x.txt": text}).read_bytes() for text in ("1\n", "2\n"))
    served = [first, second]
    with publisher(lambda path: (200, len(served[0]), served[0])) as address:
        path = catalog.fetch("mhealth", tmp_path, address, progress=False)
        path.unlink()
        served.pop(0)
        with pytest.raises(HarLsError, match="SHA-256 is .* expected"):
            catalog.fetch("mhealth", tmp_path, address, progress=False)
        assert not path.exists()


# Published facts
# --------------------------------------------------------------------------------------------------------


def test_verify_says_what_is_missing(tmp_path):
    uci_in(tmp_path / "data")
    table, ok = catalog.verify("uci_har", root=tmp_path / "data")
    found = table.set_index("check")
    assert not ok and found.verdict["subjects"] == "missing" and found.found["windows, subject 1"] == 7 + 4
    assert found.published["windows, total"] == 10_299 and table.attrs["note"].startswith("missing subjects 4, 5")


@pytest.mark.parametrize("name", ["uci_har", "wisdm", "dsads", "motionsense", "mhealth", "usc_had"])
def test_the_archive_at_hand_is_as_published(name, monkeypatch):
    "What it holds, and how many windows that gives where a number of windows is stated."
    if catalog.find(name) is None:
        pytest.skip(f"{name} is not in HAR_LS_DATA")
    kept, read = [], catalog.read
    monkeypatch.setattr(catalog, "read", lambda *args: kept.append(read(*args)) or kept[0])
    table, ok = catalog.verify(name)
    assert ok, table[table.verdict.isin(["missing", "differs"])].to_string()
    assert (table.attrs["note"] != "") == ("known copy" in set(table.verdict))
    d = catalog.info(name)
    if name in ("uci_har", "motionsense", "usc_had"):
        assert len(window(kept[0], d.length, d.stride)) == d.windows
    if name in HOLDS:
        HOLDS[name](kept[0])


# What physics and the page of a dataset say about its real recordings. The pages show it on the archive and are tested
# on a tiny one, so that an archive is read once.


def _gravity_is_one_and_one_trial_is_doubled(recordings):
    names = list(recordings.channels)
    gravity = [names.index(f"gravity.{axis}") for axis in "xyz"]
    assert max(abs(np.linalg.norm(x[gravity], axis=0) - 1).max() for x in recordings.signals) < 1e-3
    digests = [hashlib.sha256(x).hexdigest() for x in recordings.signals]
    assert len(digests) - len(set(digests)) == recordings.faults["trials that are a copy of another"] == 1


def _files_follow_each_other(recordings):
    "A step across the border of two files is as large as one within."
    def ratio(x, piece=125):
        step = np.abs(np.diff(x[:3])).mean(0)
        border = (np.arange(len(step)) + 1) % piece == 0
        return step[border].mean() / step[~border].mean()

    whole = [x for x in recordings.signals if x.shape[1] == 60 * 125]
    turned = [x.reshape(len(x), 60, 125)[:, ::-1].reshape(len(x), -1) for x in whole]
    kept, reversed_ = (np.median([ratio(x) for x in signals]) for signals in (whole, turned))
    assert len(whole) > 100 and 0.8 < kept < 1.25 < reversed_


def _a_lift_is_no_walk(recordings):
    def swing(activity):
        k = recordings.activities.index(activity)
        mine = [x[0] for x, y in zip(recordings.signals, recordings.labels) if y[0] == k]
        return np.median(np.concatenate([x[: len(x) // 256 * 256].reshape(-1, 256) for x in mine]).std(1))

    assert swing("elevator up") < swing("walking forward") / 5
    assert sum(map(len, recordings.labels)) == 2_811_490


HOLDS = {
    "motionsense": _gravity_is_one_and_one_trial_is_doubled,
    "dsads": _files_follow_each_other,
    "usc_had": _a_lift_is_no_walk,
}


def test_pinned_files_tell_a_whole_download_from_one_that_only_counts_the_same(tmp_path, monkeypatch):
    mhealth = importlib.import_module("har_ls.data.mhealth")
    path = mhealth.tiny(tmp_path / "a.zip", subjects=(1, 2), share=0.003)
    counts = mhealth.read(path).rows
    with zipfile.ZipFile(path) as archive:
        pinned = {Path(name).name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    edition = dataset.Edition(
        (1, 2), tuple(counts.drop(columns="other").sum()), 21, tuple(counts.sum(axis=1)), other=int(counts.other.sum())
    )
    monkeypatch.setattr(mhealth, "DATASET", replace(mhealth.DATASET, published=edition, copies=(), files=pinned))
    table, ok = catalog.verify("mhealth", path=path)
    assert ok and table.set_index("check").found["files with the published SHA-256"] == 2
    other = mhealth.tiny(tmp_path / "b.zip", subjects=(1, 2), share=0.003, seed=1)  # as many rows, other numbers
    table, ok = catalog.verify("mhealth", path=other)
    found = table.set_index("check")
    assert not ok and found.verdict["rows, total"] == "as published"
    assert found.verdict["files with the published SHA-256"] == "differs"


def edition(subjects, activities, **more):
    return dataset.Edition(subjects, activities, 6, **more)


def test_known_copies_need_every_count_to_agree():
    r = synthetic.generate(2, 12)
    stated = edition((1, 2, 3), (6,) * 6, what="windows")
    copy = edition((1, 2), (4,) * 6, what="windows", note="no third person")
    table, ok, note = dataset.compare(r, stated, (copy,))
    verdict = table.set_index("check").verdict
    assert ok and "no third person" in note and set(verdict) == {"known copy", "as published"}
    assert verdict["channels"] == "as published" and verdict["subjects"] == verdict["windows, total"] == "known copy"
    other = edition((1, 2), (4, 4, 4, 4, 4, 5), what="windows", note="no third person")
    table, ok, note = dataset.compare(r, stated, (other,))
    assert not ok and "missing subjects 3" in note
    table, ok, note = dataset.compare(r, edition((1, 5), (4,) * 6, what="windows"))
    assert not ok and "unknown subjects 2" in note


@pytest.mark.parametrize("option", ["root=x", "name_or_path=x", "path=x", "data=x", "length=2.5", "gap=x"])
def test_options_that_are_no_settings_of_a_dataset_end_in_a_sentence(option, capsys):
    from har_ls.cli import main
    from har_ls.runs.spec import RunSpec

    with pytest.raises(SystemExit) as stopped:
        raise SystemExit(main(["data", "describe", "synthetic", "--set", option]))
    said = capsys.readouterr().err
    assert stopped.value.code and option.split("=")[0] in said and "Traceback" not in said
    if option == "root=x":
        with pytest.raises(HarLsError, match="root is no setting"):
            RunSpec("synthetic", "resnet1d", options={"root": "x"})


def test_the_pages_name_what_can_be_read_and_what_is_published():
    root = Path(__file__).resolve().parent.parent
    titles = {name: catalog.info(name).title for name in catalog.DATASETS if name != "synthetic"}
    guide, front = ((root / page).read_text(encoding="utf-8") for page in ("nbs/howto/1_data.md", "README.md"))
    assert all(title in guide for title in titles.values()) and "seven public datasets" in guide
    place = published_tables(root / "nbs" / "study" / "results")
    held = set(pd.read_parquet(place / "runs.parquet").dataset) if place else set()
    inside, outside = said_of_published(front)
    for name, title in titles.items():
        assert (title in inside) == (name in held) and (title in outside) == (name not in held), title


def said_of_published(text):
    "What the front page says is published, and what it says is not."
    [said] = re.findall(r"^(?:The published results hold|No results are published yet).*$", text, re.M)
    inside, _, outside = said.partition("The package reads ")
    return inside, outside


@pytest.mark.parametrize("place", [None, ".", "ledger"])
def test_the_front_page_names_what_the_tables_hold_wherever_they_lie(place, tmp_path, monkeypatch):
    root = Path(__file__).resolve().parent.parent
    cells = json.loads((root / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    [at] = [i for i, source in enumerate(code) if "published_tables(" in source]
    if place:
        folder = tmp_path / "study" / "results" / place
        folder.mkdir(parents=True)
        pd.DataFrame(dict(dataset=["mhealth", "synthetic (label_noise=0.1)"])).to_parquet(folder / "runs.parquet")
    monkeypatch.chdir(tmp_path)
    shown = []
    names = dict(Path=Path, Markdown=str, display=shown.append)
    for source in code[at - 1 : at + 1]:
        exec(source, names)
    inside, outside = said_of_published(shown[0])
    if place:
        assert inside == "The published results hold mHealth and synthetic data. " and "UCI-HAR" in outside
    else:
        assert inside == "No results are published yet. " and "UCI-HAR" in outside and "mHealth" in outside
