import pytest
import torch

from nas.core.files import write_json
from nas.exporting.artifact import COMPRESSED, load_artifact
from nas.exporting.card_text import inside_interval
from nas.exporting.model_card import _PIPELINES
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression.apply import compress
from search_spaces.compression.store import save_compressed
from search_spaces.models.build import build
from search_spaces.workload import KINDS, Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 16)


def test_the_compressed_file_runs_without_the_trained_weights(tmp_path):
    layer = LayerSpec(
        AttentionSpec(2, 2, 32, None, Compression("int8")),
        FfnSpec(256, None, Compression("bf16", "2:4")),
    )
    architecture = Architecture(64, (layer,), 2)
    model = build(architecture, DIGITS, generator_seed=0)
    write_json(tmp_path / ARCHITECTURE, architecture.to_dict())
    write_json(tmp_path / WORKLOAD, DIGITS.to_dict())
    save_weights(model, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=r"compressed weights .* must exist"):
        load_artifact(tmp_path, small=True)
    save_compressed(compress(model, architecture), architecture, tmp_path / COMPRESSED)
    inputs = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = load_artifact(tmp_path).call(inputs)
    assert (tmp_path / COMPRESSED).stat().st_size < 0.35 * (tmp_path / WEIGHTS).stat().st_size
    (tmp_path / WEIGHTS).unlink()
    assert torch.equal(load_artifact(tmp_path, small=True).call(inputs), expected)
    with pytest.raises(ValueError, match=r"weights .* must exist"):
        load_artifact(tmp_path)


@pytest.mark.parametrize(
    ("verified", "text"),
    [
        ({"is_inside_interval": True}, ", inside the 95% interval of the search"),
        ({"is_inside_interval": False}, ", outside the 95% interval of the search"),
        ({"is_inside_interval": None}, ""),
        ({}, ""),
    ],
)
def test_a_card_says_whether_joules_repeated_inside_the_interval(verified, text):
    assert inside_interval(verified) == text


def test_every_kind_of_workload_has_a_name_on_the_hub():
    assert set(_PIPELINES) == set(KINDS)
