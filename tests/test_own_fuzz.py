"""Tables with random faults: each is read with the right people, rate, channels and labels, or refused."""

import gzip
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from har_ls.core import HarLsError
from har_ls.data import own

PEOPLE = ["Anna", "José", "7", "12", "NA", "²", "Bo B", "103"]
ACTIVITIES = ["walk", "sit", "1", "23", "Hüpfen"]
CHANNELS = ["ax", "ay", "gz"]


class Made:
    "Tables of texts, one per person, how they will be written, and what is true of them."

    def __init__(self, people, activities, channels, rate, seconds, seed):
        self.rng, self.rate, self.channels, self.options = np.random.default_rng(seed), rate, list(channels), {}
        self.truth, self.tables, self.lost = {}, [], set()
        n = round(seconds * rate)
        total = n * len(activities) * len(people)
        values = (
            self.rng.choice(2**20, (len(channels), total), replace=False) / 1024 - 512.5
        )  # no two alike, exact as float32
        for k, person in enumerate(people):
            table = pd.DataFrame(
                {"time": np.arange(n * len(activities)) / rate, "subject": person, "activity": np.repeat(activities, n)}
            )
            for channel, row in zip(channels, values):
                table[channel] = row[k * len(table) : (k + 1) * len(table)]
            for i, value in enumerate(np.float32(table[channels[0]])):
                self.truth[float(value)] = (person, table.activity[i], i)
            self.tables.append(table.astype(object))
        self.ending, self.encoding, self.separator, self.extra = ".csv", "utf-8", None, {}
        self.after = lambda text: text

    def write(self, folder):
        for i, table in enumerate(self.tables):
            path = folder / f"{'abcd'[i]}{self.ending}"
            if self.ending == ".parquet":
                table.to_parquet(path)
                continue
            text = self.after(
                table.to_csv(index=False, sep=self.separator or ("\t" if ".tsv" in self.ending.lower() else ","))
            )
            content = text.encode(self.encoding, "replace")
            path.write_bytes(gzip.compress(content) if self.ending.lower().endswith(".gz") else content)
        for name, like in self.extra.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(next(folder.glob(f"{like}*")).read_bytes() if like else b"")

    def one(self):
        return int(self.rng.integers(len(self.tables)))

    def change(self, column, work, which=None):
        for i, table in enumerate(self.tables):
            if (which is None or i == which) and column in table:
                table[column] = [work(value) for value in table[column]]

    def spoil(self, column, value, count=1):
        "Put a value into a few rows of one table."
        table = self.tables[self.one()]
        table[column] = table[column].astype(object)
        table.iloc[self.rng.integers(5, len(table) - 5, count), table.columns.get_loc(column)] = value


def spelling(form):
    def respell(m):
        person = m.one()
        for column in ("subject", "activity"):
            m.change(column, form, person)

    return respell


def clock(form):
    return lambda m: m.change("time", lambda t: form(t) if isinstance(t, float) else t)


def whole(form):
    return lambda name: form(name) if name.isascii() and name.isdigit() else name


def cut_out(m):
    i = m.one()
    start = int(m.rng.integers(5, len(m.tables[i]) - 30))
    m.tables[i] = m.tables[i].drop(index=range(start, start + 20)).reset_index(drop=True)


def unplug(m):
    i = m.one()
    m.tables[i][m.channels[-1]] = ""
    m.lost.add(i)


def written_as(**how):
    return lambda m: m.__dict__.update(how)


def turn(m):
    i = m.one()
    m.tables[i] = m.tables[i][m.rng.permutation(m.tables[i].columns)]


def add(name, values):
    def work(m):
        for i, table in enumerate(m.tables):
            table[name] = values(m, table, i)

    return work


def half(m):
    i = m.one()
    m.tables[i]["time"] = [t * 2 if isinstance(t, float) else t for t in m.tables[i]["time"]]


def twice(m):
    i = m.one()
    m.tables[i] = m.tables[i].loc[m.tables[i].index.repeat(2)].reset_index(drop=True)


