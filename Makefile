# Two commands: `make compare` runs the main job on the embedded digits, `make test` runs the tests. Both set themselves up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

# The slowest come early: then no core waits at the end.
MECHANISMS := softmax lambda nystrom linear linformer fourier 'lambda(position="none")'

.PHONY: compare test test-slow lint clean

compare: $(VENV)/.saccade
	$(BIN)/saccade compare $(MECHANISMS) --recipe digits --rates results/2026-11-21-epyc-digits-rates \
		--seeds 3 --margin 3 --jobs 2 --threads 1 --repeats 5 --anyway

test: $(VENV)/.test lint
	$(BIN)/python -m pytest -m "not slow" -n auto

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow -n auto

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# torch first and pinned: an unpinned one may bring gigabytes of another platform's libraries.
$(VENV)/.saccade: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e ".[parquet]"
	touch $@

$(VENV)/.test: $(VENV)/.saccade
	$(PIP) -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV)
