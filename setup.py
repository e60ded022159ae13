"""Packaging: everything is read from settings.ini; the study notebooks travel inside the wheel."""
import configparser
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
cfg = configparser.ConfigParser(interpolation=None)
cfg.read(ROOT / "settings.ini", encoding="utf-8")
cfg = cfg["DEFAULT"]


class BuildWithNotebooks(build_py):
    """`har-ls run` executes `nbs/study/*.ipynb`: put those, and the published results, beside the modules."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "har_ls" / "_study"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / "nbs" / "study", target, ignore=shutil.ignore_patterns(".*", "__pycache__", "runs"))


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    python_requires=">=" + cfg["min_python"],
    packages=find_packages(include=["har_ls", "har_ls.*"]),
    install_requires=cfg["requirements"].split(),
    extras_require={"dev": cfg["dev_requirements"].split()},
    entry_points={"console_scripts": cfg["console_scripts"].split()},
    cmdclass={"build_py": BuildWithNotebooks},
    zip_safe=False,
)
