# Two commands for a person: `make demo` and `make test`. Both set up what they need, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all picture clean

# CIFG against SI-CIFG on real text; runs that are finished are not run again.
demo: $(VENV)/installed
	$(BIN)/fedsi compare --preset quickstart --seeds 3 --out results/quickstart --resume

# Lint, types and the test suite, on two cores; make test PRODUCTS=torch trains with PyTorch's
# matrix products, and PRODUCTS=own with fedsi's.
test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal $(if $(PRODUCTS),--products $(PRODUCTS))

# The test suite with the tests that are marked as slow, and with Ray and the trackers.
test-all: $(VENV)/installed-all
	$(BIN)/pytest -n 2 --dist worksteal -m ""

# The README's picture, from the demo's own figure.
picture: demo
	cp results/quickstart/comparison.png docs/images/quickstart.png

# torch comes first: what the constraints name is the CPU build where the package index has one.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "fedsi needs Python 3.11 to 3.13; name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing; on Debian: apt install python3-venv" >&2; exit 2; }
	@echo "installing into $(VENV), PyTorch first: some minutes, once"
	$(INSTALL) torch
	$(INSTALL) --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) --editable ".[dev]"
	@touch $@

$(VENV)/installed-all: $(VENV)/installed-dev
	$(INSTALL) --editable ".[dev,ray,tensorboard,wandb,mlflow]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
