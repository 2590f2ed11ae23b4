"""Arrays of architectures say what the architectures themselves say, one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.architecture import PRECISIONS
from search_spaces.cost.counting import count, count_batch, stream_precisions
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import from_vector, to_vector
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import sample, sample_positions
from search_spaces.workload import Workload

WORKLOADS = {
    "digits-tiny": Workload("digits", "image_classification", (1, 8, 8), 10, 128),
    "vision-base": Workload("images", "image_classification", (3, 64, 64), 100, 8),
    "encoder-base": Workload("text", "text_classification", (96,), 3, 16, vocab_size=500),
    "decoder-base": Workload("lm", "language_modelling", (64,), 300, 4, vocab_size=300),
    "translation-base": Workload("mt", "translation", (24,), 301, 4, 300, target_length=20),
}


def drawn(name, seed, n):
    rng = np.random.default_rng(seed)
    return [sample(PRESETS[name], rng) for _ in range(n)]


def assert_same(first, second):
    """Equal up to layers beyond the depth of every architecture."""
    layers = first.attention.rank.shape[1]
    for block in ("attention", "ffn"):
        for field, value in vars(getattr(first, block)).items():
            other = getattr(getattr(second, block), field)[:, :layers]
            np.testing.assert_array_equal(value, other, err_msg=f"{block}.{field}")
    for field in ("d_model", "depth", "patch_size", "resolution"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


@pytest.mark.parametrize("name", list(WORKLOADS))
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_positions_name_the_same_models_as_architectures(name, seed):
    space, members = PRESETS[name], drawn(name, seed, 6)
    one_by_one = ArchitectureBatch.of(members)
    positions = np.stack([to_vector(member, space) for member in members])
    by_position = ArchitectureBatch.from_positions(positions, space)
    layers = one_by_one.attention.rank.shape[1]
    # Genes that do not matter may differ: a rank that saves nothing has two names.
    for block in ("attention", "ffn"):
        one, other = getattr(one_by_one, block), getattr(by_position, block)
        for field in vars(one):
            if field != "rank":
                np.testing.assert_array_equal(
                    getattr(one, field), getattr(other, field)[:, :layers], err_msg=field
                )
    for workload in (WORKLOADS[name],):
        first, second = count_batch(one_by_one, workload), count_batch(by_position, workload)
        for field in ("params", "macs", "weight_bytes", "activation_bytes", "n_kernels"):
            np.testing.assert_allclose(first.total(field), second.total(field), rtol=1e-12)


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_a_batch_counts_each_as_if_it_were_alone(name):
    members, workload = drawn(name, 3, 12), WORKLOADS[name]
    together = count_batch(ArchitectureBatch.of(members), workload)
    for row, member in enumerate(members):
        alone = count(member, workload)
        for field in ("params", "macs", "weight_bytes", "activation_bytes", "n_kernels"):
            assert together.total(field)[row] == pytest.approx(getattr(alone, field), rel=1e-12)
        assert len(alone.blocks) == len(member.blocks)
        assert [b.precision for b in alone.blocks] == [
            b.compression.precision for b in member.blocks
        ]


def test_streams_are_those_of_the_architectures():
    members = drawn("encoder-base", 7, 200)
    codes = stream_precisions(ArchitectureBatch.of(members))
    assert [PRECISIONS[code] for code in codes] == [m.stream_precision for m in members]
    assert len(set(codes)) == 2


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_sampling_at_once_is_sampling_one_by_one(name):
    space = PRESETS[name]
    positions = sample_positions(space, 3000, np.random.default_rng(1))
    members = [from_vector(row, space) for row in positions[:300]]
    assert all(space.contains(member) for member in members)
    at_once = count_batch(ArchitectureBatch.from_positions(positions, space), WORKLOADS[name])
    one_by_one = count_batch(ArchitectureBatch.of(drawn(name, 2, 3000)), WORKLOADS[name])
    # The same distribution: means of the logarithm agree within their standard errors.
    a, b = np.log(at_once.total("macs")), np.log(one_by_one.total("macs"))
    assert abs(a.mean() - b.mean()) < 4 * np.hypot(a.std(), b.std()) / np.sqrt(3000)


def test_rows_are_selected_by_slice_mask_and_position():
    batch = ArchitectureBatch.of(drawn("digits-tiny", 0, 5))
    assert len(batch.rows(slice(1, 4))) == 3
    assert_same(batch.rows(np.array([False, True, True, True, False])), batch.rows(slice(1, 4)))
    assert_same(batch.rows(np.array([1, 2, 3])), batch.rows(slice(1, 4)))


def test_no_architecture_makes_an_empty_batch():
    counts = count_batch(ArchitectureBatch.of([]), WORKLOADS["digits-tiny"])
    assert counts.total("params").shape == (0,)


def test_wrong_positions_are_refused():
    space = PRESETS["digits-tiny"]
    good = np.stack([to_vector(member, space) for member in drawn("digits-tiny", 0, 3)])
    with pytest.raises(ValueError, match="shape"):
        ArchitectureBatch.from_positions(good[:, 1:], space)
    bad = good.copy()
    bad[1, 0] = 99
    with pytest.raises(ValueError, match=r"d_model must be in \[0, 6\), got 99 in row 1"):
        ArchitectureBatch.from_positions(bad, space)
    names = list(space.genes())
    bad = good.copy()
    bad[2, names.index("layer0.n_heads")] = 0
    bad[2, names.index("layer0.n_kv_heads")] = 2
    with pytest.raises(ValueError, match="in row 2"):
        ArchitectureBatch.from_positions(bad, space)


def test_a_patch_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="patch_size must divide"):
        count_batch(ArchitectureBatch.of(drawn("vision-base", 0, 4)), WORKLOADS["digits-tiny"])
