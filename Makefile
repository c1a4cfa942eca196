# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone.
# TORCH_INDEX: address of the index that holds another build of torch (CUDA); empty = the default of your pip.
# WHEELHOUSE:  folder of wheels for machines without internet; empty = the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH_INDEX ?=
WHEELHOUSE ?=
PIP_SOURCE := $(if $(WHEELHOUSE),--no-index --find-links $(WHEELHOUSE),$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX),))
# Tests wait for processes and sockets half of the time: three of them keep two cores busy.
WORKERS ?= 3
ADVISORIES ?=
# A site without internet gets what runs; a developer also what checks and tests.
WHAT := $(if $(WHEELHOUSE),fedward,--group dev -e .)

.DEFAULT_GOAL := help
.PHONY: audit help install demo test test-slow mutants gpu-check check lint types imports coverage wheelhouse clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## build .venv with runtime and development packages (locked in constraints.txt)

# The stamp follows the two files that decide what is installed; nothing is installed twice.
$(STAMP): pyproject.toml constraints.txt
	@echo "fedward: installing into $(VENV) (once; a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_SOURCE) -c constraints.txt 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_SOURCE) -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_SOURCE) -c constraints.txt $(WHAT)
	@$(BIN)/python -m pip check
	@touch $@

DEMOS := classification segmentation
TASK ?= classification
demo: $(STAMP) ## hospitals train together, with a report (DATA=pneumoniamnist.npz: real images; TASK=segmentation: nodules on CT)
	@$(if $(filter $(TASK),$(DEMOS)),,echo "fedward: TASK is $(TASK), there is: $(DEMOS)"; exit 2)
	@$(if $(and $(DATA),$(filter segmentation,$(TASK))),echo "fedward: DATA belongs to TASK=classification; leave it out"; exit 2,:)
	@echo "fedward: hospitals train together; a few minutes"
	@$(BIN)/fedward-sim run $(if $(filter segmentation,$(TASK)),lung-ct,$(if $(DATA),pneumonia-4-hospitals --data $(DATA),demo)) --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: $(STAMP) ## run the tests (the slow ones: make test-slow)
	@echo "fedward: running the tests in $(WORKERS) processes"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: $(STAMP) ## run the slow tests
	@$(BIN)/python -m pytest -m slow

mutants: $(STAMP) ## plant faults in what the promise rests on; fails if the tests miss one (minutes)
	@$(BIN)/python tests/mutants/plant.py --workers $(WORKERS)

gpu-check: ## check private training on this machine's GPU (no row begins after 400 s; needs only PyTorch for CUDA: PYTHON=)
	@$(PYTHON) -m simulation.benchmarks.gpu --json gpu-check.json

check: lint types imports ## lint, types, import rules (under a minute)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

imports: $(STAMP)
	@$(BIN)/lint-imports

audit: $(STAMP) ## compare versions with a local copy of advisories (ADVISORIES=folder or all.zip of OSV)
	@$(BIN)/python .ci/audit.py $(ADVISORIES)

coverage: $(STAMP) ## run the tests and report coverage
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term

wheelhouse: $(STAMP) ## collect every wheel for a site without internet, with SHA-256 sums
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check $(PIP_SOURCE) -c constraints.txt -d wheelhouse torch hatchling 'pip>=25.1' .
	@$(BIN)/python -m pip wheel --quiet --no-deps -w wheelhouse .
	@cd wheelhouse && sha256sum *.whl > SHA256SUMS
	@echo "fedward: wheelhouse/ is ready; on the other machine: make install WHEELHOUSE=wheelhouse"

clean: ## remove caches (not .venv)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .hypothesis
