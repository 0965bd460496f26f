# Every target sets up .venv on need, from a clean checkout. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
ROOT ?= wardrobe-data
export HF_HUB_OFFLINE ?= 1
export VLLM_NO_USAGE_STATS ?= 1
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo recipes serve test test-fast coverage check format bench bench-registry bench-router bench-serve bench-rollouts bench-cpu-lora bench-batches bench-groups bench-data bench-train bench-tools bench-generator bench-peers drills drill-faults drill-migrate drill-scenarios drill-tuning reference constraints clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: ## make .venv: vLLM, training, tools (idempotent)
	@$(PYTHON) -m deploy.setup_env

demo: setup ## the whole product on a real model: train, register, serve, swap, roll back
	@$(BIN)/python -m deploy.examples

recipes: setup ## medical codes and licence texts in full: curves, preferences, what it costs (about two hours)
	@$(BIN)/python -m deploy.recipes

serve: setup ## serve ROOT (default ./wardrobe-data; made with the packaged base if absent)
	@test -f $(ROOT)/layout.json || $(BIN)/wardrobe --root $(ROOT) init --base "$$($(BIN)/wardrobe --root $(ROOT) base demo)"
	@exec $(BIN)/wardrobe --root $(ROOT) serve

# All but the real vLLM is shared out, by files, to a process per core and one more, up to four: a training takes 2 GB.
# Each has one thread: a second one saves the real base a fifth on a quiet machine and costs five times as much on a busy
# one, where threads wait for each other at every step. vLLM takes all cores, alone.
SHARED := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
FAST := not engine and not training and not slow

test: setup ## all tests, the real vLLM, model and training included
	@$(SHARED) -m "not engine"; light=$$?; \
	$(BIN)/python -m pytest -m engine; engine=$$?; \
	test $$light -eq 0 -a $$engine -eq 0

test-fast: setup ## all but the engine, training and what is slow besides: the loop while you work
	@$(SHARED) -m "$(FAST)"

coverage: setup ## which lines and branches the fast tests run, subprocesses included; the table goes to the terminal
	@mkdir -p .cache && $(SHARED) -m "$(FAST)" --cov --cov-report=term:skip-covered

check: setup ## lint, spelling, format, types, layers
	@git ls-files -z | xargs -0 $(BIN)/codespell -D- -D .ci/words.txt
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: bench-registry bench-router bench-rollouts bench-serve ## all measurements; results in bench-results/

bench-registry: setup ## 1,000 adapters with 10 versions each
	@$(BIN)/python -m loadtests.bench.registry

bench-router: setup ## the router over a mock, driven by wrk
	@$(BIN)/python -m loadtests.bench.router

bench-rollouts: setup ## simulated rollouts: false rollbacks, requests to detect, other tools' rules
	@OMP_NUM_THREADS=1 $(BIN)/python -m loadtests.bench.rollouts
	@OMP_NUM_THREADS=1 $(BIN)/python -m serve.rollout.simulation.crowds > bench-results/evidence-shares.md

bench-serve: setup ## real vLLM with and without the router, swap latency; a thousand versions in one replica
	@$(BIN)/python -m loadtests.bench.serving
	@$(BIN)/python -m loadtests.bench.thousand

bench-batches: setup ## a batch of 1,000 lines beside interactive traffic: what it costs the first token (about 8 minutes)
	@base=$$($(BIN)/wardrobe base demo .cache/smollm2-135m-instruct) && $(BIN)/python -m loadtests.bench.batches --base "$$base"

bench-groups: setup ## two groups on one vLLM: a flood beside a light one, 200 long requests at once (about 12 minutes)
	@base=$$($(BIN)/wardrobe base demo .cache/smollm2-135m-instruct) && $(BIN)/python -P -m loadtests.bench.groups --base "$$base"

bench-data: setup ## a data set of a million rows, checked: memory, seconds, what is found (about 5 minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m loadtests.bench.dataset

bench-train: setup ## training against a plain TRL script and TRL's defaults (about 10 minutes)
	@$(BIN)/python -m loadtests.bench.training

bench-tools: setup ## tool calls: trained at a shell and over the API; exact held-out calls offline and served (about 12 minutes)
	@$(BIN)/python -m loadtests.bench.calls

bench-generator: setup ## what the load generator itself can send, and its times beside vLLM's own client (about 6 minutes)
	@$(BIN)/python -m loadtests.bench.generator
	@base=$$($(BIN)/wardrobe base demo .cache/smollm2-135m-instruct) && $(BIN)/python -m loadtests.bench.agreement "$$base"

bench-peers: setup ## beside vllm-router, LiteLLM and bare vLLM, each in its own environment
	@$(BIN)/python -m loadtests.bench.peers

bench-cpu-lora: setup ## LoRA on the CPU: vLLM's own against ours, and ours against its base (about 20 minutes)
	@$(BIN)/python -m loadtests.bench.cpu_lora

reference: setup ## write docs/reference from what it describes
	@$(BIN)/python -m deploy.reference

constraints: ## write the installed versions to constraints.txt
	@$(BIN)/python -m deploy.constraints

clean: ## remove .venv and caches (never the data)
	@rm -rf .venv .mypy_cache .ruff_cache .import_linter_cache build *.egg-info

drill-scenarios: setup ## the nine packaged load-test scenarios on real servers, shortened (about 12 minutes)
	@$(BIN)/python -m loadtests.drills.scenarios

drill-faults: setup ## a root away, read-only, full, a stopped engine, hostile callers, under traffic on a real server (about 12 minutes)
	@$(BIN)/python -m loadtests.drills.faults

drill-tuning: setup ## workers killed at random while they train fifty small jobs of two keys (about 2 minutes)
	@$(BIN)/python -m loadtests.drills.tuning

drill-migrate: setup ## an account's three fine-tunes taken over by one command that is killed five times (about 20 minutes)
	@base=$$($(BIN)/wardrobe base demo .cache/smollm2-135m-instruct) && $(BIN)/python -P -m loadtests.drills.migrate --base "$$base"

drills: setup ## traffic, swaps, kill -9, every kind of rollout, replicas behind balancers, faults, on real servers (about an hour)
	@$(BIN)/python -m loadtests.drills.scenarios --scenes
	@$(BIN)/python -m loadtests.drills.replicas
	@$(BIN)/python -m loadtests.drills.balancers router
	@$(BIN)/python -m loadtests.drills.balancers ray
	@$(BIN)/python -m loadtests.drills.faults
