# What can be done here. Everything runs in .venv, which the first target that needs it creates.
#
#   make demo ARGS="--help"        arguments for the command
#   make test ARGS="-k idx -x"     arguments for pytest
#   make test PYTHON=/opt/bin/python3.12

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
# TensorFlow has wheels for Python 3.11, 3.12 and 3.13; the one in the middle is tried first.
PYTHONS := python3.12 python3.13 python3.11 python3 python
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help demo test test-fast test-slow verify-tfs benchmark lint format types clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed-all ## install once, then serve, request and measure synthetic digits
	@$(BIN)/digitforge demo $(ARGS)

test: $(VENV)/installed-dev ## run the test suite
	$(BIN)/python -m pytest -m "not slow" --numprocesses=auto --dist=loadfile $(ARGS)

# Folders of pure functions: arrays, files and messages. No server starts here and nothing is trained.
FAST := tests/client/augmentation tests/client/protocol tests/client/common tests/client/test_latent_space.py \
    tests/training/data tests/training/test_recipes.py tests/evaluation/metrics tests/evaluation/report

test-fast: $(VENV)/installed-dev ## run the tests that start no server and train nothing
	$(BIN)/python -m pytest -m "not slow" --numprocesses=auto --dist=loadfile $(FAST) $(ARGS)

test-slow: $(VENV)/installed-dev ## run the longer proofs
	$(BIN)/python -m pytest -m slow $(ARGS)

benchmark: $(VENV)/installed-dev ## measure speed, memory and installed size
	$(BIN)/python -m pytest tests/benchmarks -m slow --capture=no $(ARGS)

verify-tfs: $(VENV)/installed-dev ## check a running TensorFlow Serving that serves digits: TARGET=127.0.0.1:8500
	DIGITFORGE_TFS_TARGET=$(or $(TARGET),127.0.0.1:8500) $(BIN)/python -m pytest tests/serving/test_congruence.py -k real $(ARGS)

lint: $(VENV)/installed-dev ## check style, formatting and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

format: $(VENV)/installed-dev ## mend style and formatting where that needs no thought
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/installed-dev ## check types
	$(BIN)/mypy

clean: ## remove .venv, caches and build output; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find client training serving evaluation tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A candidate counts only if it runs (pyenv leaves names on PATH that do not), has the right version, and can make
# environments (Debian packs that separately).
$(BIN)/python:
	@for candidate in $(or $(PYTHON),$(PYTHONS)); do \
	    if $$candidate -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	        >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "No usable Python was found: tried $(or $(PYTHON),$(PYTHONS))."; \
	    echo "digitforge needs Python 3.11, 3.12 or 3.13 with its venv module (on Debian: the package python3-venv)."; \
	    echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; \
	    exit 1; \
	fi >&2; \
	echo "Creating $(VENV) with $$($$found --version) ($$found)"; \
	$$found -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The stamps make a second run install nothing; a change of pyproject.toml makes the next one look again.
$(VENV)/installed-all: pyproject.toml | $(BIN)/python
	@echo "Installing digitforge with all it needs into $(VENV): TensorFlow is large, this takes some minutes, once"
	@$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing digitforge with all it needs and the development tools into $(VENV): some minutes, once"
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/installed-all $@
