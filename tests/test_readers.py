"""The readers of WISDM, PAMAP2, mHealth, DSADS, MotionSense and USC-HAD: values, faults, gaps, published sizes."""

import importlib
import io
import re
import shutil
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from har_ls.core import HarLsError
from har_ls.data import catalog, dsads, mhealth, motionsense, pamap2, usc_had, wisdm

# dataset -> how a small archive is written; which of its files is spoiled, what separates its fields, its first line of
# numbers
SMALL = dict(
    wisdm=(lambda path: wisdm.tiny(path, seconds=5, faults=False), "WISDM_ar_v1.1/WISDM_ar_v1.1_raw.txt", ",", 1),
    pamap2=(
        lambda path: pamap2.tiny(path, subjects=(101, 109), share=0.003),
        "PAMAP2_Dataset/Protocol/subject101.dat",
        " ",
        1,
    ),
    mhealth=(
        lambda path: mhealth.tiny(path, subjects=(1, 2), share=0.003),
        "MHEALTHDATASET/mHealth_subject2.log",
        "\t",
        1,
    ),
    dsads=(lambda path: dsads.tiny(path, segments=2), "data/a05/p2/s02.txt", ",", 1),
    motionsense=(lambda path: motionsense.tiny(path, seconds=2), "A_DeviceMotion_data/jog_9/sub_2.csv", ",", 2),
    usc_had=(lambda path: usc_had.tiny(path, trials=1), "USC-HAD/Subject2/a5t1.mat", None, None),
)
# text in which a broken record is an error; WISDM skips and counts it
STRICT = [name for name in SMALL if name not in ("wisdm", "usc_had")]


@pytest.fixture(scope="module", params=list(SMALL))
def name(request):
    return request.param


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    "Dataset -> path of its small archive."
    folder = tmp_path_factory.mktemp("archives")
    return {name: write(folder / catalog.info(name).archive) for name, (write, *_) in SMALL.items()}


def read(name, path, **options):
    return importlib.import_module(f"har_ls.data.{name}").read(path, **options)


def files_of(path):
    "File name -> bytes of an archive; of the inner one, if there is one."
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as archive:
            return {member.name: archive.extractfile(member).read() for member in archive.getmembers()}
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    if "PAMAP2_Dataset.zip" in files:
        with zipfile.ZipFile(io.BytesIO(files["PAMAP2_Dataset.zip"])) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    return files


def archive_of(name, files, folder):
    "An archive of these files, in the publisher's layout."
    path = folder / catalog.info(name).archive
    if name == "wisdm":
        with tarfile.open(path, "w:gz") as archive:
            for member, content in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member, text in files.items():
            archive.writestr(member, text)
    if name == "pamap2":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("PAMAP2_Dataset.zip", content.getvalue())
    else:
        path.write_bytes(content.getvalue())
    return path


def spoiled(name, archives, folder, change):
    "The small archive, with the text of one of its files changed."
    files = files_of(archives[name])
    files[SMALL[name][1]] = change(files[SMALL[name][1]])
    return archive_of(name, files, folder)


def in_line(number, delimiter, change):
    "A change of the fields of one line, counted from 1."

    def apply(text):
        lines = text.decode().split("\n")
        lines[number - 1] = delimiter.join(change(lines[number - 1].split(delimiter)))
        return "\n".join(lines).encode()

    return apply


# --- what comes out


def test_shapes_and_facts(name, archives):
    recordings, dataset = read(name, archives[name]), catalog.info(name)
    assert len(recordings.activities) == dataset.activities
    assert len(recordings.channels) == len(recordings.units) == dataset.channels
    assert recordings.rate == pytest.approx(dataset.rate)
    assert all(np.isfinite(x).all() for x in recordings.signals)
    if name != "pamap2":  # there, gaps cost samples
        assert recordings.counts().drop(columns="other", errors="ignore").sum(axis=1).gt(0).all()


def test_folder_and_archive_give_the_same(name, archives, tmp_path):
    for member, content in files_of(archives[name]).items():
        (tmp_path / member).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / member).write_bytes(content)
    from_folder, from_archive = read(name, tmp_path), read(name, archives[name])
    assert from_folder.subject.tolist() == from_archive.subject.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(from_folder.signals, from_archive.signals, strict=True))


