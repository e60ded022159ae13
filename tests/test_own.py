"""Own recordings: every format alike, every setting checked, and no table read wrongly without a word."""

import gzip
import os
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from har_ls import cli
from har_ls.core import HarLsError
from har_ls.data import catalog, own


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HAR_LS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def walk(person, seconds=8, rate=25.0, seed=0):
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng([seed, *str(person).encode()]).normal(size=(2, len(t))).round(4)
    doing = np.where(t < seconds / 2, "walk", "sit")
    return pd.DataFrame(
        dict(time=t, subject=person, activity=doing, session=(t >= seconds / 4).astype(int), ax=noise[0], ay=noise[1])
    )


def plain(person, **more):
    return walk(person, **more).drop(columns="session")


def saved(folder, *tables, name="{}.csv"):
    folder.mkdir(exist_ok=True)
    for letter, table in zip("abcdef", tables):
        table.to_csv(folder / name.format(letter), index=False)
    return folder


def kept(recordings):
    "What was counted."
    return {what: count for what, count in recordings.faults.items() if count}


def refused(path, message, /, **options):
    with pytest.raises(HarLsError, match=message):
        own.read(path, **options)


# Formats and settings -----------------------------------------------------------------------------------------------


def test_formats_agree(tmp_path):
    both = pd.concat([walk(3), walk(11)])
    saved(tmp_path / "folder", walk(3), walk(11))
    both.to_parquet(tmp_path / "one.parquet")
    both.to_csv(tmp_path / "one.csv.gz", index=False)
    both.to_csv(tmp_path / "one.TSV", index=False, sep="\t")
    both.to_csv(tmp_path / "two.tsv.gz", index=False, sep="\t")
    dates = pd.Timestamp("2024-05-01") + pd.to_timedelta(both.time, unit="s")
    both.assign(time=dates).to_csv(tmp_path / "dates.csv", index=False)
    both.assign(time=dates).to_parquet(tmp_path / "dates.parquet")
    names = ("folder", "one.parquet", "one.csv.gz", "one.TSV", "two.tsv.gz", "dates.csv", "dates.parquet")
    results = [own.read(tmp_path / name) for name in names]
    for r in results:
        assert (
            r.subject.tolist() == [3, 3, 11, 11] and r.activities == ("sit", "walk") and r.rate == 25 and not r.people
        )
        assert r.channels == ("ax", "ay") and [len(label) for label in r.labels] == [50, 150, 50, 150]
        for a, b in zip(r.signals, results[0].signals):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_table_of_the_how_to_is_read_as_it_stands(tmp_path):
    rows = [
        ["anna", "walking", i / 50, *v] for i, v in enumerate(np.random.default_rng(0).normal(size=(300, 3)).round(2))
    ]
    columns = ["subject", "activity", "time", "acc_x", "acc_y", "acc_z"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "my_recordings.csv", index=False)
    r = own.read(tmp_path / "my_recordings.csv")
    assert (
        r.rate == 50
        and r.channels == ("acc_x", "acc_y", "acc_z")
        and r.people == {"1": "anna"}
        and len(r.labels[0]) == 300
    )


def test_settings_file_and_call(tmp_path):
    saved(tmp_path, plain(1).rename(columns=dict(subject="who", activity="what")).drop(columns="time"))
    lines = ['subject = "who"', 'activity = "nothing"', "rate = 10", 'channels = ["ax"]', "[units]", 'ax = "g"']
    (tmp_path / "har_ls.toml").write_text("\n".join(lines))
    r = own.read(tmp_path, activity="what")
    assert (r.channels, r.units, r.rate, r.activities) == (("ax",), ("g",), 10.0, ("sit", "walk"))
    w = catalog.load(tmp_path, activity="what")
    assert w.x.shape == (6 * 2, 1, 26) and w.name == tmp_path.name  # 2.56 s at 10 Hz
    (tmp_path / "har_ls.toml").write_text('subject = "who"\nactivity = "what"\nrate = 20\nlength = 40')
    assert catalog.load(tmp_path).x.shape == (8, 2, 40) and catalog.load(tmp_path, length=50, stride=50).x.shape == (
        4,
        2,
        50,
    )
    assert catalog.load(tmp_path, stride=10).x.shape == (14, 2, 40)
    (tmp_path / "har_ls.toml").write_text("subject = \n")
    refused(tmp_path, "har_ls.toml: not a TOML file")
    (tmp_path / "har_ls.toml").write_bytes('# one\nsubject = "Prüfling"'.encode("latin-1"))
    refused(tmp_path, "har_ls.toml, line 2: not UTF-8")


