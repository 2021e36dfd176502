# `make run` and `make test` do all the set-up that they need, on a machine with Python 3.11 or later and no more.

PYTHON ?= python3
ENV := .venv
BIN := $(ENV)/bin
BENCH := build/bench
ROWS ?= 10k

IMAGE ?= dask-classify
PYTHON_OF_ENV = $$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.PHONY: help run test test-all lint test-image test-signals test-wheel browser docs notebooks pictures image push bench bench-quick \
	bench-guard bench-scale bench-processes bench-memory constraints clean

help:
	@echo "make run               classify $(ROWS) generated rows on all cores (ROWS=100k for more)"
	@echo "make test              lint, then all tests"
	@echo "make test-all          the few slow cases, too, which repeat others"
	@echo "make test-wheel        the built wheel in an empty environment (two minutes)"
	@echo "make docs              the documentation as a site, in build/site"
	@echo "make notebooks         notebooks/*.ipynb from the .py beside them"
	@echo "make pictures          the pictures of the README, from real runs (Chromium)"
	@echo "make test-image        build the container image without Docker, and run a cluster from it (root, Debian)"
	@echo "make test-signals      interrupt runs on EC2, in rehearsal, at every half second (half an hour)"
	@echo "make image             build the image with Docker, as IMAGE=dask-classify"
	@echo "make push IMAGE=...    build it and push it to a registry: registry/name:tag"
	@echo "make bench             this tool against those that do the same, side by side (three quarters of an hour; Java for PySpark)"
	@echo "make bench-quick       the same with few rows, in some minutes"
	@echo "make bench-guard       CPU time of a row against the plain way, in pairs (a minute, on a quiet machine)"
	@echo "make bench-scale       runs on 112, 256 and 1,000 simulated processes (35 minutes)"
	@echo "make bench-processes   classifier processes against one Dask worker for each core"
	@echo "make bench-memory      peak memory of 30M rows with a trivial classifier (a quarter of an hour)"
	@echo "make constraints       the newest versions of everything that is pinned"

run: $(ENV)/installed
	$(BIN)/dask-classify --rows $(ROWS)

test: $(ENV)/installed-test browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/deptry .
	$(BIN)/python -m pytest -n 3 -m "not slow"

test-all: $(ENV)/installed-test browser
	$(BIN)/python -m pytest -n 3

browser:
	@tests/install_browser.sh

lint: $(ENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/deptry .

test-image: $(ENV)/installed
	tests/image/try_image.sh

test-wheel: $(ENV)/installed-test
	tests/try_wheel.sh $(PYTHON)

docs: $(ENV)/installed-test
	$(BIN)/python docs/make_commands.py
	$(BIN)/python -m sphinx -q -W --keep-going docs build/site

notebooks: $(ENV)/installed-test
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py

pictures: $(ENV)/installed-test browser
	$(BIN)/python docs/pictures/make.py

test-signals: $(ENV)/installed-test
	$(BIN)/python tests/signals.py

# The image's Python is this environment's: functions travel as bytecode.
image: $(ENV)/installed
	docker build --build-arg PYTHON_VERSION=$(PYTHON_OF_ENV) --tag $(IMAGE) .

push: image
	docker push $(IMAGE)

bench: $(BENCH)/installed
	$(BENCH)/bin/python benchmarks/bench.py --write

bench-quick: $(BENCH)/installed
	$(BENCH)/bin/python benchmarks/bench.py --quick

bench-guard: $(ENV)/installed
	$(BIN)/python benchmarks/guard.py

bench-scale: $(ENV)/installed
	$(BIN)/python benchmarks/scale.py --rows 10M,30M

bench-processes: $(ENV)/installed
	$(BIN)/python benchmarks/processes.py

bench-memory: $(ENV)/installed
	$(BIN)/python benchmarks/memory.py

$(ENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dask-classify needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(ENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(ENV)/installed: $(ENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(ENV)/installed-test: $(ENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group test --group lint
	@touch $@

# The peers are large, and have no part in a run or its tests: an environment of their own.
$(BENCH)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BENCH)/bin/python -m pip install --quiet --constraint constraints.txt --editable . --group bench
	@touch $@

# In an environment of its own, so that nothing stale is pinned; without URLs or local paths, so that it works with any index.
constraints:
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/constraints/bin/python -m pip install --quiet . --group test --group lint
	build/constraints/bin/python -m pip freeze --exclude dask-classify --exclude pip | grep -E '^[A-Za-z0-9._-]+==' > constraints.txt

clean:
	rm -rf $(ENV) build dist .pytest_cache .ruff_cache .hypothesis
