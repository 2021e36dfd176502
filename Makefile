# `make run` and `make test` set up everything they need. Only Python 3.11 or later must be installed.

PYTHON ?= python3
ENV := .venv
BIN := $(ENV)/bin
BENCH := build/bench
LOWEST := build/lowest
ROWS ?= 10k

IMAGE ?= dask-classify
PYTHON_OF_ENV = $$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.PHONY: help run test test-long test-ec2 test-all lint test-image test-signals test-wheel test-lowest test-swift tools docs notebooks pictures image push bench bench-quick \
	rehearse-vm rehearse-vm-short bench-guard bench-inputs bench-calibration bench-scale bench-processes bench-memory constraints clean

help:
	@echo "make run               classify $(ROWS) generated rows on all cores (ROWS=100k for more)"
	@echo "make test              lint, then run all tests but the long ones, those of EC2, and the few slow ones"
	@echo "make test-long         run the tests that take longest: whole commands, documentation, notebooks (four minutes)"
	@echo "make test-ec2          run the tests of EC2 with a simulated AWS (ten minutes)"
	@echo "make test-all          run all tests"
	@echo "make lint              fix style and formatting, check declared dependencies"
	@echo "make test-wheel        install the built wheel in an empty environment and test it (two minutes)"
	@echo "make test-lowest       run the tests with the lowest versions that pyproject.toml allows"
	@echo "make test-swift        S3 tests with OpenStack Swift instead of moto (three minutes)"
	@echo "make docs              build the documentation site in build/site"
	@echo "make notebooks         build notebooks/*.ipynb from the .py files next to them"
	@echo "make pictures          make the README's pictures from real runs (Chromium)"
	@echo "make test-image        build the container image without Docker and run a cluster from it (root, Debian)"
	@echo "make test-signals      interrupt rehearsed EC2 runs every half second (half an hour)"
	@echo "make image             build the image with Docker [IMAGE=dask-classify]"
	@echo "make push IMAGE=...    build the image and push it to a registry: registry/name:tag"
	@echo "make rehearse-vm       EC2 tests on virtual machines (needs root on Debian 12)"
	@echo "make rehearse-vm-short a whole run and a reboot on virtual machines"
	@echo "make bench             compare with other tools (45 minutes; needs Java for PySpark)"
	@echo "make bench-quick       the same with fewer rows, in a few minutes"
	@echo "make bench-guard       CPU time per row, compared with pandas and zlib (one minute, on an idle machine)"
	@echo "make bench-calibration predict runs, run them, and compare (half an hour, on an idle machine)"
	@echo "make bench-scale       runs on 112, 256 and 1,000 simulated processes (35 minutes)"
	@echo "make bench-processes   classifier processes compared with one Dask worker per core"
	@echo "make bench-memory      peak memory for 30M rows with a trivial classifier (15 minutes)"
	@echo "make bench-inputs      a .csv.gz of 2 GB and the same rows as Parquet, from a folder and a bucket (half an hour)"
	@echo "make constraints       update constraints.txt to the newest versions"
	@echo "make clean             delete .venv, build, dist and caches"

run: $(ENV)/installed
	$(BIN)/dask-classify --rows $(ROWS)

test: $(ENV)/installed-test tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/deptry .
	$(BIN)/python -m pytest -n 3 -m "not slow and not long and not rehearsal"

test-long: $(ENV)/installed-test tools
	$(BIN)/python -m pytest -n 3 -m "long and not slow and not rehearsal"

test-ec2: $(ENV)/installed-test
	$(BIN)/python -m pytest -n 3 -m "rehearsal and not slow"

test-all: $(ENV)/installed-test tools
	$(BIN)/python -m pytest -n 3

# The environment of a user who has old versions of everything; the tests' own packages are the newest that fit.
test-lowest: tools
	rm -rf $(LOWEST)
	mkdir -p $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(LOWEST)/bin/python tests/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/constraints.txt --editable . --group test
	$(LOWEST)/bin/python -m pytest -n 3 -m "not slow"

tools:
	@tests/install_tools.sh

lint: $(ENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/deptry .

test-image: $(ENV)/installed
	tests/image/try_image.sh

# The tests of EC2 that are worth it, with virtual machines. Exit code 77: they cannot run on this machine.
rehearse-vm: $(ENV)/installed-test
	tests/rehearsal/vm/run.sh

rehearse-vm-short: $(ENV)/installed-test
	tests/rehearsal/vm/run.sh short

test-wheel: $(ENV)/installed-test
	tests/try_wheel.sh $(PYTHON)

test-swift: $(ENV)/installed-test
	tests/swift/run.sh

docs: $(ENV)/installed-test
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_config.py
	$(BIN)/python -m sphinx -q -W --keep-going docs build/site

notebooks: $(ENV)/installed-test
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py

pictures: $(ENV)/installed-test tools
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

bench-calibration: $(ENV)/installed
	$(BIN)/python benchmarks/calibration.py --write

bench-inputs: $(ENV)/installed
	$(BIN)/python benchmarks/inputs.py

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