WRONG = [
    ("length", 0),
    ("length", 2.5),
    ("length", "64"),
    ("stride", 0),
    ("stride", -1),
    ("gap", 0),
    ("gap", "1"),
    ("gap", float("nan")),
    ("channels", []),
    ("channels", "ax"),
    ("channels", ["ax", "ax"]),
    ("channels", [1]),
    ("rate", True),
    ("rate", 0),
    ("rate", 2000),
    ("rate", "50"),
    ("rate", float("inf")),
    ("subject", ""),
    ("subject", 3),
    ("time", False),
    ("session", []),
    ("units", "g"),
    ("units", {"ax": 1}),
    ("name", 0),
    ("ignore", "ay"),
]


@pytest.mark.parametrize("name, value", WRONG)
def test_a_wrong_setting_is_refused_by_name(tmp_path, name, value):
    path = saved(tmp_path / "own", plain(1)) / "a.csv"
    for work in (own.settings, own.read, catalog.load):
        with pytest.raises(HarLsError, match=rf"options: {name} = .*expected"):
            work(path, **{name: value})
    toml = (
        {True: "true", False: "false"}.get(value)
        if isinstance(value, bool)
        else re.sub(r"^\{'(\w+)': (.*)\}$", r"{\1 = \2}", repr(value))
    )
    (tmp_path / "own" / "har_ls.toml").write_text(f"{name} = {toml}")
    with pytest.raises(HarLsError, match=rf"har_ls.toml: {name} = .*expected"):
        catalog.load(path)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(chanels=["ax"]), "unknown setting 'chanels' .did you mean 'channels'"),
        (dict(path="a"), "unknown setting 'path'"),
        (dict(time="time", session="time"), "'time' is named twice, as time and as session"),
        (dict(ignore=["axe"]), "no such column .did you mean 'ax'"),
        (dict(units=dict(az="g")), "a unit is given for 'az'.*channels are ax, ay"),
        (dict(channels=["ax", "az"]), "no column 'az'"),
        (dict(subject="Subject"), "no column 'Subject' .did you mean 'subject'"),
    ],
)
def test_settings_that_do_not_fit_the_table(tmp_path, options, message):
    refused(saved(tmp_path, plain(1)), message, **options)


# Channels -----------------------------------------------------------------------------------------------------------


def column(t, kind):
    rows = np.arange(len(t))
    code = (t.activity == "walk").to_numpy()
    return {
        "activity": 3 + 2 * code,
        "one hot": code * 1.0,
        "age": t.subject.map({1: 33.5, 2: 41.0}),
        "trial": t.subject * 10 + code,
        "rows": rows,
        "id": 7000 - rows,
        "clock": rows * 0.04 + 1e9,
        "jittered clock": rows + np.random.default_rng(0).uniform(0, 0.9, len(t)),
        "packet": rows % 128,
        "modulo": rows % 10,
        "dead": 0.0,
        "late code": np.roll(3 + 2 * code, 3),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "activity",
        "one hot",
        "age",
        "trial",
        "rows",
        "id",
        "clock",
        "jittered clock",
        "packet",
        "modulo",
        "dead",
        "late code",
    ],
)
def test_a_number_that_is_no_signal_is_refused_with_the_ways_out(tmp_path, kind):
    table = pd.concat([plain(1), plain(2)])
    saved(tmp_path, table.assign(extra=column(table, kind)))
    refused(tmp_path, "column 'extra' .*channels, or put 'extra' into ignore")
    assert (
        own.read(tmp_path, ignore=["extra"]).channels
        == own.read(tmp_path, channels=["ax", "ay"]).channels
        == ("ax", "ay")
    )
    vouched = own.read(tmp_path, channels=["ax", "extra"])
    assert any("hardly look like signals" in what and "extra" in what for what in kept(vouched))


