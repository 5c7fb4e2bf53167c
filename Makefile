# Everything sets itself up: `make run` and `make test` need Python 3.11 or newer, and make.
PYTHON ?= python3
VENV ?= .venv
EXTRA ?= dev
MINUTES ?= 10
BIN = $(VENV)/bin
READY = $(VENV)/.ready-$(EXTRA)

.PHONY: help run test suite soak soak-tasks lint bench model mutants docs wheel clean

help:
	@echo "make run      index the standard library by transactions, by threads and by the scheduler; the quick benchmarks"
	@echo "make test     lint, types, and the whole test suite"
	@echo "make suite    the test suite alone (PYTHON=python3.14t VENV=.venv-3.14t EXTRA=test for another interpreter)"
	@echo "make soak     random transactions in both tiers, under faults and signals, their histories checked (MINUTES=10)"
	@echo "make soak-tasks  the tests that the suite leaves out: storms over a scheduler and over background workers"
	@echo "make bench    all benchmarks, some minutes"
	@echo "make model    check the protocol's model in Promela by spin, in all its states; some minutes"
	@echo "make mutants  break the protocol on purpose, defect by defect, and see a test fail each time"
	@echo "make docs     build the documentation in site/ (start with site/index.html)"
	@echo "make wheel    build the distribution, and try it in an empty environment"

$(VENV)/.ready-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.13 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

run: $(READY)
	$(BIN)/python -m examples.index_source_tree --find OrderedDict
	$(BIN)/python -m examples.index_by_scheduler --find OrderedDict
	$(BIN)/python -m bench --quick

bench: $(READY)
	$(BIN)/python -m bench

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint suite

suite: $(READY)
	$(BIN)/python -m pytest

soak: $(READY)
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

soak-tasks: $(READY)
	$(BIN)/python -m pytest -m soak

model: $(READY)
	$(BIN)/python -m model

mutants: $(READY)
	$(BIN)/python -m tests.mutants

docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: $(READY)
	rm -rf dist build/empty
	$(BIN)/python -m build
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd build && empty/bin/python -c "import stm, hive_task; x = stm.TVar(1); print('the wheel works:', stm.run(x.update, abs))"

clean:
	rm -rf .venv* build dist reports site .pytest_cache .mypy_cache .ruff_cache
