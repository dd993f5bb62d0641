# `make serve` and `make test` are all that a fresh clone needs; both install first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
export PYTHON

.PHONY: help install serve test check format bench demo study study-equilibrate docs docs-serve lock

help:
	@echo "make install   everything into .venv"
	@echo "make serve     the demo model on http://127.0.0.1:8000"
	@echo "make test      every test, real vLLM included where a build of it is installed"
	@echo "make check     format, lint and types"
	@echo "make bench     Rheostat inside vLLM against bare vLLM, into docs/benchmarks.md (about an hour on two cores)"
	@echo "make study     the training methods side by side in the demo world (hours; goes on where it was cut off)"
	@echo "make study-equilibrate   the safety methods, mixtures and masks side by side (hours; goes on)"
	@echo "make docs      the documentation as a site, in site/; make docs-serve shows it on http://127.0.0.1:8001"
	@echo "make demo      the bundled demo model again, from nothing (up to 90 minutes on two cores)"

install:
	@tools/install.sh

serve: install
	.venv/bin/rheostat serve

test: install
	.venv/bin/pytest

check: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/pyright
	.venv/bin/lint-imports

format: install
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: install
	.venv/bin/python -m benchmarks.overhead --markdown docs/benchmarks.md

study: install
	.venv/bin/rheostat train study training/configs/study.yaml --out runs/study

study-equilibrate: install
	.venv/bin/rheostat train study-equilibrate training/configs/study-equilibrate.yaml

demo: install
	.venv/bin/rheostat demo build --out server/rheostat_server/demo/bundle

# mkdocs-material tells each build, at length, what it thinks of MkDocs 2; the variable is its own.
docs: install
	NO_MKDOCS_2_WARNING=true .venv/bin/mkdocs build --strict

docs-serve: install
	NO_MKDOCS_2_WARNING=true .venv/bin/mkdocs serve --strict --dev-addr 127.0.0.1:8001

lock:
	tools/lock.sh
