"""What the paired benchmarks say of their figures."""

import math
from types import SimpleNamespace

import pytest

from experiments.benchmarks.compression.compressed_twins import twin_of, verdict
from experiments.benchmarks.paired import Difference
from experiments.benchmarks.training.distillation import Part
from experiments.benchmarks.training.recovery import CASES, LARGE
from nas.core.estimate import Estimate
from nas.tasks.registry import get_task
from nas.training.fit import fits_in
from search_spaces.architecture import Architecture, AttentionSpec, Compression, FfnSpec, LayerSpec


def test_a_difference_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.3027.
    found = Difference.of([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found.mean == pytest.approx(2.0)
    assert found.half_width == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert Difference(0.02, 0.01).points() == "+2.00 ± 1.00*"
    assert Difference(-0.02, 0.03).points() == "-2.00 ± 3.00"
    with pytest.raises(ValueError, match="two or more"):
        Difference.of([1.0], [0.0])


def test_a_twin_keeps_every_size_and_no_compression():
    int8 = Compression("int8", "2:4")
    layer = LayerSpec(
        AttentionSpec(2, 1, 8, rank=2, compression=int8), FfnSpec(48, rank=3, compression=int8)
    )
    plain = LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(48))
    twin = twin_of(Architecture(16, (layer, plain), patch_size=4))
    assert twin == Architecture(16, (plain, plain), patch_size=4) == twin_of(twin)


@pytest.mark.parametrize(
    ("accuracy", "low", "high", "words"),
    [
        (Difference(0.01, 0.02), 0.6, 0.7, "the member dominates"),
        (Difference(-0.01, 0.02), 0.6, 0.7, "alike within noise"),
        (Difference(-0.03, 0.02), 0.6, 0.7, "neither dominates"),
        (Difference(0.01, 0.02), 0.9, 1.1, "no cheaper"),
        (Difference(0.01, 0.02), 1.1, 1.2, "dearer"),
    ],
)
def test_a_verdict_says_what_the_intervals_allow(accuracy, low, high, words):
    assert words in verdict(
        accuracy, SimpleNamespace(ratio=Estimate((low + high) / 2, low, high, "fake"))
    )


def test_a_part_thins_the_training_split_alone():
    task = get_task("digits")
    part = Part(task, 10)
    assert len(part.split("train")) == 108
    assert part.split("validation") is task.split("validation")


def test_every_pruned_network_fits_into_the_large_one():
    assert all(fits_in(LARGE, found) and found != LARGE for found in CASES.values())
