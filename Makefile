# `make demo` and `make test` are all that a newcomer needs: both set up .venv first.
#   PYTHON=python3.12 make test     another interpreter
#   make test VENV=/some/folder     another environment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-test
INSTALLED_DEV := $(VENV)/.installed-dev

.PHONY: help venv demo test test-slow lint notebooks clean

help:
	@echo "make demo       fit the example catalogue; figures and tables go to demo_output/"
	@echo "make test       the fast tests, on two processes"
	@echo "make test-slow  the tests marked slow"
	@echo "make lint       ruff and mypy"
	@echo "make notebooks  execute the notebooks anew, in place"
	@echo "make venv       only set up $(VENV)"
	@echo "make clean      remove caches and builds (not $(VENV))"

venv: $(INSTALLED)

# The stamp is written last, so an interrupted install is taken up again.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "jaxsed needs Python 3.11 or later, and '$(PYTHON)' is not that."; \
	  echo "Name another one: make PYTHON=python3.12 venv"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv "$(VENV)" || { \
	  echo; echo "'$(PYTHON) -m venv' failed. Debian and Ubuntu keep it in a package of its own:"; \
	  echo "  sudo apt-get install python3-venv"; \
	  echo "then run make again."; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/jaxsed demo

# Files that share compiled code stay in one process, longest first: see tests/conftest.py.
PYTEST := $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

test: $(INSTALLED)
	$(PYTEST)

test-slow: $(INSTALLED)
	$(PYTEST) -m 'slow and not gpu'

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/mypy

notebooks: $(INSTALLED_DEV)
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find jaxsed tests -name __pycache__ -type d -prune -exec rm -rf {} +
