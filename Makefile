# Every target brings what it needs (compose/bootstrap.sh) and returns within seconds when that is already there.
# Useful variables: PYTHON (interpreter of a new .venv), UV_TORCH_BACKEND=cpu (the small build of torch),
# PENSTOCK_TEST_KAFKA=host:port (test against that broker; no Java needed), ARGS (handed to pytest).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# A worker imports some thousand modules: half of its start is compiling them where nothing is kept of it.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
LOCK := env -u UV_TORCH_BACKEND $(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: venv broker ## Bring everything for development: .venv, Java, Kafka's jars, kcat

.PHONY: demo
demo: venv ## Show the main jobs: prompts streaming side by side from the model that ships, and a small dataset scored
	@$(BIN)/penstock demo

.PHONY: test
test: lint typecheck unit integration ## Check style and types, run all tests (needs Java 17; brings Kafka)

.PHONY: unit
unit: venv ## Run the tests that need no other process
	$(PYTEST) -n auto --maxprocesses 8 -m "not integration and not slow and not gpu" $(ARGS)

.PHONY: integration
integration: venv broker ## Run the tests against a real Kafka broker and real processes
	$(PYTEST) -m "integration and not slow and not gpu" $(ARGS)

.PHONY: lint
lint: venv ## Check format, style, import directions and declared dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry . --known-first-party compose

.PHONY: typecheck
typecheck: venv ## Check types, strictly
	$(BIN)/mypy
	$(BIN)/mypy -p compose.kafka -m compose.redis_server

.PHONY: gpu
gpu: venv ## Run the tests that need a CUDA device
	$(PYTEST) -m gpu tests/gpu $(ARGS)

.PHONY: chaos soak
chaos: ## Run the long fault-injection suite
soak: ## Run the long endurance suite
chaos soak:
	@if ! compgen -G "tests/$@/test_*.py" >/dev/null; then \
	  echo "make $@: the project has no $@ suite yet (there is no tests/$@/test_*.py); nothing was tested" >&2; exit 1; \
	fi
	@$(MAKE) venv broker
	$(PYTEST) -m slow tests/$@ $(ARGS)

.PHONY: kafka
kafka: ## Run a real single-node broker in the foreground (PORT=9092, DATA_DIR=a temporary one)
	@compose/bootstrap.sh kafka
	@exec $$(compose/bootstrap.sh python) -m compose.kafka

.PHONY: lock
lock: venv ## Pin the dependencies anew, in requirements.lock and compose/bootstrap.lock
	$(LOCK) -q --group dev pyproject.toml -o requirements.lock
	$(LOCK) -q -c requirements.lock compose/bootstrap.in -o compose/bootstrap.lock

.PHONY: clean
clean: ## Remove all that these targets made, .venv and Kafka's jars too
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: venv
venv:
	@compose/bootstrap.sh venv

.PHONY: broker
broker:
	@compose/bootstrap.sh $(if $(PENSTOCK_TEST_KAFKA),,kafka) kcat redis
