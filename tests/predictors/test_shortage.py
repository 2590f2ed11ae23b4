"""Memory that others hold is no fault of the model's."""

import pytest

from predictors.measurement import worker
from predictors.measurement.memory import asked_bytes, crowded_out

GIB = 2**30


@pytest.mark.parametrize(
    ("asked", "own", "free", "total", "is_crowded"),
    [
        # A trainer holds most of the board.
        (10, 5, 3, 80, True),
        # Alone on the board, and too large for it.
        (50, 40, 38, 80, False),
        # Others hold some, and it would not fit without them either.
        (70, 20, 40, 80, False),
        # Only the contexts are there besides.
        (20, 60, 19, 80, False),
    ],
)
def test_a_model_that_would_fit_alone_was_crowded_out(asked, own, free, total, is_crowded):
    why = crowded_out(asked * GIB, own * GIB, free * GIB, total * GIB)
    assert (why is not None) == is_crowded
    if why is not None:
        assert "other processes hold 71.0 GiB of 80.0" in why


@pytest.mark.parametrize(
    ("message", "n_bytes"),
    [
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has", 2.5 * GIB),
        ("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 79 GiB total)", 20 * 2**20),
        ("Tried to allocate 512 bytes", 512),
        ("CUDA error: out of memory", 0),
    ],
)
def test_what_was_asked_for_is_read_from_torchs_message(message, n_bytes):
    assert asked_bytes(message) == n_bytes


def test_versions_of_what_is_not_installed_are_absent_and_no_error(monkeypatch):
    def missing(name):
        raise worker.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(worker.importlib.metadata, "version", missing)
    found = worker._versions(None)
    assert found["joulenas"] == found["torchao"] == "absent" and found["torch"]
