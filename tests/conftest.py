"""One thread per process: the suite runs in as many processes as there are cores."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def pytest_addoption(parser):
    parser.addoption(
        "--full-size", action="store_true", help="also run the tests on generated archives of the published size"
    )