def test_real_signals_are_no_suspects():
    t, rng = np.arange(1000) / 25, np.random.default_rng(0)
    same = np.ones(999, bool)
    same[::100] = False
    for values in (
        np.sin(t),
        np.round(3 * np.sin(t)),
        rng.normal(size=1000).round(),
        rng.integers(0, 2, 1000),
        np.cumsum(rng.normal(size=1000)),
        np.abs(np.sin(9 * t)),
    ):
        assert own.suspicion(np.float64(values), same) == ""


@pytest.mark.parametrize("first", ["1.2e-05", "+0.12", "-0.5", ".5", " 0.5", "1E3", "NaN", "", "NA"])
def test_every_way_to_write_a_number_is_read(tmp_path, first):
    table = plain(1).astype({"ax": str})
    table.iloc[0, table.columns.get_loc("ax")] = first
    r = own.read(saved(tmp_path, table))
    assert r.channels == ("ax", "ay")
    if not first or first[0] == "N":
        assert r.faults["rows with a missing value"] == 1
    else:
        assert r.signals[0][0, 0] == np.float32(float(first))


@pytest.mark.parametrize("field", ["0,12", "1.0g", "-", "9.81 m/s2", "12 %", "1,234.5", "oops", "0x1F"])
@pytest.mark.parametrize("row", [0, 120])
def test_a_signal_with_a_field_that_is_no_number_is_refused_by_line(tmp_path, field, row):
    table = plain(1).astype({"ax": str})
    table.iloc[row, table.columns.get_loc("ax")] = field
    refused(
        saved(tmp_path, table), f"a.csv, line {row + 2}, column 'ax': expected a number, found '{re.escape(field)}'"
    )


def test_every_parquet_type_of_numbers_is_read(tmp_path):
    t = plain(1)
    text = [f"{v:.4f}" for v in t.ax]
    kinds = {
        "large": pa.array(text, pa.large_string()),
        "decimal": pa.array(text).cast(pa.decimal128(9, 4)),
        "words": pa.array(text).dictionary_encode(),
        "half": pa.array(t.ax.astype(np.float16)),
        "single": pa.array(t.ax.astype(np.float32)),
        "whole": pa.array((t.ax * 100).round().astype("int16")),
    }
    pq.write_table(
        pa.table({"subject": t.subject, "activity": pa.array(t.activity, pa.large_string()), "time": t.time, **kinds}),
        tmp_path / "a.parquet",
    )
    r = own.read(tmp_path / "a.parquet")
    assert r.channels == tuple(kinds) and r.rate == 25 and r.activities == ("sit", "walk")
    for values in r.signals[0][[0, 1, 2, 4]]:
        np.testing.assert_allclose(values, t.ax, rtol=1e-6)
    pq.write_table(
        pa.table({"subject": t.subject, "activity": t.activity, "time": t.time, "acc": [[1.0, 2.0]] * len(t)}),
        tmp_path / "b.parquet",
    )
    refused(tmp_path / "b.parquet", "column 'acc' holds list")


def test_what_is_no_signal_is_left_out_by_name(tmp_path):
    table = plain(1).assign(note="fine", empty=np.nan, on=True).reset_index()
    table.to_parquet(tmp_path / "a.parquet")
    r = own.read(tmp_path)
    assert r.channels == ("ax", "ay")
    assert kept(r) == {
        f"columns left out, {why}": 1 for why in ("row numbers (index)", "text (note)", "empty (empty)", "bool (on)")
    }
    assert "columns left out, text (note): 1" in catalog.describe(tmp_path)


# Names --------------------------------------------------------------------------------------------------------------


def test_one_person_has_one_name(tmp_path):
    tables = [plain("144"), plain("144.00", seed=1), plain(" 144 ", seed=2), plain("7")]
    saved(tmp_path, *tables)
    plain(144, seed=3).astype({"subject": float}).to_parquet(tmp_path / "z.parquet")
    r = own.read(tmp_path)
    assert sorted(set(r.subject)) == [7, 144] and not r.people
    [what] = [what for what in kept(r) if "taken as one" in what]
    assert "person '144'" in what and "'144.00'" in what


