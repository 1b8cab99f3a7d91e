# The one task file: people and CI call the same targets.
PYTHON ?= python
BIN := $(dir $(shell command -v $(PYTHON)))

.PHONY: help test slow check format bundle sample

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

test:  ## the tests that every change must pass
	$(PYTHON) -m pytest

slow:  ## the long forms: kills, fuzzing, whole photographs
	$(PYTHON) -m pytest -m slow

check:  ## lint, format, strict types, import order, private names
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(BIN)lint-imports
	$(PYTHON) tools/check_private.py

format:  ## format the code and fix what lint can fix
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

bundle:  ## put a run's weights into the package: make bundle RUN=runs/x NAME=mesrgan STAGE=pixel ARGS="--overlap 16"
	$(PYTHON) tools/bundle.py $(RUN) --name $(NAME) --stage $(STAGE) $(ARGS)

sample:  ## draw the README's sample picture again
	$(PYTHON) tools/make_sample.py assets/sample.png
