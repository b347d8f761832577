# Two commands do all the set-up: `make demo` and `make test`.
VENV ?= .venv
SDK_VENV ?= .venv-nutanix-sdk
BIN := $(VENV)/bin
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
SDK := $(SDK_VENV)/.installed

# CI has two cores, and many tests wait for servers; with a fourth it takes as long.
TEST_WORKERS ?= 3

# Without compiled files, each of the thousands of processes that the tests start would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test check lint types layers docs bench chaos clean

help:
	@echo "make demo     protect a simulated share end to end (needs no root and no server)"
	@echo "make test     install what the tests need, then check and test everything"
	@echo "make check    linters, types, layers and documentation, without the tests"
	@echo "make bench    the benchmarks; more than half an hour"
	@echo "make chaos    kill everything at random, 600 times; some 25 minutes"
	@echo "make docs     build the documentation into site/"
	@echo "make install  install snapkeep into $(VENV)"
	@echo "make clean    remove everything that was built"

install: $(RUN)

BUILT_FROM := pyproject.toml setup.py constraints.txt scripts/venv src/snapkeep/repository/_chunker.c

$(RUN): $(BUILT_FROM)
	scripts/venv $(VENV) -c constraints.txt -e .
	@touch $@

$(DEV): $(BUILT_FROM)
	scripts/venv $(VENV) -c constraints.txt -e '.[dev]'
	@touch $@ $(RUN)

# The vendor's own SDK judges our simulator. Its old pins must not mix with ours.
$(SDK): scripts/venv Makefile
	scripts/venv $(SDK_VENV) ntnx-files-py-client==4.0.1 ntnx-prism-py-client==4.0.1
	@touch $@

demo: $(RUN)
	$(BIN)/snapkeep demo $(DEMO_OPTIONS)

check: lint types layers docs

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

layers: $(DEV)
	$(BIN)/lint-imports --no-cache > /dev/null || $(BIN)/lint-imports --no-cache

docs: $(DEV)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: check $(SDK)
	scripts/postgresql
	scripts/sshd
	scripts/btrfs
	scripts/nfs
	scripts/lvm
	scripts/restic
	scripts/oidc
	$(BIN)/pytest -n $(TEST_WORKERS) $(PYTEST_OPTIONS)

bench: $(DEV)
	$(BIN)/python benchmarks/nutanix_files.py
	$(BIN)/python -m benchmarks.operations
	$(BIN)/python -m benchmarks.api
	scripts/restic
	$(BIN)/python -m benchmarks.backup
	$(BIN)/python -m benchmarks.linux_host
	$(BIN)/python -m benchmarks.retention
	$(BIN)/python -m benchmarks.signals

# CHAOS_OPTIONS="--seed N" repeats a run: the same victims, moments and clients.
chaos: $(DEV)
	$(BIN)/python -m tests.chaos --kills 300 --store sqlite $(CHAOS_OPTIONS)
	$(BIN)/python -m tests.chaos --kills 300 --store postgresql --workers 3 $(CHAOS_OPTIONS)

clean:
	rm -rf $(VENV) $(SDK_VENV) .restic .nfs .lvm .oidc-provider site dist build src/snapkeep.egg-info src/snapkeep/repository/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
