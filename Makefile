# Every target runs the set-up when it is needed; `make help` explains them all.
PYTHON     ?= python3
TORCH      ?=
PROFILE    ?= demo
BENCHMARK  ?= sweethome
CHAPTER    ?=
PARAMETERS ?=
JOBS       ?= 1
VARIANT    ?=
SEED       ?= 0
OUTPUT     ?=
SHORT      ?=
TESTERS    ?= 2
WHEELS     ?=

BIN   := .venv/bin
AUDIT := pip-audit==2.10.1
STAMP := .venv/.stamp
BOOK  := --profile $(PROFILE) --benchmark $(BENCHMARK)

ifeq ($(TORCH),)
TORCH_INDEX :=
else ifeq ($(TORCH),cpu)
TORCH_INDEX := https://download.pytorch.org/whl/cpu
else ifeq ($(TORCH),cuda)
TORCH_INDEX := https://download.pytorch.org/whl/cu130
else
$(error TORCH=$(TORCH) is not known; use TORCH=cpu, TORCH=cuda or nothing)
endif

.DEFAULT_GOAL := help
.PHONY: help setup reproduce verify ablations ablation book app lab prepare vendor notebooks readme test test-browser test-all bench gpu-report fuzz kill-test audit lint types layers check format clean

help: ## explain every target
	@echo "make reproduce, then make test; settings in brackets are given as NAME=value"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv from requirements.lock and install cmiclib  [PYTHON=python3 TORCH=cpu|cuda]

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: %s is Python %d.%d; 3.11 or later is needed\n  How to fix: make setup PYTHON=/path/to/python3.11" % (sys.executable, *sys.version_info[:2]))'
	$(PYTHON) -m venv .venv
ifdef TORCH_INDEX
	$(BIN)/python -m pip install -q --disable-pip-version-check --index-url $(TORCH_INDEX) $$(grep -E '^(torch|torchvision)==' requirements.lock)
endif
ifeq ($(TORCH),cpu)
	grep -v -E '^(nvidia-|cuda-|triton)' requirements.lock > .venv/requirements.txt
else
	cp requirements.lock .venv/requirements.txt
endif
	$(BIN)/python -m pip install -q --disable-pip-version-check -r .venv/requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@if git rev-parse --git-dir > /dev/null 2>&1; then \
	  git config filter.notebook.clean '.venv/bin/python cmiclib/book/notebooks.py clean' && \
	  git config filter.notebook.smudge cat && git config filter.notebook.required true; fi
	@touch $@

reproduce: $(STAMP) ## run what changed of the book, write the report  [PROFILE=smoke|demo|paper BENCHMARK=sweethome|DIR CHAPTER=06_training AT_ONCE=1|2 PARAMETERS="NAME=value"]
	@$(BIN)/cmic reproduce $(BOOK) $(addprefix --chapter ,$(CHAPTER)) $(addprefix --jobs ,$(AT_ONCE)) $(PARAMETERS)

verify: $(STAMP) ## compare outputs/demo/metrics.json with data/results/demo.json
	@$(BIN)/cmic verify

ablations: $(STAMP) ## run what is missing of every variant and seed, write data/results/ablations.json  [JOBS=2]
	@$(BIN)/cmic ablations --jobs $(JOBS) $(BOOK)

ablation: $(STAMP) ## run one variant anew beside its stored row  [VARIANT=no-category SEED=0 OUTPUT=FILE.json]
	@$(BIN)/cmic ablation $(BOOK) --seed $(SEED) $(addprefix --output ,$(OUTPUT)) $(if $(VARIANT),$(VARIANT),"")

book: $(STAMP) ## write the HTML only, from the notebooks that ran  [PROFILE]
	@$(BIN)/cmic book --profile $(PROFILE)

app: $(STAMP) ## open the query browser as an app on 127.0.0.1: your run if there is one, else the shipped model
	@$(BIN)/cmic app

lab: $(STAMP) ## open the book's first page in JupyterLab; script and notebook stay paired
	@JUPYTER_CONFIG_PATH=.jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH} $(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root)

prepare: $(STAMP) ## unpack data/sweethome into the prepared format
	@$(BIN)/cmic prepare sweethome

vendor: $(STAMP) ## fetch the scripts that let the HTML open without a network (npm, once)
	@$(BIN)/cmic vendor

notebooks: $(STAMP) ## write book/*.ipynb from book/*.py
	@$(BIN)/python cmiclib/book/notebooks.py sync

readme: $(STAMP) ## write README's result table from data/results/demo.json
	@$(BIN)/cmic readme

test: $(STAMP) ## the tests, some ten minutes on 2 cores  [TESTERS=2]
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(TESTERS) --dist worksteal -m "not slow and not browser and not gpu"

test-browser: $(STAMP) ## the tests that need Chromium; fetches one where there is none  [TESTERS=2]
	@command -v chromium chromium-browser google-chrome > /dev/null || $(BIN)/playwright install chromium
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(TESTERS) --dist loadfile -m browser $$(grep -rl 'mark\.browser' tests --include='*.py' | grep -v test_visitors)
	@$(BIN)/pytest -q -m browser tests/browser/test_visitors.py # counts seconds, so it has the machine to itself

test-all: $(STAMP) ## every test: slow ones, browser, GPU; more than half an hour  [TESTERS=2]
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(TESTERS) --dist worksteal -m "not browser"
	@$(MAKE) test-browser

bench: $(STAMP) ## measure search, training, preparation and memory into outputs/bench.json; forty minutes, an idle machine
	@$(BIN)/python tools/measure/bench.py

gpu-report: ## measure a GPU in seven minutes into outputs/gpu.json; needs no set-up  [PYTHON=.venv/bin/python WHEELS=DIR SHORT=1 OUTPUT=FILE.json]
	@$(PYTHON) tools/measure/gpu_report.py $(if $(SHORT),--cpu-smoke) $(addprefix --wheels ,$(WHEELS)) $(addprefix --output ,$(OUTPUT))

fuzz: $(STAMP) ## damage files in thousands of ways and read them  [SHORT=1 OUTPUT=FILE.json]
	@$(BIN)/python tools/check/fuzz.py $(if $(SHORT),--short) $(addprefix --output ,$(OUTPUT))

kill-test: $(STAMP) ## kill trainings and preparations, go on, compare  [SHORT=1 OUTPUT=FILE.json]
	@$(BIN)/python tools/check/kill_test.py $(if $(SHORT),--short) $(addprefix --output ,$(OUTPUT))

audit: $(STAMP) ## ask PyPI whether weaknesses of the pinned packages are known
	@$(PYTHON) -m venv .venv/audit
	@.venv/audit/bin/python -m pip install -q --disable-pip-version-check $(AUDIT)
	@$(BIN)/python tools/check/audit.py .venv/audit/bin/pip-audit

lint: $(STAMP) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .

types: $(STAMP) ## mypy
	@$(BIN)/mypy

layers: $(STAMP) ## import-linter: rooms import downwards only; see pyproject.toml
	@$(BIN)/lint-imports --no-logo --no-cache

check: lint types layers ## lint, types, import directions, and that scripts and notebooks agree
	@$(BIN)/python cmiclib/book/notebooks.py check

format: $(STAMP) ## apply ruff's fixes and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove outputs, the unpacked sweethome and caches; keeps .venv, vendor and other benchmarks
	rm -rf outputs data/prepared/sweethome* .pytest_cache .ruff_cache .mypy_cache
	find book cmiclib tests tools -name __pycache__ -prune -exec rm -rf {} +
