# The two commands of the README are `make demo` and `make test`: on a bare Debian 12 machine, as root, each installs
# everything that it needs. `make check` is the fast loop: no privileges, no network, nothing but the source.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.ONESHELL:
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= $(if $(wildcard /usr/bin/python3),/usr/bin/python3,python3)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What the engine runs on, and what the tests need besides.
ENGINE_PACKAGES := runc conmon nftables libnftables1 iproute2 busybox-static golang-github-containers-common \
	skopeo tini procps ca-certificates python3 python3-venv
TEST_PACKAGES := mmdebstrap dnsperf gcc libc6-dev zsh fish docker-registry
UNPRIVILEGED_TESTS := tests/unit

.PHONY: help install dev images check test demo bench clean

help:
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1 \t\2/p' Makefile | expand -t 16

install: $(VENV)/.installed ## the engine and the tsunagu command, ready to use (.venv/bin/tsunagu)

dev: $(VENV)/.dev ## what install makes, plus all that tests and benches need

$(VENV)/.installed: pyproject.toml Makefile scripts/packages
	@scripts/packages $(ENGINE_PACKAGES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(BIN)/pip install --quiet --editable .
	$(BIN)/python -m tsunagu.cli.install_launcher
	touch $@

$(VENV)/.dev: $(VENV)/.installed scripts/docker-client
	@scripts/packages $(TEST_PACKAGES)
	$(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/python -m tsunagu.cli.install_launcher
	scripts/docker-client $(BIN)
	touch $@

images: $(VENV)/.dev ## the test images, from Debian packages (kept in /var/cache/tsunagu-images)
	$(BIN)/python tests/images/build.py

check: $(VENV)/.dev ## format, lint, types, layers, unit tests: seconds, no privileges
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	{ $(BIN)/mypy && $(BIN)/lint-imports --no-logo; } & static=$$!
	TSUNAGU_QUICK=1 $(BIN)/python -m pytest -q $(UNPRIVILEGED_TESTS) || { wait $$static || true; exit 1; }
	wait $$static

test: $(VENV)/.dev ## everything: check, then every test there is, then that nothing is left on the host
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tests/images/build.py
	$(BIN)/python -m pytest tests

demo: $(VENV)/.dev ## the tutorial's first scenarios with real servers, on an engine of their own
	$(BIN)/python tests/images/build.py alpine nginx mysql_8
	$(BIN)/python scripts/demo.py

bench: $(VENV)/.dev ## measure the life cycle of containers, the name server and networks, next to their floors
	$(BIN)/python tests/images/build.py alpine bench
	$(BIN)/python bench/lifecycle/run.py
	$(BIN)/python bench/dns/run.py
	$(BIN)/python bench/network/run.py

clean: ## remove what was built here; test images stay in their cache
	rm -rf $(VENV) build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis bench/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
