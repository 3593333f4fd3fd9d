# What people and CI both call. ARGS goes to JupyterLab in `make lab`, to benchmarks/gpu.py in
# `make gpu`, and to pytest in all that tests.
# It also works in GNU Make 3.81, which comes with macOS.
SHELL := /bin/bash
BIN := .venv/bin
LOWEST := .venv-lowest/bin
# PYTHON makes .venv: as it is named, else the first of these that runs, is new enough and has venv.
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3
IS_RIGHT := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
NAMED := $(PYTHON)
PYTHON ?= $(shell for python in $(PYTHONS); do \
    $$python -c '$(IS_RIGHT)' 2>/dev/null && echo $$python && break; done)
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
         --nbval-cell-timeout 120
# Two workers of one thread each. A file stays in one of them: its fixtures are made once, and the
# cells of a notebook run in order.
XDIST := -n 2 --dist loadscope --no-loadscope-reorder
# Progress bars are for people: in recorded and compared outputs they would be noise.
QUIET := TQDM_DISABLE=1

.PHONY: lab test test-js test-browser test-lowest lint format notebooks site sweep-demo study study-small \
        photographs why imagenet-subset ladder ladder-small gpu checkpoints constraints clean

lab: .venv/.reader
	$(BIN)/python -m eca_lab lab -- $(ARGS)

test: lint test-js
	$(QUIET) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(XDIST) $(NBVAL) -m "not browser" $(ARGS)

# Explorers and notebooks by hand and keys, in JupyterLab in Chromium. Without plugins that are not
# needed here, and that take seconds to import in each process.
test-browser: .venv/.installed
	$(QUIET) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(XDIST) -p no:nbval -p no:hypothesispytest \
	    -m browser tests/explorers/test_browser.py tests/explorers/test_alone.py \
	    tests/explorers/test_network.py \
	    tests/test_browser_notebooks.py $(ARGS)

# The unit tests on the lowest versions that pyproject.toml admits.
test-lowest: .venv-lowest/.installed
	$(QUIET) OMP_NUM_THREADS=1 $(LOWEST)/python -m pytest $(XDIST) tests \
	    -m "not browser" --ignore tests/test_notebooks.py $(ARGS)