def appended(m):
    i = m.one()
    m.tables[i] = pd.concat([m.tables[i], m.tables[i]], ignore_index=True)


def alternate(m):
    m.tables = [
        pd.concat(m.tables)
        .sort_values("time", kind="stable", key=lambda s: s.map(str).str.zfill(40))
        .reset_index(drop=True)
    ]


HARMLESS = {  # the table has to be read
    "milliseconds": clock(lambda t: round(t * 1000)),
    "microseconds": clock(lambda t: round(t * 1e6)),
    "rounded": clock(lambda t: round(t, 3)),
    "epoch nanoseconds": clock(lambda t: 1714557600123456789 + round(t * 1e9)),
    "epoch": clock(lambda t: f"{1714557600 + t:.3f}"),
    "dates": clock(lambda t: str(pd.Timestamp("2024-05-01 23:59:58") + pd.Timedelta(round(t * 1e6), "us"))),
    "floats": spelling(whole(lambda n: n + ".0")),
    "zeros": spelling(whole(lambda n: "0" + n)),
    "cents": spelling(whole(lambda n: n + ".00")),
    "blanks": spelling(lambda n: f" {n} "),
    "accents": spelling(lambda n: unicodedata.normalize("NFD", n)),
    "note": add("note", lambda m, t, i: ["fine", "tired"][i % 2]),
    "empty": add("empty", lambda m, t, i: ""),
    "rows": add("Unnamed: 0", lambda m, t, i: range(len(t))),
    "session": add("session", lambda m, t, i: np.arange(len(t)) // (len(t) // 2 + 1)),
    "mark": written_as(encoding="utf-8-sig"),
    "newlines": written_as(after=lambda text: text.replace("\n", "\r\n")),
    "empty lines": written_as(after=lambda text: text.replace("\n", "\n\n", 3)),
    "gz": written_as(ending=".csv.gz"),
    "tsv": written_as(ending=".tsv"),
    "packed tsv": written_as(ending=".TSV.GZ"),
    "checkpoint": written_as(extra={".ipynb_checkpoints/a-checkpoint.csv": "a", "._a.csv": ""}),
    "missing value": lambda m: m.spoil(m.channels[-1], "", 3),
    "NA": lambda m: m.spoil(m.channels[-1], "NA", 2),
    "no label": lambda m: m.spoil("activity", "", 3),
    "NA label": lambda m: m.spoil("activity", "NA"),
    "no time": lambda m: m.spoil("time", "", 2),
    "gap": cut_out,
    "other order": turn,
    "unplugged": unplug,
    "plus": lambda m: m.change(m.channels[-1], lambda v: f"+{v}" if isinstance(v, float) and v > 0 else v),
    "small": lambda m: m.change(m.channels[-1], lambda v: f"{v:.9e}" if isinstance(v, float) else v),
}
FATAL = {  # the table has to be refused
    "code": add("activity_id", lambda m, t, i: [len(str(a)) + ord((str(a) or " ")[0]) for a in m.tables[i].activity]),
    "age": add("age", lambda m, t, i: 30 + i),
    "counter": add("n", lambda m, t, i: range(len(t))),
    "clock": add("clock", lambda m, t, i: 1000 + np.arange(len(t)) / m.rate),
    "decimal commas": lambda m: m.change(m.channels[-1], lambda v: str(v).replace(".", ",")),
    "unit": lambda m: m.spoil(m.channels[0], "1.0g"),
    "dash": lambda m: m.spoil(m.channels[0], "-"),
    "glued": lambda m: m.change(m.channels[-1], lambda v: f"{v} m/s²"),
    "semicolons": written_as(separator=";"),
    "utf-16": written_as(encoding="utf-16"),
    "comment": written_as(after=lambda text: "# logger\n" + text),
    "comment below": written_as(after=lambda text: text.replace("\n", "\n# here\n", 1)),
    "half the rate": half,
    "twice": twice,
    "appended": appended,
    "copy": written_as(extra={"z.csv": "a"}),
    "people alternate": alternate,
    "sheet": written_as(extra={"z.xlsx": ""}),
    "seconds only": clock(lambda t: int(t)),
    "no person": lambda m: m.spoil("subject", ""),
    "no clock": clock(lambda t: 0),
    "one name twice": written_as(after=lambda text: text.replace("subject", "activity", 1)),
    "a quote": written_as(
        after=lambda text: "\n".join(line if i != 3 else '"' + line for i, line in enumerate(text.split("\n")))
    ),
    "a field too many": written_as(
        after=lambda text: "\n".join(line + "," * (i == 4) + "\t" * (i == 4) for i, line in enumerate(text.split("\n")))
    ),
}


def right(m, found, rows):
    "Whether what was read is what was made."
    people = dict(found.people)
    words = " ".join(what for what, count in found.faults.items() if count)
    assert found.channels == tuple(m.channels) or set(found.channels) == set(m.channels)
    assert abs(found.rate / m.rate - 1) < 0.01
    first = found.channels.index(m.channels[0])
    seen = set()
    for signal, label, number in zip(found.signals, found.labels, found.subject):
        made = [m.truth[float(value)] for value in signal[first]]
        who = people.get(str(number), str(number))
        assert {person for person, _, _ in made} == {who}
        assert [activity for _, activity, _ in made] == [found.activities[k] for k in label]
        places = np.array([place for _, _, place in made])
        assert (np.diff(places) >= 1).all() and (np.diff(places) <= 6).all()
        seen.add(who)
    for i in range(len(m.tables)):
        person = next(person for person, _, _ in m.truth.values() if plain_of(m.tables[i]) == person)
        assert person in seen or f"person {person}, left out" in words
    left = sum(
        found.faults[what] for what in ("rows without a label", "rows with a missing value", "rows without a time")
    )
    assert sum(map(len, found.labels)) + left == rows


def plain_of(table):
    return own.plain(str(table.subject.iloc[0]))


def check(people, activities, channels, rate, seed, faults):
    m = Made(people, activities, channels, rate, 4, seed)
    for name in faults:
        (HARMLESS | FATAL)[name](m)
    with tempfile.TemporaryDirectory() as folder:
        m.write(Path(folder))
        try:
            found = own.read(folder)
        except HarLsError as error:
            assert set(faults) & set(FATAL) or len(m.lost) == len(people), f"refused: {error}"
            return
        assert not set(faults) & set(FATAL), "read"
        right(m, found, sum(map(len, m.tables)))


def some(pool, low, high):
    return st.lists(st.sampled_from(pool), min_size=low, max_size=high, unique=True)


def apart(faults):
    "At most one fault of those that write the same place."
    places = [
        {
            "milliseconds",
            "microseconds",
            "rounded",
            "epoch nanoseconds",
            "epoch",
            "dates",
            "seconds only",
            "no clock",
            "half the rate",
        },
        {"floats", "zeros", "cents", "blanks", "accents", "no person"},
        {"gz", "tsv", "packed tsv", "checkpoint", "copy", "sheet"},
        {"newlines", "empty lines", "comment", "comment below", "one name twice", "a quote", "a field too many"},
        {"mark", "utf-16"},
        {"unplugged", "plus", "small", "decimal commas", "glued"},
        {"no time", "people alternate", "appended", "twice"},
        {"semicolons", "tsv", "packed tsv"},
        {"people alternate", "unplugged"},
        {"twice", "gap"},
    ]
    return all(len(place & set(faults)) < 2 for place in places)


FAULTS = st.tuples(some(list(HARMLESS), 0, 4), some(list(FATAL), 0, 1)).map(lambda two: two[0] + two[1]).filter(apart)
TABLES = given(
    some(PEOPLE, 2, 3),
    some(ACTIVITIES, 2, 3),
    st.integers(1, 3).map(lambda n: CHANNELS[:n]),
    st.sampled_from([10, 20, 25, 50, 60, 80, 100 / 3]),
    st.integers(0, 2**32 - 1),
    FAULTS,
)


def test_random_faults(request):
    full = request.config.getoption("--full-size")
    quiet = settings(
        max_examples=500 if full else 60,
        deadline=None,
        derandomize=not full,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    quiet(TABLES(check))()
