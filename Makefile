# The targets explain themselves: make help
PYTHON ?= python3
BIN := .venv/bin
EVENTS ?=
SINK ?=
SECONDS ?= 300
KIND ?=
SEED ?=
PLANS ?=
MINUTES ?=
WORKERS ?= 5

.DEFAULT_GOAL := help
# Where job servers are found: pipelines/cluster/job_server.py
JOB_SERVERS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/alertbeam/job-servers
.PHONY: help setup run test engines contract chaos chaos-flink soak mutants fidelity fuzz docs \
	lint types bench lock clean flink-job-server spark-job-server

help: ## Print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready ## Make .venv and install the locked packages

.venv/ready: requirements.lock setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else f"alertbeam needs Python 3.10-3.13, and $(PYTHON) is {v[0]}.{v[1]}: name another with make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

run: setup ## Run the main job on this machine and show the account (EVENTS=folder: your own files)
	$(BIN)/alertbeam demo $(if $(EVENTS),--events "$(EVENTS)")

again = { [ $$? = 1 ] && echo "once more, by themselves: those that failed" && \
	$(BIN)/pytest -m $(1) --last-failed --last-failed-no-failures none; }

test: setup ## Run the whole test suite (WORKERS=5: in so many processes)
	@# Many hold real limits of time, and a machine may have a bad minute: what failed has to pass
	@# by itself.
	$(BIN)/pytest -m 'not alone and not engines' -n $(WORKERS) --no-loadscope-reorder || \
		$(call again,'not alone and not engines')
	$(BIN)/pytest -m alone || $(call again,alone)
	$(BIN)/pytest -m 'engines and not thorough' -n 2 --no-loadscope-reorder || \
		$(call again,'engines and not thorough')

engines: setup ## Run all tests on a real Flink and a real Spark, also those that `make test` leaves out
	$(BIN)/pytest -m engines

chaos-flink: setup ## Kill what a job on a real Flink consists of, part by part: nothing may be lost
	$(BIN)/pytest -s tests/engines/test_streaming.py tests/engines/test_faults.py

flink-job-server: ## Build Beam's job server for Flink into the cache (with Maven, and a JDK 17)
spark-job-server: ## Build Beam's job server for Spark into the cache
flink-job-server spark-job-server: %-job-server:
	mvn --quiet --batch-mode --strict-checksums --file deploy/$*/pom.xml clean package
	mkdir -p "$(JOB_SERVERS)" && mv deploy/$*/build/beam-runners-*.jar "$(JOB_SERVERS)"
	rm -r deploy/$*/build

contract: setup ## Hold every sink to its contract (SINK=splunk_hec: only this one)
	$(BIN)/pytest tests/transforms/sinks/test_contract.py $(if $(SINK),--sink "$(SINK)")

chaos: setup ## Play seeded plans of faults (KIND=kill SEED=17 PLANS=5 MINUTES=10), and judge them
	$(BIN)/python -m tests.chaos $(foreach kind,$(KIND),--kind $(kind)) $(if $(SEED),--seed $(SEED)) \
		$(if $(PLANS),--plans $(PLANS)) $(if $(MINUTES),--minutes $(MINUTES))

soak: setup ## Troubles under load (SECONDS=300): ten sinks, faults every minute, a slow sink, a kill
	ALERTBEAM_SOAK=$(SECONDS) $(BIN)/pytest -s tests/acceptance

mutants: setup ## Plant bugs in copies of the tree: the suite must find each
	$(BIN)/python -m tests.mutants

fidelity: setup ## Compare what is read of real events with what peers read (needs ../shared)
	$(BIN)/python -m tests.fidelity

fuzz: setup ## Mutate a million events: none may crash the parse, take long, or be lost
	$(BIN)/python -m tests.fuzz

docs: setup ## Make the pages of the kinds and formats, and the shapes, anew from the code
	$(BIN)/python -m tests.docs
	$(BIN)/python -m tests.shapes

lint: setup ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Check types (strict in schemas and transforms)
	$(BIN)/mypy

bench: setup ## Measure: Beam's tax, streaming cost, latency, memory
	$(BIN)/python -m benchmarks

lock: setup ## Resolve the packages anew, for every supported Python
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --extra dev --upgrade setup.py -o requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --extra kafka --extra google --extra gs --extra s3 \
		--constraint requirements.lock setup.py -o deploy/containers/requirements.lock
	echo 'setuptools>=77' | $(BIN)/uv pip compile --universal --python-version 3.10 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate - \
		-o deploy/containers/build.lock

clean: ## Remove what make made
	rm -rf .venv build out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
