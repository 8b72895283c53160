# Visavis: `make run` starts it, `make test` checks it. Everything lives in .venv; no system package is needed.
PYTHON ?= python3
VENV   ?= .venv
export VENV
BIN    := $(VENV)/bin
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help run cluster test test-browser lint screenshots bench-live bench-conversation bench-models bench-load evaluate clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

run: $(VENV)/.installed  ## start the server (options: VISAVIS_* variables, or ARGS="--port 9000")
	@exec $(BIN)/python -m server $(ARGS)

test: $(VENV)/.installed-dev  ## run every test, in a browser too where there is one
	@sh tests/browser/find-chromium.sh --install >/dev/null 2>&1 || echo "No Chromium found or installable: browser tests will be skipped."
	@sh tests/browser/find-axe.sh --install >/dev/null 2>&1 || echo "No npm: accessibility will not be tested."
	@$(BIN)/ruff check .
	@$(BIN)/python -m pytest -n 2 --reruns 1 -r fER $(ARGS)

test-browser: $(VENV)/.installed-dev  ## run only the tests in a real browser
	@sh tests/browser/find-chromium.sh --install >/dev/null 2>&1 || echo "No Chromium found or installable: nothing can be tested."
	@sh tests/browser/find-axe.sh --install >/dev/null 2>&1 || echo "No npm: accessibility will not be tested."
	@$(BIN)/python -m pytest tests/browser $(ARGS)

screenshots: $(VENV)/.installed-dev  ## every page, light and dark, desktop and phone, as PNG in .bench/screens
	@sh tests/browser/find-chromium.sh --install >/dev/null 2>&1
	@$(BIN)/python -m tests.benchmarks.screens $(ARGS)

lint: $(VENV)/.installed-dev  ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy engine server

cluster: $(VENV)/.installed  ## start a cluster of two nodes here, with Ray (options: ARGS="--gateways 2 --port 9000")
	@$(BIN)/python -c 'import ray' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check -r server/cluster/requirements.txt
	@exec $(BIN)/python -m server.cluster local $(ARGS)

bench-live: $(VENV)/.installed-dev  ## measure a live session in Chromium; writes .bench/live.json
	@sh tests/browser/find-chromium.sh --install >/dev/null 2>&1
	@$(BIN)/python -m tests.benchmarks.live $(ARGS)

bench-conversation: $(VENV)/.installed-dev  ## measure a spoken conversation in Chromium; writes .bench/conversation.json
	@sh tests/browser/find-chromium.sh --install >/dev/null 2>&1
	@$(BIN)/python -m tests.benchmarks.conversation $(ARGS)

# Quantising needs a package that nothing else does; without it int8 is left out, and said to be.
bench-models: $(VENV)/.installed-dev  ## measure Wav2Lip 96 in every way this machine can compute it; writes .bench/models.json
	@$(BIN)/python -c 'import nncf' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check nncf==3.4.0 || true
	@$(BIN)/python -m tests.benchmarks.models $(ARGS)

bench-load: $(VENV)/.installed-dev  ## find out how many sessions and viewers this machine carries; writes .bench/load.json and plots
	@$(BIN)/python -m tests.benchmarks.load $(ARGS)

# Recorded talkers and photographs lie beside the repository where there are any; DATA= names another folder.
DATA ?= $(wildcard ../shared/data)

evaluate: $(VENV)/.installed-dev  ## measure how avatars talk; ARGS="--avatars DIR" adds created ones; writes .bench/face.json and plots
	@mkdir -p .bench
	@OMP_NUM_THREADS=1 $(BIN)/python -m engine evaluate $(if $(DATA),--data $(DATA)) -o .bench $(ARGS)

clean:  ## remove the environment and everything that was measured
	rm -rf $(VENV) .bench .pytest_cache .ruff_cache .mypy_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Visavis needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make run PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
	  { rm -rf $(VENV); $(PYTHON) -m pip --version >/dev/null 2>&1 && $(PYTHON) -m venv --without-pip $(VENV) \
	    && $(PYTHON) -m pip --python $(VENV)/bin/python install --quiet pip; } || \
	  { rm -rf $(VENV); [ "$$(id -u)" = 0 ] && apt-get update -qq >/dev/null 2>&1 \
	    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null 2>&1 && $(PYTHON) -m venv $(VENV); } || \
	  { rm -rf $(VENV); echo "This Python comes without its venv module. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }

$(VENV)/.installed: requirements.txt engine/avatar/requirements.txt engine/conversation/requirements.txt | $(VENV)/bin/python
	@echo "Installing the packages of requirements.txt (once: about 2 GB, a few minutes) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r engine/avatar/requirements.txt || \
	  echo "The face models could not be installed (they come for Python 3.11 and 3.12): 'avatar create' will not work."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r engine/conversation/requirements.txt || \
	  echo "The network that hears speech could not be installed: the avatar can be typed to, not talked to."
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
