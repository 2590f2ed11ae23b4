"""Images are shrunk, texts cut, as a choice that is counted, built and named like any other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from predictors.energy.features import FEATURES, counted
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.compression.inherit import check_fits_in
from search_spaces.cost.counting import count
from search_spaces.cost.memory import peak_memory_of
from search_spaces.models.build import build
from search_spaces.models.extract import extract
from search_spaces.models.supernet import Supernet
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import encode
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import largest, sample, sample_positions, smallest
from search_spaces.workload import Workload

IMAGES = Workload("images", "image_classification", (3, 32, 48), 5, 2)
TEXT = Workload("text", "text_classification", (12,), 3, 4, vocab_size=50)
ANSWERS = Workload("spans", "question_answering", (12,), 2, 4, vocab_size=50)
LAYER = LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(32))
WHOLE = Architecture(16, (LAYER,), patch_size=4)
SHRUNK = replace(WHOLE, resolution=16)
CUT = Architecture(16, (LAYER,), resolution=8)
CUT_ALIKE = replace(CUT, resolution=None)
PLAIN = PRESETS["digits-tiny"]
SPACE = SearchSpace.from_dict(
    {**PLAIN.to_dict(), "name": "shrunk", "resolution": [8, None, 16, 24]}
)


def test_models_and_spaces_that_say_nothing_of_it_are_stored_as_ever():
    assert WHOLE.hash == "8ce44306d8999977"
    assert "resolution" not in WHOLE.to_dict() and "resolution" not in PLAIN.to_dict()
    assert "resolution" not in PLAIN.genes()
    assert PLAIN.contains(smallest(PLAIN)) and not PLAIN.contains(
        replace(smallest(PLAIN), resolution=8)
    )


def test_it_is_part_of_what_a_model_is():
    again = Architecture.from_dict(SHRUNK.to_dict())
    assert again == SHRUNK and again.hash == SHRUNK.hash != WHOLE.hash
    assert SHRUNK.describe() == "d16 L1 h2/1 ff32 p4 @16 fp32"
    assert SPACE.size() == 4 * PLAIN.size()
    assert smallest(SPACE).resolution == 8 and largest(SPACE).resolution is None


def test_positions_and_architectures_agree():
    rng = np.random.default_rng(0)
    members = [sample(SPACE, rng) for _ in range(30)]
    assert {member.resolution for member in members} == {None, 8, 16, 24}
    domain = SPACE.genes()["resolution"]
    column = list(SPACE.genes()).index("resolution")
    positions = sample_positions(SPACE, 30, rng)
    batch = ArchitectureBatch.from_positions(positions, SPACE)
    assert batch.resolution.tolist() == [domain.values[p] or 0 for p in positions[:, column]]
    assert ArchitectureBatch.of(members).resolution.tolist() == [
        member.resolution or 0 for member in members
    ]
    assert all(encode(member, SPACE)["resolution"] == member.resolution for member in members)


def test_the_network_reads_means_of_areas():
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    model = build(SHRUNK, IMAGES, generator_seed=0).eval()
    # A network for images of that size, with the same weights, reads the shrunk ones alike.
    small = build(
        WHOLE, Workload("small", "image_classification", (3, 16, 24), 5, 2), generator_seed=0
    ).eval()
    means = images.unflatten(3, (24, 2)).unflatten(2, (16, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(model(images), small(means))
    odd = build(replace(SHRUNK, resolution=24), IMAGES, generator_seed=0)
    torch.testing.assert_close(
        odd.embed(images),
        build(
            WHOLE, Workload("odd", "image_classification", (3, 24, 36), 5, 2), generator_seed=0
        ).embed(F.interpolate(images, (24, 36), mode="area")),
    )


def test_fewer_pixels_are_fewer_tokens_and_macs():
    assert IMAGES.n_tokens(WHOLE) == 8 * 12 and IMAGES.n_tokens(SHRUNK) == 4 * 6
    whole, shrunk = count(WHOLE, IMAGES), count(SHRUNK, IMAGES)
    assert shrunk.macs < whole.macs / 4
    built = build(SHRUNK, IMAGES)
    assert shrunk.params == sum(parameter.numel() for parameter in built.parameters())
    # The kernel that shrinks is counted: what it launches, reads and writes.
    assert shrunk.n_kernels == whole.n_kernels + 1
    alone = Workload("small", "image_classification", (3, 16, 24), 5, 2)
    moved = shrunk.activation_bytes - count(WHOLE, alone).activation_bytes
    assert moved == 4 * 3 * (32 * 48 + 16 * 24)
    assert peak_memory_of(SHRUNK, IMAGES) < peak_memory_of(WHOLE, IMAGES)


def test_the_energy_predictor_sees_tokens():
    _, rows = counted(ArchitectureBatch.of([WHOLE, SHRUNK]), IMAGES)
    tokens = rows[:, FEATURES.index("log_tokens")]
    assert np.exp(tokens) == pytest.approx([96, 24])


@pytest.mark.parametrize(
    ("workload", "resolution", "message"),
    [
        (IMAGES, 32, "below the image's height of 32 pixels, for which null stands, got 32"),
        (IMAGES, 64, "below the image's height"),
        (IMAGES, 12, "patch_size must divide the image's 12x18 pixels, got 4"),
        (IMAGES, 15, "proportions of the image's 32x48"),
        (TEXT, 12, "below the 12 tokens of a text, for which null stands, got 12"),
        (ANSWERS, 8, "resolution must be null for question_answering, got 8"),
    ],
)
def test_what_does_not_fit_is_refused(workload, resolution, message):
    patch_size = WHOLE.patch_size if workload is IMAGES else 1
    with pytest.raises(ValueError, match=message):
        workload.check_fits(replace(WHOLE, patch_size=patch_size, resolution=resolution))


def test_the_samples_own_size_has_one_name():
    space = SearchSpace.from_dict({**PLAIN.to_dict(), "resolution": [16, 24, 32]})
    assert space.for_samples_of(IMAGES).values("resolution") == (16, 24, None)
    low = replace(IMAGES, input_shape=(3, 24, 24))
    # An image is not enlarged, whereas a text of 12 tokens is whole among at most 16.
    assert SPACE.for_samples_of(low).values("resolution") == (8, None, 16)
    assert SPACE.for_samples_of(TEXT).values("resolution") == (8, None)


def texts(n=6, n_tokens=12):
    return torch.randint(1, 50, (n, n_tokens), generator=torch.Generator().manual_seed(0))


def test_no_more_of_a_text_is_read():
    model = build(CUT, TEXT, generator_seed=0).eval()
    tokens, changed = texts(), texts()
    changed[:, 8:] = 0
    torch.testing.assert_close(model(tokens), model(changed))
    torch.testing.assert_close(model(tokens), model(tokens[:, :8]))
    torch.testing.assert_close(model.with_features(tokens)[0], model(tokens))
    changed[:, 7] = 0
    assert not torch.allclose(model(tokens), model(changed))
    # The same weights make a network for texts of eight tokens.
    short = build(CUT_ALIKE, replace(TEXT, input_shape=(8,)), generator_seed=0).eval()
    torch.testing.assert_close(model(tokens), short(tokens[:, :8]))


def test_fewer_tokens_are_counted_as_those_of_shorter_texts():
    short = replace(TEXT, input_shape=(8,))
    assert count(CUT, TEXT) == count(CUT_ALIKE, short)
    assert peak_memory_of(CUT, TEXT) == peak_memory_of(CUT_ALIKE, short)
    assert count(CUT, TEXT).params == sum(p.numel() for p in build(CUT, TEXT).parameters())


def test_a_supernet_holds_networks_that_read_less():
    data = {"d_model": [16], "depth": [1], "n_heads": [2], "n_kv_heads": [1], "ffn_ratio": [2]}
    space = SearchSpace.from_dict({"name": "cut", **data, "resolution": [8, None]})
    supernet = Supernet.seeded(space, TEXT, seed=0).eval()
    alone = extract(supernet, CUT).eval()
    with supernet.active(CUT):
        torch.testing.assert_close(supernet(texts()), alone(texts()))
        torch.testing.assert_close(supernet(texts()), supernet(texts()[:, :8]))


def test_patches_must_divide_it_and_teachers_must_read_as_much():
    with pytest.raises(ValueError, match="resolution must be a multiple of every patch_size"):
        SearchSpace.from_dict({**PLAIN.to_dict(), "resolution": [6]})
    with pytest.raises(ValueError, match="resolution must be integers >= 1 or null"):
        SearchSpace.from_dict({**PLAIN.to_dict(), "resolution": [0]})
    check_fits_in(WHOLE, SHRUNK)
    with pytest.raises(ValueError, match="resolution must be at most 16 .*, got None"):
        check_fits_in(SHRUNK, WHOLE)
