# What people and CI both call. PYTHON is the interpreter that makes .venv; ARGS goes to JupyterLab
# in `make lab` and to pytest in `make test`.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash
LOWEST := .venv-lowest/bin
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
         --nbval-cell-timeout 120
# Progress bars are for people: in recorded and compared outputs they would be noise.
QUIET := TQDM_DISABLE=1

.PHONY: lab test test-lowest lint format notebooks sweep-demo study study-small ladder ladder-small \
        checkpoints constraints clean

lab: .venv/.installed
	$(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir="$(CURDIR)" \
	    --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
	    $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

test: lint
	$(QUIET) $(BIN)/python -m pytest $(NBVAL) $(ARGS)

# The unit tests on the lowest versions that pyproject.toml admits.
test-lowest: .venv-lowest/.installed
	$(LOWEST)/python -m pytest tests --ignore tests/test_browser.py --ignore tests/test_notebooks.py \
	    $(ARGS)

lint: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: .venv/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Execute every notebook from a fresh kernel and save it with its outputs.
notebooks: .venv/.installed
	$(QUIET) $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False \
	    notebooks/*.ipynb

# A small sweep on the embedded images; killed and called again, it goes on where it was.
sweep-demo: .venv/.installed
	$(BIN)/python -m eca_lab sweep --data shapes --classes 4 --size 20 --backbone tiny \
	    --arms none se eca "eca(k=3)" --seeds 2 --epochs 5 --batch-size 32 --learning-rate 0.1 \
	    --device cpu --out data/results/demo

# The study that data/results/README.md declares: on a GPU, one setting after the other, or the small
# one on the CPU. What is finished is kept; called again, it goes on. BUDGET is in minutes: no trial
# is started that would not end within them. WORKERS trials run at once, each with GPU_SHARE of a GPU.
BUDGET ?= 100000
WORKERS ?= 4
GPU_SHARE ?= 0.25
SEEDS ?= 10
CIFAR10 ?= cifar10
TINY_IMAGENET ?=
STUDY := $(BIN)/python -m eca_lab sweep --out data/results/study --seeds $(SEEDS)
STUDY_GPU := $(STUDY) --device cuda --workers $(WORKERS) --gpu-share $(GPU_SHARE) --epochs 30
STUDY_ARMS := --arms none se eca "eca(k=1)" "eca(k=3)" "eca(k=5)" "eca(k=7)" "eca(k=9)" \
              "eca(gamma=1, b=1)" "eca(order=shuffled)" "eca(padding=circular)"

study: .venv/.installed
	left() { echo "$$(($(BUDGET) - SECONDS / 60))m"; }; \
	$(STUDY_GPU) --data "$(CIFAR10)" --backbone resnet10 --budget "$$(left)" \
	    $(STUDY_ARMS) "eca(k=5-5-5-3)" && \
	if [ -n "$(TINY_IMAGENET)" ]; then \
	    $(STUDY_GPU) --data "$(TINY_IMAGENET)" --size 64 --backbone resnet10 \
	        --budget "$$(left)" $(STUDY_ARMS) "eca(k=5-5-5-3)"; \
	else \
	    echo "No Tiny ImageNet: give its folder as TINY_IMAGENET=folder:PATH."; \
	fi && \
	$(STUDY_GPU) --data "$(CIFAR10)" --backbone resnet18 --budget "$$(left)" \
	    $(STUDY_ARMS) "eca(k=5-5-5-3)" "eca(k=3-5-7-7)"

STUDY_SMALL := $(STUDY) --data "$(CIFAR10)" --size 16 --per-class 2000 --backbone tiny --epochs 4 \
               --device cpu --workers $$(nproc) --budget "$(BUDGET)m"
study-small: .venv/.installed
	$(STUDY_SMALL) $(STUDY_ARMS) "eca(k=5-3-3)"

# The ladder from SE to ECA that the same file declares. Its trials join those of the study, and the
# arms that both have are trained once.
LADDER_ARMS := --arms none se "se(r=4)" "se(r=2)" "se(r=1)" se_var1 se_var2 se_var3 \
               "se_gc(groups=16)" "se_gc(group_size=16)" "se_gc(group_size=8)" "se_gc(groups=8)" \
               "eca_ns(k=3)" "eca(k=3)" eca
ladder: .venv/.installed
	$(STUDY_GPU) --data "$(CIFAR10)" --backbone resnet10 --budget "$(BUDGET)m" \
	    $(LADDER_ARMS)

ladder-small: .venv/.installed
	$(STUDY_SMALL) $(LADDER_ARMS) "se_gc(groups=4)"

# The trained networks of data/checkpoints, about two minutes each on one CPU core to itself. Those
# that are there are kept, so remove them first to train them again.
CHECKPOINTS := OMP_NUM_THREADS=1 $(BIN)/python -m eca_lab checkpoints --device cpu
checkpoints: .venv/.installed
	$(CHECKPOINTS) --seeds 3
	$(CHECKPOINTS) --seeds 1 --classes crescent,square --size 24 --arms eca --epochs 7 \
	    --batch-size 32 --learning-rate 0.05

# Pin the newest admitted versions, for every platform. No host name goes into the file.
constraints: .venv/.installed
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml \
	    --output-file constraints.txt

clean:
	rm -rf .venv .venv-lowest .pytest_cache .ruff_cache .hypothesis data/cache

# uv, not pip, installs: with some package sources pip resolves a CPU-only torch beside a
# torchvision that was built for CUDA, and then `import torchvision` fails.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt \
	    --editable ".[notebooks,test]"
	touch $@

.venv-lowest/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	$(LOWEST)/python -m pip install --quiet uv
	$(LOWEST)/uv pip install --quiet --python $(LOWEST)/python --resolution lowest-direct \
	    --editable ".[notebooks,test]"
	touch $@
