# What a developer types; `make` alone lists it. Everything longer than a line is in .ci/.

# An environment that already stands keeps its interpreter; PYTHON=python3.13 builds it anew with another.
PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
DEMO_ARGS ?=
BENCH_ARGS ?=
LOADTEST_ARGS ?= offgil.examples:spin 10,100,1000,10000 --door all -R 50% -z 3s --html build/loadtest.html
export PYTHON

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help deps deps-pythons deps-tests deps-service build demo test test-compilers test-quick test-cpp test-python soak conformance lint format bench loadtest peers \
	service clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 20
	@echo
	@echo '  PYTHON=python3.13 chooses the interpreter, DEMO_ARGS="--seconds 5", BENCH_ARGS, LOADTEST_ARGS and'
	@echo '  PYTEST_ADDOPTS="-k name" go to the demo, the benchmarks, the load test and pytest.'

deps:  ## install the system packages that the build needs, or say how
	@.ci/system-packages

deps-pythons:  ## make a folder with Python 3.14 and 3.15, outside this one, for the tests (Debian's sid, 1.3 GB)
	@.ci/debian-sid make

deps-tests:
	@.ci/system-packages --with-tests

build: deps  ## build offgil and install it in .venv
	@$(PYTHON) .ci/environment.py demo

demo: build  ## see it work: the two articles' tables and 20 000 small jobs, on this machine
	@.venv/bin/python -m offgil demo $(DEMO_ARGS)

test: deps-tests  ## all checks: lint, C++ (plain and under sanitizers), Python 3.11 to 3.15 where they are found
	@$(PYTHON) .ci/check.py lint cpp python

test-quick: deps  ## the Python tests, once, on the interpreter of .venv
	@$(PYTHON) .ci/check.py quick

test-cpp: deps-tests  ## the C++ tests: plain, ThreadSanitizer, AddressSanitizer with UBSan
	@$(PYTHON) .ci/check.py cpp

test-python: deps  ## the Python tests on every interpreter found; on the oldest and newest also in asyncio debug mode
	@$(PYTHON) .ci/check.py python

test-compilers: deps-tests deps-pythons  ## the C++ tests and the extension with g++ here, and g++ and clang of Debian's sid
	@.ci/debian-sid add clang libgtest-dev
	@$(PYTHON) .ci/check.py compilers

soak: deps  ## leave and fork the interpreter from every state, fifty times each, on every interpreter found
	@$(PYTHON) .ci/check.py soak

conformance: deps  ## CPython's own executor tests, twenty times over, on every interpreter found
	@$(PYTHON) .ci/check.py conformance

lint: deps  ## ruff, mypy --strict, clang-format, and the extension's stub against the extension
	@$(PYTHON) .ci/check.py lint

format: deps  ## let ruff and clang-format rewrite the sources
	@$(PYTHON) .ci/check.py format

bench: deps  ## measure the overhead of one job against run_in_executor and the bare loop
	@$(PYTHON) .ci/environment.py bench
	@.venv/bin/python bench/overhead.py $(BENCH_ARGS)

loadtest: deps  ## load a function through every door: LOADTEST_ARGS="module:function 1 -c 64", or --help
	@$(PYTHON) .ci/environment.py bench
	@.venv/bin/python bench/load_test.py $(LOADTEST_ARGS)

peers: deps  ## the same work on whoever else offers it: anyio, trio, pyo3, tbb, joblib, dask...
	@$(PYTHON) .ci/bench_extras.py peers
	@.venv/bin/python bench/peers.py $(BENCH_ARGS)

deps-service:
	@.ci/system-packages --with-service

service: deps-service  ## a web service: a light endpoint's latency while a heavy one is saturated, inline and offloaded
	@$(PYTHON) .ci/bench_extras.py service
	@PYTHONPATH=bench .venv/bin/python -m service.measure $(BENCH_ARGS)

clean:  ## remove everything that the other targets made
	rm -rf build dist .venv .venvs .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
