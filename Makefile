# `make demo` and `make test` do all set-up themselves and download only packages.
#
# CPU=1 installs PyTorch's CPU-only build from PyTorch's own index: a smaller download, for machines without a GPU.
# PYTHON=python3.12 chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV := .venv
CPU_INDEX := https://download.pytorch.org/whl/cpu
STAMP := $(VENV)/installed

.PHONY: help setup demo test check corpus clean

help:
	@echo "make demo     compress the tiny model to 3.5 bits in one stage and show the table: 3 to 5 minutes on two cores"
	@echo "make test     run the tests"
	@echo "make check    ruff and pyright"
	@echo "make clean    remove the virtual environment and the embedded corpus"
	@echo "CPU=1 with any of them installs PyTorch's CPU-only build"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "mpq needs Python 3.11 or newer, but $(PYTHON) is `$(PYTHON) --version 2>&1`; try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	@echo "Installing the pinned packages: some minutes and 2 GB (with a CUDA build of PyTorch: 8 GB) the first time"
ifdef CPU
	$(VENV)/bin/python -m pip install --quiet --index-url $(CPU_INDEX) -c constraints.txt torch
endif
	$(VENV)/bin/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	@touch $(STAMP)

demo: $(STAMP)
	$(VENV)/bin/python scripts/run.py demo=true

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

clean:
	rm -rf $(VENV) .cache
