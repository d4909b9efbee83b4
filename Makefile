# GNU make and Python 3.11 or later are all it takes; `make` alone says what there is.
#
# Tools run as `python -m …`: the first line of an installed script cannot hold a path with a space.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --quiet
PINS := constraints/dev.txt
# Two processes for each core; WORKERS=0 runs the tests in one, for a debugger.
WORKERS ?= auto
# What `make test-all` runs; `rest` leaves out what `make test` has run already.
PART ?= all
# More words for pytest: make test ARGS='-k migrate -x'
ARGS ?=

# With it set, every process would compile anew what it imports: a third of its start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check soak bench clean

help:
	@echo 'make demo     install, and run the whole job against a local stand-in for the API'
	@echo 'make test     install, and run the tests on SQLite and PostgreSQL (ARGS=... goes to pytest)'
	@echo 'make test-all all tests at full counts, on a second PostgreSQL and a MariaDB too'
	@echo 'make check    style, types, direction of imports, pins'
	@echo 'make soak     the long tests at full counts'
	@echo 'make bench    the measurements'
	@echo 'make install  the development environment in $(VENV)'
	@echo 'make clean    remove what was made, $(VENV) included'
	@echo
	@echo 'PYTHON=python3.12 chooses the interpreter (3.11 or later) that makes $(VENV).'

$(RUN):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed, and $(PYTHON) is not: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Say which to use: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What the program needs, and no more. The stamps lie in the environment and go with it.
$(VENV)/.installed: pyproject.toml $(PINS) | $(RUN)
	$(PIP) install --constraint $(PINS) --editable .
	@touch $@

# The pins are the whole closure, so they are installed as they stand.
$(VENV)/.installed-dev: pyproject.toml $(PINS) | $(RUN)
	$(PIP) install --requirement $(PINS)
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

install: $(VENV)/.installed-dev

demo: $(VENV)/.installed
	@$(RUN) -m etl demo

PYTEST = $(RUN) -m pytest --numprocesses $(WORKERS) --dist worksteal -o console_output_style=classic

test: $(VENV)/.installed-dev
	$(PYTEST) --part quick $(ARGS)

# The two servers that must be there; databases are created and dropped on them.
test-all: export VERIFY_ETL_TEST_POSTGRES_URL ?= postgresql://postgres@127.0.0.1:5432/postgres
test-all: export VERIFY_ETL_TEST_MARIADB_URL ?= mariadb://root@127.0.0.1:3306/
test-all: $(VENV)/.installed-dev
	VERIFY_ETL_TEST_SCALE=$${VERIFY_ETL_TEST_SCALE:-1} $(PYTEST) --part $(PART) $(ARGS)

check: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -c 'from importlinter.cli import lint_imports_command as lint; lint()' --no-logo
	$(RUN) -m pip --disable-pip-version-check check
	$(RUN) -m pytest --quiet tests/test_house.py

soak: $(VENV)/.installed-dev
	VERIFY_ETL_TEST_SCALE=1 $(RUN) -m pytest -m soak $(ARGS)

bench: $(VENV)/.installed-dev
	@for script in bench/[!_]*.py; do \
	  echo "== $$script"; $(RUN) "$$script" || exit 1; \
	done

clean:
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
