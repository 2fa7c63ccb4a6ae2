# `make help` lists what there is. Everything sets up what it needs in .venv, from locked hashes.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test check lint typecheck layers unit coverage integration e2e e2e-kind e2e-openstack \
	chaos-kill chaos soak storm bench-claims bench-failover bench-fill bench-history bench-page bench-placement bench-poll crds lock clean

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements/dev.txt pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies (about a minute the first time)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## the main job, shown: ONCE=1 ends after the story, CLOUD=name uses your clouds.yaml
	@exec $(BIN)/python -m warmpool.tools.demo $(if $(ONCE),--once) $(if $(CLOUD),--cloud $(CLOUD)) $(DEMO_ARGS)

# Control plane and MongoDB are built, if they have to be, while tests run that do not need them.
test: check ## everything that needs no cloud of yours
	@{ $(BIN)/python -m warmpool.tools.controlplane build && $(BIN)/python -m warmpool.tools.mongodb build; } & building=$$!; \
	  $(MAKE) --no-print-directory unit; wait $$building
	@$(MAKE) --no-print-directory integration e2e chaos-brief

check: lint typecheck layers crds-check ## all that needs neither cluster nor cloud, but the tests

lint: $(READY) ## ruff and spelling
	@test ! -e operator/__init__.py || { echo "operator/__init__.py shadows the standard library: remove it"; exit 1; }
	@! git ls-files -s 2>/dev/null | grep '^120000' || { echo "a link is no file: it leads nowhere on another machine"; exit 1; }
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/codespell operator docs README.md crds manifests

typecheck: $(READY) ## mypy, strict
	@$(BIN)/mypy

layers: $(READY) ## who may import whom
	@$(BIN)/lint-imports --no-cache

crds: $(READY) ## render crds/ and docs/reference/ from the models
	@$(BIN)/python -m warmpool.tools.crds --write

.PHONY: dashboards
dashboards: $(READY) ## render manifests/grafana/ and manifests/kibana/ from their descriptions
	@$(BIN)/python -m warmpool.tools.dashboards --write

.PHONY: crds-check
crds-check: $(READY) ## crds/ and docs/reference/ are what the models say
	@$(BIN)/python -m warmpool.tools.crds --check

# Halves that run side by side: one process uses one core.
SIDE_BY_SIDE := $(MAKE) --no-print-directory --jobs=2 --output-sync=target

unit: $(READY) ## pure tests, contracts, scenarios
	@$(SIDE_BY_SIDE) unit-first unit-second

# Halves that take as long as each other: the scenarios alone take three times as long as the rest.
.PHONY: unit-first unit-second
unit-first: $(READY)
	@$(BIN)/pytest -q -m "not integration" tests/unit tests/contract tests/scenario/test_[a-o]*.py

unit-second: $(READY)
	@$(BIN)/pytest -q tests/scenario/test_[p-z]*.py

coverage: $(READY) ## every branch of the pure packages is tested: api, domain, planning
	@$(BIN)/pytest -q -m "not integration" tests/unit --cov=warmpool.api --cov=warmpool.domain \
	  --cov=warmpool.planning --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=100

integration: $(READY) ## against a real kube-apiserver and etcd
	@$(SIDE_BY_SIDE) integration-own integration-contracts

.PHONY: integration-own integration-contracts
integration-own: $(READY)
	@$(BIN)/pytest -q tests/integration

integration-contracts: $(READY)
	@$(BIN)/pytest -q -m integration tests/contract

e2e: $(READY) ## journeys of the whole operator, on the local control plane and the simulator
	@$(BIN)/pytest -q e2e --ignore=e2e/test_chaos.py --ignore=e2e/test_soak.py

e2e-kind: $(READY) ## the journeys on a kind cluster; exits 3 where there is no container engine
	@exec e2e/kind.sh $(BIN)/pytest

chaos-kill: $(READY) ## kill -9 of the leader, 20 times, at random moments while pools fill and claims come
	@$(BIN)/pytest -q -s e2e/test_kill9.py --cycles 20

chaos: $(READY) ## everything goes wrong at once: MINUTES=10 SEED=7, see docs/testing.md
	@$(BIN)/pytest -q -s -o faulthandler_timeout=0 e2e/test_chaos.py --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

.PHONY: chaos-brief
chaos-brief: $(READY) ## two minutes of it, always the same deeds
	@$(BIN)/pytest -q -s e2e/test_chaos.py --minutes 2 --seed $(or $(SEED),1)

.PHONY: chaos-mutations
chaos-mutations: $(READY) ## the chaos run must fail once a piece of the operator is taken away
	@$(BIN)/python e2e/mutations.py

soak: $(READY) ## pools left alone with a cloud that misbehaves: MINUTES=30 SEED=7, see docs/testing.md
	@$(BIN)/pytest -q -s -o faulthandler_timeout=0 e2e/test_soak.py --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))

storm: $(READY) ## many claims while leaders are killed, replayed and checked; WARMPOOL_STORM=full for 1,000
	@$(BIN)/pytest -q -s e2e/test_claims_storm.py

e2e-openstack: $(READY) ## the journeys on the cloud that OS_CLOUD names; MEMBER=a plain member's; LAB=pid-files: it may be broken
	@test -n "$${OS_CLOUD:-}" || { echo "set OS_CLOUD to a cloud of your clouds.yaml"; exit 2; }
	@$(BIN)/pytest -q e2e --ignore=e2e/test_chaos.py --ignore=e2e/test_soak.py --cloud "$$OS_CLOUD" $(if $(MEMBER),--member "$(MEMBER)") $(if $(LAB),--lab '$(LAB)')

bench-claims: $(READY) ## latency of claims against their bare cost
	@$(BIN)/python benchmarks/bench_claims.py

bench-failover: $(READY) ## how long nobody is served when the leader goes
	@$(BIN)/python benchmarks/bench_failover.py

bench-fill: $(READY) ## how long a pool of 200 VMs takes, against the builds alone
	@$(BIN)/python benchmarks/bench_fill.py

bench-placement: $(READY) ## cost of one placement decision
	@$(BIN)/python benchmarks/bench_placement.py

bench-poll: $(READY) ## bytes and CPU of knowing 10,000 servers, by what happens to them
	@$(BIN)/python benchmarks/bench_poll.py

bench-history: $(READY) ## what history costs claims, with and without Elasticsearch away
	@PYTHONPATH=tests $(BIN)/python benchmarks/bench_history.py

bench-page: $(READY) ## how soon the page shows what there is and what has changed, in Chromium
	@PYTHONPATH=tests $(BIN)/python benchmarks/bench_page.py

lock: $(READY) ## lock the dependencies anew
	@$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	  --strip-extras --allow-unsafe --extra dev -o requirements/dev.txt pyproject.toml

clean: ## remove what the build left here; the user's cache stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
