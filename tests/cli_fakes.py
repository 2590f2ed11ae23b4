"""Runs and files of architectures that command lines name."""

import json

from search_fakes import SPACE, drive, make_session

from nas.records.config import SearchConfig
from nas.store import new_run
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec


def write_run(folder):
    """Write a finished run whose figures are formulas."""
    config = SearchConfig(task="digits", space=SPACE, trials=12)
    run = new_run.create(folder, config, "fake")
    # The journal's study has a name of its own; the run's is for shared storages.
    assert run.name.startswith("run-")
    drive(make_session(folder, trials=12, sampler="random"))
    return folder


def plain(d_model, patch_size):
    """An architecture with no compression; in ``digits-tiny`` where both are offered there."""
    layer = LayerSpec(AttentionSpec(2, 2, d_model // 2), FfnSpec(2 * d_model))
    return Architecture(d_model, (layer,) * 2, patch_size)


def write_models(folder):
    """Write files of architectures: members of the quickstart's space, and others."""
    (folder / "artifact").mkdir(parents=True)
    layer = LayerSpec(AttentionSpec(4, 4, 16), FfnSpec(256))
    for name, found in {
        "own.json": plain(32, 4).to_dict(),
        "two.json": [plain(48, 2).to_dict(), plain(32, 4).to_dict()],
        "recipes.json": Architecture(64, (layer,) * 3, 2).to_dict(),
        "artifact/architecture.json": plain(24, 4).to_dict(),
        "outside.json": plain(10, 4).to_dict(),
        "unfit.json": plain(32, 3).to_dict(),
        "junk.json": {"d_model": 3},
    }.items():
        (folder / name).write_text(json.dumps(found))
    return folder
