# The two commands for a newcomer are `make demo` and `make test`; both do all their own set-up.
# Everything that is fetched lies in .venv and .toolchain, which git ignores; nothing is installed system-wide.

.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON := $(or $(PYTHON),$(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; done))
TOOLCHAIN := $(CURDIR)/.toolchain
UV := $(TOOLCHAIN)/uv/bin/uv
VENV := .venv

export UV_CACHE_DIR := $(TOOLCHAIN)/cache/uv
export PIP_CACHE_DIR := $(TOOLCHAIN)/cache/pip
export UV_SYSTEM_CERTS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Empty counts as unset: without bytecode every process compiles everything it imports.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/bytecode

PYTEST := $(VENV)/bin/python -m pytest -p no:cacheprovider --durations=10

.PHONY: help prerequisites install development demo test test-unit test-service test-real test-deep image screenshots check format coverage docs bench fuzz mutation lock clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

prerequisites:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is missing: install the package python3' >&2; exit 1; }
	@command -v git >/dev/null || { echo 'git is missing: install the package git' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'Python has no venv module: install the package python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import os, ssl, sys; p = ssl.get_default_verify_paths(); sys.exit(not any(map(os.path.exists, filter(None, ("/etc/ssl/certs/ca-certificates.crt", p.cafile)))))' \
		|| { echo 'No CA certificates: install the package ca-certificates' >&2; exit 1; }

$(UV): requirements/uv.txt | prerequisites
	@echo '==> fetching uv into .toolchain'
	@$(PYTHON) -m venv $(TOOLCHAIN)/uv
	@$(TOOLCHAIN)/uv/bin/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/bin/python: | prerequisites
	@$(PYTHON) -m venv $(VENV)

# Compiled once here, since every flow run is a new process that imports Prefect. The project itself goes in without its
# dependencies: the lock has brought them, with their hashes.
$(VENV)/installed-%: requirements/%.txt pyproject.toml $(UV) | $(VENV)/bin/python
	@echo '==> installing what requirements/$*.txt pins into .venv'
	@$(UV) pip install --quiet --compile-bytecode --python $(VENV) --require-hashes -r requirements/$*.txt
	@$(UV) pip install --quiet --python $(VENV) --no-deps --no-build-isolation --editable .
	@$(VENV)/bin/python -m compileall -q src local_stack
	@touch $@

install: $(VENV)/installed-runtime ## Put the command at .venv/bin/soci-pipeline
	@echo 'installed: .venv/bin/soci-pipeline'

# A separate environment: the AWS CLI of the tests requires a docutils that is too old for Sphinx.
SITE := .cache/site
$(SITE)/installed: requirements/docs.txt $(UV) | prerequisites
	@echo '==> installing what requirements/docs.txt pins into $(SITE)'
	@$(PYTHON) -m venv --without-pip $(SITE)
	@$(UV) pip install --quiet --compile-bytecode --python $(SITE) --require-hashes -r requirements/docs.txt
	@touch $@

development: $(VENV)/installed-runtime $(VENV)/installed-development $(SITE)/installed

demo: $(VENV)/installed-runtime ## Publish an example for two platforms with a local stack, and show it
	@$(VENV)/bin/python -m local_stack demo $(DEMO_ARGS)

test: test-unit test-service test-real ## The tests to run before you propose a change

# Many tests wait for a server, a program or a timeout; more processes than cores keep the cores busy meanwhile.
UNIT_PROCESSES ?= $(shell expr 2 '*' $$(nproc))
OTHER_PROCESSES ?= $(shell expr $$(nproc) + 1)

test-unit: development ## The library alone: no Prefect, no AWS, no engine
	@$(PYTEST) tests/unit -n $(UNIT_PROCESSES) --dist worksteal $(TEST_ARGS)

# A module stays in one process, and so do the tests that share an account or an engine: see the tiers' conftest.py.
GROUPED := --dist loadgroup --no-loadscope-reorder

test-service: development ## Flows, tasks, webhook and AWS code, with one Prefect server and one emulated AWS
	@$(PYTEST) tests/service -n $(OTHER_PROCESSES) $(GROUPED) $(TEST_ARGS)

test-real: development ## Engines, registries, lazy pull and Prefect's UI, with one local stack
	@$(PYTEST) tests/real -n $(OTHER_PROCESSES) $(GROUPED) $(TEST_ARGS)

THIRD ?=
test-deep: development ## What is expensive and rarely affected; THIRD=1, 2 or 3 runs a part of it
	@$(PYTEST) tests/deep -n 2 $(GROUPED) $(if $(THIRD),--third $(THIRD)) $(TEST_ARGS)

# The image that deployments/compose.yaml runs. IMAGE_ARGS is for `docker buildx build`: --build-arg BASE=…, --network host.
IMAGE ?= soci-pipeline/worker:local
image: ## Build the worker image for this machine with its Docker engine
	@docker buildx build --load --file deployments/worker-image/Dockerfile --tag $(IMAGE) $(IMAGE_ARGS) .

screenshots: development ## Take the README's pictures of Prefect's UI again
	@$(PYTEST) tests/real/test_ui.py --screenshots docs/images $(TEST_ARGS)

# Programs write these and compare them with what they would write now.
GENERATED := docs/benchmarks.md docs/parameters.md docs/settings.md docs/troubleshooting.md
DOCUMENTS = git ls-files -z --cached --others --exclude-standard -- '*.md' $(GENERATED:%=':!%')

check: development ## Formatting, lint, types and prose
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@set -o pipefail; $(DOCUMENTS) | xargs -0 $(VENV)/bin/mdformat --check
	@$(VENV)/bin/python -m tests.prose

format: development ## Let ruff rewrite the sources, and mdformat the documents
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .
	@set -o pipefail; $(DOCUMENTS) | xargs -0 $(VENV)/bin/mdformat

coverage: development ## How many lines of each module its tier's tests reach; at least 90 %
	@$(VENV)/bin/python -m tests.module_coverage $(TIERS)

DOCS_SOURCES := $(CURDIR)
DOCS_OUTPUT := build-output/site
docs: $(SITE)/installed ## Build the documentation site into build-output/site; a warning is an error
	@rm -rf $(DOCS_OUTPUT)
	@$(SITE)/bin/python -m sphinx -E -W -q -c $(DOCS_SOURCES)/docs -d $(DOCS_OUTPUT)/.doctrees $(DOCS_SOURCES) $(DOCS_OUTPUT)
	@rm -r $(DOCS_OUTPUT)/.doctrees $(DOCS_OUTPUT)/.buildinfo
	@echo 'written: $(DOCS_OUTPUT)/index.html'

bench: development ## Measure against ctr, oras and soci in one run; writes docs/benchmarks.md
	@$(VENV)/bin/python -m benchmarks $(BENCH_ARGS)

FUZZ_SECONDS ?= 600
fuzz: development ## Fuzz the readers of hostile bytes for FUZZ_SECONDS
	@$(VENV)/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# A separate environment: the dependencies of the mutation tool must not change the versions of the others.
MUTATION := .cache/mutation
$(MUTATION)/installed: requirements/mutation.txt $(UV) | prerequisites
	@echo '==> installing what requirements/mutation.txt pins into $(MUTATION)'
	@$(PYTHON) -m venv --without-pip $(MUTATION)
	@$(UV) pip install --quiet --compile-bytecode --python $(MUTATION) --require-hashes -r requirements/mutation.txt
	@touch $@

mutation: development $(MUTATION)/installed ## Change single places of the modules in tests/mutation/modules.py and show which changes no test notices
	@nice -n 15 $(VENV)/bin/python -m tests.mutation $(MUTATION_ARGS)

# --no-emit-index-url: a lock names versions and hashes, never the host that served them.
COMPILE = $(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
	--universal --python-version 3.11
lock: $(UV) ## Resolve the pins in requirements/ again
	@$(COMPILE) pyproject.toml --all-extras --group build -o requirements/runtime.txt
	@$(COMPILE) pyproject.toml --extra webhook --group build -c requirements/runtime.txt -o requirements/command.txt
	@$(COMPILE) pyproject.toml --all-extras --group build --group test --group check --group bench \
		-c requirements/runtime.txt -o requirements/development.txt
	@$(COMPILE) pyproject.toml --group docs -c requirements/runtime.txt -o requirements/docs.txt
	@$(COMPILE) --group mutation -o requirements/mutation.txt
	@$(COMPILE) --group docker-worker -c requirements/runtime.txt -o requirements/docker-worker.txt
	@$(UV) --version | sed -E 's/^uv ([^ ]+).*/uv==\1/' | $(COMPILE) - -o requirements/uv.txt

clean: ## Remove what the other targets made
	@rm -rf $(VENV) .toolchain .local .cache .mypy_cache .ruff_cache .hypothesis build-output
	@find src local_stack tests tasks flows deployments benchmarks -name __pycache__ -prune -exec rm -rf {} +
