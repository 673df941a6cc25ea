# One command for each thing a person wants; .ci/run calls `make test`.
#
#   make demo      install, then the main job on data that comes with the project
#   make test      install, then linters, types, layers and every test, real Kafka and PostgreSQL included
#   make check     the quick part of it, for use while working (under 2 minutes)
#   make install   .venv alone;  make venv makes it empty, to put a CPU build of torch there first
#   make system    Debian's packages that the tests need (root or sudo without a password)
#   make bench     figures against peers, measured side by side; JSON into bench-results/
#   make bench-drift   drift detection against other libraries: hours; DRIFT_FLAGS=--quick takes minutes
#   make bench-quality do the intervals of quality cover? Half an hour and more
#   make clean     removes what the others made, but not .venv (make distclean does)
#
# PYTHON=python3.12          the interpreter that .venv is made with
# TORCH_INDEX_URL=URL        index to take torch and torchvision from, for example that of torch's CPU builds
# VENV_FLAGS=--system-site-packages   accept a torch that the system's Python already has

PYTHON ?= python3
VENV_FLAGS ?=
TORCH_INDEX_URL ?=
PYTEST_FLAGS ?=
DRIFT_FLAGS ?= --write-docs
QUALITY_FLAGS ?= --write-docs

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ROOMS := monitor detectors embeddings alerts dashboards

.DEFAULT_GOAL := help
.PHONY: help venv install system demo lint test check bench bench-drift bench-quality clean distclean

help:
	@sed -n 's/^#   //p' Makefile

venv: $(BIN)/python

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not there; set PYTHON to a Python >= 3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1); segwatch needs Python >= 3.11, set PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || bash tools/install-system-packages.sh venv
	$(PYTHON) -m venv $(VENV_FLAGS) $(VENV)

# The stamp holds no time of its own: it is newer than the two files that say what is installed, or it is made again.
$(STAMP): pyproject.toml constraints.txt tools/constraints-in-force.sh | $(BIN)/python
	@if [ -n "$(TORCH_INDEX_URL)" ]; then \
	  $(BIN)/python -m pip install --quiet -c constraints.txt --index-url "$(TORCH_INDEX_URL)" torch torchvision; fi
	@bash tools/constraints-in-force.sh $(BIN)/python > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet -c $(VENV)/constraints.txt -e '.[dev,report,s3]'
	@touch $@

install: $(STAMP)

system:
	@bash tools/install-system-packages.sh tests

demo: install
	$(BIN)/segwatch demo --no-serve

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The linters come last: a failing test says more than a long line does.
test: install system
	$(BIN)/python -m pytest $(PYTEST_FLAGS)
	@$(MAKE) --no-print-directory lint

check: lint
	$(BIN)/python -m pytest -n 2 -m "not slow" --ignore=tests/real $(PYTEST_FLAGS)

bench: install
	@set -e; for file in bench/bench_*.py; do echo "== $$file"; PYTHONPATH=. $(BIN)/python $$file; done

# Threads of its own would let one library look faster than another.
bench-drift: install
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.drift $(DRIFT_FLAGS)

bench-quality: install
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.quality $(QUALITY_FLAGS)

clean:
	rm -rf .segwatch bench-results build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(ROOMS) tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) *.egg-info
