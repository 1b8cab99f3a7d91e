# The one task file: people and CI call the same targets.
PYTHON ?= python
BIN := $(dir $(shell command -v $(PYTHON)))

.PHONY: help test unit slow long check format bundle images

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

test:  ## the tests that every change must pass, as far as this machine has what they need
	$(PYTHON) -m pytest

unit:  ## the tests that need nothing but Python
	$(PYTHON) -m pytest -m "unit and not slow and not long"

slow:  ## tests that the default run leaves out and CI runs
	$(PYTHON) -m pytest -m slow

long:  ## the forms of minutes to hours: a thousand kills, ten thousand damaged files, buckets of 200 photos
	$(PYTHON) -m pytest -m long

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

images:  ## make the README's images again (after new weights); needs Chromium
	PYTHONPATH=. $(PYTHON) tools/make_readme_images.py
