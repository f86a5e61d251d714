# The only entry points; each works on a fresh clone. `PYTHON=python3.12 make setup` names another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The lock names everything, so nothing is resolved; modules are compiled when they are first imported.
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-compile
# Two processes: several tests serve with two cores of their own.
PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup run test test-heavy check docs bench lock
.DELETE_ON_ERROR:

help:
	@echo "make setup        a virtual environment with everything, from requirements/dev.txt"
	@echo "make run          pack a real model, serve it, predict; until Ctrl-C"
	@echo "make test         the tests"
	@echo "make test-heavy   foreign clients, drills, long fuzzing"
	@echo "make check        format, lint, types, layers"
	@echo "make docs         the documentation, into site/"
	@echo "make bench        the benchmarks, into docs/reference/benchmarks.md (BENCH=--quick: a look)"
	@echo "make lock         requirements/dev.txt anew, from requirements/dev.in and pyproject.toml"

setup: $(READY)

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Cloche needs Python 3.11 or newer, this is %d.%d: name one, as in  make PYTHON=python3.12 " % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Python could not make a virtual environment (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@echo "setting up $(VENV) with $$($(BIN)/python --version): a minute or two the first time"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@$(PIP) --no-build-isolation -e .
	@touch $@

run: setup
	@$(BIN)/python examples/quickstart/run.py

test: setup
	$(BIN)/python -m pytest -m "not heavy" -n $(PROCESSES) --dist loadfile --no-loadscope-reorder --timeout 180

test-heavy: setup
	$(BIN)/python -m pytest -m heavy --timeout 1800

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	$(BIN)/python -m tests.docs.pages
	$(BIN)/zensical build --clean --strict

bench: setup
	$(BIN)/python benchmarks/run.py $(BENCH)

# The environment is left as it was: uv lives in one of its own.
lock: setup
	@test -x $(VENV)/lock/bin/uv || { $(BIN)/python -m venv $(VENV)/lock && $(VENV)/lock/bin/python -m pip install --quiet uv; }
	$(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--output-file requirements/dev.txt requirements/dev.in pyproject.toml
