# One task runner. `make setup` is run by every other target that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0
export RAY_ENABLE_UV_RUN_RUNTIME_ENV ?= 0

.PHONY: help setup demo test test-slow test-long test-gpu check fmt bench faults docs clean
help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(STAMP)  ## a .venv with the gristmill command in it
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade "pip>=24" wheel
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[clip,lm,deepspeed,eval,tensorboard,mix,s3,fetch,dev]"
	touch $@

demo: $(STAMP)  ## all tracks on embedded data, about eleven minutes on two cores
	$(BIN)/gristmill demo --out runs/demo

test: $(STAMP)  ## the test suite, under ten minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)  ## the checks that take minutes each
	$(BIN)/python -m pytest -m "slow and not long" --timeout 1500 -n 2 --dist worksteal

test-long: $(STAMP)  ## the README's tour, the guides and some more, three quarters of an hour; not part of CI
	$(BIN)/python -m pytest -m long --timeout 3000

test-gpu: $(STAMP)  ## the checks that need a CUDA device
	$(BIN)/python -m pytest -m gpu --timeout 1500

check: $(STAMP)  ## format, lint, types, import directions, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell platform jobs cluster tests docs README.md CHANGELOG.md CONTRIBUTING.md Makefile pyproject.toml

fmt: $(STAMP)  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)  ## measured comparisons, written to docs/results/
	$(BIN)/python tests/bench/run.py

faults: $(STAMP)  ## faults in the middle of real jobs on two nodes, written to docs/results/faults.md
	$(BIN)/python tests/bench/run.py faults

clean:  ## remove what the targets above made
	rm -rf $(VENV) runs build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
