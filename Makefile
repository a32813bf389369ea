# Everything here works on a bare Debian with git, make and python3, and a second time at once.
# `make help` lists the targets; CONTRIBUTING.md says more.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
STAMP  := $(VENV)/.stamp

# The real parts (engines, registry) that integration, e2e, demo and bench run on: one line each, all in tests/testbed.
TESTBED := $(PY) -m tests.testbed
PACKAGES = $(TESTBED) packages
TIDY     = $(TESTBED) sweep
DEMO     = $(PY) -m tests.e2e.demo
BENCH    = $(PY) -m bench
BENCH_VENV  := .cache/bench
BENCH_STAMP := $(BENCH_VENV)/.stamp
IMAGE   ?= sidecar:dev

# What exists of it; a folder that a later change brings is picked up by itself.
TYPED       := $(wildcard sidecar tests/testbed)
INTEGRATION := $(wildcard tests/integration/test_*.py tests/integration/*/test_*.py)
HAS_TESTBED := $(wildcard tests/testbed/__main__.py)
E2E         := $(wildcard tests/e2e/test_*.py tests/e2e/*/test_*.py)
# Two modules at once, each with engines and registries of its own, in their order: a module of one test may take longest.
AT_ONCE     := -n 2 --dist loadfile --no-loadscope-reorder
# A kill at every side effect, and at every two: they run lines that are counted already, a thousand times.
CRASH       := $(wildcard tests/test_crash*.py)
# The decisions: every branch of these is tested.
PURE        := sidecar/core/*.py sidecar/sources/*.py sidecar/targets/spec.py sidecar/targets/endpoints.py sidecar/targets/losses.py sidecar/targets/podman.py \
               sidecar/targets/written.py sidecar/targets/sequence.py sidecar/targets/dependents.py sidecar/targets/start_first.py sidecar/targets/calls.py \
               sidecar/targets/command_line.py sidecar/targets/client_options.py sidecar/targets/client_mounts.py sidecar/targets/client_words.py \
               sidecar/targets/recovery.py
PURE_FILES  := $(wildcard $(PURE))
comma       := ,

# `$(call timed,name,command)`: says what runs and how long it took.
timed = @echo "== $(1)"; start=$$SECONDS; $(2); echo "== $(1): $$((SECONDS - start)) s"

.PHONY: help venv lint format unit packages integration e2e test demo bench image sweep tidy lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## the virtual environment in .venv, from the hashed requirements

# python3-venv is what a bare Debian lacks; it is installed only then. The project itself is built without isolation,
# with the hatchling that requirements/dev.txt pins, so that nothing unhashed is fetched.
$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "== python3-venv is missing: installing it"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv >/dev/null; }
	@$(PY) -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "== setting up $(VENV): once, some minutes"
	$(PY) -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lint: $(STAMP) ## format, lint, types, layers, a docstring on every test (stops at the first that fails)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary $(TYPED)
	$(BIN)/lint-imports --no-logo
	$(BIN)/interrogate tests

format: $(STAMP) ## write what the formatter and the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

unit: $(STAMP) ## the tests that need nothing real, with coverage; every branch of what decides is covered
	$(call timed,unit,$(BIN)/pytest -n 2 --cov --cov-report= --durations=10 --durations-min=0.2 $(if $(ARGS),$(ARGS),$(addprefix --ignore=,$(CRASH))))
	$(if $(ARGS),,$(BIN)/coverage report)
	@$(if $(and $(PURE_FILES),$(if $(ARGS),,all)),echo "== what decides: every branch"; $(BIN)/coverage report --include='$(subst .py ,.py$(comma),$(PURE))' --fail-under=100)
	$(if $(ARGS),,$(call timed,crash,$(BIN)/pytest -n 2 --durations=3 $(CRASH)))

packages: $(STAMP) ## install the real parts that integration and e2e run on (as root, on Debian)
	$(if $(HAS_TESTBED),$(call timed,packages,$(PACKAGES)),@echo "no tests/testbed: nothing to install")

integration: packages ## one adapter at a time against the real part
	$(if $(INTEGRATION),$(call timed,integration,$(BIN)/pytest -m integration $(AT_ONCE) --durations=10 tests/integration $(ARGS)),@echo "no integration tests")

e2e: packages ## the whole daemon, a real registry and a real engine
	$(if $(E2E),$(call timed,e2e,$(BIN)/pytest -m e2e $(AT_ONCE) --durations=10 tests/e2e $(ARGS)),@echo "no e2e tests")

test: ## everything: what a change must pass
	@start=$$SECONDS; for step in lint unit integration e2e; do $(MAKE) $$step; done; echo "== everything passed in $$((SECONDS - start)) s"

demo: packages ## a registry, an engine and Sidecar, and a push to watch
	$(DEMO)

# What is compared with runs in an environment of its own: nothing of it is needed by Sidecar.
$(BENCH_STAMP): requirements/bench.txt | $(STAMP)
	$(PYTHON) -m venv --clear $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

bench: packages $(BENCH_STAMP) ## measure: downtime, requests a second beside other designs, start, memory (installs wrk)
	@command -v wrk >/dev/null || { \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends wrk; }
	$(BENCH) $(ARGS)

image: ## build the container image; IMAGE=name:tag
	docker build --tag $(IMAGE) .

sweep: packages ## let everything go wrong at every engine call of every kind of update, on every engine: hours
	$(call timed,sweep,$(BIN)/pytest -m sweep $(if $(findstring tests/,$(ARGS)),,tests/integration) $(ARGS))

tidy: $(STAMP) ## remove what killed test runs left on this machine
	$(TIDY)

clean: ## remove everything made here, the virtual environment and the cached trees too
	rm -rf $${XDG_CACHE_HOME:-$$HOME/.cache}/sidecar-testbed
	rm -rf $(VENV) .cache build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.git/*' -type d -prune -exec rm -rf {} +

# The newest releases that fit pyproject.toml, for every Python and platform at once (--universal). Extra indexes and folders
# of this machine are left out, and the output names no host: the hashes are what is trusted, wherever the files come from.
LOCK := env -u UV_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS -u UV_CONFIG_FILE $(BIN)/uv pip compile --no-config --quiet \
	--universal --python-version 3.11 --upgrade --generate-hashes --no-strip-extras --no-header --no-emit-index-url --no-emit-find-links

lock: | $(STAMP) ## make requirements/*.txt anew from pyproject.toml
	$(LOCK) pyproject.toml --output-file requirements/run.txt
	$(LOCK) pyproject.toml --group dev --constraint requirements/run.txt --output-file requirements/dev.txt
	$(LOCK) --group build --constraint requirements/dev.txt --output-file requirements/build.txt
	$(LOCK) --group bench --output-file requirements/bench.txt
	@for file in run dev build bench; do sed -i '1i # Made by `make lock` from pyproject.toml; do not edit.' requirements/$$file.txt; done
