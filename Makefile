# Everything a user or a build server runs. `make help` lists the targets.
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= results/demo
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
# A worker a core, so torch gets one thread in each.
ONE_THREAD := OMP_NUM_THREADS=1
# The last one adds head pruning and progressive key planes to the token cascade.
DEMO_METHODS := dense,random,spatten,tome,evit,powerbert,spatten:head_keep=0.75,quantisation=8+4

export VENV

.DEFAULT_GOAL := help
.PHONY: help environment system demo check unit test test-full bench scalesim sweep-bench gpu-bench validation registers charts resources bit-plans ladder early-termination transforms site leaderboard notebooks models clean distclean constraints

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

environment: ## create .venv with everything that was tested; skipped when it is up to date
	@scripts/environment.sh

system: ## install iverilog, g++, make and perl with apt where they are missing
	@scripts/system_packages.sh

demo: environment ## compare methods on MiniLM and the published SpAtten machine (under a minute)
	$(BIN)/topsieve compare --model minilm --methods $(DEMO_METHODS) --keep 0.5 --accelerator spatten --out $(OUT)

check: environment ## ruff (lint and format) and mypy (strict)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

unit: environment system ## the tests, without the slow proofs
	$(ONE_THREAD) $(PYTEST) -n $(WORKERS) --dist worksteal

test: check unit ## everything that must pass before a change lands

test-full: check system ## test, with the slow proofs and newly drawn cases
	TOPSIEVE_HYPOTHESIS=explore $(ONE_THREAD) $(PYTEST) -n $(WORKERS) --dist worksteal -m "full or not full"

bench: environment ## speed of simulator and library, ratios measured side by side
	$(BIN)/python -m topsieve_sim.bench
	$(BIN)/python -m topsieve_sim.closed_form.bench
	$(BIN)/python -m topsieve_sim.dram.bench
	$(BIN)/python scripts/scalesim_bench.py
	$(BIN)/python -m topsieve_rtl.bench
	$(BIN)/python -m topsieve.bench
	$(BIN)/python -m topsieve.exploration.bench

scalesim: environment ## SCALE-Sim 3.0.0 in an environment of its own (it needs numpy 1.26), for make bench; half a gigabyte
	$(BIN)/python -m venv .venv-scalesim
	.venv-scalesim/bin/pip install --quiet scalesim==3.0.0 numpy==1.26.4

sweep-bench: environment ## what workers cost a sweep, in processor and wall-clock time (two idle cores; a few minutes)
	$(BIN)/python -m topsieve.exploration.bench

resources: environment ## measure units and machines on FPGA families, into docs/resources.md (an hour at first; goes on after an interruption)
	$(BIN)/python -m topsieve_rtl.synthesis docs/resources.md

gpu-bench: environment ## check and time the GPU kernels beside public baselines, into docs/gpu.md (needs a CUDA GPU, exit 2 without)
	$(BIN)/python -m topsieve_kernels.bench --out software/topsieve/gpu/measured $(if $(SHAPES),--shapes $(SHAPES))
	$(BIN)/python -m topsieve.gpu.page docs/gpu.md

validation: environment ## published numbers beside ours, into docs/validation.md
	$(BIN)/topsieve validate --out docs/validation.md

registers: environment ## the register map, into docs/registers.md and the C header
	$(BIN)/python -m topsieve_rtl.csr docs/registers.md rtl/topsieve_rtl/csr/topsieve_registers.h

charts: environment ## cycles and area of the top-k selectors, into docs/topk-selectors.png
	$(BIN)/python -m topsieve.selector_chart docs/topk-selectors.png docs/resources.md

transforms: environment ## every transform on real input on the published machine, into docs/transforms.md
	$(BIN)/topsieve transforms table --out docs/transforms.md

bit-plans: environment ## accuracy of key planes on MiniLM's operands, into docs/bit-plans.md
	$(BIN)/python -m topsieve.bit_plans docs/bit-plans.md

ladder: environment ## the successor's features over the published machine, into docs/successor-ladder.md
	$(BIN)/topsieve ladder --out docs/successor-ladder.md

early-termination: environment ## accuracy and cost of ending keys early on real operands, into docs/early-termination.md
	$(BIN)/python -m topsieve.early_termination docs/early-termination.md

site: environment ## build the documentation site, with the reference from docstrings, into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

leaderboard: environment ## every method on every model, into docs/leaderboard.md and its plots (under ten minutes of one core)
	$(BIN)/python -m topsieve.leaderboard docs

notebooks: environment ## the Jupyter files from notebooks/*.py, and their figures, into docs/notebooks (minutes)
	$(BIN)/python scripts/notebooks.py --figures docs/notebooks

models: environment ## train byte-gpt, digits-vit and mosaic-llava anew, with their checkpoints (each at most ten minutes of one core)
	$(BIN)/python -m topsieve.subjects.byte_gpt.train
	$(BIN)/python -m topsieve.subjects.digits_vit.train
	$(BIN)/python -m topsieve.subjects.mosaic_llava.train

constraints: environment ## write the installed versions to constraints.txt
	@scripts/freeze.sh

clean: ## remove build products, results and caches, not .venv
	rm -rf build dist results .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -path ./.venv-scalesim -prune -o -name __pycache__ -type d -print | xargs rm -rf

distclean: clean ## clean, and .venv and .venv-scalesim too
	rm -rf $(VENV) .venv-scalesim
