# `make` alone lists the targets. Each of them works as the first command in a fresh clone.

PYTHON ?= python3
BIN := .venv/bin
DEMO := anthropic,local,openai
ALL := anthropic,local,openai,postgres,server
RECORDED := src/handrail/examples/support_triage/evals/recorded.jsonl
BASELINE := src/handrail/examples/support_triage/evals/baseline.jsonl
# The model whose responses are recorded, whatever is configured where they are replayed.
MODEL := builtin:qwen2.5-coder-1.5b
REPLAY := HANDRAIL_STORE=build/gate.db HANDRAIL_MODEL=$(MODEL) $(BIN)/handrail eval
BY = $(shell git config user.name)
PARALLEL := -q -n auto --maxprocesses 4 --dist worksteal
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1
.DEFAULT_GOAL := help
.PHONY: help demo test slow soak lowest lint docs bench evals gate baseline browser screenshots constraints clean

help:
	@sed -n 's/^\([a-z]*\):.*## /make \1: /p' Makefile

demo: .venv/demo ## run the support-triage agent on sample customer messages
	@$(BIN)/python demo/fetch_weights.py
	@$(BIN)/handrail demo

test: .venv/dev ## run the tests that a change needs, in a few minutes
	@$(BIN)/pytest $(PARALLEL) -m "not slow"

slow: .venv/dev build/peers/made ## run the slow tests: kills at every commit, most browser tests, API fuzzing, a real peer
	@$(BIN)/pytest $(PARALLEL) -m slow

soak: .venv/dev ## run every test with twenty times the generated examples; takes hours
	@HYPOTHESIS_PROFILE=soak $(BIN)/pytest $(PARALLEL)

lowest: build/lowest/made ## run the tests of runs and traces on the oldest supported Pydantic AI
	@build/lowest/bin/pytest $(PARALLEL) -m "not slow" tests/runs tests/pydantic_ai tests/traces

lint: .venv/dev ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache

docs: .venv/dev ## build the documentation site into build/docs; a warning is an error
	@$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going -d build/doctrees docs build/docs

bench: .venv/dev ## run a benchmark: NAME=... writes bench/results/NAME.json
	@$(BIN)/python -m bench.run $(NAME)

evals: .venv/demo ## record the reference agent's responses again, with the configured model
	@rm -f $(RECORDED)
	@$(BIN)/handrail eval run support-triage --cache $(RECORDED)

gate: .venv/demo ## gate the reference agent on its recorded responses
	@mkdir -p build && rm -f build/gate.db*
	@$(REPLAY) gate support-triage --baseline $(BASELINE) --recorded $(RECORDED) --trials 1

baseline: .venv/demo ## accept the recorded responses as the new baseline
	@mkdir -p build && rm -f build/gate.db*
	@$(REPLAY) baseline support-triage --recorded $(RECORDED) --trials 1 --write $(BASELINE) $(if $(BY),--by "$(BY)")

browser: .venv/dev ## install Chromium for the browser tests if there is none
	@$(BIN)/python -m tests.services.chromium

screenshots: .venv/dev ## take the screenshots in docs/img again
	@$(BIN)/python -m tests.browser.screenshots

constraints: .venv/made ## pin the newest versions that pyproject.toml allows in constraints.txt
	@rm -rf build/pins && $(BIN)/python -m venv build/pins
	@build/pins/bin/python -m pip install --quiet --upgrade pip
	@build/pins/bin/python -m pip install --quiet --editable '.[$(ALL)]' --group dev
	@{ grep '^#' constraints.txt; build/pins/bin/pip list --format=freeze --exclude-editable --exclude setuptools; } > build/pins.txt
	@mv build/pins.txt constraints.txt && rm -rf build/pins

clean: ## remove .venv and every cache
	@rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/made:
	@command -v $(PYTHON) > /dev/null || { echo "Handrail needs Python 3.11 or newer, and there is no $(PYTHON) here; PYTHON=/path/to/python names another." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Handrail needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1); PYTHON=/path/to/python names another." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || { echo "$(PYTHON) cannot create virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Creating .venv with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv .venv
	@$(INSTALL) --upgrade pip
	@touch $@

.venv/demo: pyproject.toml constraints.txt | .venv/made
	@echo "Installing Handrail into .venv."
	@$(INSTALL) --editable '.[$(DEMO)]'
	@touch $@

.venv/dev: pyproject.toml constraints.txt | .venv/made
	@echo "Installing Handrail with all extras and the developers' tools into .venv."
	@$(INSTALL) --editable '.[$(ALL)]' --group dev
	@touch $@

build/lowest/made: pyproject.toml constraints.txt | .venv/made
	@lowest=$$(sed -n 's/.*"pydantic-ai-slim>=\([0-9.]*\),.*/\1/p' pyproject.toml); \
		echo "Installing Handrail with Pydantic AI $$lowest into build/lowest."; \
		rm -rf build/lowest && mkdir -p build && \
		sed -e "s/^\(pydantic-ai-slim\)==.*/\1==$$lowest/" -e "s/^\(pydantic-graph\)==.*/\1==$$lowest/" constraints.txt > build/lowest.txt
	@$(BIN)/python -m venv build/lowest
	@build/lowest/bin/python -m pip install --quiet --constraint build/lowest.txt --upgrade pip
	@build/lowest/bin/python -m pip install --quiet --constraint build/lowest.txt --editable '.[otlp,postgres]' pytest pytest-xdist hypothesis
	@touch $@

build/peers/made: Makefile | .venv/made
	@echo "Installing the libraries that slow tests exchange files with into build/peers."
	@rm -rf build/peers && mkdir -p build && $(BIN)/python -m venv build/peers
	@build/peers/bin/python -m pip install --quiet --upgrade pip
	@build/peers/bin/python -m pip install --quiet pydantic-evals==2.62.0
	@touch $@
