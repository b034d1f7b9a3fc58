# `make demo` and `make test` do all of their set-up themselves; `make help` lists the rest.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
export ORT_DISABLE_TELEMETRY := 1
# Hundreds of processes are started: they must find compiled what the first of them compiled.
export PYTHONDONTWRITEBYTECODE :=
# Half of what the tests take is waiting: for brokers, browsers, and for limits to pass.
WORKERS ?= $(shell echo $$(($$(nproc) + 2)))

.DEFAULT_GOAL := help
.PHONY: help setup demo up test lint types unit test-pythons bench clean

help:  ## show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(STAMP)  ## make .venv with everything that demo and test need

$(STAMP): pyproject.toml tools/make_venv.sh
	@echo "Setting up $(VENV), once; this takes about half a minute."
	@tools/make_venv.sh $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup  ## run the main job on real input
	@$(BIN)/edge-agent demo

up: setup  ## run a whole network on this machine until Ctrl-C
	@$(BIN)/edge-agent up

test: setup lint types unit  ## style, types, tests with branch coverage

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

unit: setup
	@rm -f .coverage .coverage.*
	@# In this order: the files that take longest are begun first, so that none is left over at the end.
	@$(BIN)/python -m pytest -q --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder --cov --cov-report=term \
		tests/chaos tests/e2e tests/integration tests/attacks tests/fuzz tests/unit

test-pythons: setup  ## unit tests on every supported Python that is found
	@tools/test_pythons.sh

bench: setup  ## the published figures, measured here
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