def test_windows_line_ends_change_nothing(name, archives, tmp_path):
    if name == "usc_had":
        pytest.skip("not a text")
    crlf = read(name, spoiled(name, archives, tmp_path, lambda text: text.replace(b"\n", b"\r\n")))
    plain = read(name, archives[name])
    assert crlf.faults == plain.faults
    assert all(np.array_equal(a, b) for a, b in zip(crlf.signals, plain.signals, strict=True))


def test_values_against_numpy(archives):
    "The numbers of one file, parsed by NumPy, in every strict format."
    text = files_of(archives["dsads"])
    both = np.vstack([np.loadtxt(io.BytesIO(text[f"data/a05/p2/s{s:02}.txt"]), delimiter=",") for s in (1, 2)]).T
    got = dsads.read(archives["dsads"])
    index = [i for i in range(len(got.signals)) if got.subject[i] == 2 and got.labels[i][0] == 4]
    np.testing.assert_allclose(got.signals[index[0]], both, rtol=1e-6)

    table = np.loadtxt(
        io.BytesIO(files_of(archives["motionsense"])[SMALL["motionsense"][1]]), delimiter=",", skiprows=1
    ).T
    got = motionsense.read(archives["motionsense"])
    same = [x for x, s in zip(got.signals, got.subject) if s == 2 and np.allclose(x[0, 0], table[1, 0])]
    np.testing.assert_allclose(same[0], table[1:], rtol=1e-6)
    assert all(got.labels[i][0] == got.activities.index("jogging") for i, x in enumerate(got.signals) if x is same[0])

    table = np.loadtxt(io.BytesIO(files_of(archives["mhealth"])[SMALL["mhealth"][1]])).T
    got = mhealth.read(archives["mhealth"], ecg=True)
    x = np.concatenate([x for x, s in zip(got.signals, got.subject) if s == 2], 1)
    y = np.concatenate([y for y, s in zip(got.labels, got.subject) if s == 2])
    keep = table[23] > 0
    order = [*range(3), *range(5, 23), 3, 4]
    np.testing.assert_allclose(x, table[order][:, keep], rtol=1e-6)
    np.testing.assert_array_equal(y, table[23][keep] - 1)


# --- faults that every reader meets


