# `make demo` and `make test` set up all they need in .venv and work again when run twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Each test worker computes on one core, so that two workers do not fight over two.
PYTEST_WORKERS ?= 2
# Drawn per target by the fuzzer of `make soak`, within 25 minutes.
FUZZ_CASES ?= 20000

.PHONY: demo test soak lint security coverage mutants performance types layers examples notebooks docs clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	# Without what it names: torchvision, which does not fit torch for CPUs, and timm, which needs it. The tests do
	# without both (tests/support/open_clip_alone.py).
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps open_clip_torch
	touch $@

demo: $(VENV)/.installed
	$(BIN)/aifs demo --output-dir runs/demo $(DEMO_ARGS)

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

# Trainings killed 200 times, checkpoints damaged file by file, hostile folders, the fuzzer; figures of docs/reliability.md.
# Under an hour on two cores. A short version is part of `make test`.
soak: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python benchmarks/reliability.py --docs $(SOAK_ARGS)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python benchmarks/hostile_folders.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fuzz.py --cases $(FUZZ_CASES) --minutes 25

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Insecure calls in the code, and known vulnerabilities of what is installed; without the service that knows them it says so.
security: $(VENV)/.installed-test
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive aifs_peft scripts
	$(BIN)/python scripts/audit_dependencies.py $(AUDIT_ARGS)

# Branches of the package that the tests take; fails below the share that pyproject.toml names. Minutes.
coverage: $(VENV)/.installed-test
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/coverage run -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered

# Small faults that are put into the mathematics, and the share of them that the tests notice.
mutants: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py $(MUTANTS_ARGS)

# Every figure of docs/performance.md. About an hour on a quiet machine; the largest memory map takes 15 GB of disk.
performance: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step_overhead.py --threads 1 --rounds 4
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step_modes.py --fresh
	$(BIN)/python benchmarks/method_cost.py --fresh --methods erm aifs --epochs 5 --rounds 5 \
		--output benchmarks/results/performance/whole_training.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/discovery_scaling.py --fresh
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/head_rows.py --fresh
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/discovery_streaming.py --again --folder $${TMPDIR:-/tmp}
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/audit_memory.py --again --folder $${TMPDIR:-/tmp}
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/latent_cache.py
	$(BIN)/python benchmarks/weak_scaling.py
	$(BIN)/python benchmarks/render_performance_docs.py

types: $(VENV)/.installed-test
	$(BIN)/mypy

layers: $(VENV)/.installed-test
	$(BIN)/lint-imports

examples: $(VENV)/.installed-test
	for example in examples/[a-z]*.py; do echo "== $$example"; \
		HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -W error::UserWarning:aifs_peft "$$example" || exit 1; done

notebooks: $(VENV)/.installed-test
	$(BIN)/python scripts/run_notebooks.py

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:
	rm -rf $(VENV) build dist *.egg-info
