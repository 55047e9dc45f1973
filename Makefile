PYTHON    ?= python3
PIP_ARGS  ?=
NOTEBOOKS ?=
BENCH     ?=
REPO      ?=
SOLVED    ?=

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed
KEPT  := runs checkpoints results progress
# progress and publish need nothing installed
ANY_PY = $(or $(wildcard $(PY)),$(PYTHON))

# Another environment, activated or configured, must not leak into .venv; and
# COURSE_PUBLISH is for `make notebooks` and `make bench` alone.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH PYTHONUSERBASE JUPYTER_PATH
unexport COURSE_PUBLISH COURSE_STATIC PIP_ARGS
# into .venv, whatever pip's variables and configuration files say; their mirrors are used
INTO_VENV := --no-user --target= "--prefix=$(CURDIR)/$(VENV)"

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run test lab notebooks bench lint publish progress clean

help: ## this list
	@echo "The course's commands (the first one makes .venv and installs into it):"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'
	@echo "Variables: NOTEBOOKS=02 (or \"01 02\")  COURSE_PROFILE=quick|cpu|gpu  COURSE_DATA=folder"
	@echo "           PYTHON=python3.12  PIP_ARGS=\"options for pip\"  BENCH=name  REPO=owner/name"
	@echo "           SOLVED=1 (with test: whole notebooks with every solution put in)"

$(STAMP): requirements.txt
	@rm -f $@
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "The course needs Python 3.11 or newer, and \"$(PYTHON)\" is not: name one with make PYTHON=python3.12." >&2; exit 1; }
	@"$(PY)" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || "$(PYTHON)" -m venv --clear $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); \
	  echo "\"$(PYTHON)\" cannot make a virtual environment here: install its venv module (Debian and Ubuntu: apt install python3-venv), or check that this folder is writable." >&2; exit 1; }
	$(PY) -m pip install --disable-pip-version-check $(INTO_VENV) $(PIP_ARGS) -r requirements.txt
	@touch $@

run: $(STAMP) ## execute all notebooks (profile quick) and write the gallery build/index.html
	@$(PY) -m tests.tools.run_notebooks $(NOTEBOOKS)

test: $(STAMP) ## lint, the tests, and every cell of every notebook
	@SOLVED="$(SOLVED)" $(PY) -m tests.tools.run_tests $(NOTEBOOKS)

lab: $(STAMP) ## open the notebooks in JupyterLab
	@$(PY) -m jupyterlab --ServerApp.root_dir="$(CURDIR)/notebooks"

notebooks: $(STAMP) ## re-execute the notebooks in place (profile cpu), then the README's picture and tables
	@$(PY) -m tests.tools.run_notebooks --in-place $(NOTEBOOKS)
	@COURSE_PROFILE=cpu $(PY) -m tests.tools.picture
	@$(PY) -m tests.tools.readme

bench: $(STAMP) ## run the benchmarks (BENCH=name picks one), then the README's tables
	@$(PY) -m tests.tools.run_benchmarks $(BENCH)
	@$(PY) -m tests.tools.readme

lint: $(STAMP) ## ruff over code and notebooks, and the form of helpers and tests
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check helpers tests

publish: ## write REPO=owner/name (default: the origin remote) into badges, setup cells and README
	@$(ANY_PY) -m tests.tools.publish $(REPO)

progress: ## how many exercises you have solved
	@$(ANY_PY) -m tests.tools.progress

clean: ## remove .venv and build/, but keep what is yours: runs, exports, results and progress
	@rm -rf $(VENV)
	@if [ -d build ]; then find build -mindepth 1 -maxdepth 1 $(KEPT:%=! -name %) -exec rm -rf {} +; fi
	@find . -name __pycache__ -prune -exec rm -rf {} +
