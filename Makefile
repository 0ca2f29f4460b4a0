# make demo    a first run on this machine: needs python3 and git, nothing else
# make test    lint, types, import contracts and all tests
# make bench   how fast it is, against references measured in the same run
# make faults  the long fault harness (2,000 kills; every process of ours stopped for a minute; 200 kills of launchers
#              whose runs are on hosts, and two launchers with 50 runs each for the same GPUs)
# make lock    pin the dependencies anew

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
# -W ignore: pip's remarks about itself are not the reader's concern.
PIP := $(BIN)/python -W ignore -m pip --quiet --disable-pip-version-check

.PHONY: demo test lint tests bench faults lock clean

demo: $(VENV)/demo
	@examples/demo.sh

test: $(VENV)/dev lint tests

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config pyproject.toml
	$(BIN)/vermin --quiet --no-tips --violations --target=3.8- agents

tests: $(VENV)/dev
	tests/testbed/install.sh
	PATH="$(BIN):$$PATH" $(BIN)/pytest -n 2 --dist loadfile

bench: $(VENV)/dev
	PATH="$(BIN):$$PATH" $(BIN)/python -m bench

faults: $(VENV)/dev
	PATH="$(BIN):$$PATH" $(BIN)/python -m tests.faults --kills 2000
	PATH="$(BIN):$$PATH" FAULT_PAUSE_S=60 $(BIN)/pytest tests/faults/test_sigstop.py
	PATH="$(BIN):$$PATH" $(BIN)/python -m tests.faults.ssh --kills 200 --rivals 50

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(VENV)/bin/python requirements.txt examples/digits/requirements.txt pyproject.toml
	@echo "installing mllaunch and the example's packages into $(VENV) ..." >&2
	$(PIP) install --require-hashes -r requirements.txt -r examples/digits/requirements.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev: $(VENV)/bin/python requirements-dev.txt examples/digits/requirements.txt pyproject.toml
	$(PIP) install --require-hashes -r requirements-dev.txt -r examples/digits/requirements.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

lock:
	$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip --quiet install uv
	echo hatchling > $(VENV)/lock/build.in
	$(VENV)/lock/bin/uv pip compile $(LOCK) pyproject.toml $(VENV)/lock/build.in -o requirements.txt
	$(VENV)/lock/bin/uv pip compile $(LOCK) pyproject.toml $(VENV)/lock/build.in --extra dev -o requirements-dev.txt
	cd examples/digits && $(CURDIR)/$(VENV)/lock/bin/uv pip compile $(LOCK) requirements.in -o requirements.txt

LOCK := --quiet --upgrade --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-annotate --no-header

clean:
	rm -rf $(VENV) .testbed
