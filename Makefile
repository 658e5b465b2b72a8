# Everything runs in .venv, which the first target that needs it makes. Choose an interpreter with: make PYTHON=python3.12 test

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first interpreter that TensorFlow 2.21 and Keras 3.15 are made for.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
	$$python -c "$(SUPPORTED)" 2>/dev/null && echo $$python && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help install format lint test test-slow schema bench torture demo clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(STAMP)  ## make .venv with the package and its development tools

$(STAMP): setup.py pyproject.toml
	@if ! "$(PYTHON)" -c "$(SUPPORTED)" 2>/dev/null; then \
		echo "error: Python 3.11, 3.12 or 3.13 is needed, found '$(PYTHON)'; choose one with: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; fi
	"$(PYTHON)" -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check --quiet --editable ".[dev]"
	touch $@

format: $(STAMP)  ## rewrite the code in the project's style
	$(RUN) -m ruff check --fix-only --quiet .
	$(RUN) -m ruff format .

lint: $(STAMP)  ## check style, imports, docstrings and complexity
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# Two processes of one thread each: tiny tensors gain nothing from more threads. A file stays in one process; the files
# are taken as they are listed, since those with the fewest tests, which would come last otherwise, take longest.
PYTEST := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(STAMP)  ## run the fast tests
	$(PYTEST)

test-slow: $(STAMP)  ## run the slow tests
	$(PYTEST) -m slow

schema: $(STAMP)  ## rewrite configs_json/schema/ after a change of keys
	$(RUN) -m self_supervised_3d_tasks schema configs_json/schema

bench: $(STAMP)  ## measure speed and memory, and write docs/benchmarks.md
	$(RUN) -m benchmarks --output docs/benchmarks.md

torture: $(STAMP)  ## try to break every command, within the hour, and write docs/reliability.md
	$(RUN) -m benchmarks.reliability --output docs/reliability.md

# Each command prints "run folder: PATH" as its last line.
demo: $(STAMP)  ## pretrain, finetune and predict on synthetic scans, in minutes on a CPU
	@$(RUN) prepare.py demo --output demo_data
	@set -eu -o pipefail; \
	pretrained=$$($(RUN) train.py configs_json/cpc_demo.json | tee >(cat >&2) | sed -n '$$s/^run folder: //p'); \
	finetuned=$$($(RUN) finetune.py configs_json/finetune/cpc_demo.json --set "model_checkpoint=$$pretrained" \
		| tee >(cat >&2) | sed -n '$$s/^run folder: //p'); \
	masks=demo_output/$$(basename "$$finetuned"); \
	$(RUN) predict.py "$$finetuned" demo_data/test "$$masks" --overlay; \
	printf '\nscores on the test scans (%s)\n\n' "$$finetuned/results.csv"; \
	$(RUN) -c "import sys; from self_supervised_3d_tasks.scores import report; \
		print(report.table(report.read_long(sys.argv[1])))" "$$finetuned/results_long.csv"; \
	printf '\npretext examples and curves  %s\n' "$$pretrained/plots"; \
	printf 'curves and comparisons       %s\n' "$$finetuned/plots"; \
	printf 'masks and overlay pictures   %s\n' "$$masks"

clean:  ## remove .venv, caches, builds and the data and masks of the demo and the notebooks; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache demo_data demo_output notebook_output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
