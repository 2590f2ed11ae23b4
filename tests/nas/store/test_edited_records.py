"""Records that somebody edited: each wrong value is refused with its file, line and field."""

import json
import tracemalloc

import pytest
from run_fakes import make_run
from search_fakes import drive, finished, make_session

from nas.searching.controller.attempts import Attempts
from nas.store.records_file import MOST_BYTES_IN_LINE, StorageError
from nas.store.storage import records_path


def edit(path, at, keys, value):
    """Set the value at ``keys`` of the object in line ``at`` (from 0)."""
    lines = path.read_bytes().splitlines()
    line = json.loads(lines[at])
    place = line
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    lines[at] = json.dumps(line).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")


def lines_with(path, key):
    """Positions of the lines that contain ``key``."""
    return [n for n, line in enumerate(path.read_bytes().splitlines()) if key in json.loads(line)]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("quality.value", True, r"outcome\.quality\.value must be float, got True"),
        ("quality.value", "0.9", r"outcome\.quality\.value must be float, got '0\.9'"),
        ("quality.standard_error", -1.0, "must be >= 0"),
        ("test_quality", {"value": 7.0, "standard_error": 0.1}, r"must be in \[0, 1\], got 7"),
        ("uncompressed_quality", -0.5, r"must be in \[0, 1\]"),
        ("params", -3, "must be >= 0, got -3"),
        ("params", 3.0, "must be int or none, got 3.0"),
        ("peak_memory_bytes", -1.0, "must be >= 0, got -1"),
        ("n_evaluations", 0, "must be an integer >= 1, got 0"),
        ("spent.duration_s", True, "must be float or none, got True"),
        ("measurement.reading.energy_j", "1", "must be float, got '1'"),
        ("measurement.reading.is_estimate", "no", "must be bool, got 'no'"),
        ("measurement.reading.host", 5, "must be none or str, got 5"),
        ("measurement.colour", "red", "unknown key colour"),
    ],
)
def test_a_wrong_value_is_named_by_line_and_field(tmp_path, field, value, words):
    run = make_run(tmp_path / "run", trials=5)
    path = records_path(run.folder)
    at = lines_with(path, "record")[-1]
    edit(path, at, ["record", "outcome", *field.split(".")], value)
    with pytest.raises(StorageError, match=rf"damaged at line {at + 1}: .*{words}") as error:
        run.trials()
    assert field.rpartition(".")[2] in str(error.value)


@pytest.mark.parametrize("generation", ["x", None, -1, 99, [0], 1e300])
def test_a_generation_that_no_sampler_stored_is_refused(tmp_path, generation):
    session = drive(make_session(tmp_path, trials=6, sampler="nsga2"))
    assert session.records()
    path = records_path(tmp_path)
    at = lines_with(path, "sampler")[-1]
    edit(path, at, ["sampler", "NSGAIISampler:generation"], generation)
    with pytest.raises(StorageError, match=rf"damaged at line {at + 1}: .*generation"):
        make_session(tmp_path, trials=12, sampler="nsga2", create=False)


def test_counts_of_attempts_that_are_not_ours_are_refused(tmp_path):
    session = make_session(tmp_path, trials=4, sampler="random")
    number = session.next_candidate().number
    session.save_attempts(number, {"deaths": 1})
    again = make_session(tmp_path, trials=4, sampler="random", create=False)
    with pytest.raises(ValueError, match=f"attempts of trial {number} has unknown key deaths"):
        Attempts(again, tmp_path / "trials").driver_died(again.in_flight())


def test_what_another_program_appends_does_not_fill_memory(tmp_path):
    session = make_session(tmp_path, trials=4, sampler="random")
    candidate = session.next_candidate()
    with records_path(tmp_path).open("r+b") as file:
        # Sparse, so that it takes no space on the disk.
        file.truncate(20 * MOST_BYTES_IN_LINE)
    tracemalloc.start()
    try:
        with pytest.raises(StorageError, match="is longer than"):
            session._store.save(finished(candidate))
        assert tracemalloc.get_traced_memory()[1] < 6 * MOST_BYTES_IN_LINE
    finally:
        tracemalloc.stop()