@pytest.mark.parametrize(
    "one, other",
    [
        ("José", "Jose\u0301"),
        ("01", "1"),
        ("1", "1.0"),
        ("Anna", " Anna "),
        ("Anna B", "Anna\u00a0 B"),
        ("x", "\ufeffx"),
    ],
)
def test_spellings_of_people_and_activities_are_merged_and_said(tmp_path, one, other):
    r = own.read(saved(tmp_path, plain(one).assign(activity=other), plain(other, seed=1).assign(activity=one)))
    assert len(set(r.subject)) == len(r.activities) == 1
    assert sum("taken as one" in what for what in kept(r)) == 2


@pytest.mark.parametrize("name", ["NA", "nan", "null", "²", "٣", "1e3", "#1", "12345678901234567890123"])
def test_odd_names_stay_names(tmp_path, name):
    r = own.read(saved(tmp_path, plain(name), plain("Bela")))
    assert sorted(r.people.values()) == sorted([name, "Bela"]) and sum(map(len, r.labels)) == 400
    assert len(set(own.read(saved(tmp_path, plain(name), plain("3"))).subject)) == 2


def test_a_label_that_is_missing_is_not_an_activity(tmp_path):
    table = plain(1).replace({"activity": {"walk": "NA"}})
    r = own.read(saved(tmp_path, table))
    assert r.activities == ("sit",) and r.faults["rows without a label"] == 100
    assert own.read(saved(tmp_path, table.replace({"activity": {"NA": "null"}}))).activities == ("null", "sit")


def test_capitals_are_said_not_merged(tmp_path):
    r = own.read(saved(tmp_path, plain("Anna"), plain("anna", seed=1)))
    assert len(r.people) == 2 and "person names that differ in capitals only, taken as different (Anna, anna)" in kept(
        r
    )


# Time and rate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [5, 12.5, 20, 60, 62.5, 80, 100 / 3, 100, 128, 200, 1000])
@pytest.mark.parametrize("unit, digits", [("seconds", 3), ("milliseconds", 0), ("microseconds", 0), ("nanoseconds", 0)])
def test_the_rate_comes_from_rounded_stamps_in_any_unit(tmp_path, rate, unit, digits):
    table = plain(1, seconds=max(12, 400 / rate), rate=rate)
    origin = 0 if unit == "seconds" else 1_700_000_000 * own.UNITS[unit]
    stamps = (table.time * own.UNITS[unit]).round(digits)
    table["time"] = stamps if unit == "seconds" else stamps.astype(np.int64) + origin
    r = own.read(saved(tmp_path, table))
    assert abs(r.rate / rate - 1) < 1e-3 and [len(label) for label in r.labels] == [len(table)]
    assert (f"rows whose time is in {unit}" in kept(r)) == (unit != "seconds")


@pytest.mark.parametrize(
    "step, found", [(0.5, "2 Hz if it is in seconds or 2000 Hz if"), (1 / 4000, "4000 Hz if it is in seconds")]
)
def test_a_rate_that_cannot_be_is_refused(tmp_path, step, found):
    table = plain(1)
    refused(saved(tmp_path, table.assign(time=np.arange(len(table)) * step)), found)


def test_rates_that_differ_are_refused_with_people_and_rates(tmp_path):
    refused(
        saved(tmp_path / "files", plain("Anna", rate=50), plain("Bela", rate=100)),
        r"Anna \(a.csv\) 50 Hz, Bela \(b.csv\) 100 Hz",
    )
    refused(
        saved(tmp_path / "table", pd.concat([plain("Anna", rate=50), plain("Bela", rate=100)])),
        "Anna .*50 Hz, Bela .*100 Hz",
    )
    refused(
        saved(
            tmp_path / "one",
            pd.concat([plain("Anna", rate=50), plain("Anna", rate=100, seed=1).assign(time=lambda t: t.time + 9)]),
        ),
        "rates? ",
    )


