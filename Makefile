# Two commands matter: `make run` and `make test`. Both install what they need into .venv, from any folder, again and
# again, also after an interrupted first time: a stamp is written only when an installation is whole.

ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
VENV := $(ROOT)/.venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
CONFIG ?= $(ROOT)/config/scheduler.yaml
# More than one a core, since many tests wait for processes and for time to pass: heavy ones most.
QUICK ?= -n 3
HEAVY ?= -n 4
# Set where `make test` has just passed: then only what it leaves out is run.
AFTER_TEST ?=
# Set for a tenth of the whole bench.
QUICK_BENCH ?=
# How many worlds `make simulate` plays, from which seed on, and in how many processes.
WORLDS ?= 5000
FIRST ?= 1000
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# Files into which `make mutants` plants mistakes; all of tests/mutation/judges.py where none is given.
FILES ?=
export DO_NOT_TRACK = 1

.PHONY: help run test test-all lint format simulate mutants bench bench-schedules clean
.DEFAULT_GOAL := help

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' "$(ROOT)/Makefile" | sed -E 's/^([a-z-]+):[^#]*## /  make \1	/' | expand -t 24

run: $(VENV)/.installed ## install, deploy config/tasks and start the worker (Ctrl-C drains it)
	@"$(BIN)/scheduler" --config "$(CONFIG)" serve

test: $(VENV)/.installed-dev lint ## check the code and run the quick tests, PostgreSQL included
	@cd "$(ROOT)" && "$(BIN)/python" -m pytest -m "not heavy" $(QUICK)

test-all: $(VENV)/.installed-dev ## run every test: long simulations, killed workers, other products
	@cd "$(ROOT)" && "$(BIN)/python" -m pytest -m "$(if $(AFTER_TEST),heavy and )not alone" $(HEAVY)
	@cd "$(ROOT)" && "$(BIN)/python" -m pytest -m alone

lint: $(VENV)/.installed-dev ## ruff and mypy --strict
	@cd "$(ROOT)" && "$(BIN)/ruff" check . && "$(BIN)/ruff" format --check --quiet . && "$(BIN)/mypy"

format: $(VENV)/.installed-dev ## let ruff arrange the code
	@cd "$(ROOT)" && "$(BIN)/ruff" check --fix . ; "$(BIN)/ruff" format .

simulate: $(VENV)/.installed-dev ## more worlds than CI plays, on every core, PostgreSQL too: WORLDS=5000, or SEED=17 for one
	@cd "$(ROOT)" && "$(BIN)/python" -m tests.simulation $(if $(SEED),--seed $(SEED),--seed $(FIRST) --count $(WORLDS) --jobs $(JOBS))

mutants: $(VENV)/.installed-mutation ## plant small mistakes into the code that decides; FILES="…" for some, hours for all
	@cd "$(ROOT)" && nice -n 15 "$(BIN)/python" tests/mutation/run.py $(FILES)

bench: $(VENV)/.installed-dev ## whole lives of runs beside APScheduler 3 and raw inserts, in one run of about ten minutes
	@cd "$(ROOT)" && "$(BIN)/python" -m tests.bench $(if $(QUICK_BENCH),--quick)

bench-schedules: $(VENV)/.installed-dev ## calendars against croniter and cronsim, in one run
	@cd "$(ROOT)" && "$(BIN)/python" -m tests.bench.schedules

clean: ## remove .venv, those of other products, and what tools leave behind
	rm -rf "$(VENV)" "$(ROOT)"/.venv-* "$(ROOT)"/build "$(ROOT)"/mutants "$(ROOT)"/*.egg-info "$(ROOT)"/.mypy_cache "$(ROOT)"/.ruff_cache "$(ROOT)"/.hypothesis

$(VENV)/.installed: $(ROOT)/pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3"; exit 1; }
	@echo "installing into $(VENV) …"
	@"$(PYTHON)" -m venv "$(VENV)"
	@$(PIP) --editable "$(ROOT)"
	@touch "$@"

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need …"
	@$(PIP) --editable "$(ROOT)[dev]"
	@touch "$@"

$(VENV)/.installed-mutation: $(VENV)/.installed-dev
	@echo "installing what plants mistakes …"
	@$(PIP) --editable "$(ROOT)[mutation]"
	@touch "$@"
