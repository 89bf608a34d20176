# Development commands. They run in .venv, which is created when first needed.
#
#   make demo ARGS="--help"        arguments for digitforge demo
#   make test ARGS="-k idx -x"     arguments for pytest
#   make test PYTHON=/opt/bin/python3.12    Python that creates .venv

.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
# TensorFlow has wheels for Python 3.11 to 3.13.
PYTHONS := python3.12 python3.13 python3.11 python3 python
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help demo test test-fast test-slow verify-tfs verify-tfs-suite verify-fid other-images results benchmark lint format types docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed-all ## serve, request and measure synthetic digits
	@$(BIN)/digitforge demo $(ARGS)

test: $(VENV)/installed-dev ## run the test suite
	$(BIN)/python -m pytest -m "not slow" --numprocesses=auto --dist=loadfile $(ARGS)

# Tests of functions on arrays, files and messages, without servers and training.
FAST := tests/client/augmentation tests/client/protocol tests/client/common tests/client/test_latent_space.py \
    tests/training/data tests/training/test_recipes.py tests/evaluation/metrics tests/evaluation/report

test-fast: $(VENV)/installed-dev ## run the tests that start no server and train nothing
	$(BIN)/python -m pytest -m "not slow" --numprocesses=auto --dist=loadfile $(FAST) $(ARGS)

test-slow: $(VENV)/installed-dev ## run the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

benchmark: $(VENV)/installed-dev ## measure speed, memory and installed size
	$(BIN)/python -m pytest tests/benchmarks -m slow --capture=no $(ARGS)

verify-tfs: $(VENV)/installed-dev ## test a TensorFlow Serving that serves digits (TARGET=127.0.0.1:8500 REST=127.0.0.1:8501)
	DIGITFORGE_TFS_TARGET=$(or $(TARGET),127.0.0.1:8500) DIGITFORGE_TFS_REST_TARGET=$(REST) \
	    $(BIN)/python -m pytest tests/serving/test_congruence.py -k real $(ARGS)

verify-tfs-suite: $(VENV)/installed-dev ## run TensorFlow Serving's own tests against digitforge serve (TFS=a clone of its repository)
	$(BIN)/python tests/serving/verify_tfs_suite.py $(TFS) $(ARGS)

other-images: $(VENV)/installed-all ## run every command on five sets that are not MNIST (an hour; ARGS="--only shapes")
	$(BIN)/python tests/end_to_end/other_images.py $(ARGS)

# torch-fidelity needs PyTorch, so it has an environment of its own.
FID_VENV := build/verify-fid-venv

results: $(VENV)/installed-dev ## check that the tables in the documents equal the committed results
	$(BIN)/python evaluation/results/check.py

verify-fid: $(VENV)/installed-dev $(FID_VENV)/installed ## compare --features inception with torch-fidelity (needs a network)
	$(BIN)/python tests/evaluation/verify_fid.py --reference-python $(FID_VENV)/bin/python $(ARGS)

$(FID_VENV)/installed: | $(BIN)/python
	@echo "Installing torch-fidelity into $(FID_VENV). This takes a few minutes."
	@$(BIN)/python -m venv $(FID_VENV)
	@$(FID_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	    --extra-index-url https://download.pytorch.org/whl/cpu torch-fidelity==0.4.0 \
	    || { echo "Cannot install torch-fidelity. make verify-fid needs a network." >&2; exit 1; }
	@touch $@

lint: $(VENV)/installed-dev ## check style, formatting and imports between components
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

format: $(VENV)/installed-dev ## fix style and formatting automatically
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/installed-dev ## check types
	$(BIN)/mypy

docs: $(VENV)/installed-dev ## build the documentation site into build/docs
	$(BIN)/python -m sphinx --builder html --nitpicky --fail-on-warning --keep-going $(ARGS) docs build/docs

clean: ## remove .venv, caches and build output, but keep runs/
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find client training serving evaluation tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Takes the first Python that starts (pyenv puts commands on PATH that do not), has a supported version, and has the
# modules venv and ensurepip (a separate package on Debian).
$(BIN)/python:
	@for candidate in $(or $(PYTHON),$(PYTHONS)); do \
	    if $$candidate -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	        >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "Found no usable Python. Tried: $(or $(PYTHON),$(PYTHONS))."; \
	    echo "digitforge needs Python 3.11, 3.12 or 3.13 with the module venv (on Debian: the package python3-venv)."; \
	    echo "Install one or pass its path: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; \
	    exit 1; \
	fi >&2; \
	echo "Creating $(VENV) with $$($$found --version) ($$found)"; \
	$$found -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# These files record that packages are installed. A change of pyproject.toml installs them again.
$(VENV)/installed-all: pyproject.toml | $(BIN)/python
	@echo "Installing digitforge and its dependencies into $(VENV). This takes a few minutes."
	@$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing digitforge, dependencies and development tools into $(VENV). This takes a few minutes."
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/installed-all $@
