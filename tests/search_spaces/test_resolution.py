"""Images are shrunk before they are cut: counted, built and named like any other choice."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from predictors.learned.features import FEATURES, counted
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.batch import ArchitectureBatch
from search_spaces.compression.inherit import check_fits_in
from search_spaces.counting import count
from search_spaces.encoding import encode
from search_spaces.memory import peak_memory_of
from search_spaces.models.build import build
from search_spaces.presets import PRESETS
from search_spaces.sampling import largest, sample, sample_positions, smallest
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload

IMAGES = Workload("images", "image_classification", (3, 32, 48), 5, 2)
TEXT = Workload("text", "text_classification", (12,), 3, 4, vocab_size=50)
LAYER = LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(32))
WHOLE = Architecture(16, (LAYER,), patch_size=4)
SHRUNK = replace(WHOLE, resolution=16)
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
    assert SHRUNK.describe() == "d16 L1 h2/1 ff32 p4 16px fp32"
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
        (TEXT, 8, "resolution must be null for text_classification, got 8"),
    ],
)
def test_what_does_not_fit_is_refused(workload, resolution, message):
    patch_size = WHOLE.patch_size if workload is IMAGES else 1
    with pytest.raises(ValueError, match=message):
        workload.check_fits(replace(WHOLE, patch_size=patch_size, resolution=resolution))


def test_the_images_own_size_has_one_name():
    space = SearchSpace.from_dict({**PLAIN.to_dict(), "resolution": [16, 24, 32]})
    assert space.for_images_of(32).values("resolution") == (16, 24, None)
    assert SPACE.for_images_of(24).values("resolution") == (8, None, 16)


def test_patches_must_divide_it_and_teachers_must_share_it():
    with pytest.raises(ValueError, match="resolution must be a multiple of every patch_size"):
        SearchSpace.from_dict({**PLAIN.to_dict(), "resolution": [6]})
    with pytest.raises(ValueError, match="resolution must be integers >= 1 or null"):
        SearchSpace.from_dict({**PLAIN.to_dict(), "resolution": [0]})
    with pytest.raises(ValueError, match="resolution must be None"):
        check_fits_in(WHOLE, SHRUNK)
