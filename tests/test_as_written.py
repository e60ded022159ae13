"""Every block that README and the how-tos show is run as it stands, in a fresh copy of the project, on tiny archives.

What shortens the trainings are documented options, see `SHORTER`. What cannot be run stands in `NOT_RUN`, with the
reason. Blocks run in the order of their page, and share what they train.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from as_written import CLIENT

from har_ls.data import own
from har_ls.data.catalog import info

ROOT = Path(__file__).resolve().parent.parent
NOT_RUN = {  # a line, or the first line of a block that is not typed into a shell: why
    "make test": "it is what runs this",
    "make docs": "tests/test_site.py builds the site by the same docs/build.py and looks at every page",
    "make docs-serve": "the same, and then it serves until it is stopped",
    "make export": "tests/test_repository.py runs the same four commands in a copy",
    "dask scheduler --port 8786": "needs several machines; tests/test_study.py has a scheduler and two workers on one",
    "dask worker tcp://10.0.0.1:8786 --nthreads 1 --nworkers 8": "the same",
    ".venv/bin/har-ls study --grid nbs/study/grids/full.toml --scheduler tcp://10.0.0.1:8786"
    " --out /shared/results": "it",
    "from dask_jobqueue import SLURMCluster": "needs Slurm",
    "import lightning": "no part of the environment; tests/test_loss.py trains with it, or with a stand-in",
    "from skorch import NeuralNetClassifier": "the same; tests/test_loss.py runs it where it is installed",
    ".venv/bin/papermill nbs/study/run.ipynb out.ipynb -p dataset uci_har -p alpha 0.01": "3_papermill.md has it again",
    ".venv/bin/har-ls report --runs runs/seed --out report": "tests/test_cli.py makes the report of a folder of runs",
    ".venv/bin/har-ls paper": "tests/test_paper_study.py makes the page of what it trains",
    ".venv/bin/har-ls paper --profile quick": "tests/test_paper_study.py trains it, shortened, and makes its page",
    ".venv/bin/har-ls paper --profile full": "needs the archives and an hour; tests/test_paper_study.py plans it",
}
NOT_AS_PUBLISHED = "data verify"  # of a tiny archive: says what is missing, and ends with 1


def blocks():
    "Page, language and text of every fenced block."
    for path in [ROOT / "README.md", *sorted((ROOT / "nbs" / "howto").glob("*.md"))]:
        for language, text in re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
            yield path.name, language, text


def typed(text):
    "The lines of a shell block without what is said about them."
    return [line for line in (re.sub(r"\s+#.*", "", line).strip() for line in text.splitlines()) if line]


def not_published(folder, names):
    "Published trainings, which stay behind; the tables of the paper's experiments come along."
    return [name for name in names if Path(folder).name == "results" and (name == "ledger" or name == "runs.parquet")]


class Project:
    "A fresh clone with an environment whose commands are quick, a home with tiny archives, and no results yet."

    def __init__(self, folder):
        self.folder, self.home, self.done = folder / "har_ls", folder / "home", set()
        self.folder.mkdir()
        for name in ("har_ls", "nbs"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=not_published)
        for name in ("Makefile", "settings.ini", "setup.py", "constraints.txt", ".ci"):
            (self.folder / name).symlink_to(ROOT / name)
        commands = self.folder / ".venv" / "bin"
        commands.mkdir(parents=True)
        for name in ("har-ls", "papermill", "python"):
            (commands / name).write_text(CLIENT.format(python=sys.executable, address=str(folder / "socket")))
            (commands / name).chmod(0o755)
        (commands.parent / ".ready").touch()
        self.archives(self.home / "har-archives", self.home / ".cache" / "har_ls" / "archives")
        (self.folder / "my_archives").symlink_to(self.home / "har-archives")
        others = ("HAR_LS_", "XDG_", "JUPYTER", "PYTHON", "MAKE", "VENV", "PYTEST")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        self.env |= dict(HOME=str(self.home), PYTHONPATH=str(self.folder), OMP_NUM_THREADS="1", MPLBACKEND="agg")
        server = [sys.executable, ROOT / "tests" / "as_written.py", folder / "socket"]
        self.server = subprocess.Popen(server, env=self.env, cwd=self.folder)
        while not (folder / "socket").exists():
            assert self.server.poll() is None
            time.sleep(0.05)

    def archives(self, *folders):
        "Tiny ones under their published names, in the folder that a reader names and in the one that `fetch` fills."
        tiny = dict(
            uci_har={}, wisdm=dict(users=(1, 2, 3, 4, 5)), dsads=dict(subjects=(1, 2, 3, 4), segments=1), motionsense={}
        )
        for name, options in tiny.items():
            importlib.import_module(f"har_ls.data.{name}").tiny(folders[0] / info(name).archive, **options)
        shutil.copytree(*folders)

    def run(self, language, text):
        "Run a block; what it said."
        if language == "sh":
            script = "".join(
                f"{line}{' || [ $? = 1 ]' if NOT_AS_PUBLISHED in line else ''}\n" for line in self.new(text)
            )
            command, given = ["sh", "-ec", script], ""
        else:
            command, given = [self.folder / ".venv" / "bin" / "python"], text
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, input=given, capture_output=True, text=True, timeout=900
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "Traceback" not in said, f"{text}\n{said[-4000:]}"
        return said

    def new(self, text):
        "The lines that can be run, each once: what a page says again would do the same again."
        under = ""
        for line in typed(text):
            under += line if line.startswith("export ") else ""
            if line not in NOT_RUN and (under, line) not in self.done:
                self.done.add((under, line))
                yield line


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = Project(tmp_path_factory.mktemp("as_written"))
    yield made
    made.server.kill()
    made.server.wait()


def shown(pages, *words, without=()):
    "The blocks of these pages that can be run: those with one of the words, if there are words."
    for page, language, text in blocks():
        if page in pages and language in ("sh", "python") and text.splitlines()[0] not in NOT_RUN:
            if (not words or any(word in text for word in words)) and not any(word in text for word in without):
                yield language, text


OWN, DATA = "my_recordings", "har-ls data "


def test_the_table_of_what_is_not_run_is_current():
    lines = {
        line for _, language, text in blocks() for line in (typed(text) if language == "sh" else text.splitlines())
    }
    assert set(NOT_RUN) <= lines
    kinds = {(page, language) for page, language, _ in blocks()}
    assert {language for _, language in kinds} == {"sh", "python", "toml"} and ("5_own_data.md", "toml") in kinds
    taken = [
        *shown(STUDY, without=(OWN, DATA)),
        *shown(["README.md", "1_data.md"], DATA),
        *shown(["README.md"], OWN),
        *shown(["5_own_data.md"]),
        *shown(["9_own_loop.md"]),
    ]
    passed = [text for _, language, text in blocks() if language in ("sh", "python") and (language, text) not in taken]
    assert all(line in NOT_RUN for text in passed for line in (typed(text)[:1]))


STUDY = ["README.md", "2_batch.md", "3_papermill.md", "4_cluster.md", "7_site.md", "8_release.md", "index.md"]


def test_the_study_as_written(project):
    told = {}
    for number, (language, text) in enumerate(shown(STUDY, without=(OWN, DATA))):
        told[text] = project.run(language, text)
        if number == 0:  # from here on, every profile and grid has its trainings, and there are published results
            for name in ("seed", "full", "mine"):
                (project.folder / "runs" / name).symlink_to("quick")
            project.run("sh", ".venv/bin/har-ls publish runs/quick")
            assert "9 of 9 runs are done" in told[text]
    every = "\n".join(told.values())
    assert "nothing to add: every finished run stands in" in every and "runs: 9 done, nothing is left to do" in every
    for made in ("report/answer.html", "out.ipynb"):
        assert (project.folder / made).stat().st_size > 10_000
    made = {path.parent.name: json.loads(path.read_text())["name"] for path in project.folder.rglob("spec.json")}
    assert made and all(folder == name for folder, name in made.items())
    held = pd.read_parquet(project.folder / "nbs" / "study" / "results" / "ledger" / "runs.parquet")
    assert sorted(set(held.dataset)) == ["dsads", "uci_har", "wisdm"] and len(held) == 9


def test_the_data_as_written(project):
    said = "".join(project.run(language, text) for language, text in shown(["README.md", "1_data.md"], DATA))
    for words in ("motionsense: 24 subjects", "The archive: ", "missing subjects", "windows of 128 samples"):
        assert words in said


def test_a_loop_of_ones_own_as_written(project):
    said = [project.run(language, text) for language, text in shown(["9_own_loop.md"])]
    assert len(said) == 3 and "test: accuracy 0." in said[0] and "test windows of 8 people, 6 classes" in said[1]
    assert re.search(r"alpha 0: accuracy 0\.\d+.*\nalpha 0\.1: accuracy 0\.", said[2])


def own_table():
    "The table of the how-to, gone on with: the same columns and rate, more people who do more things for longer."
    page = (ROOT / "nbs" / "howto" / "5_own_data.md").read_text(encoding="utf-8")
    rows = [
        [field.strip() for field in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    at = rows.index(["subject", "activity", "time", "acc_x", "acc_y", "acc_z"])
    first = pd.DataFrame(rows[at + 2 : at + 4], columns=rows[at]).astype({name: float for name in rows[at][2:]})
    step, rng, tables = first.time[1] - first.time[0], np.random.default_rng(0), []
    for person in (first.subject[0], "ben", "cem", "dana"):
        for k, activity in enumerate((first.activity[0], "sitting", "lying")):
            t = np.arange(1000) * step
            noise = rng.normal(size=(1000, 3)) + first.iloc[0, 3:].to_numpy(float) + k * np.sin(6 * t)[:, None]
            table = pd.DataFrame(noise.round(3), columns=first.columns[3:])
            tables.append(table.assign(subject=person, activity=activity, time=(t + 20 * k).round(2))[first.columns])
    made = pd.concat(tables, ignore_index=True)
    made.loc[:1] = first
    return made


def test_own_recordings_as_written(project):
    made = own_table()
    made.to_csv(project.folder / "my_recordings.csv", index=False)
    made.to_csv(project.folder / "logger.csv", index=False, sep=";", decimal=",")
    told = {}
    for language, text in [*shown(["5_own_data.md"]), *shown(["README.md"], OWN)]:
        told[text] = project.run(language, f"import pandas as pd\n{text}" if language == "python" else text)
    every = "\n".join(told.values())
    for words in ("acc_x, acc_y, acc_z", "50 Hz", "Does label smoothing help on my_recordings.csv", "run.ipynb"):
        assert words in every
    page, notebook = ((project.folder / "advice" / f"advise.{ending}").read_text() for ending in ("html", "ipynb"))
    assert "Accuracy" in page and "How this was done" in page and str(project.folder.parent) not in page + notebook
    specs = [json.loads(path.read_text())["spec"] for path in (project.folder / "advice" / "runs").glob("*/spec.json")]
    assert len(specs) == 12 and {(spec["dataset"], spec["protocol"]) for spec in specs} == {
        ("./my_recordings.csv", "subject")
    }
    plain, converted = (own.read(project.folder / f"my_recordings.{ending}") for ending in ("csv", "parquet"))
    assert plain.rate == converted.rate == 50 and len(set(plain.subject.tolist())) == 4
    for one, other in zip(plain.signals, converted.signals, strict=True):
        np.testing.assert_array_equal(one, other)
    [settings] = [text for page, language, text in blocks() if language == "toml"]
    (project.folder / "declared").mkdir()
    (project.folder / "declared" / "har_ls.toml").write_text(settings)
    other = made.rename(columns=dict(subject="person_id", activity="label", time="timestamp"))
    other.assign(age=30, row=range(len(made))).to_csv(project.folder / "declared" / "table.csv", index=False)
    declared = own.read(project.folder / "declared")
    assert declared.units == ("g", "g", "g") and declared.rate == 50 and declared.channels == plain.channels
