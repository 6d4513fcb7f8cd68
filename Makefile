# make demo   sets everything up, trains on real embedded data and shows the result
# make test   adds the development tools and runs the whole test suite
# make check  the one gate: format, lint, types, tests (not repeated where the same tree has just passed them)
# Needs Python >= 3.11; another interpreter: make PYTHON=python3.12 ...

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.installed-development
DOCS := $(VENV)/.installed-docs
TESTED := $(VENV)/.tested
TREE_HASH = $(BIN)/python .ci/tree_hash.py
WORKERS ?= $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) + 1 )))  # one more than cores: tests also wait for servers and browsers
# Tests side by side, one thread each (tests/order.py says which begin when); those that start a cluster after them, one at a time.
SIDE_BY_SIDE = $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal

# With LOCKED=1 exactly the files that requirements.lock names by their hashes are installed.
LOCKED ?=
TOOLS := $(VENV)/tools

.PHONY: help demo test test-fast mutations campaign check check-published lint format tree docs results show speed lock audit dist clean

help:
	@echo "make demo       train on the embedded digits, print the test accuracy, predict a few files"
	@echo "make test       the whole test suite"
	@echo "make test-fast  the suite without the tests marked slow, and without those that start a cluster"
	@echo "make mutations  break the code in some 280 places, one at a time, and see whether the tests notice (an hour or two)"
	@echo "make campaign   damage, kills and faults by the thousand, for hours; goes on where it stopped"
	@echo "make check      format, lint, types, tests: the gate"
	@echo "make check-published  fetch every published set of weights and say whether hashes and answers are right (network, 0.6 GB)"
	@echo "make lint       the gate without the tests"
	@echo "make format     bring the code into the gate's format"
	@echo "make tree       write the trees of files in docs/files.md and README.md"
	@echo "make docs       the pages of docs/ and the API reference as a searchable site in site/; open site/index.html"
	@echo "make results    write RESULTS.md and the table in README.md from benchmarks/results"
	@echo "make show       run the experiments behind those records again (about an hour)"
	@echo "make speed      run the races behind the tables of speed again (about two hours)"
	@echo "make dist       the wheel and the sdist in dist/, the same bytes from the same commit"
	@echo "make lock       write requirements.lock, every package with hashes; make LOCKED=1 ... installs what it says"
	@echo "make audit      a list of all that convmix is made of (CycloneDX), and what pip-audit knows against it (network)"
	@echo "make clean      remove $(VENV), site/ and the caches; runs/ stays"

demo: $(INSTALLED)
	$(BIN)/python -m convmix.demo

test: $(DEVELOPMENT)
	@rm -f $(TESTED)
	@tree=$$($(TREE_HASH)); \
	$(SIDE_BY_SIDE) -m "not alone"; first=$$?; \
	$(BIN)/python -m pytest -m alone; second=$$?; \
	[ $$first = 0 ] && [ $$second = 0 ] && echo "$$tree" > $(TESTED)

test-fast: $(DEVELOPMENT)
	$(SIDE_BY_SIDE) -m "not slow and not alone"

mutations: $(DEVELOPMENT)
	$(BIN)/python tests/mutations.py --record $(VENV)/mutations.json

campaign: $(DEVELOPMENT)
	nice -n 19 $(BIN)/python -m tests.campaign runs/campaign.jsonl --summary benchmarks/results/campaign/summary.json

check: lint
	@if [ "$$($(TREE_HASH))" = "$$(cat $(TESTED) 2>/dev/null)" ]; then \
	  echo "tests: this very tree has passed them already, not repeated (make test repeats them)"; \
	else $(MAKE) test; fi

lint: $(DEVELOPMENT)
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

format: $(DEVELOPMENT)
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

tree: $(INSTALLED)
	$(BIN)/python docs/tree.py

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open site/index.html; a web server is not needed"

check-published: $(INSTALLED)
	$(BIN)/python benchmarks/check_published.py

results: $(INSTALLED)
	$(BIN)/python benchmarks/tables.py

show: $(DEVELOPMENT)
	$(BIN)/python benchmarks/show.py

speed: $(DEVELOPMENT)
	$(BIN)/python benchmarks/speed.py

dist: $(DEVELOPMENT)
	$(BIN)/python .ci/distribution.py

lock: $(TOOLS)/.installed
	$(TOOLS)/bin/python .ci/lock.py

audit: $(TOOLS)/.installed
	$(TOOLS)/bin/python .ci/audit.py

$(TOOLS)/.installed: | $(BIN)/python
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check "cyclonedx-bom>=7" "pip-audit>=2.9" "uv>=0.8"
	@touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find convmix tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# An interrupted installation leaves no stamp, so the next make goes on where it stopped.
$(INSTALLED): pyproject.toml | $(BIN)/python
	@echo "installing convmix into $(VENV): about 80 packages, 6 GB on Linux, most of it what PyTorch brings for GPUs; less elsewhere"
	@rm -f $(TESTED)
	@$(call install,.)
	@touch $@

$(DEVELOPMENT): pyproject.toml | $(INSTALLED)
	@echo "installing the development tools into $(VENV): about 87 packages more, 1 GB"
	@rm -f $(TESTED)
	@$(call install,.[dev])
	@touch $@

$(DOCS): pyproject.toml | $(INSTALLED)
	@echo "installing what writes the site into $(VENV): about 20 packages more, 130 MB"
	@$(call install,.[docs])
	@touch $@

define install
if [ -n "$(LOCKED)" ]; then \
  $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip; \
  PIP_CONSTRAINT=/dev/null $(BIN)/python -m pip install --disable-pip-version-check --require-hashes --no-deps -r requirements.lock && \
  $(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .; \
elif command -v uv >/dev/null 2>&1 && uv pip install --python $(BIN)/python -e '$(1)'; then :; else \
  $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip; \
  $(BIN)/python -m pip install --disable-pip-version-check -e '$(1)'; fi
endef

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "convmix needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) --version 2>&1 | tail -n 1)" >&2; \
	  echo "name another one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@rm -rf $(VENV)
	@if command -v uv >/dev/null 2>&1 && uv venv --python '$(PYTHON)' $(VENV); then :; else \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "$(PYTHON) -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; fi
