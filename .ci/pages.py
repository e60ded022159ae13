"""Write the study's pages anew from the published tables: `make pages`. Nothing is trained. A page that fails keeps
its old text."""

import os
import sys
import time
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
PAGES = "answer models sets explorer gallery costs advise paper speed".split()


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


def main() -> int:
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    tables, folder = published_tables(STUDY / "results"), STUDY / "datasets"
    folder.mkdir(exist_ok=True)
    held = set(pd.read_parquet(tables / "runs.parquet").dataset) & set(DATASETS) - {"synthetic"} if tables else set()
    for old in folder.glob("*.ipynb"):
        if old.stem not in held:
            old.unlink()
    pages = [*(STUDY / f"{name}.ipynb" for name in PAGES), ROOT / "nbs" / "index.ipynb"]  # which reads the answer
    for path in [*(folder / f"{name}.ipynb" for name in sorted(held)), *pages]:
        if path.stem == "paper" and not (STUDY / "results" / "paper" / "people.parquet").is_file():
            print(f"{path.relative_to(ROOT)}: its trainings are not published, so it stays as it is")
            continue
        begun = time.time()
        try:
            dataset_page(path.stem, STUDY / "results", folder) if path.parent == folder else execute(path)
        except (CellExecutionError, HarLsError) as error:
            print(f"{path.relative_to(ROOT)}: {error}", file=sys.stderr)
            return 1
        print(f"{path.relative_to(ROOT)}: {time.time() - begun:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
