# `make demo` and `make test` build .venv once, then run. PYTHON chooses the interpreter.

PYTHON ?= python3
VENV = .venv
BUILT = $(VENV)/built
BIN = $(VENV)/bin

.PHONY: demo test slow faults check results page

demo: $(BUILT)
	run=$$($(BIN)/vitlab train digits) && \
	$(BIN)/vitlab evaluate "$$run" --split test && \
	printf 'run       %s\npictures  %s/figures\n' "$$run" "$$run"

test: $(BUILT)
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile

slow: $(BUILT)
	$(BIN)/pytest -m slow

faults: $(BUILT)
	$(BIN)/python tests/faults --json docs/results/faults.json

check: $(BUILT)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

results: $(BUILT)
	$(BIN)/python tools/results.py page

page:
	cd web && npm ci && npm run check && npm run build
	cp web/build/page/index.html vitlab/explorable/page.html

$(BUILT): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
