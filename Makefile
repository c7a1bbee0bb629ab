# What a developer types. The first target that needs Python builds .venv from the lock file;
# it is built again only when pyproject.toml or constraints.txt change.
#
#   make PYTHON=python3.12 test     another interpreter (3.11 or newer)
#   make test JOBS=8                tests in parallel
#   make fuzz N=10000 SEED=7        more random graphs than the tests run

PYTHON ?= python3
JOBS ?= 2
MODELS ?= models
BENCH ?= all
N ?= 500
SEED ?= 0

VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
LOCK := constraints.txt

CODE := jptq tools tests configs

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick fuzz lowest newest margins lint format types imports docs bench picture lock dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environment -------------------------------------------------------------------------------

setup: $(VENV)/developer ## build .venv with everything that development needs

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit("jptq needs Python 3.11 or newer: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/user: pyproject.toml $(LOCK) | $(VENV)/created
	$(PIP) install --quiet -c $(LOCK) -e .
	touch $@

$(VENV)/developer: $(VENV)/user
	$(PIP) install --quiet -c $(LOCK) -e '.[test,dev]'
	touch $@

# --- use ---------------------------------------------------------------------------------------

demo: $(VENV)/user ## tune the small network that is part of the project
	$(VENV)/bin/jptq demo --out=tuned/demo

# --- checks ------------------------------------------------------------------------------------

test: setup ## everything that has to hold before a change lands
	@$(MAKE) --no-print-directory -j$(JOBS) types smoke lint imports
	$(RUN) -m pytest -n $(JOBS) --durations=20 -m "not models and not gpu"

quick: setup ## the fast tests only
	$(RUN) -m pytest -n $(JOBS) -m "not slow and not models and not gpu"

# The oldest packages that pyproject.toml admits, and the newest of today: an environment of its own.
lowest: RESOLUTION := lowest-direct
newest: RESOLUTION := highest
lowest: ## the demo and the fast tests with the oldest packages that are admitted
newest: ## the same with the newest packages, whatever the lock file says
lowest newest: setup
	rm -rf build/$@
	$(VENV)/bin/uv venv --quiet --no-project --python $(PYTHON) build/$@
	$(VENV)/bin/uv pip install --quiet --python build/$@/bin/python \
	  --resolution $(RESOLUTION) -e '.[test]'
	build/$@/bin/jptq demo --out=build/$@/tuned
	build/$@/bin/python -m pytest -n $(JOBS) -m "not slow and not models and not gpu"

margins: setup ## tolerances of the numeric tests that other instruction sets nearly use up
	$(RUN) -m tools.margins

fuzz: setup ## random graphs against onnxruntime: any number of any seed (N=, SEED=)
	$(RUN) -m tools.fuzz --count=$(N) --seed=$(SEED) --jobs=$(JOBS)

lint: setup ## style
	$(RUN) -m ruff check $(CODE)
	$(RUN) -m ruff format --check $(CODE)

format: setup ## rewrite what `lint` would only name
	$(RUN) -m ruff check --fix $(CODE)
	$(RUN) -m ruff format $(CODE)

types: setup ## static types
	$(RUN) -m mypy

imports: setup ## who may import whom
	$(VENV)/bin/lint-imports

.PHONY: smoke
smoke: setup ## the demo, end to end, into a folder that is thrown away
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  $(VENV)/bin/jptq demo --out="$$folder/tuned" > "$$folder/log" 2>&1 || \
	  { status=$$?; cat "$$folder/log"; exit $$status; }

# --- generated ---------------------------------------------------------------------------------

docs: setup ## generate the tables and pages, build the site into site/
	$(RUN) -m tools.docs.operators
	$(RUN) -m tools.docs.commands
	$(RUN) -m tools.docs.coverage
	$(RUN) -m tools.bench.tables
	$(RUN) -m mkdocs build --strict

bench: setup ## measure; MODELS is a folder of networks, BENCH one benchmark
	$(RUN) -m tools.bench $(BENCH) $(MODELS)

picture: setup ## record the demo for README
	$(RUN) -m tools.docs.picture docs/assets/demo.svg

lock: ## resolve the dependencies anew and write constraints.txt
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip --disable-pip-version-check install --quiet '.[test,dev]'
	build/lock/bin/python -m pip freeze --exclude jptq > build/lock/freeze
	{ sed -n '/^#/p' $(LOCK); cat build/lock/freeze; } > build/lock/constraints.txt
	cp build/lock/constraints.txt $(LOCK)
	rm -rf build/lock

dist: setup ## build the wheel into dist/
	rm -rf dist
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .

clean: ## delete everything that can be made again, the environment too
	rm -rf $(VENV) build dist site tuned .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
