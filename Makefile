PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
JOBS ?= 2
PART ?= 0/1
ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -qq --disable-pip-version-check --no-compile
READY := $(VENV)/.high_order_fused
NATIVE_SOURCES := $(shell find csrc -type f 2>/dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-all test-portable test-triton test-sanitize gpu-check lint format bench wheel clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(READY) ## Install what is missing into $(VENV)

demo: $(READY) ## Train on handwritten digits, compare, draw
	@$(PY) -m high_order_fused demo $(ARGS)

# Processes of tests share the cores: threads that wait for work must not spin.
test test-all test-portable test-triton: export OMP_WAIT_POLICY = PASSIVE

test: $(READY) ## Run the tests, without those marked slow
	@echo "==> Tests; those marked slow are left to make test-all"
	@$(PY) -m pytest -n $(JOBS) --benchmark-disable -m 'not slow' $(ARGS)

test-all: $(READY) ## Run every test
	@$(PY) -m pytest -n $(JOBS) --benchmark-disable $(ARGS)

# What other machines have: no vector instructions beyond the baseline, or no compiler.
test-portable: $(READY) ## Run the tests of results on the baseline kernels, and without compiled kernels
	@echo "==> Baseline kernels"
	@$(PY) -m pytest -n $(JOBS) --isa baseline tests/test_conformance.py tests/test_golden.py tests/test_kan.py -k 'not reference'
	@rm -rf build/portable && mkdir -p build/portable
	@cp -r high_order_fused csrc triton_kernels benchmarks tests docs setup.py pyproject.toml README.md LICENSE build/portable/
	@rm -f build/portable/high_order_fused/*.so
	@echo "==> No compiled kernels"
	@cd build/portable && HOF_NATIVE=0 $(abspath $(PY)) setup.py -q build_ext --inplace
	@cd build/portable && $(abspath $(PY)) -c 'from high_order_fused.native import native_missing as why; assert why()'
	@cd build/portable && $(abspath $(PY)) -m pytest -n $(JOBS) -p no:cacheprovider tests/test_native.py tests/test_golden.py \
		tests/test_layers.py tests/test_kan.py tests/test_errors.py tests/test_fuse.py

# The interpreter computes the 16-bit types in float32; it takes seconds a test, so the contractions' many cases run in float32 alone
# and long products once. PART=0/5 runs every fifth test.
test-triton: $(READY) ## Run the tests of results on the Triton kernels, in Triton's interpreter
	@echo "==> Triton kernels, interpreted"
	@TRITON_INTERPRET=1 $(PY) -m pytest -n $(JOBS) --backend triton --part $(PART) tests/test_triton.py tests/test_library.py tests/test_conformance.py tests/test_golden.py \
		tests/test_conv_kernels.py -k 'not reference and not cpu and not (test_conformance and bfloat16) and not (test_contractions and not float32)' $(ARGS)
	@TRITON_INTERPRET=1 $(PY) -m pytest -n $(JOBS) --part $(PART) tests/test_products.py -k 'triton and not (test_kernels and not float32) and not (long and not lagrange-extrapolate)' $(ARGS)

# A copy of the tree with sanitized kernels; leaks are Python's own and are not looked for.
test-sanitize: $(READY) ## Run the kernel tests under the address and undefined-behaviour sanitizers
	@rm -rf build/sanitize && mkdir -p build/sanitize
	@cp -r high_order_fused csrc triton_kernels benchmarks tests setup.py pyproject.toml README.md LICENSE build/sanitize/
	@rm -f build/sanitize/high_order_fused/*.so
	@echo "==> Building the kernels with sanitizers"
	@cd build/sanitize && HOF_SANITIZE=1 $(abspath $(PY)) setup.py -q build_ext --inplace
	@cd build/sanitize && LD_PRELOAD="$$($${CXX:-g++} -print-file-name=libasan.so) $$($${CXX:-g++} -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 $(abspath $(PY)) -m pytest -q -p no:cacheprovider tests/test_cpu.py tests/test_cpu_links.py tests/test_conformance.py tests/test_products.py tests/test_conv_kernels.py -k cpu

# Needs torch, triton, numpy and pytest alone, of whichever Python runs it: no installation, no compiler.
gpu-check: ## Run tests, sanitizer and benchmark on this machine's GPU with PYTHON; writes a JSON file
	@rm -rf build/gpu && mkdir -p build/gpu
	@cp -r high_order_fused tests build/gpu/ && cp -r benchmarks triton_kernels build/gpu/high_order_fused/ && cp pyproject.toml build/gpu/
	@rm -f build/gpu/high_order_fused/*.so
	@cd build/gpu && HOF_COMMIT="$${HOF_COMMIT:-$$(git rev-parse HEAD 2>/dev/null)}" PYTHONPATH="$$PWD" PYTHONUNBUFFERED=1 \
		$(if $(findstring /,$(PYTHON)),$(abspath $(PYTHON)),$(PYTHON)) -m high_order_fused.benchmarks.gpu_check \
		--output $(or $(OUTPUT),$(CURDIR)/benchmarks/results/$(shell date -u +%F)-gpu-check.json) $(ARGS)

lint: $(READY) ## Check style, formatting and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy --strict high_order_fused benchmarks

format: $(READY) ## Put imports and formatting right
	@$(PY) -m ruff check --select I --fix .
	@$(PY) -m ruff format .

bench: $(READY) ## Measure against the rivals that are installed
	@$(PY) -m high_order_fused bench $(ARGS)

wheel: $(READY) ## Build dist/*.whl, for every torch from 2.11 on
	@rm -rf build/wheel && mkdir -p build/wheel
	@cp -r high_order_fused csrc triton_kernels benchmarks setup.py pyproject.toml README.md LICENSE build/wheel/
	@rm -f build/wheel/high_order_fused/*.so
	@cd build/wheel && $(abspath $(PY)) -m build --wheel --no-isolation --outdir $(CURDIR)/dist

clean: ## Remove what was built and cached; the environment stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks $(READY)
	rm -f high_order_fused/*.so high_order_fused/*.pyd high_order_fused/native_missing.txt
	find high_order_fused triton_kernels benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@echo "==> Creating $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# torch comes first: resolved together with the rest, pip would take the newest and largest build there is.
$(READY): pyproject.toml setup.py $(NATIVE_SOURCES) | $(PY)
	@echo "==> Setting up $(VENV); the first time takes minutes, mostly for PyTorch"
	@$(PY) -c 'import torch' 2>/dev/null || { echo "==> Installing $(TORCH)"; $(PIP) '$(TORCH)'; }
	@echo "==> Installing the build tools"
	@$(PIP) ninja 'pybind11>=2.13' 'setuptools>=77' wheel
	@echo "==> Building high_order_fused; installing what tests, demo and benchmarks need"
	@$(PIP) --no-build-isolation -e '.[test,demo,bench,dev]'
	@echo "==> Installing high-order-layers-torch, the oracle of some tests and a rival in benchmarks"
	@$(PIP) --no-deps high-order-layers-torch==2.6.0 \
		|| echo "==> Not to be had: the tests against it will be reported as skipped"
	@$(PY) -c 'from high_order_fused.native import native_missing; print("==> Native parts:", native_missing() or "built")'
	@touch $@