def test_truncated_archive(name, archives, tmp_path):
    path = tmp_path / archives[name].name
    content = archives[name].read_bytes()
    for share in (0.0, 0.3, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(HarLsError, match=re.escape(path.name)):
            read(name, path)


def test_member_that_climbs_out(name, archives, tmp_path):
    path = archive_of(name, files_of(archives[name]) | {"../../.bashrc": b"alias ls=rm"}, tmp_path)
    with pytest.raises(HarLsError, match="points outside"):
        read(name, path)
    assert not list(tmp_path.parent.parent.glob(".bashrc"))


def test_missing_subject_is_counted(name, archives, tmp_path):
    files = files_of(archives[name])
    person = dict(
        wisdm="", pamap2="subject109", mhealth="subject2", dsads="/p2/", motionsense="sub_2.csv", usc_had="Subject2/"
    )[name]
    if name == "wisdm":
        files = {
            n: b"\n".join(line for line in text.split(b"\n") if not line.startswith(b"2,")) for n, text in files.items()
        }
    else:
        files = {n: text for n, text in files.items() if person not in n}
    whole, part = read(name, archives[name]), read(name, archive_of(name, files, tmp_path))
    key = next(
        key for key in whole.faults if key.endswith("missing") and key.split()[0] in ("people", "subjects", "users")
    )
    assert part.faults[key] == whole.faults[key] + 1
    assert len(set(part.subject)) == len(set(whole.subject)) - 1


def test_empty_file(name, archives, tmp_path):
    path = spoiled(name, archives, tmp_path, lambda text: b"")
    with pytest.raises(HarLsError, match=re.escape(SMALL[name][1])):
        read(name, path)


def test_archive_of_something_else(name, tmp_path):
    path = archive_of(name, {"readme.txt": b"nothing"}, tmp_path)
    with pytest.raises(HarLsError, match="complete published archive"):
        read(name, path)


@pytest.mark.parametrize("strict", STRICT)
def test_wrong_number_of_columns(strict, archives, tmp_path):
    _, member, delimiter, first = SMALL[strict]
    path = spoiled(strict, archives, tmp_path, in_line(first + 2, delimiter, lambda fields: fields[:-1]))
    with pytest.raises(HarLsError, match=rf"{re.escape(member)}, line {first + 2}: expected \d+ fields"):
        read(strict, path)


@pytest.mark.parametrize("strict", STRICT)
def test_field_that_is_not_a_number(strict, archives, tmp_path):
    _, member, delimiter, first = SMALL[strict]
    path = spoiled(
        strict, archives, tmp_path, in_line(first + 7, delimiter, lambda fields: [*fields[:6], "1.2.3", *fields[7:]])
    )
    with pytest.raises(
        HarLsError, match=rf"{re.escape(member)}, line {first + 7}, field 7: expected a number, found '1.2.3'"
    ):
        read(strict, path)


@pytest.mark.parametrize("strict", ["mhealth", "motionsense"])
def test_nan_is_refused_where_the_publisher_has_none(strict, archives, tmp_path):
    _, member, delimiter, first = SMALL[strict]
    path = spoiled(
        strict, archives, tmp_path, in_line(first + 1, delimiter, lambda fields: [*fields[:6], "nan", *fields[7:]])
    )
    with pytest.raises(HarLsError, match=rf"{re.escape(member)}, line {first + 1}, field 7"):
        read(strict, path)


@pytest.mark.parametrize("code", ["13", "-1", "2.5"])
def test_unknown_activity_of_mhealth(code, archives, tmp_path):
    path = spoiled("mhealth", archives, tmp_path, in_line(4, "\t", lambda fields: [*fields[:23], code]))
    with pytest.raises(HarLsError, match=rf"mHealth_subject2.log, line 4: unknown activity {code}"):
        mhealth.read(path)


@pytest.mark.parametrize("code", ["8", "25", "2.5", "NaN"])
def test_unknown_activity_of_pamap2(code, archives, tmp_path):
    path = spoiled("pamap2", archives, tmp_path, in_line(4, " ", lambda fields: [fields[0], code, *fields[2:]]))
    with pytest.raises(HarLsError, match="subject101.dat, line 4: unknown activity"):
        pamap2.read(path)


@pytest.mark.parametrize(
    "strict, member",
    [
        ("dsads", "data/a20/p1/s01.txt"),
        ("dsads", "data/a00/p1/s01.txt"),
        ("dsads", "data/aXX/p1/s01.txt"),
        ("motionsense", "A_DeviceMotion_data/run_9/sub_1.csv"),
        ("pamap2", "PAMAP2_Dataset/Protocol/subject110.dat"),
        ("mhealth", "MHEALTHDATASET/mHealth_subject11.log"),
        ("usc_had", "USC-HAD/Subject15/a1t1.mat"),
        ("usc_had", "USC-HAD/Subject1/a13t1.mat"),
    ],
)
def test_unknown_name_in_an_archive(strict, member, archives, tmp_path):
    files = files_of(archives[strict])
    path = archive_of(strict, files | {member: files[SMALL[strict][1]]}, tmp_path)
    with pytest.raises(HarLsError, match=re.escape(member)):
        read(strict, path)


# --- WISDM


def plain_wisdm(text):
    "The rules of the page, one piece at a time."
    number, kept = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", []
    for piece in re.split("[;\r\n]", text):
        fields = [field.strip() for field in piece.strip(", \t").split(",")]
        for i in range(0, len(fields) if len(fields) % 6 == 0 else 0, 6):
            user, activity, time, *values = fields[i : i + 6]
            if re.fullmatch(r"\d{1,18}", user) and activity in wisdm.ACTIVITIES and re.fullmatch(r"\d{1,18}", time):
                if all(re.fullmatch(number, v) and abs(float(v)) < 1e20 for v in values):
                    kept.append((int(user), activity, int(time), *map(float, values)))
    return kept


RECORD = st.tuples(
    st.integers(1, 36), st.sampled_from(wisdm.ACTIVITIES), st.integers(0, 10**14),
    *[st.floats(-20, 20).map(lambda v: f"{v:.6g}")] * 3,
).map(lambda r: ",".join(map(str, r)))  # fmt: skip
BROKEN = st.one_of(
    RECORD, RECORD, RECORD, RECORD.map(lambda r: r + ","), RECORD.map(lambda r: r.rsplit(",", 1)[0]),
    RECORD.map(lambda r: r[:-1] + "x"), RECORD.map(lambda r: r.replace("ing", "ong")),
    RECORD.map(lambda r: r + "," + r), RECORD.map(lambda r: r.replace(",", ", ")),
    st.sampled_from(["", " ", ",", "1", ",,,,,", "nan,nan"]),
    st.sampled_from(["33,Jogging,1,nan,1,1", "33,Jogging,1,inf,1,1", "33,Jogging,1,1,1,1e99", "é,Walking,1,2,3,4"]),
)  # fmt: skip


@given(st.lists(st.tuples(BROKEN, st.sampled_from([";\n", ";", "\n", ";\r\n", "\n\n", " ;\n"])), max_size=12))
@settings(max_examples=200, deadline=None)
def test_every_recoverable_record_of_wisdm(parts):
    text = "".join(piece + end for piece, end in parts)
    records, faults = wisdm.parse_records(text.encode())
    expected = plain_wisdm(text)
    assert list(zip(records.user, records.activity, records.time)) == [r[:3] for r in expected]
    got = records[["x", "y", "z"]].to_numpy(float).reshape(-1, 3)
    np.testing.assert_allclose(got, np.reshape([r[3:] for r in expected], (-1, 3)), 1e-6, 1e-30)
    assert min(faults.values()) >= 0


def wisdm_of(lines, tmp_path, **options):
    path = archive_of("wisdm", {"WISDM_ar_v1.1/WISDM_ar_v1.1_raw.txt": "\n".join(lines).encode()}, tmp_path)
    return wisdm.read(path, **options)


def test_faults_of_wisdm_are_counted_one_by_one(tmp_path):
    record = "33,Jogging,{},1.0,2.0,3.0".format
    lines = [
        record(100) + ";", record(50000100) + ";" + record(100000100) + ";" + record(150000100) + ";", "", "  ",
        record(200000100) + ",;", "33,Jogging,250000100,1.0;", "33,Jogging,250000100,1.0,2.0,abc;",
        "33,Swimming,250000100,1,2,3;",
        record(0) + ";", record(300000100), record(100) + ";",
    ]  # fmt: skip
    recordings = wisdm_of(lines, tmp_path)
    assert recordings.faults == {
        "blank lines": 2, "records that share a line": 2, "stray commas": 1, "records cut short": 1,
        "fields that are not numbers": 1, "unknown activities": 1, "times of 0": 1, "repeated records": 1,
        "gaps in time": 0, "users missing": 35,
    }  # fmt: skip
    assert [len(y) for y in recordings.labels] == [7]


STEP = st.sampled_from([0.05, 0.05, 0.05, 0.11, 0.5, 0.51, 3.0, -1.0, 0.0])


@given(st.lists(st.tuples(STEP, st.booleans()), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_wisdm_recordings_end_at_gaps_and_steps_back(tmp_path_factory, steps):
    "A loop over the records as oracle; `True` blanks out a time."
    time, lines, previous, skipped, sizes = 10.0, [], None, 0, []
    for i, (step, timeless) in enumerate(steps):
        time = round(time + step, 6)
        lines.append(f"5,Walking,{0 if timeless else round(time * 1e9)},{i},0,0;")  # the value keeps records apart
        new = (
            previous is None
            if timeless
            else (not sizes or (previous is not None and not -1e-9 <= time - previous <= 0.5 + skipped * 0.05 + 1e-9))
        )
        if new and not sizes or new and not timeless:
            sizes.append(1)
        elif sizes:
            sizes[-1] += 1
        else:
            sizes.append(1)
        previous, skipped = (previous, skipped + 1) if timeless else (time, 0)
    recordings = wisdm_of(lines, tmp_path_factory.mktemp("gaps"))
    assert [len(y) for y in recordings.labels] == sizes


def test_wisdm_without_a_record(tmp_path):
    with pytest.raises(HarLsError, match="no record like"):
        wisdm_of(["33;Jogging", "hello"], tmp_path)


# --- mHealth


def test_mhealth_leaves_out_what_nobody_has(tmp_path):
    missing = (3, *range(5, 17), 20, 22)  # a lead, the ankle, the arm's accelerometer, two axes of its magnetometer
    recordings = mhealth.read(mhealth.tiny(tmp_path / "a.zip", subjects=(1, 2), share=0.003, missing=missing), ecg=True)
    assert recordings.channels == (
        *(f"chest_acc_{axis}" for axis in "xyz"), *(f"arm_gyro_{axis}" for axis in "xyz"), "arm_mag_y", "ecg_2"
    )  # fmt: skip
    assert recordings.units == ("m/s^2",) * 3 + ("deg/s",) * 3 + ("local", "mV")
    named = "ankle_acc, ankle_gyro, ankle_mag, arm_acc, arm_mag_x, arm_mag_z, ecg_1"
    assert recordings.faults[f"channels left out, nan throughout ({named})"] == 15
    whole = mhealth.read(mhealth.tiny(tmp_path / "b.zip", subjects=(1, 2), share=0.003), ecg=True)
    for x, y in zip(recordings.signals, whole.signals, strict=True):
        np.testing.assert_array_equal(x, y[[whole.channels.index(c) for c in recordings.channels]])
    assert whole.faults["channels left out"] == 0


def test_mhealth_column_that_one_person_lacks(tmp_path):
    "A column is left out if nobody has it; if one person has it, its first nan is named."
    files = files_of(mhealth.tiny(tmp_path / "a.zip", subjects=(1, 2), share=0.003))
    lacking = files_of(mhealth.tiny(tmp_path / "b.zip", subjects=(2,), share=0.003, missing=(7,)))
    path = archive_of("mhealth", files | lacking, tmp_path)
    with pytest.raises(HarLsError, match="mHealth_subject2.log, line 1, field 8: expected a number, found 'NaN'"):
        mhealth.read(path)
    with pytest.raises(HarLsError, match="every sensor column is nan"):
        mhealth.read(mhealth.tiny(tmp_path / "c.zip", subjects=(1,), share=0.003, missing=range(23)))


def test_mhealth_rows_of_zeros_between_stretches_hide_no_missing_column(tmp_path):
    "The copy in use has such a row, with zeros in the columns that are nan elsewhere."
    row = ["1"] * 3 + ["nan"] * 20
    lines = [row + ["1"]] * 4 + [["0"] * 24] + [row + ["2"]] * 3
    text = "\n".join("\t".join(line) for line in lines).encode()
    recordings = mhealth.read(archive_of("mhealth", {"MHEALTHDATASET/mHealth_subject3.log": text}, tmp_path))
    assert recordings.channels == ("chest_acc_x", "chest_acc_y", "chest_acc_z")
    assert [len(y) for y in recordings.labels] == [4, 3] and recordings.rows.loc[3, "other"] == 1


# --- USC-HAD


def mat(**fields):
    content = io.BytesIO()
    savemat(content, fields)
    return content.getvalue()


def test_usc_had_values_and_labels(archives):
    member = SMALL["usc_had"][1]  # person 2, activity 5
    stored = loadmat(io.BytesIO(files_of(archives["usc_had"])[member]))["sensor_readings"]
    recordings = usc_had.read(archives["usc_had"])
    here = [i for i in range(24) if recordings.subject[i] == 2 and recordings.labels[i][0] == 4]
    assert len(here) == 1 and recordings.activities[4] == "walking downstairs"
    np.testing.assert_array_equal(recordings.signals[here[0]], np.float32(stored.T))


SIX = np.ones((300, 6))
HOLED = np.where(np.arange(300)[:, None] == 7, np.nan, SIX)


@pytest.mark.parametrize(
    "content, message",
    [
        (mat(sensor_readings=SIX)[:5000], "truncated, damaged or not MATLAB's format"),
        (mat(sensor_readings=SIX)[:100], "truncated, damaged or not MATLAB's format"),
        (b"not a MATLAB file at all" * 20, "truncated, damaged or not MATLAB's format"),
        (mat(sensor_readings=SIX[:, :5]), r"found \(300, 5\)"),
        (mat(sensor_readings=SIX.T), r"found \(6, 300\)"),
        (mat(sensor_readings=SIX[:0]), r"found \(0, "),
        (mat(sensor_readings=np.array(["a"] * 6)), "expected sensor_readings as numbers"),
        (mat(readings=SIX), "found None"),
        (mat(sensor_readings=HOLED), "row 8: a value is not finite"),
        (mat(sensor_readings=HOLED * np.inf), "row 1: a value is not finite"),
    ],
    ids=[
        "cut",
        "cut short",
        "no MATLAB",
        "five channels",
        "turned",
        "no rows",
        "text",
        "another name",
        "nan",
        "infinite",
    ],
)
def test_usc_had_faults_are_named(content, message, archives, tmp_path):
    path = spoiled("usc_had", archives, tmp_path, lambda text: content)
    with pytest.raises(HarLsError, match=f"USC-HAD/Subject2/a5t1.mat.*{message}"):
        usc_had.read(path)


def test_usc_had_every_truncation_is_refused(archives, tmp_path):
    "Cut anywhere, a file never gives fewer rows in silence."
    whole = files_of(archives["usc_had"])[SMALL["usc_had"][1]]
    for size in range(0, len(whole), 137):
        try:
            signal, _ = usc_had._trial(whole[:size], "a5t1.mat")
        except HarLsError as error:
            assert "a5t1.mat" in str(error)
        else:
            np.testing.assert_array_equal(signal, usc_had._trial(whole, "a5t1.mat")[0])


@pytest.mark.parametrize(
    "fields, count",
    [
        (dict(subject="2", activity_number="5", trial="1"), 0),
        (dict(subject="2", activity_numbr="4", trial="1"), 1),
        (dict(subject="2", activity_number="5", trial="3"), 1),
        (dict(subject="13"), 1),
        (dict(activity="running"), 0),
        (dict(trial=np.zeros((0, 1))), 0),
        (dict(trial="one"), 1),
        (dict(sensor_location="hip", title="USC"), 0),
    ],
)
def test_usc_had_believes_the_name_and_counts(fields, count, archives, tmp_path):
    recordings = usc_had.read(spoiled("usc_had", archives, tmp_path, lambda text: mat(senor_readings=SIX, **fields)))
    assert recordings.faults["files whose fields disagree with their name"] == count
    index = [i for i, x in enumerate(recordings.signals) if (x == 1).all()]
    assert recordings.subject[index] == [2] and recordings.labels[index[0]][0] == 4


def test_usc_had_counts_what_is_missing(archives, tmp_path):
    files = files_of(archives["usc_had"])
    del files[SMALL["usc_had"][1]]
    assert usc_had.read(archive_of("usc_had", files, tmp_path)).faults["trials missing"] == 840 - 23


# --- DSADS


def test_dsads_breaks_zeros_and_units(tmp_path):
    files = files_of(dsads.tiny(tmp_path / "whole.zip", segments=4, missing_units=(2, 4)))
    del files["data/a03/p1/s02.txt"]
    rows = files["data/a07/p2/s03.txt"].decode().split("\n")
    zeros = ",".join("nan" if field == "nan" else "0" for field in rows[0].split(","))
    files["data/a07/p2/s03.txt"] = "\n".join(rows[:100] + [zeros] * 25).encode()
    recordings = dsads.read(archive_of("dsads", files, tmp_path))
    assert recordings.faults["breaks within a recording"] == 1 and recordings.faults["rows of zeros"] == 25
    assert recordings.faults["units left out (left_arm, left_leg)"] == 2 and len(recordings.channels) == 27
    lengths = {(int(s), int(y[0])): [] for s, y in zip(recordings.subject, recordings.labels)}
    for s, y in zip(recordings.subject, recordings.labels):
        lengths[int(s), int(y[0])].append(len(y))
    assert lengths[1, 2] == [125, 250] and lengths[2, 6] == [475] and lengths[2, 2] == [500]
    assert recordings.rows.loc[2, "standing in elevator"] == 500


def test_dsads_refuses_a_short_segment_and_a_hole(archives, tmp_path):
    short = spoiled("dsads", archives, tmp_path, lambda text: b"\n".join(text.split(b"\n")[:100]))
    with pytest.raises(HarLsError, match="s02.txt: 100 rows, expected 125"):
        dsads.read(short)
    hole = spoiled("dsads", archives, tmp_path, in_line(9, ",", lambda fields: ["nan", *fields[1:]]))
    with pytest.raises(HarLsError, match="activity a05, person p2: nan in a column that has numbers elsewhere"):
        dsads.read(hole)


# --- MotionSense


def test_motionsense_trials_that_say_the_same_are_counted(archives, tmp_path):
    files = files_of(archives["motionsense"])
    first, again = "A_DeviceMotion_data/sit_5/sub_1.csv", "A_DeviceMotion_data/sit_13/sub_1.csv"
    copied = motionsense.read(archive_of("motionsense", files | {again: files[first]}, tmp_path))
    assert motionsense.read(archives["motionsense"]).faults["trials that are a copy of another"] == 0
    assert copied.faults["trials that are a copy of another"] == 1 and len(copied.signals) == 30


def test_motionsense_header_is_checked(archives, tmp_path):
    path = spoiled("motionsense", archives, tmp_path, lambda text: text.replace(b"gravity.x", b"gravity.q", 1))
    with pytest.raises(HarLsError, match="line 1: expected the header"):
        motionsense.read(path)


# --- PAMAP2


@given(st.integers(1, 4), st.integers(1, 120), st.integers(0, 25), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_gaps_against_pandas(channels, length, longest, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(channels, length)).astype(np.float32)
    for channel in x:
        for start in rng.integers(0, length, rng.integers(0, 6)):
            channel[start : start + rng.integers(1, 30)] = np.nan
    frame = pd.DataFrame(x.T.astype(float))
    inside = frame.interpolate(limit_area="inside")
    size = frame.isna().apply(lambda c: c.groupby((c != c.shift()).cumsum()).transform("size"))
    expected = frame.where(frame.notna() | (size > longest), inside)
    got = x.copy()
    lost, filled = pamap2.fill_gaps(got, longest)
    np.testing.assert_allclose(got, expected.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(lost, expected.isna().any(axis=1))
    assert filled == int(frame.isna().sum().sum() - expected.isna().sum().sum())


def pamap2_text(codes, missing=(), heart=None, seconds=None):
    """Text of one subject's file whose channel c at row t is c + t / 1000, with nan at the (row, column) pairs
    `missing`."""
    t = np.arange(len(codes))
    table = np.arange(54)[None] + t[:, None] / 1000
    table[:, 0] = t / 100 if seconds is None else seconds
    table[:, 1] = codes
    table[:, 2] = np.nan if heart is None else heart
    for row, column in missing:
        table[row, column] = np.nan
    text = io.StringIO()
    np.savetxt(text, table, fmt="%.6g", delimiter=" ")
    return text.getvalue().replace("nan", "NaN").encode()


def pamap2_of(text, tmp_path, **options):
    path = archive_of("pamap2", {"PAMAP2_Dataset/Protocol/subject103.dat": text}, tmp_path)
    return pamap2.read(path, **{"rate": 100, **options})


def test_pamap2_channels_are_the_right_columns(tmp_path):
    recordings = pamap2_of(pamap2_text([4] * 30), tmp_path)
    assert len(recordings.signals) == 1 and recordings.signals[0].shape == (36, 30)
    first = dict(zip(recordings.channels, recordings.signals[0][:, 0]))
    assert [first[c] for c in ("hand_acc16_x", "hand_acc6_x", "hand_gyro_x", "hand_mag_z")] == [4, 7, 10, 15]
    assert [first[c] for c in ("chest_acc16_x", "chest_mag_z", "ankle_acc16_x", "ankle_mag_z")] == [21, 32, 38, 49]
    np.testing.assert_allclose(recordings.signals[0][0], 4 + np.arange(30) / 1000, rtol=1e-5)


def test_pamap2_cuts_where_it_should(tmp_path):
    codes = np.repeat([0, 1, 2, 0, 9, 24], [20, 100, 100, 10, 10, 100])
    missing = [(t, 5) for t in range(60, 80)] + [(t, 23) for t in range(150, 171)]  # 20 rows: closed; 21 rows: cut
    missing += [(t, 16) for t in range(300, 310)]  # an orientation, which is not read
    recordings = pamap2_of(pamap2_text(codes, missing), tmp_path)
    assert [x.shape[1] for x in recordings.signals] == [130, 49, 100]
    assert recordings.labels[0].tolist() == [0] * 100 + [1] * 30
    np.testing.assert_allclose(recordings.signals[0][2], 6 + np.arange(20, 150) / 1000, atol=2e-3)
    assert recordings.faults["values filled in"] == 20 and recordings.faults["rows lost in long gaps"] == 21
    assert recordings.faults["rows without an activity"] == 40 and recordings.rows.loc[103, "other"] == 40
    assert recordings.rows.loc[103, "rope jumping"] == 100
    cut = pamap2_of(pamap2_text(codes, missing), tmp_path, longest_gap=0)
    assert [x.shape[1] for x in cut.signals] == [40, 70, 49, 100]


def test_pamap2_jumps_of_the_clock(tmp_path):
    seconds = np.arange(100) / 100 + np.repeat([0, 5], 50)
    missing = [(t, 5) for t in range(45, 50)]  # touches the jump: nothing to interpolate to
    recordings = pamap2_of(pamap2_text([3] * 100, missing, seconds=seconds), tmp_path)
    assert [x.shape[1] for x in recordings.signals] == [45, 50] and recordings.faults["jumps in time"] == 1


def test_pamap2_heart_rate(tmp_path):
    heart = np.full(100, np.nan)
    heart[10::40] = [80, 100, 90]
    recordings = pamap2_of(pamap2_text([3] * 100, heart=heart), tmp_path, heart_rate=True)
    assert recordings.channels[-1] == "heart_rate" and recordings.units[-1] == "bpm"
    beat = recordings.signals[0][-1]
    assert beat[30] == pytest.approx(90) and beat[0] == pytest.approx(80) and beat[99] == pytest.approx(90)
    with pytest.raises(HarLsError, match="no recording"):
        pamap2_of(pamap2_text([3] * 100), tmp_path, heart_rate=True)


@pytest.mark.parametrize("rate", [20, 25, 100 / 3, 50, 100])
def test_pamap2_rate(rate, tmp_path):
    codes = np.repeat([4, 5], 300)
    recordings = pamap2_of(pamap2_text(codes), tmp_path, rate=rate)
    x, y = recordings.signals[0], recordings.labels[0]
    assert recordings.rate == rate and x.shape == (36, np.ceil(6 * rate)) and len(y) == x.shape[1]
    times = np.arange(len(y)) / rate
    np.testing.assert_array_equal(y, np.where(times < 3 - 1e-9, 3, 4))
    inner = (times > 0.6) & (times < 5.4)
    np.testing.assert_allclose(x[0][inner], 4 + times[inner] / 10, atol=1e-3)


@pytest.mark.parametrize("frequency", [1.0, 5.0, 10.0, 30.0, 45.0])
def test_resampling_keeps_movement_and_drops_what_would_fold(frequency):
    t = np.arange(2000) / 100
    got = pamap2.resample(np.sin(2 * np.pi * frequency * t, dtype=np.float32)[None], 100 / 3)[0]
    times = np.arange(len(got)) * 0.03
    expected = np.sin(2 * np.pi * frequency * times) if frequency < 50 / 3 else 0 * times
    assert np.abs(got - expected)[30:-30].max() < 0.02


# --- the published sizes


@pytest.mark.parametrize("subject", range(101, 110))
def test_generated_pamap2_has_the_published_number_of_rows(subject):
    bouts = pamap2.bouts_of(subject)
    assert sum(rows for _, rows in bouts) < pamap2.PUBLISHED.per_subject[subject - 101]
    did = {code for code, seconds in pamap2.SECONDS.items() if seconds[subject - 101]}
    assert {code for code, _ in bouts} == did and (subject != 109 or did == {24})


def test_generated_archives_have_the_published_format(archives):
    "Read back by NumPy alone: rows, columns, codes, and the kinds of gaps."
    table = np.genfromtxt(
        io.BytesIO(files_of(archives["pamap2"])["PAMAP2_Dataset/Protocol/subject101.dat"]), delimiter=" "
    )
    assert table.shape == (round(376_417 * 0.003), 54)
    assert set(np.unique(table[:, 1])) == {0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 16, 17, 24}
    assert np.allclose(np.diff(table[:, 0]), 0.01)
    assert 0.88 < np.isnan(table[:, 2]).mean() < 0.93
    unit = np.isnan(table[:, 3:20])
    assert (unit.all(1) == unit.any(1)).all() and 0 < unit.mean() < 0.2
    table = np.loadtxt(io.BytesIO(files_of(archives["mhealth"])["MHEALTHDATASET/mHealth_subject1.log"]))
    assert table.shape[1] == 24 and set(np.unique(table[:, 23])) == set(range(13))


@pytest.mark.skipif("not config.getoption('--full-size')", reason="writes and reads 1.5 GB; run with --full-size")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["pamap2", "mhealth"])
def test_full_size(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HAR_LS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / catalog.info(name).archive
    importlib.import_module(f"har_ls.data.{name}").tiny(path, share=1.0)
    table, ok = catalog.verify(name, root=tmp_path)
    other = table[~table.verdict.isin(["as published", "counted"])]
    # the counts, not the content
    assert not ok and other.check.tolist() == ["files with the published SHA-256"], other.to_string()
    found = table.set_index("check").found
    assert found["rows, total"] == dict(pamap2=2_872_533, mhealth=1_215_745)[name]
    windows = catalog.load(name, root=tmp_path)
    assert len(set(windows.subject.tolist())) == catalog.info(name).subjects
    shutil.rmtree(tmp_path, ignore_errors=True)
