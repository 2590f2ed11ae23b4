"""Finished runs on disk whose qualities and joules are formulas (see ``search_fakes``)."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
from search_fakes import SPACE, drive, finished, make_session

from nas.records.config import SearchConfig
from nas.store import new_run, run_file
from search_spaces.space.sampling import largest

BASELINE = largest(SPACE)


def make_run(folder, *, trials=14, seed=0, judge=finished, space=SPACE, **changes):
    """A run of ``trials`` with a baseline as its trial 0, searched to its end."""
    changes = {"sampler": "random", "baselines": (BASELINE,)} | changes
    config = SearchConfig(task="digits", space=space, trials=trials, seed=seed, **changes)
    new_run.create(folder, config, "fake")
    drive(make_session(folder, trials=trials, seed=seed, space=space, **changes), judge)
    return run_file.load(folder)


def check_schema(data, name):
    """Raise unless ``data`` is what the shipped schema says of ``nas NAME --json``."""
    schema = json.loads((files("nas") / "schemas" / "results.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema | {"$ref": f"#/$defs/{name}"})
