# `make study` and `make test` are all a reader needs. Both make their environment first, in .venv.
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
unexport PYTHONDONTWRITEBYTECODE # set in many containers; every process would compile every module again

.PHONY: help study test lint bench docs docs-serve lab hooks pages export clean

help:
	@echo 'make study   train, measure and write the report on every dataset at hand (HAR_LS_DATA=folder of archives)'
	@echo 'make test    run the tests (some of them: make test ARGS="-k loss")'
	@echo 'make lint    look for mistakes that show without running anything'
	@echo 'make lab     open the notebooks in JupyterLab'
	@echo 'make docs    build the site in _docs (docs-serve: show it, rebuild on change)'
	@echo 'make bench   measure speed against the plain versions, into bench.json'
	@echo 'make pages   write the pages of the study anew from the published tables'
	@echo 'make export  write har_ls/*.py and README.md from the notebooks'
	@echo 'make hooks   let git and JupyterLab keep notebooks clean in this checkout'
	@echo 'make clean   remove the environment and the build leftovers (results stay)'

$(READY): settings.ini setup.py constraints.txt .ci/environment
	@PYTHON='$(PYTHON)' VENV='$(VENV)' sh .ci/environment

study: $(READY)
	@$(BIN)/har-ls study --profile quick

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal -q tests $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .

bench: $(READY)
	@$(BIN)/har-ls bench

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=nbs

docs: $(READY)
	@$(BIN)/python docs/build.py

docs-serve: $(READY)
	@$(BIN)/python docs/build.py --serve

pages: $(READY)
	@$(BIN)/python .ci/pages.py
	@$(MAKE) --no-print-directory export

export: $(READY)
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python .ci/readme.py
	$(BIN)/python .ci/house.py

# nbdev writes JupyterLab's hook into the home folder; here it goes into the environment, where only this checkout's JupyterLab reads it
hooks: $(READY)
	@[ "$$(git rev-parse --show-toplevel 2>/dev/null)" = "$$(pwd -P)" ] || { echo 'har_ls: this folder is no git checkout, so it has no hooks' >&2; exit 1; }
	@mkdir -p '$(VENV)/hooks' '$(VENV)/etc/jupyter'
	@HOME='$(abspath $(VENV))/hooks' $(BIN)/nbdev_install_hooks
	@cp '$(VENV)'/hooks/.jupyter/*.py '$(VENV)/etc/jupyter/'
	@cp .ci/pre-commit "$$(git rev-parse --git-common-dir)/hooks/pre-commit"

clean:
	rm -rf '$(VENV)' build dist *.egg-info _docs _proc
