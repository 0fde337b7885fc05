# Two commands need nothing but git, make, python3 and python3-venv: `make run` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
UV := UV_PYTHON_DOWNLOADS=never UV_PYTHON_PREFERENCE=only-system $(BIN)/uv pip install --quiet --python $(BIN)/python \
	--constraint constraints.txt
RUN_READY := .venv/.run-ready
TEST_READY := .venv/.test-ready

.PHONY: run test test-all lint constraints clean

run: $(RUN_READY)
	$(BIN)/python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart

test: $(TEST_READY)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-all: $(TEST_READY)
	$(BIN)/python -m pytest

lint: $(TEST_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

constraints: $(RUN_READY)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-annotate --upgrade \
		pyproject.toml --output-file constraints.txt

clean:
	rm -rf .venv

.venv/bin/uv:
	@echo "setting up .venv (once)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9

$(RUN_READY): pyproject.toml constraints.txt | .venv/bin/uv
	$(UV) --editable .
	@touch $@

$(TEST_READY): pyproject.toml constraints.txt | .venv/bin/uv
	$(UV) --editable ".[dev]"
	@touch $@ $(RUN_READY)
