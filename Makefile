# Two commands on a fresh machine: `make demo` and `make test`. `make help` lists the rest.

# The interpreter that creates the environment: Python 3.10 to 3.12.
PYTHON ?= python3
# The environment. In one of your own, only missing packages are added.
VENV ?= .venv

RUN := '$(VENV)/bin/python'
DEMO := mask-rcnn_stvit-nano_fpn_scenes
DEMO_CONFIG := configs/mask_rcnn/$(DEMO).py
DEMO_DIR := work_dirs/$(DEMO)
TRANSFER_DIR := work_dirs/transfer
FAMILIES := cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes upernet/stvit-nano_upernet_scenes imagenet/stvit-nano_scenes
# One epoch of the demo's detector, with a schedule of that length.
ONE_EPOCH := $(RUN) tools/train.py $(DEMO_CONFIG) --cfg-options train_cfg.max_epochs=1 train_cfg.val_interval=1 \
	param_scheduler.1.T_max=1 param_scheduler.1.end=1

# Number of test files that run at the same time; each test computes on one thread.
JOBS ?= 2
PARALLEL := -n $(JOBS) --dist loadfile --no-loadscope-reorder

# OpenMP threads spin while they wait. On a shared machine a spinning thread takes the core that the others need, and
# training becomes ten times slower. A short spin costs nothing on an idle machine.
export GOMP_SPINCOUNT ?= 1000

# For test-torch: the versions of everything but PyTorch, and the tests, which run without mmcv's operators.
PINS ?= requirements/tested.txt
TORCH_TESTS := tests/test_golden.py tests/test_ops tests/test_layers tests/test_models tests/test_checkpoint

.PHONY: help env demo families transfer scenes app test test-long test-slow test-torch gpu docs lint format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

env: ## create the environment (PyTorch, OpenMMLab stack, mmstvit), or return at once if it is ready
	@'$(PYTHON)' tools/misc/setup_env.py --venv '$(VENV)'

scenes: env ## generate the bundled data set in data/scenes
	$(RUN) tools/dataset_converters/scenes.py

demo: scenes ## train Mask R-CNN on the bundled data, evaluate it, draw a contact sheet
	$(RUN) tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO_DIR)
	$(RUN) tools/analysis_tools/contact_sheet.py $(DEMO_CONFIG) "$$(cat $(DEMO_DIR)/last_checkpoint)" \
		--work-dir $(DEMO_DIR)/contact_sheet --out $(DEMO_DIR)/contact_sheet.png
	$(RUN) tools/test.py $(DEMO_CONFIG) "$$(cat $(DEMO_DIR)/last_checkpoint)" --work-dir $(DEMO_DIR)/test
	@echo "contact sheet: $(DEMO_DIR)/contact_sheet.png"

families: scenes ## train and test the other families on the bundled data: Cascade Mask R-CNN, UPerNet, classifier
	@set -e; for config in $(FAMILIES); do \
		dir=work_dirs/$$(basename $$config); \
		$(RUN) tools/train.py configs/$$config.py --work-dir $$dir; \
		$(RUN) tools/test.py configs/$$config.py "$$(cat $$dir/last_checkpoint)" --work-dir $$dir/test; \
	done

transfer: scenes ## train the classifier, then Mask R-CNN for one epoch, from scratch and from the weights of the classifier
	$(RUN) tools/train.py configs/imagenet/stvit-nano_scenes.py --work-dir $(TRANSFER_DIR)/classifier
	$(ONE_EPOCH) --work-dir $(TRANSFER_DIR)/scratch
	$(ONE_EPOCH) model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.prefix=backbone. \
		model.backbone.init_cfg.checkpoint="$$(cat $(TRANSFER_DIR)/classifier/last_checkpoint)" \
		--work-dir $(TRANSFER_DIR)/pretrained
	@set -e; for run in scratch pretrained; do \
		$(RUN) tools/test.py $(DEMO_CONFIG) $(TRANSFER_DIR)/$$run/epoch_1.pth --work-dir $(TRANSFER_DIR)/$$run/test; \
		echo "The results above: one epoch, $$run."; \
	done

app: scenes ## serve a page on this machine to try the checkpoints in work_dirs
	$(RUN) -m mmstvit.app

test: env ## run the default test suite
	$(RUN) -m pytest $(PARALLEL)

test-long: env ## run the tests that take tens of seconds each
	$(RUN) -m pytest $(PARALLEL) -m long

test-slow: env ## run whole training runs with their floors, the other sizes of every recipe, more heads, the ablations
	$(RUN) -m pytest -m slow

test-torch: ## run the tests of operators, models and checkpoints in a throw-away environment: make test-torch TORCH=2.9.1
	@test -n '$(TORCH)' || { echo 'Name a version: make test-torch TORCH=2.9.1' >&2; exit 2; }
	@set -ex; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	'$(PYTHON)' -m venv "$$dir/env"; python="$$dir/env/bin/python"; \
	grep -vE '^torch(vision)?==' '$(PINS)' > "$$dir/pins.txt"; \
	"$$python" -m pip install -q -c "$$dir/pins.txt" 'setuptools>=77,<82' 'torch==$(TORCH)' torchvision; \
	"$$python" -m pip install -q -c "$$dir/pins.txt" --no-cache-dir \
		onedl-mmengine onedl-mmcv onedl-mmpretrain safetensors pytest pytest-xdist hypothesis; \
	"$$python" -m pip install -q --no-deps --no-build-isolation -e .; \
	"$$python" -m pip list | grep -E '^(torch|numpy|triton|onedl)'; \
	"$$python" -m pytest $(PARALLEL) $(TORCH_TESTS)

gpu: scenes ## on a machine with a GPU: tests, benchmarks, a training run of each family; writes work_dirs/gpu/report.md
	$(RUN) tools/misc/gpu_report.py

docs: env ## build the pages of docs/ into build/docs
	$(RUN) -m sphinx -q -W --keep-going docs build/docs
	@echo "pages: build/docs/index.html"

lint: env ## check the style
	'$(VENV)/bin/ruff' check .
	'$(VENV)/bin/ruff' format --check .

format: env ## correct the style
	'$(VENV)/bin/ruff' check --fix .
	'$(VENV)/bin/ruff' format .

clean: ## remove what the targets created, except the environment
	rm -rf data/scenes work_dirs build dist .pytest_cache .ruff_cache .hypothesis
