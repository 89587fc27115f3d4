# make demo | test | check; VENV and PYTHON can be set, for example make demo PYTHON=python3.13
PYTHON ?= python3
VENV ?= .venv
RUN_PYTHON = $(VENV)/bin/python

.PHONY: demo test check clean

demo: $(VENV)/.installed
	$(RUN_PYTHON) train.py --preset demo --run-dir runs/demo --overwrite
	$(RUN_PYTHON) generate.py runs/demo --prompt "The " --max-new-tokens 500

test: $(VENV)/.installed-dev
	$(RUN_PYTHON) -m pytest

check: $(VENV)/.installed-dev
	$(RUN_PYTHON) -m ruff check .
	$(RUN_PYTHON) -m ruff format --check .
	$(RUN_PYTHON) -m mypy textgen
	$(VENV)/bin/pydoclint --quiet textgen

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(RUN_PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-notebooks.txt $(VENV)/.installed
	$(RUN_PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
