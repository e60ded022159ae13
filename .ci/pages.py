"""Write the study's pages anew from the published tables: `make pages`. Nothing is trained. A page that fails keeps
its old text."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from har_ls.core import HarLsError, whole_file
from har_ls.data.catalog import DATASETS
from har_ls.evidence.report import dataset_page
from har_ls.evidence.results import published_tables

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "nbs" / "study"
DATA_PAGES = STUDY / "datasets"
PAGES = "answer models sets methods explorer gallery costs advise advise_outputs paper speed".split()


def execute(path: Path):
    """The notebook with fresh outputs, whole or as it was."""
    notebook = nbformat.read(path, 4)
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    with whole_file(path) as aside:
        nbformat.write(notebook, aside)


def written(path: Path) -> str:
    """What became of one page: the seconds it took, or that it stays as it is; an error says which page failed."""
    page = path.relative_to(ROOT)
    if path.stem == "paper" and not (STUDY / "results" / "paper" / "people.parquet").is_file():
        return f"{page}: its trainings are not published, so it stays as it is"
    begun = time.time()
    try:
        dataset_page(path.stem, STUDY / "results", DATA_PAGES) if path.parent == DATA_PAGES else execute(path)
    except (CellExecutionError, HarLsError) as error:
        raise HarLsError(f"{page}: {error}") from error
    return f"{page}: {time.time() - begun:.0f} s"


def outputs_of_one_training(logits: Path, path: Path):
    "Published logits of one training as the file that `har-ls advise --predictions` reads."
    rows = pd.read_parquet(logits, filters=[("fold", "==", 0), ("seed", "==", 0), ("alpha", "==", 0.0)])
    rows = rows[rows.run.str.contains("-resnet1d-") & rows.run.str.contains("-subject-")]
    names = [f"logit_{k}" for k in range(len(rows.logits.iloc[0]))]
    rows[names] = rows.logits.tolist()
    rows[["part", "subject", "y", *names]].to_csv(path, index=False)


def main() -> int:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the pages themselves are written side by side
    tables = published_tables(STUDY / "results")
    DATA_PAGES.mkdir(exist_ok=True)
    held = set(pd.read_parquet(tables / "runs.parquet").dataset) & set(DATASETS) - {"synthetic"} if tables else set()
    for old in DATA_PAGES.glob("*.ipynb"):
        if old.stem not in held:
            old.unlink()
    pages = [*(DATA_PAGES / f"{name}.ipynb" for name in sorted(held)), *(STUDY / f"{name}.ipynb" for name in PAGES)]
    example = STUDY / "outputs.csv"  # what the page of advice from predictions reads
    try:
        if not tables or not (tables / "logits" / "wisdm.parquet").is_file():
            raise HarLsError(f"{STUDY / 'results' / 'ledger'}: no published logits of WISDM; a page is made from them")
        outputs_of_one_training(tables / "logits" / "wisdm.parquet", example)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for line in pool.map(written, pages):
                print(line, flush=True)
        print(written(ROOT / "nbs" / "index.ipynb"))  # which reads the answer
    except HarLsError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        example.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