# What the explorers compute without a page.
test-js:
	@if command -v node >/dev/null; then \
	    node --test tests/explorers/*.test.js; \
	else \
	    echo "No node: the tests of the JavaScript that need no page are skipped."; \
	fi

# Biome checks and formats JavaScript where `npm ci` has installed it.
BIOME := node_modules/.bin/biome
with_biome = @if [ -x $(BIOME) ] && command -v node >/dev/null; then \
    $(BIOME) $(1) eca_lab tests; \
else \
    echo "No $(BIOME): the JavaScript is skipped. \`npm ci\` installs it."; \
fi

lint: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(call with_biome,check --error-on-warnings)

format: .venv/.installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(call with_biome,check --write)

# Execute every notebook from a fresh kernel and save it with its outputs.
ALIVE = $(shell $(BIN)/python -c "from eca_lab.lab import ALIVE; print(*ALIVE)")
EXECUTE := $(QUIET) $(BIN)/jupyter nbconvert --to notebook --execute --inplace \
    --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state
notebooks: .venv/.reader
	$(EXECUTE)=True $(ALIVE)
	$(EXECUTE)=False $(filter-out $(ALIVE),$(wildcard notebooks/*.ipynb))

# The notebooks as pages for a browser alone, in site/: each is run down to its explorer.
site: .venv/.reader
	$(QUIET) $(BIN)/python -m eca_lab.site

# A small sweep on the embedded images; killed and called again, it goes on where it was.
sweep-demo: .venv/.reader
	$(BIN)/python -m eca_lab sweep --data shapes --classes 4 --size 20 --backbone tiny \
	    --arms none se eca "eca(k=3)" --seeds 2 --epochs 5 --batch-size 32 --learning-rate 0.1 \
	    --device cpu --out data/results/demo

# The studies that data/studies declares: on a GPU, one setting after the other, or the small one on
# the CPU. What is finished is kept; called again, it goes on. BUDGET is in minutes: no trial is
# started that would not end within them (what `photographs` trains beside its study goes on without).
# WORKERS trials run at once, each with GPU_SHARE of a GPU.
# CIFAR10 and TINY_IMAGENET say where the images are, such as folder:PATH; CIFAR-10 is downloaded.
BUDGET ?= 100000
WORKERS ?= 4
GPU_SHARE ?= 0.25
CIFAR10 ?= cifar10
TINY_IMAGENET ?=
SWEEP := $(BIN)/python -m eca_lab sweep
ON_GPU := --device cuda --workers $(WORKERS) --gpu-share $(GPU_SHARE)
CORES := $$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
ON_CPU := --device cpu --workers $(CORES) --budget "$(BUDGET)m"

study: .venv/.reader
	left() { echo "$$(($(BUDGET) - SECONDS / 60))m"; }; \
	fixed_k() { $(SWEEP) --study fixed-k --setting $$1 --data "$$2" $(ON_GPU) --budget "$$(left)"; }; \
	fixed_k resnet10 "$(CIFAR10)" && \
	if [ -n "$(TINY_IMAGENET)" ]; then \
	    fixed_k tiny-imagenet "$(TINY_IMAGENET)"; \
	else \
	    echo "No Tiny ImageNet: give its folder as TINY_IMAGENET=folder:PATH."; \
	fi && \
	fixed_k resnet18 "$(CIFAR10)"

study-small: .venv/.reader
	$(SWEEP) --study fixed-k --setting small --data "$(CIFAR10)" $(ON_CPU)

# Some 20 hours of one CPU core. The networks of three seeds are kept, and what they do is recorded.
photographs: .venv/.reader
	$(SWEEP) --study photographs --setting cifar10 --data "$(CIFAR10)" $(ON_CPU)
	$(CHECKPOINTS) --study photographs --setting cifar10 --data "$(CIFAR10)" --seeds 3 \
	    --arms "eca(order=shuffled)"
	$(BIN)/python -m eca_lab record --data "$(CIFAR10)" --size 32

# Some 22 hours of one CPU core, one with AVX512-BF16, on which the recorded trials ran.
why: .venv/.reader
	$(SWEEP) --study why --setting cifar10 --data "$(CIFAR10)" $(ON_CPU)

imagenet-subset: .venv/.reader
	$(SWEEP) --study imagenet-subset --setting tiny-imagenet $(ON_CPU) \
	    $(if $(TINY_IMAGENET),--data "$(TINY_IMAGENET)")

ladder: .venv/.reader
	$(SWEEP) --study ladder --setting resnet10 --data "$(CIFAR10)" $(ON_GPU) --budget "$(BUDGET)m"

ladder-small: .venv/.reader
	$(SWEEP) --study ladder --setting small --data "$(CIFAR10)" $(ON_CPU)

# What a GPU machine is to be asked, in ten minutes that may be cut off: all of it lies in OUT, to be
# carried away. With ARGS=--dry it runs on the CPU, for the wiring alone.
OUT ?= data/results/gpu/$$(date +%Y%m%d-%H%M%S)
gpu: .venv/.installed
	$(BIN)/python benchmarks/gpu.py --out "$(OUT)" --data "$(CIFAR10)" $(ARGS)

# The trained networks on `shapes`, about two minutes each on one CPU core to itself. Those that
# are there are kept, so remove them first to train them again.
CHECKPOINTS := OMP_NUM_THREADS=1 $(BIN)/python -m eca_lab checkpoints --device cpu
checkpoints: .venv/.reader
	$(CHECKPOINTS) --seeds 3
	$(CHECKPOINTS) --seeds 1 --classes crescent,square --size 24 --arms eca --epochs 7 \
	    --batch-size 32 --learning-rate 0.05
	$(BIN)/python -m eca_lab record --per-class 30

# Pin the newest admitted versions, for every platform. No host name goes into the file.
constraints: .venv/.installed
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml \
	    --output-file constraints.txt

clean:
	rm -rf site .venv .venv-lowest .pytest_cache .ruff_cache .mypy_cache .hypothesis data/cache

# A .venv is made anew where its Python does not run (it was removed since), is too old, or is not
# the one that PYTHON names.
WHICH = $(shell $(1) -c 'import sys; print(sys.version, sys.base_prefix)' 2>/dev/null)
ifneq "$(shell $(BIN)/python -c '$(IS_RIGHT)' 2>/dev/null && echo right)" "right"
STALE := again
else ifneq "$(NAMED)" ""
ifneq "$(call WHICH,$(PYTHON))" "$(call WHICH,$(BIN)/python)"
STALE := again
endif
endif
.PHONY: again
.venv/pyvenv.cfg: $(STALE)
	@$(call check_python)
	@echo "$$($(PYTHON) --version), $$(command -v $(PYTHON)), makes .venv. Another: PYTHON=..."
	$(PYTHON) -m venv --clear .venv

define check_python
if ! $(or $(PYTHON),false) -c '$(IS_RIGHT)' 2>/dev/null; then \
    echo "ECA Lab needs Python 3.11 or newer, with venv. Found:"; \
    for python in $(or $(NAMED),$(PYTHONS)); do \
        echo "    $$python: $$($$python --version 2>/dev/null || echo none that runs)"; \
    done; \
    echo "Name another: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; \
    echo "(On Debian and Ubuntu venv is a package of its own: python3-venv.)"; \
    exit 1; \
fi
endef

# uv, not pip, installs: with some package sources pip resolves a CPU-only torch beside a
# torchvision that was built for CUDA, and then `import torchvision` fails. All is compiled at once:
# where Python writes no bytecode itself (PYTHONDONTWRITEBYTECODE, as in many containers) it would
# compile torch at every start, for longer than the import takes otherwise.
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
    --constraint constraints.txt --editable

# What a reader of the notebooks needs, and who trains. The tests need more.
.venv/.reader: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet uv
	$(INSTALL) ".[notebooks]"
	touch $@

.venv/.installed: .venv/.reader
	$(INSTALL) ".[notebooks,test]"
	touch $@

.venv-lowest/.installed: pyproject.toml
	@$(call check_python)
	$(PYTHON) -m venv --clear .venv-lowest
	$(LOWEST)/python -m pip install --quiet uv
	$(LOWEST)/uv pip install --quiet --python $(LOWEST)/python --resolution lowest-direct \
	    --editable ".[notebooks,test]"
	touch $@
