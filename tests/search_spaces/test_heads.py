"""Heads for each pixel and for the ends of spans: counted as built, and laid out right."""

from dataclasses import replace

import pytest
import torch

from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.cost.counting import count
from search_spaces.cost.memory import peak_memory_of
from search_spaces.models.build import build
from search_spaces.models.extract import extract
from search_spaces.models.supernet import Supernet
from search_spaces.space import SearchSpace
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import largest
from search_spaces.workload import Workload

LAYER = LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(32))
SMALL = Architecture(16, (LAYER,), patch_size=4)
PIXELS = Workload("pixels", "image_segmentation", (3, 16, 24), 4, 2)


@pytest.mark.parametrize("resolution", [None, 8])
def test_the_head_is_counted_as_it_is_built(resolution):
    architecture = Architecture(16, (LAYER,), 4, resolution)
    model = build(architecture, PIXELS, generator_seed=0).eval()
    counts = count(architecture, PIXELS)
    assert counts.params == sum(p.numel() for p in model.parameters())
    ran = 0

    def add(module, inputs, output):
        nonlocal ran
        ran += output.numel() * module.in_features

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(add)
    assert model(torch.zeros(1, 3, 16, 24)).shape == (1, 16, 24, 4)
    assert counts.macs == ran + 2 * PIXELS.n_tokens(architecture) ** 2 * 16
    assert peak_memory_of(architecture, PIXELS) >= 2 * 4 * 16 * 24 * 4


def test_outputs_of_patches_lie_where_the_patches_lie():
    model = build(SMALL, PIXELS, generator_seed=0).eval()
    logits_1TC = torch.arange(24).float()[None, :, None].expand(1, 24, 64)
    pixels = model._pixels(logits_1TC)
    assert pixels[0, 5, 9, 0] == 1 * 6 + 2 and pixels[0, 15, 23, 3] == 23
    inside = model._pixels(torch.arange(64.0).expand(1, 24, 64))
    # Within a patch: rows, then columns, then classes.
    assert inside[0, 4:8, 4:8].flatten().tolist() == list(range(64))


@pytest.mark.parametrize("resolution", [None, 8])
def test_a_head_of_objects_is_counted_as_it_is_built_and_lies_where_patches_lie(resolution):
    objects = Workload("objects", "object_detection", (3, 16, 24), 4, 2)
    architecture = Architecture(16, (LAYER,), 4, resolution)
    model = build(architecture, objects, generator_seed=0).eval()
    counts, tokens = count(architecture, objects), objects.n_tokens(architecture)
    assert counts.params == sum(p.numel() for p in model.parameters())
    assert model.head.out_features == objects.n_outputs == 4 + 5
    pixels = count(architecture, replace(objects, kind="image_segmentation"))
    assert pixels.macs - counts.macs == tokens * 16 * (4 * 16 - 9)
    rows, columns = (4, 6) if resolution is None else (2, 3)
    outputs = model(torch.zeros(1, 3, 16, 24))
    assert outputs.shape == (1, rows, columns, 9)
    seen = []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)))
    again = model(torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(again[0, 1, 2], seen[0][0, columns + 2])
    assert peak_memory_of(architecture, objects) > 2 * 4 * tokens * 16


@pytest.mark.parametrize("kind", ["image_segmentation", "object_detection"])
def test_a_supernet_has_no_such_heads(kind):
    with pytest.raises(ValueError, match=f"supernet must be None for {kind}"):
        Supernet(PRESETS["digits-tiny"], replace(PIXELS, kind=kind))


def test_what_it_takes_is_counted_and_a_supernet_gives_the_same():
    workload = Workload("qa", "question_answering", (9,), 2, 4, vocab_size=30)
    architecture = Architecture(16, (LAYER,))
    model = build(architecture, workload, generator_seed=0)
    assert count(architecture, workload).params == sum(p.numel() for p in model.parameters())
    space = SearchSpace.from_dict(
        {
            "name": "qa",
            "d_model": [16, 32],
            "depth": [1, 2],
            "n_heads": [2],
            "n_kv_heads": [1, 2],
            "ffn_ratio": [1, 2],
        }
    )
    supernet = Supernet.seeded(space, workload, 0).eval()
    tokens = torch.randint(0, 30, (4, 9), generator=torch.Generator().manual_seed(0))
    member = largest(space)
    with supernet.active(member):
        shared = supernet(tokens)
    assert shared.shape == (4, 2, 9)
    torch.testing.assert_close(shared, extract(supernet, member).eval()(tokens))
