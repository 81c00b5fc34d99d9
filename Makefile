# make demo | test | check-slow | lint | bench | docs | clean
#
# Every target sets up what it needs: .venv in this folder, created once and installed again when a file that the
# installation depends on changes. Needs Python 3.12 or newer; a C++ compiler is optional (see docs).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
GRAMMAR := $(addprefix adapters/stan_adapters/language/,grammar.py stan.lark)
NATIVE := $(wildcard plugin/avistan/density/native/*.cpp plugin/avistan/density/native/*.h)

.PHONY: demo test check-slow lint bench docs clean
.DELETE_ON_ERROR:

demo: $(INSTALLED)
	$(PYTHON) -m avistan.cli.demo

# About 2 GiB of memory for each worker. Workers that are done take tests from the others, neighbours together.
WORKERS := 2
test: $(INSTALLED)
	$(PYTHON) -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

# Tests that take minutes each: fits killed at many moments, many seeds.
check-slow: $(INSTALLED)
	$(PYTHON) -m pytest -n $(WORKERS) --dist worksteal -m slow

lint: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

# Minutes to hours; each prints to benchmarks/results too. BENCH="step_cost scaling" runs some of them.
BENCH := start_up step_cost time_to_answer fvi_speed time_to_posterior scaling stopping seeds families against_nuts coupled hard_starts known_answers warm_start paper
bench: $(INSTALLED)
	PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(PYTHON) -m pip install --quiet numpyro
	for name in $(BENCH); do \
	  case $$name in time_to_answer|scaling) figure="--output benchmarks/results/$$name" ;; *) figure= ;; esac; \
	  $(PYTHON) benchmarks/$$name.py $$figure | tee benchmarks/results/$$name.txt; \
	done

# Notebooks with their outputs, as pages that need no network.
docs: $(INSTALLED)
	PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(PYTHON) -m pip install --quiet ipykernel nbconvert
	$(PYTHON) -m nbconvert --to html --execute --output-dir build/docs notebooks/*.ipynb \
	  --HTMLExporter.mathjax_url= --HTMLExporter.require_js_url= --HTMLExporter.jquery_url= \
	  --ExecutePreprocessor.timeout=1200
	@echo "written to build/docs"

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache demo-output
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The first interpreter that is new enough: python3 itself, then the versioned names.
$(PYTHON):
	@for candidate in python3 python3.12 python3.13 python3.14; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then \
	    echo "creating $(VENV) with $$("$$candidate" --version)"; "$$candidate" -m venv $(VENV); exit 0; \
	  fi; \
	done; \
	echo "avistan needs Python 3.12 or newer; found $$(python3 --version 2>&1 || echo none)." \
	     "Install it (for example: pyenv install 3.12) and run make again." >&2; exit 1

# The build environment takes the same pins, by the second variable or, in older pips, by the first: the handler's
# headers then match the jax that loads it.
$(INSTALLED): pyproject.toml constraints.txt CMakeLists.txt $(NATIVE) $(GRAMMAR) | $(PYTHON)
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	  $(PYTHON) -m pip install --quiet -e '.[test,lint]'
	@$(PYTHON) -c 'from avistan.density.backend import backend; print("avistan is installed, with the compiled handler" \
	  if backend() == "native" else "avistan is installed, without the compiled handler (no C++ compiler?): slower")'
	touch $@
