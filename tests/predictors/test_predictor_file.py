"""A saved predictor predicts to the bit what it did, and what does not fit is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from contracts.test_predictor_contract import DIGITS, observations
from safetensors.numpy import load_file, save_file

from predictors.energy.artifact import (
    Provenance,
    SavedPredictor,
    load_predictor,
    save_predictor,
)
from predictors.energy.models import CostPredictor

PROVENANCE = Provenance(
    device="board",
    source="nvml-total-energy",
    is_estimate=False,
    protocol_hash="abc",
    workloads=(DIGITS.key,),
    date="2026-11-24",
    versions={"torch": "2.13.0"},
)
UNSEEN = [o.architecture for o in observations(40, seed=77)]


def predictors():
    some = CostPredictor.fit(observations(60))
    other = [replace(o, cost=o.cost * 3) for o in observations(15, seed=4)]
    return {
        "stated": CostPredictor.fit([]),
        "few": CostPredictor.fit(observations(4)),
        "fitted": some,
        "adapted": some.adapt(other),
        "adapted to nothing": some.adapt([]),
        "adapted twice": some.adapt(other).adapt(other[:12]),
    }


@pytest.fixture(scope="module")
def kinds():
    return predictors()


@pytest.mark.parametrize(
    "kind", ["stated", "few", "fitted", "adapted", "adapted to nothing", "adapted twice"]
)
def test_saved_and_read_it_predicts_the_same_to_the_bit(kinds, kind, tmp_path):
    path = tmp_path / "p.safetensors"
    save_predictor(SavedPredictor(kinds[kind], PROVENANCE), path)
    again = load_predictor(path)
    assert again.provenance == PROVENANCE
    assert again.predictor.basis == kinds[kind].basis
    first, second = (p.predict(UNSEEN, DIGITS, 0.8) for p in (kinds[kind], again.predictor))
    for field in ("mean", "low", "high", "in_range"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]


def test_adapting_to_a_device_thrice_as_hungry_learns_the_factor(kinds):
    truth = kinds["fitted"].predict(UNSEEN, DIGITS).mean * 3
    found = kinds["adapted"].predict(UNSEEN, DIGITS).mean
    assert np.mean(np.abs(found / truth - 1)) < 0.05
    assert "another device" in kinds["adapted"].basis


def test_another_device_or_protocol_is_refused(kinds):
    saved = SavedPredictor(kinds["fitted"], PROVENANCE)
    saved.check(device="board", protocol_hash="abc")
    with pytest.raises(ValueError, match="device must be 'other', got 'board'.*--adapt"):
        saved.check(device="other")
    with pytest.raises(ValueError, match="protocol_hash must be 'def', got 'abc'"):
        saved.check(protocol_hash="def")


def rewritten(path, tmp_path, change_header=None, change_arrays=None):
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as handle:
        metadata = handle.metadata()
    arrays = load_file(path)
    header = json.loads(metadata["joulenas_predictor"])
    if change_header:
        change_header(header)
    if change_arrays:
        change_arrays(arrays)
    target = tmp_path / "changed.safetensors"
    save_file(arrays, target, metadata={"joulenas_predictor": json.dumps(header)})
    return target


@pytest.mark.parametrize(
    ("header", "arrays", "words"),
    [
        (lambda h: h.update(schema=99), None, "schema must be 3, got 99"),
        (lambda h: h["features"].append("x"), None, "features must be those of this version"),
        (lambda h: h["provenance"].pop("device"), None, "damaged"),
        (lambda h: h["provenance"].update(device=""), None, "device must not be empty"),
        (lambda h: h["predictor"]["regressor"].update(learners=["os"]), None, "damaged"),
        (None, lambda a: a.update({"fitted/prior/costs": np.ones(3)}), "costs must be"),
        (
            None,
            lambda a: a.update({"fitted/prior/costs": -a["fitted/prior/costs"]}),
            "finite numbers >= 0",
        ),
        (None, lambda a: a.pop("fitted/process/mean"), "damaged"),
        (None, lambda a: a.update({"fitted/standard/low": np.ones(2)}), "standard must hold"),
    ],
)
def test_a_damaged_file_gets_one_line(kinds, tmp_path, header, arrays, words):
    path = tmp_path / "p.safetensors"
    save_predictor(SavedPredictor(kinds["fitted"], PROVENANCE), path)
    with pytest.raises(ValueError, match=words) as error:
        load_predictor(rewritten(path, tmp_path, header, arrays))
    assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none.safetensors"):
        load_predictor(tmp_path / "none.safetensors")
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"\x80\x04 not safe")
    with pytest.raises(ValueError, match="safetensors file"):
        load_predictor(junk)
    other = tmp_path / "weights.safetensors"
    save_file({"w": np.ones(2)}, other)
    with pytest.raises(ValueError, match="holds other tensors"):
        load_predictor(other)


def test_provenance_is_what_records_share():
    with pytest.raises(ValueError, match="one or more"):
        Provenance.of([])
