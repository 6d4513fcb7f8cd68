# make demo   sets everything up, trains on real embedded data and shows the result
# make test   sets everything up and runs the whole test suite
# make check  the one gate: format, lint, types, tests (not repeated where the same tree has just passed them)
# Needs Python >= 3.11; another interpreter: make PYTHON=python3.12 ...

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTED := $(VENV)/.tested
TREE_HASH = $(BIN)/python .ci/tree_hash.py

.PHONY: help demo test test-fast check lint format results show speed clean

help:
	@echo "make demo       train on the embedded digits, print the test accuracy, predict a few files"
	@echo "make test       the whole test suite"
	@echo "make test-fast  the suite without the tests marked slow"
	@echo "make check      format, lint, types, tests: the gate"
	@echo "make lint       the gate without the tests"
	@echo "make format     bring the code into the gate's format"
	@echo "make results    write RESULTS.md and the table in README.md from benchmarks/results"
	@echo "make show       run the experiments behind those records again (about an hour)"
	@echo "make speed      run the races behind the tables of speed again (about two hours)"
	@echo "make clean      remove $(VENV) and the caches; runs/ stays"

demo: $(INSTALLED)
	$(BIN)/python -m convmix.demo

test: $(INSTALLED)
	@rm -f $(TESTED)
	@tree=$$($(TREE_HASH)) && $(BIN)/python -m pytest && echo "$$tree" > $(TESTED)

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

check: lint
	@if [ "$$($(TREE_HASH))" = "$$(cat $(TESTED) 2>/dev/null)" ]; then \
	  echo "tests: this very tree has passed them already, not repeated (make test repeats them)"; \
	else $(MAKE) test; fi

lint: $(INSTALLED)
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

format: $(INSTALLED)
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

results: $(INSTALLED)
	$(BIN)/python benchmarks/tables.py

show: $(INSTALLED)
	$(BIN)/python benchmarks/show.py

speed: $(INSTALLED)
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find convmix tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# An interrupted installation leaves no stamp, so the next make goes on where it stopped.
$(INSTALLED): pyproject.toml | $(BIN)/python
	@rm -f $(TESTED)
	@if command -v uv >/dev/null 2>&1 && uv pip install --python $(BIN)/python -e '.[dev]'; then :; else \
	  $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip; \
	  $(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'; fi
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "convmix needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) --version 2>&1 | tail -n 1)" >&2; \
	  echo "name another one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@rm -rf $(VENV)
	@if command -v uv >/dev/null 2>&1 && uv venv --python '$(PYTHON)' $(VENV); then :; else \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "$(PYTHON) -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; fi
