# `make help` lists the verbs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup quickstart leaderboard lint format test test-slow clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Make .venv with everything a run needs (about 5.5 GB)

quickstart: $(VENV)/.ready ## Run the main job: one backbone on three tasks, four tables, one page
	$(BIN)/spikebench run quickstart
	$(BIN)/spikebench leaderboard build work_dirs/quickstart --out work_dirs/quickstart/leaderboard

leaderboard: $(VENV)/.ready ## Build the page of the published records
	$(BIN)/spikebench leaderboard build

lint: $(VENV)/.ready ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.ready ## Put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint ## Run the tests, but for the slow ones
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: $(VENV)/.ready ## Run the slow tests
	$(BIN)/python -m pytest -m slow

clean: ## Remove .venv and caches; data and results stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache *.egg-info

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no python3 found; install Python 3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; name another: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: no venv; apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV): about 5.5 GB, some minutes"
	$(PIP) --upgrade pip
	$(PIP) -e '.[dev]'
	@# mmcv asks for opencv-python, which needs a desktop's libGL; the headless build is the same module.
	$(BIN)/python -m pip uninstall -q -y opencv-python
	$(PIP) --no-deps --force-reinstall opencv-python-headless
	@touch $@
