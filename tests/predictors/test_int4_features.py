"""4-bit weights are counted as the measured device stores them."""

from dataclasses import replace

import numpy as np
import pytest
from record_fakes import made_record

from predictors.energy.active import candidates_of
from predictors.energy.artifact import Provenance, SavedPredictor, load_predictor, save_predictor
from predictors.energy.features import TERMS
from predictors.energy.models import CostPredictor, Observation
from search_spaces.architecture import Architecture, AttentionSpec, Compression, FfnSpec, LayerSpec
from search_spaces.cost.counting import count_batch
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 16)
INT4 = Compression(precision="int4wo")


def architecture(d_ff):
    # Inputs of 32 are padded to 1,024 on CUDA.
    layer = LayerSpec(AttentionSpec(2, 2, 16, compression=INT4), FfnSpec(d_ff, compression=INT4))
    return Architecture(32, (layer,), patch_size=4)


def observed(source, n):
    for index in range(n):
        made = made_record(architecture(32 * (index + 1)), DIGITS, 1e-4 * (index + 1))
        yield replace(made, reading=replace(made.reading, source=source))


@pytest.mark.parametrize(
    ("source", "device"),
    [("nvml-total-energy", "cuda"), ("zeus-gpu", "cuda"), ("rapl-package", "cpu")],
)
def test_bytes_of_int4_are_those_that_the_measured_device_reads(tmp_path, source, device):
    records = list(observed(source, 3))
    fitted = CostPredictor.fit([Observation.of_record(record) for record in records])
    save_predictor(SavedPredictor(fitted, Provenance.of(records)), tmp_path / "p.safetensors")
    loaded = load_predictor(tmp_path / "p.safetensors").predictor
    adapted = CostPredictor.fit([]).adapt([Observation.of_record(record) for record in records])
    batch = ArchitectureBatch.of([architecture(64)])
    counts = count_batch(batch, DIGITS, device)
    at = TERMS.index("weight_bytes_per_sample")
    for predictor in (fitted, loaded, adapted):
        terms = candidates_of(batch, DIGITS, predictor).terms
        assert terms[0, at] == pytest.approx(counts.total("read_bytes")[0] / DIGITS.batch_size)
    np.testing.assert_array_equal(
        loaded.predict(batch, DIGITS).mean, fitted.predict(batch, DIGITS).mean
    )


def test_padding_is_not_small():
    batch = ArchitectureBatch.of([architecture(64)])
    padded, stored = (
        count_batch(batch, DIGITS, d).total("read_bytes")[0] for d in ("cuda", "cpu")
    )
    assert padded > 3 * stored
