# make demo    fit M3 on the embedded table and recommend a recipe; results in out/
# make test    lint, types, tests, README examples
# make bench   speed, beside other tools
# make clean   remove what can be made again
# All of them make .venv first where there is none. Another interpreter: make PYTHON=python3.13 demo

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench clean .venv

demo: .venv/installed
	$(BIN)/m3bayes demo --out out/

test: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

bench: .venv/installed-bench
	$(BIN)/python -m benchmarks

.venv: .venv/installed

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 12) or sys.exit("m3bayes needs Python 3.12 or newer, and $(PYTHON) is %d.%d: name another, as in make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,parquet]'
	@touch $@

.venv/installed-bench: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

clean:
	rm -rf out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks .jax_cache
	find m3bayes tests benchmarks data -name __pycache__ -type d -prune -exec rm -rf {} +
