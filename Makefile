# The only entry points. A machine needs python3 (3.10 or later), Rust, make and a C compiler; the rest comes along.
PYTHON ?= python3

.PHONY: help demo build test bench lint completions clean

help:
	@echo "make demo         see a governed agent in fifteen seconds (after the build)"
	@echo "make build        .venv/ with python, aasm, aasm-run and aasm-py, from built wheels"
	@echo "make test         every test: Rust, Python, and the other Python versions of this machine"
	@echo "make bench        the measurements of benchmarks/"
	@echo "make lint         formatting, lints and types of both languages"
	@echo "make completions  completions/ anew, after options, commands or help texts changed"
	@echo "make clean        remove what the build made (the caches in ~/.cache/agent-assembly stay)"

demo: build
	@$(PYTHON) scripts/demo.py

build:
	@$(PYTHON) scripts/build.py

test:
	@$(PYTHON) scripts/test.py

bench: build
	@$(PYTHON) scripts/bench.py

lint:
	@$(PYTHON) scripts/lint.py

completions: build
	@.venv/bin/python scripts/completions.py

clean:
	rm -rf .venv dist build native/target benchmarks/.work .mypy_cache .ruff_cache .pytest_cache
	find agent_assembly aasm_py sitecustomize scripts tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
