# make demo            the main job, on a simulated robot or on DATA=your RLDS directory or folder of mp4
# make test            the tests (test-slow: those that take minutes too)
# make lint | bench

PYTHON ?= python3
# The torch build. For a GPU of another CUDA version or for a CPU-only machine, this is the one line to change, e.g.
# TORCH ?= torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130     (or .../whl/cpu)
TORCH  ?= torch==2.13.0
DATA   ?=
OUT    ?= runs/demo
ARGS   ?=

VENV := .venv
BIN  := $(VENV)/bin

.PHONY: demo test test-slow lint bench notebooks clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/genie-robotics demo --out $(OUT) $(if $(DATA),--data "$(DATA)") $(ARGS)

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "" $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(VENV)/installed
	$(BIN)/genie-robotics bench loader
	$(BIN)/genie-robotics bench train
	$(BIN)/genie-robotics bench generate

# Each notebook anew from its script, with its pictures in place.
notebooks: $(VENV)/installed
	$(BIN)/pip install -q -c constraints.txt -e ".[notebooks]"
	for script in notebooks/0*.py; do $(BIN)/python -m tools.notebooks $$script || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "pip>=25" "setuptools>=77"

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -c constraints.txt $(TORCH)
	$(BIN)/pip install -q -c constraints.txt -e ".[player]"
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	@# The player is tested in a real browser; without one, those tests are skipped.
	command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || \
		(apt-get update -q && apt-get install -y -q --no-install-recommends chromium) >/dev/null 2>&1 || true
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