def test_the_stated_rate_has_to_be_that_of_the_time(tmp_path):
    refused(saved(tmp_path, plain(1, seconds=12)), "rate = 50, but .*25 Hz; rate resamples nothing", rate=50)
    assert own.read(tmp_path, rate=25).rate == own.read(tmp_path, rate=25, ignore=["time"]).rate == 25
    assert own.read(tmp_path, rate=50, ignore=["time"]).rate == 50
    refused(tmp_path, "give the rate", ignore=["time"])
    refused(
        saved(tmp_path / "b", plain(1).rename(columns=dict(time="stamp")).assign(stamp="2024-05-01 12:00")),
        "is it 'stamp'",
    )


def test_lost_samples_hardly_move_the_rate(tmp_path):
    table = plain(1, seconds=60)
    r = own.read(saved(tmp_path, table.drop(index=[100, 333, 334, 800, 1200])))
    assert r.rate == 25 and len(r.labels) == 1


@pytest.mark.parametrize("stamp", [1714557600123456789, 1e18 + 1, np.nan, 0])
def test_epoch_times_and_missing_times(tmp_path, stamp):
    table = plain(1).assign(time=lambda t: 1714557600_000_000_000 + (t.time * 1e9).round().astype("int64"))
    table["time"] = table.time.astype("Int64")
    table.loc[30, "time"] = pd.NA if np.isnan(stamp) else int(stamp)
    r = own.read(saved(tmp_path, table))
    assert r.rate == 25 and sum(map(len, r.labels)) >= 199


def test_recordings_end_where_they_should(tmp_path):
    t = plain(1)
    t.loc[20, "activity"] = None
    t.loc[40, "ax"] = np.nan
    t.loc[50, "time"] = np.nan
    t.loc[60:, "time"] += 5
    t.loc[80:, "time"] -= 100
    t.loc[100:, "time"] -= 0.04
    r = own.read(saved(tmp_path, t.round(4)), length=5)
    assert [len(label) for label in r.labels] == [20, 19, 9, 9, 20, 20, 100]
    assert len(kept(r)) == 6 and set(kept(r).values()) == {1}


# Causes -------------------------------------------------------------------------------------------------------------

