# make demo: set up and run the main job.   make test: set up and run every check.   make bench: speed beside others.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The benchmark has its own environment, with the libraries that it compares: make bench ROWS="sinusoid" OPTIONS="--rounds 5"
BENCH := .bench-venv
ROWS ?=
OPTIONS ?= --policies default passive

.PHONY: demo test test-tensorflow bench setup format lint types check clean

demo: $(VENV)/.demo
	$(BIN)/rbml demo

test: setup lint types check

bench: $(BENCH)/.ready
	PYTHONPATH=benchmarks $(BENCH)/bin/python -m speed rows $(ROWS) $(OPTIONS)

$(BENCH)/.ready: pyproject.toml constraints.txt benchmarks/speed/constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -c benchmarks/speed/constraints.txt \
		-e ".[cli,images]" higher torchopt jax
	touch $@

setup: $(VENV)/.ready

$(VENV)/bin/pip:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'rbml needs Python 3.11 or newer; set PYTHON=')"
	$(PYTHON) -m venv $(VENV)

# The demo needs neither the pretrained weights nor the tools for testing.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cli,images,sklearn,report]"
	touch $@

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(VENV)/.demo $@

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

check:
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

# MetaModel runs inside TensorFlow, which is large and has an environment of its own.
TF := .venv-tensorflow

test-tensorflow: $(TF)/.ready
	KERAS_BACKEND=tensorflow OMP_NUM_THREADS=1 $(TF)/bin/pytest -p no:cacheprovider tests/keras_tensorflow

$(TF)/.ready: pyproject.toml constraints.txt constraints-tensorflow.txt
	$(PYTHON) -m venv $(TF)
	grep -v '^h5py==' constraints.txt > $(TF)/constraints.txt  # TensorFlow needs an older one than Keras alone
	$(TF)/bin/pip install --quiet --disable-pip-version-check -c $(TF)/constraints.txt -c constraints-tensorflow.txt -e ".[sklearn]" pytest tensorflow-cpu
	touch $@

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(TF) $(BENCH) .mypy_cache .ruff_cache .pytest_cache
