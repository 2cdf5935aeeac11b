# Agent Lab. `make` lists the targets; `make lab` and `make test` do everything they need themselves.

# The first Python of 3.11 to 3.13 that really runs. Give another with PYTHON=...
USABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
FOUND := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(USABLE)' 2>/dev/null && { echo $$p; break; }; done)
PYTHON ?= $(or $(FOUND),python3)
BIN := .venv/bin

# JupyterLab refuses to run as root, as in a container, unless told.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)
LAB_ARGS ?=
BUNDLE_ARGS ?=
CLIENTS ?=
NEWEST_ARGS ?=

# In which language the course opens: LANGUAGE=ko or LANGUAGE=en says it, else the locale does.
SPOKEN := $(or $(LANGUAGE),$(LC_ALL),$(LC_MESSAGES),$(LANG))
LESSONS := notebooks$(if $(filter ko%,$(SPOKEN)),/ko)

# Of the Korean lessons those that every run compares; `make korean` compares all.
KOREAN := 00_start_here 02_langgraph_parallel 04c_races

# Each lesson is executed once, by the browser; nbval executes only what no browser has run.
NBVAL := -p nbval -p nbval_refresh --nbval --nbval-current-env --nbval-cell-timeout 600 \
	--nbval-sanitize-with tests/nbval_sanitize.cfg --executed build/executed -n 2 --dist loadscope

.PHONY: help setup lab test unit-tests browser-tests lesson-tests versions newest korean browser real class attack conformance check links book bundle soak refresh lock clean

help:  ## list these targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20

setup:  ## make .venv from the lock (uv if there is one, else pip)
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
		echo "Agent Lab needs Python 3.11, 3.12 or 3.13; install Python 3.12 first." >&2; exit 1; }
	@$(PYTHON) tools/setup.py

lab: setup  ## open the course in JupyterLab (LANGUAGE=ko: in Korean; LAB_ARGS passes options on)
	$(BIN)/jupyter lab $(AS_ROOT) --ServerApp.root_dir=. \
		--LabApp.default_url=/lab/tree/$(LESSONS)/00_start_here.ipynb \
		--config=tools/jupyterlab/config.py $(LAB_ARGS)

test: setup  ## unit tests; every lesson run in a browser, and compared with its outputs
	-@$(BIN)/python tools/browser.py --install
	rm -rf build/executed
	@$(MAKE) --no-print-directory -j 2 unit-tests lesson-tests

# Both together, and several workers to a core: most wait for a clock or another process.
# Programs that are started below are no jobs of this `make`, so they are not told of it.
unit-tests:
	MAKEFLAGS= $(BIN)/python -m pytest -n 6 tests --ignore=tests/browser

# What these two say comes in one piece at their end, below the other's dots.
AT_ITS_END = > build/$@.txt 2>&1; failed=$$?; echo; cat build/$@.txt; exit $$failed

browser-tests:
	@mkdir -p build
	@MAKEFLAGS= $(BIN)/python -m pytest -n 4 -rs tests/browser $(AT_ITS_END)

lesson-tests: browser-tests
	@MAKEFLAGS= PYTHONPATH=tools $(BIN)/python -m pytest $(NBVAL) $(wildcard notebooks/*.ipynb \
		$(KOREAN:%=notebooks/ko/%.ipynb)) $(AT_ITS_END)

versions: setup  ## compare the lessons on every other Python of 3.11 to 3.13 (PYTHONS names more)
	$(BIN)/python tools/versions.py $(PYTHONS)

korean: setup  ## compare every Korean lesson with its stored outputs
	PYTHONPATH=tools $(BIN)/python -m pytest $(NBVAL) notebooks/ko

newest: setup  ## lessons and tests with the newest of everything; docs/newest.md says what changed
	$(BIN)/python tools/newest.py $(NEWEST_ARGS)

browser: setup  ## every lesson in JupyterLab, in a headless browser; pictures in build/screenshots
	-@$(BIN)/python tools/browser.py --install
	AGENTLAB_PICTURES=1 $(BIN)/python -m pytest -n 3 -rs tests/browser

real: setup  ## every lesson in front of a model that checks keys and words each answer anew
	AGENTLAB_REAL_LESSONS=all $(BIN)/python -m pytest -n 2 tests/test_real_lessons.py

class: setup  ## four learners of a class run lessons 04 and 04b, for a minute and a half
	$(BIN)/python -m pytest -s tests/class_lessons.py

attack: setup  ## hundreds of hostile and odd inputs, by area: what was tried, what failed
	$(BIN)/python -m pytest -n 2 tests/attack --all-inputs

conformance: setup  ## real clients, each in its own environment, before the local model (CLIENTS: which)
	$(BIN)/python tools/conformance.py $(CLIENTS)

check: setup  ## ruff, mypy --strict, lint of notebooks and prose, links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/lint_notebooks.py
	$(BIN)/python tools/korean.py check
	$(BIN)/python tools/lint_prose.py
	$(BIN)/python tools/check_links.py

links: setup  ## check every link and anchor, without a network
	$(BIN)/python tools/check_links.py

book: setup  ## the course as a static site, in build/book
	rm -rf build/book
	$(BIN)/python -m sphinx -q -W --keep-going -c docs -d build/doctrees . build/book
	$(BIN)/python tools/check_links.py build/book

bundle: setup  ## course and wheels for a machine without a network, in build (BUNDLE_ARGS: which)
	$(BIN)/python tools/bundle.py $(BUNDLE_ARGS)

soak: setup  ## 20,000 calls to a rough endpoint, and fifty kills: is anything lost, does anything grow?
	$(BIN)/python tools/soak.py
	AGENTLAB_KILLS=50 $(BIN)/python -m pytest -s tests/test_content_kill.py

refresh: setup  ## execute the notebooks and their Korean twins, and store their outputs
	$(BIN)/python tools/korean.py sync
	$(BIN)/python tools/refresh_notebooks.py

lock:  ## resolve requirements.lock anew from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	uv pip compile pyproject.toml --extra course --group dev --output-file requirements.lock \
		--upgrade --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links

clean:  ## remove .venv and every cache
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