CAUSES = {
    "people": (lambda t: t.sort_values(["time", "subject"], kind="stable"), {}, "rows of several people alternate"),
    "stamps": (lambda t: t.assign(time=t.time.round()), {}, "stamps are too coarse"),
    "doubled": (lambda t: t.loc[t.index.repeat(2)], {}, "repeat the row before, with its time and values"),
    "gaps": (lambda t: t, dict(gap=0.001), r"the longest stretch has 1\. Stretches end at: 398 gaps in time"),
    "sessions": (lambda t: t.assign(session=range(len(t))), {}, "is it the right column for session"),
    "labels": (lambda t: t, dict(activity="ax"), "is it the right column for activity"),
    "shuffled": (
        lambda t: t.sample(frac=1, random_state=0).sort_values(["subject", "activity"], kind="stable"),
        {},
        "time runs backwards at",
    ),
    "uneven": (
        lambda t: t.assign(
            time=lambda t: t.groupby("subject").time.transform(
                lambda s: np.cumsum(np.random.default_rng(0).pareto(0.7, len(s)) / 50)
            )
        ),
        {},
        "uneven|gaps|rates differ|by its time",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_the_message_names_the_cause(tmp_path, cause):
    change, options, message = CAUSES[cause]
    table = pd.concat([plain(1), plain(2)], ignore_index=True)
    refused(saved(tmp_path, change(table)), message, **options)


GOOD = plain("José").assign(activity="walk").to_csv(index=False)


@pytest.mark.parametrize(
    "content, message",
    [
        (GOOD.replace(",", ";"), "no column 'subject'.*The separator seems to be ';'"),
        (GOOD.replace(",", "\t"), "separator seems to be .*call it .tsv"),
        (GOOD.encode("latin-1"), "a.csv, line 2: not UTF-8"),
        (GOOD.encode("utf-16"), "is in UTF-16"),
        (gzip.compress(GOOD.encode()), "name end in .gz"),
        ("# made by a logger\n" + GOOD, "comment lines"),
        ("#" + GOOD.replace("time", "time,"), "comment lines|columns"),
        (GOOD + "# end\n", "comment lines such as '# end'"),
        (GOOD.replace("activity", "subject"), "more than one is called 'subject'"),
        (GOOD.replace("José", '"José', 1), "Expected|over several lines"),
        (b"PK\x03\x04rest", "is a zip or Excel file"),
        ("", "Empty CSV"),
        (GOOD.split("\n")[0] + "\n", "no rows"),
        (b"PAR1xxxx", "is a Parquet file"),
        (GOOD.replace("ax", "ay"), "more than one is called 'ay'"),
        (GOOD.replace("0.04,", "soon,", 1), "line 3: the time is 'soon'"),
        (GOOD.replace(",José", ",", 1), "a.csv, line 2: no subject"),
        ("subject,activity\n1,a\n", "no column of numbers is left"),
        (GOOD.replace("walk", ""), "200 rows without a label"),
        ("\ufeffax,subject,activity\n0,1,a\n1g,1,a\n", "line 3, column 'ax': expected a number, found '1g'"),
        (GOOD.replace("\n0.0,", '\n"0,0",'), "line 2: the time is '0,0'"),
        (GOOD.replace("\n", ",\n").replace("ay,\n", "ay\n"), "Expected 5 columns, got 6"),
    ],
)
def test_faulty_files_are_named(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(tmp_path / "a.csv", message)


def test_a_mark_before_the_first_column_is_no_part_of_its_name(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeff" + plain(1).rename(columns=dict(ax=" ax ")).to_csv(index=False))
    r = own.read(tmp_path / "a.csv")
    assert r.channels == ("ax", "ay") and r.rate == 25


@pytest.mark.parametrize("content", [b"", b"PAR1", b"junk" * 100])
def test_a_damaged_parquet_file_is_named(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    refused(tmp_path, "a.parquet: ")
    (tmp_path / "a.parquet").rename(tmp_path / "b.csv.gz")
    refused(tmp_path, "b.csv.gz: ")


# Files and people that would vanish ---------------------------------------------------------------------------------


def test_hidden_files_are_not_read(tmp_path):
    saved(tmp_path / "own", plain(1))
    (tmp_path / "own" / ".ipynb_checkpoints").mkdir()
    for name in (".ipynb_checkpoints/a-checkpoint.csv", "._a.csv", "~$a.xlsx"):
        (tmp_path / "own" / name).write_bytes((tmp_path / "own" / "a.csv").read_bytes())
    assert own.tables(tmp_path / "own") == [tmp_path / "own" / "a.csv"]
    assert not kept(own.read(tmp_path / "own"))


def test_files_of_a_folder_are_read_refused_or_named(tmp_path):
    refused(tmp_path, "expected a table")
    refused(tmp_path / "none", "no such file")
    saved(tmp_path / "own", plain(1))
    plain(2).to_csv(tmp_path / "own" / "b.csv.gz", index=False)
    (tmp_path / "own" / "c.mat").write_text("")
    before = catalog.load(tmp_path / "own")
    assert sorted(set(before.subject)) == [1, 2] and before.faults["files left out, as they are no tables (c.mat)"] == 1
    (tmp_path / "own" / "d.txt").write_text("")
    after = catalog.load(tmp_path / "own")
    assert (
        after.fingerprint == before.fingerprint
        and after.faults["files left out, as they are no tables (c.mat, d.txt)"] == 2
    )
    (tmp_path / "own" / "e.xlsx").write_text("")
    refused(tmp_path / "own", "e.xlsx: spreadsheets are not read")


def test_folders_that_are_not_entered_are_said(tmp_path, monkeypatch):
    saved(tmp_path / "own", plain(1), plain(2))
    saved(tmp_path / "elsewhere", plain(3))
    (tmp_path / "own" / "linked").symlink_to(tmp_path / "elsewhere")
    found = catalog.load(tmp_path / "own")
    assert set(found.subject.tolist()) == {1, 2} and found.faults["files left out, as they are no tables (linked)"] == 1
    saved(tmp_path / "own" / "locked", plain(4))
    look = os.scandir

    def locked(place):
        if str(place).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(place))
        return look(place)

    monkeypatch.setattr(os, "scandir", locked)
    refused(tmp_path / "own", "own/locked: Permission denied")


def test_copies_are_refused(tmp_path):
    saved(tmp_path / "twice", plain(1), plain(1))
    refused(tmp_path / "twice", "b.csv says the same as .*a.csv")
    plain(1).to_csv(tmp_path / "twice" / "b.csv.gz", index=False)
    (tmp_path / "twice" / "b.csv").unlink()
    refused(tmp_path / "twice", "says the same as")
    refused(saved(tmp_path / "appended", pd.concat([plain(1), plain(1)])), "200 of 400 rows come twice")
    refused(saved(tmp_path / "cut", plain(1), plain(1).iloc[40:]), "160 of 360 rows come twice")


def test_people_and_activities_left_out_are_named_with_their_rows(tmp_path):
    unplugged, short = plain("Bela").assign(ay=np.nan), plain("Carl").iloc[:30]
    table = plain("Anna")
    table.loc[50:60, "activity"] = "jump"
    saved(tmp_path, table, unplugged, short)
    words = "\n".join(catalog.understood(catalog.load(tmp_path)))
    assert "rows of person Bela, left out: ay has no value there: 200" in words
    assert "rows of person Carl, left out: no stretch of 64 samples: 30" in words
    assert "rows of activity jump, left out: no stretch of 64 samples: 11" in words and "channels: ax, ay" in words
    assert "Anna" in catalog.describe(tmp_path)


@pytest.mark.parametrize("command", [["run", "resnet1d"], ["advise"]])
def test_what_is_left_out_is_said_before_anything_is_trained(tmp_path, monkeypatch, capsys, command):
    path = saved(tmp_path / "own", plain("Anna"), plain("Bela").assign(ay=np.nan))

    def train(*_, **__):
        raise HarLsError("it would train now")

    monkeypatch.setattr("har_ls.runs.execution.run", train)
    monkeypatch.setattr("har_ls.evidence.advise.advise", train)
    assert cli.main([command[0], str(path), *command[1:], "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert (
        "rows of person Bela, left out" in said.out
        and "channels: ax, ay" in said.out
        and "it would train now" in said.err
    )


def test_a_table_that_lacks_a_column_is_named(tmp_path):
    refused(saved(tmp_path, plain(1), plain(2).drop(columns="ay")), "b.csv: no numbers in a column 'ay'")
    assert own.read(tmp_path, channels=["ax"]).channels == ("ax",)
    refused(saved(tmp_path, plain(1), plain(2).drop(columns="time")), "b.csv: no time column")
    assert own.read(saved(tmp_path, plain(1), plain(2)[["ay", "ax", "activity", "subject", "time"]])).channels == (
        "ax",
        "ay",
    )


def test_windows_cross_no_file_person_or_session(tmp_path):
    tables = [walk(1), walk(2)]
    path = saved(tmp_path / "own", pd.concat(tables)) / "a.csv"
    w = catalog.load(path, length=30, stride=10)
    for x, subject, y in zip(w.x, w.subject, w.y):
        t = tables[subject - 1]
        [start] = [
            i for i in range(len(t) - 29) if np.allclose(t.ax[i : i + 30], x[0]) and np.allclose(t.ay[i : i + 30], x[1])
        ]
        rows = t.iloc[start : start + 30]
        assert rows.session.nunique() == 1 and set(rows.activity) == {w.activities[y]}
    text = catalog.describe(path, length=30, stride=10)
    assert "2 subjects" in text and "ax, ay" in text and "walk" in text and "share of test windows" in text


def test_copies_are_said_before_anything_is_trained(tmp_path):
    "Recordings that stand there twice under another time or name share no sample, but every value."
    once = pd.concat([plain(person, seconds=30) for person in "abcdef"])
    once.to_csv(tmp_path / "once.csv", index=False)
    pd.concat([once, once.assign(time=once.time + 9000)]).to_csv(tmp_path / "again.csv", index=False)
    pd.concat([once, plain("a", seconds=30).assign(subject="z")]).to_csv(tmp_path / "named.csv", index=False)
    once, again, named = (catalog.describe(tmp_path / f"{name}.csv") for name in ("once", "again", "named"))
    said = "windows that hold every value of another: {} of {}, such as recording"
    assert "hold every value" not in once and said.format(240, 240) in again
    assert said.format(40, 140) in named and "of a from sample" in named and "of z from sample" in named
