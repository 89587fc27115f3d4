# VENV and PYTHON can be set: make demo PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
RUN_PYTHON = $(VENV)/bin/python
PIP_INSTALL = $(RUN_PYTHON) -m pip install --quiet --disable-pip-version-check
# An editable project has no hash, so it is a step of its own, built by the locked backend.
INSTALL_PROJECT = $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
UV = $(VENV)/bin/uv
LOCK = $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command "make lock" $(LOCK_FLAGS)

# All tests of a file run in one process; a process takes about 1 GB.
PARALLEL = --numprocesses auto --maxprocesses 4 --dist loadfile
# What the oldest and the other interpreters run: every engine, sampler and tokenizer, one training.
QUICK_TESTS = tests/sampling tests/tokenizers tests/engines tests/generation tests/cli
OTHER_PYTHONS ?= 3.12 3.13

# The text and the run that some benchmarks need.
TEXT ?= data/tales.txt
RUN ?= runs/demo

.PHONY: help demo test check format build docs bench lock test-lowest test-pythons test-quick clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed  ## train the demo model and generate 500 characters
	$(RUN_PYTHON) train.py --preset demo --run-dir runs/demo --overwrite
	$(RUN_PYTHON) generate.py runs/demo --prompt "The " --max-new-tokens 500

test: $(VENV)/.installed-dev  ## run the test suite and measure its coverage
	$(RUN_PYTHON) -m pytest $(PARALLEL) --cov

check: $(VENV)/.installed-dev  ## check style, docstrings, types and spelling
	$(RUN_PYTHON) -m ruff check .
	$(RUN_PYTHON) -m ruff format --check .
	$(RUN_PYTHON) -m mypy textgen
	$(VENV)/bin/codespell
	$(RUN_PYTHON) -m pytest tests/test_vocabulary.py

format: $(VENV)/.installed-dev  ## format code and notebooks, and apply the safe fixes
	$(RUN_PYTHON) -m ruff check --fix .
	$(RUN_PYTHON) -m ruff format .
	$(VENV)/bin/nbstripout --keep-id notebooks/*.ipynb

build: $(VENV)/.installed-dev  ## build the source distribution and the wheel in dist/
	$(RUN_PYTHON) -m hatchling build --clean

docs: $(VENV)/.installed-dev  ## generate docs/settings.md and the API reference in build/api
	$(RUN_PYTHON) docs/build_settings.py
	$(RUN_PYTHON) docs/build_reference.py build/api

bench: $(VENV)/.installed-bench $(RUN)/model.safetensors  ## run all benchmarks with --quick
	for name in cold_start copy_guard fit_overhead generation_speed long_text training_speed \
		"ngram $(TEXT)" "quality $(TEXT)" "sizing $(TEXT)" "temperature $(RUN)"; do \
		echo "== $$name"; $(RUN_PYTHON) -m benchmarks.$$name --quick || exit; \
	done

lock: $(VENV)/.installed-dev  ## update the lock files; LOCK_FLAGS=--upgrade takes newer versions
	$(LOCK) --extra all --group build --output-file requirements.lock
	$(LOCK) --extra all --extra notebooks --group dev --constraints requirements.lock \
		--output-file requirements-dev.lock

test-lowest: $(VENV)/.installed-dev  ## run the quick tests with the lowest versions allowed
	UV_PYTHON_DOWNLOADS=never $(UV) venv --quiet --clear --python 3.11 .venv-lowest
	VIRTUAL_ENV=.venv-lowest $(UV) pip install --quiet --resolution lowest-direct \
		-r pyproject.toml --extra all --group test
	VIRTUAL_ENV=.venv-lowest $(UV) pip install --quiet --no-deps --editable .
	.venv-lowest/bin/python -m pytest $(PARALLEL) $(QUICK_TESTS)

test-pythons: $(VENV)/.installed-dev  ## run the quick tests on the other interpreters that are installed
	for version in $(OTHER_PYTHONS); do \
		if ! python$$version -c "" 2> /dev/null; then echo "python$$version: not found, skipped"; continue; fi; \
		$(MAKE) test-quick PYTHON=python$$version VENV=.venv-$$version || exit; \
	done

test-quick: $(VENV)/.installed-dev
	$(RUN_PYTHON) -m pytest $(PARALLEL) $(QUICK_TESTS)

clean:  ## remove the virtual environments, build outputs and caches
	rm -rf $(VENV) .venv-* build dist .coverage .*_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(RUN_PYTHON):
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.lock pyproject.toml textgen/version.py | $(RUN_PYTHON)
	$(PIP_INSTALL) --require-hashes -r requirements.lock
	$(INSTALL_PROJECT)
	touch $@

# Its lock contains all of requirements.lock, in the same versions.
$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml textgen/version.py | $(RUN_PYTHON)
	$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	$(INSTALL_PROJECT)
	touch $(VENV)/.installed $@

$(VENV)/.installed-bench: requirements-bench.txt $(VENV)/.installed-dev
	$(PIP_INSTALL) -r requirements-bench.txt
	touch $@

$(RUN)/model.safetensors: | $(VENV)/.installed
	$(RUN_PYTHON) train.py --preset demo --run-dir $(RUN) --overwrite
