# Needs Python 3.11 to 3.13 with pip and venv, and make. `make help` lists the targets.
PYTHON ?= python3
# Where pip finds torch; for the CPU build, the index that pytorch.org's "Get started" page names for it.
TORCH_INDEX ?=

BIN := .venv/bin
SETUP := .venv/.complete
TORCH := $(shell sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
TEXTS = --text "$$($(BIN)/course fetch evaluation-text)" --calibrate "$$($(BIN)/course fetch calibration-text)"
ROOT_FLAG := $(shell [ "$$(id -u)" = 0 ] && echo --allow-root)

# $(call need,PROGRAM,DEBIAN PACKAGE): install what is missing when root, else name it
define need
@command -v $(1) >/dev/null || { \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing $(2)"; apt-get update -qq && apt-get install -y -qq --no-install-recommends $(2) >/dev/null; \
	else echo "this target needs $(2); on Debian: apt-get install $(2)"; exit 1; fi; }
endef

.PHONY: help setup demo lab mixes test lint unit compiled notebooks grader browser bench release
help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(SETUP) ## make the virtual environment .venv

$(SETUP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed; this is {v[0]}.{v[1]}")'
	@echo "setting up .venv (torch and JupyterLab: some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[lab,postgres,dev]'
	@touch $@

demo: $(SETUP) ## grade a sample class in demo/: the whole way of a submission
	$(call need,bwrap,bubblewrap)
	@$(BIN)/course demo

lab: $(SETUP) ## open JupyterLab on study/, your own copies of the notebooks
	@$(BIN)/course study
	@cd study && PATH="$(CURDIR)/$(BIN):$$PATH" jupyter lab $(ROOT_FLAG) --LabApp.default_url=/lab/tree/start.ipynb

release: $(SETUP) ## make release/ from source/
	@$(BIN)/course build

mixes: $(SETUP) ## every mix of both models: size, perplexity, KL divergence, top-1, and a picture of each in mixes/
	@mkdir -p mixes
	@$(BIN)/python -m quant_kernels mixes "$$($(BIN)/course fetch course-model)" $(TEXTS) --windows 32 --plot mixes/course-model.svg
	@$(BIN)/python -m quant_kernels mixes "$$($(BIN)/course fetch smollm2)" $(TEXTS) --windows 8 --plot mixes/smollm2.svg --allow-requantize

test: lint unit compiled notebooks demo grader browser ## everything that must hold

lint: $(SETUP) ## style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .

unit: $(SETUP) ## the unit tests, a process on each core
	$(call need,bwrap,bubblewrap)
	$(call need,g++,g++)
	@$(BIN)/course fetch smollm2 >/dev/null
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -n logical --dist loadfile

compiled: $(SETUP) ## the kernels through torch.compile: the same bits
	$(call need,g++,g++)
	@$(BIN)/pytest -q -m compiles

notebooks: $(SETUP) ## release/ equals source/; all sample answers get what they deserve; the notebooks run
	$(call need,bwrap,bubblewrap)
	@$(BIN)/course build --check
	@$(BIN)/course rehearse
	@$(BIN)/course fetch smollm2 >/dev/null
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -m rehearsal -n logical

grader: $(SETUP) ## the grader under attack, killed in the middle, on a database server
	$(call need,bwrap,bubblewrap)
	$(call need,$(or $(lastword $(wildcard /usr/lib/postgresql/*/bin/initdb)),initdb),postgresql)
	@OMP_NUM_THREADS=1 $(BIN)/pytest -q -m grader

browser: $(SETUP) ## a learner's first exercise, and an instructor's scoring, in JupyterLab in headless Chromium
	$(call need,bwrap,bubblewrap)
	$(call need,chromium,chromium)
	@$(BIN)/pytest -q -m browser

bench: $(SETUP) ## every claimed speed, beside its peers
	@for script in benchmarks/bench_*.py; do echo "$$script"; $(BIN)/python $$script || exit 1; done
