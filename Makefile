# Everything a new machine needs is Python 3.11 and make. `make demo` and `make test` set themselves up.
.PHONY: help install demo test ui peer bench lint clean
.DEFAULT_GOAL := help

PYTHON ?= python3
PIP = -m pip --disable-pip-version-check --quiet
VENV = .venv/.installed
PEER = .peer/.installed

help:           ## this list
	@grep -E '^[a-z]+: .*##|^[a-z]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)  ## make .venv with the calweave command
	@echo "calweave is installed: .venv/bin/calweave --help"

$(VENV): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Calweave needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) install --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(VENV)     ## simulate a WFSS program, calibrate it from raw ramps to spectra, write demo/report.html
	.venv/bin/calweave demo --out demo

test: $(VENV)     ## run the tests; with `make peer` before it, those against the official package as well
	CALWEAVE_PEER_PYTHON=$${CALWEAVE_PEER_PYTHON:-$(wildcard $(CURDIR)/.peer/bin/python)} .venv/bin/python -m pytest -q $(TESTS)

ui: $(VENV)       ## start a Prefect server with its pages; runs report to it with PREFECT_API_URL set as it says
	set -a; . infra/deployments/server.env; .venv/bin/prefect server start

peer: $(PEER)     ## make .peer with the official jwst package, to compare with

$(PEER): constraints.txt
	$(PYTHON) -m venv .peer
	.peer/bin/python $(PIP) install --constraint constraints.txt jwst==3.0.0
	touch $@

bench: $(VENV) $(PEER)  ## measure speed and memory side by side with the official package
	status=0; for bench in tests/benchmarks/bench_*.py; do CALWEAVE_PEER_PYTHON=$(CURDIR)/.peer/bin/python .venv/bin/python $$bench || status=1; done; exit $$status

lint:           ## ruff and mypy, in .venv
	.venv/bin/python $(PIP) install --constraint constraints.txt --editable '.[dev]'
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:          ## remove what make demo wrote
	rm -rf demo
