"""The rules of ``kernels`` against what building really refuses."""

import numpy as np
import pytest

from search_spaces.architecture.simulated import simulated_choices
from search_spaces.compression.apply import compress
from search_spaces.cost.kernels import kernel_fault
from search_spaces.models.build import build
from search_spaces.space import SearchSpace
from search_spaces.space.presets import get_space
from search_spaces.space.sampling import sample
from search_spaces.workload import Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 16)


def test_what_has_no_kernel_on_a_cpu_is_what_building_refuses():
    space = SearchSpace.from_dict(
        {
            "name": "odd",
            "d_model": [6, 8, 12],
            "depth": [1],
            "n_heads": [1, 2],
            "n_kv_heads": [1, 2],
            "ffn_ratio": [0.5, 1, 1.25],
            "attention_rank": [None, 0.25],
            "ffn_rank": [None, 0.25],
            "patch_size": [4],
            "attention_precision": ["fp32", "bf16", "fp8"],
            "ffn_precision": ["fp32", "bf16"],
            "attention_sparsity": ["dense", "2:4"],
            "ffn_sparsity": ["dense", "2:4"],
        }
    )
    rng = np.random.default_rng(0)
    faults = 0
    for _ in range(150):
        architecture = sample(space, rng)
        fault = kernel_fault(architecture, "cpu")
        faults += fault is not None
        model = build(architecture, DIGITS, generator_seed=0)
        if fault is None:
            compress(model, architecture)
        else:
            with pytest.raises(ValueError):
                compress(model, architecture)
    assert 20 < faults < 130


def test_on_cuda_2_4_is_bf16_and_shapes_are_whole_tiles():
    rng = np.random.default_rng(0)
    found = [sample(get_space("encoder-base"), rng) for _ in range(500)]
    found = [a for a in found if not simulated_choices(a, "cuda:0")]
    words = [kernel_fault(a, "cuda:0") for a in found]
    for kind in ("divisible by 64", "divisible by 16 and 16"):
        assert any(w is not None and kind in w for w in words), kind
    good = [a for a, w in zip(found, words, strict=True) if w is None]
    blocks = [b for a in good for b in a.blocks]
    assert len(good) > 10
    assert all(
        b.compression.precision == "bf16" for b in blocks if b.compression.sparsity == "2:4"
    )
    assert {b.compression.precision for b in blocks} >= {"fp32", "bf16", "int8", "fp8"}
