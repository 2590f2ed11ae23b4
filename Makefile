# Two commands: `make search` runs the main job, `make test` runs the tests.
PYTHON ?= python3
VENV := .venv
CAMPAIGN_PYTHON := $(if $(filter default file undefined,$(origin PYTHON)),$(firstword $(wildcard $(VENV)/bin/python) $(PYTHON)),$(PYTHON))
# What a search needs, and what tests, style and pages need besides: installed apart.
SEARCH := $(VENV)/.installed
DEVELOP := $(VENV)/.installed-dev
INSTALL := -m pip install --quiet --constraint constraints.txt

# Two workers; groups of tests start in the order that tests/conftest.py gives them.
IN_TWO := -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: search test thorough lint docs campaign checkpoints clean

search: $(SEARCH)
	$(VENV)/bin/nas search quickstart

test: $(DEVELOP)
	$(VENV)/bin/python -m pytest $(IN_TWO) -m "not thorough"

# Tests that are long and seldom fail, which `make test` leaves out, and more examples of parsers.
thorough: $(DEVELOP)
	$(VENV)/bin/python -m pytest $(IN_TWO) -m thorough
	JOULENAS_FUZZ_EXAMPLES=60 $(VENV)/bin/python -m pytest tests/test_fuzz.py

# The next minutes of the measuring campaign. Installs nothing: by PYTHON=... where that is given,
# else by .venv where it is there, else by python3; says in a line what that lacks.
MINUTES ?= 8
campaign:
	$(CAMPAIGN_PYTHON) -m experiments.campaign --minutes $(MINUTES) $(if $(TO),--to "$(TO)") $(ARGS)

lint: $(DEVELOP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The pages of docs/ as a site in build/site; a warning is an error. (Material for MkDocs says on
# each build that MkDocs 2 will not run it: constraints.txt keeps MkDocs 1.)
docs: $(DEVELOP)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

# A real checkpoint (90 MB) for docs/pretrained.md and for tests that are skipped without it.
checkpoints: $(SEARCH)
	$(VENV)/bin/python -m experiments.checkpoints build/checkpoints

$(SEARCH): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(INSTALL) --editable .
	touch $@

$(DEVELOP): $(SEARCH)
	$(VENV)/bin/python $(INSTALL) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
