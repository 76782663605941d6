# make demo, make test and make lint each do all the set-up that they need, and reuse it the next time.

LINE ?= belt
ITEMS ?= $(if $(filter ev,$(LINE)),60,200)
RATE ?= 5
SEED ?= 0
IMAGES ?=
JSON ?=
PYTHON ?= python3
VENV := .venv
SETUP := .setup

.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint reference pictures clean
.SUFFIXES:

sources := $(shell find battery_sorting msg srv action launch config models scripts cmake -type f \
	-not -path '*/__pycache__/*' 2>/dev/null) package.xml CMakeLists.txt
run := scripts/run-in-environment

help:  ## show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: $(SETUP)/runtime  ## install what the cell needs into .venv

build: $(SETUP)/build  ## colcon build

demo: $(SETUP)/build  ## run a line on the simulated plant (LINE=belt or ev, ITEMS, SEED, JSON=file; belt: RATE, IMAGES=dir)
	@$(run) battery-sorting demo --line '$(LINE)' --items $(ITEMS) --seed $(SEED) \
		$(if $(filter belt,$(LINE)),--rate $(RATE)) \
		$(if $(IMAGES),--images '$(IMAGES)') $(if $(JSON),--json '$(JSON)')

# Tests of devices, nodes and whole cells measure time: they run alone.
test: $(SETUP)/build $(SETUP)/train $(SETUP)/test  ## run all tests (ARGS=… goes to pytest)
ifdef ARGS
	@$(run) python -m pytest $(ARGS)
else
	@$(run) python -m pytest -n 2 --dist loadfile -m "not realtime" --timeout-method thread --max-worker-restart 0
	@$(run) python -m pytest -m realtime
endif

lint: $(SETUP)/build $(SETUP)/train $(SETUP)/test  ## ruff, mypy, import-linter, xmllint
	@scripts/need xmllint:libxml2-utils
	$(run) ruff check .
	$(run) ruff format --check .
	$(run) mypy
	$(run) lint-imports
	xmllint --noout package.xml

reference: $(SETUP)/runtime  ## write the generated pages of docs/reference, and config/sros2, anew from the code
	@$(run) env PYTHONPATH=. python scripts/reference.py

pictures: $(SETUP)/build  ## make the pictures of the README anew, from a demo of each line (needs chromium)
	@$(run) python scripts/pictures.py

clean:  ## remove what was installed and built
	rm -rf $(VENV) $(SETUP) build install log

$(SETUP)/runtime: requirements/ros.txt requirements/runtime.txt requirements/wheels.txt requirements/distribution.txt \
		scripts/setup
	@scripts/setup runtime
	@touch $@

$(SETUP)/train: requirements/train.txt $(SETUP)/runtime
	@scripts/setup train
	@touch $@

$(SETUP)/test: requirements/test.txt requirements/openvino.txt $(SETUP)/runtime
	@scripts/setup test
	@touch $@

$(SETUP)/build: $(sources) $(SETUP)/runtime
	@scripts/setup build
	@touch $@
