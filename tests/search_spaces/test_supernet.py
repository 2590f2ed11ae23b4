"""A supernet's sub-networks: the same as stand-alone ones, through views, with no sticky state."""

import copy
import pickle
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.extract import extract
from search_spaces.models.supernet import Supernet
from search_spaces.space import SearchSpace
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import largest, sample, smallest
from search_spaces.workload import Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 4)
IMAGES = Workload("images", "image_classification", (3, 32, 32), 5, 2)
TEXT = Workload("text", "text_classification", (12,), 3, 4, vocab_size=50)
MODELLING = Workload("lm", "language_modelling", (12,), 50, 4, vocab_size=50)


def narrowed(name):
    """A preset as it is, but for widths that only take time."""
    return replace(
        PRESETS[name],
        domains={
            **PRESETS[name].domains,
            "d_model": (32, 48, 96, 128),
            "depth": (1, 2, 5),
            "ffn_ratio": (0.5, 1, 3),
        },
    )


ODD = SearchSpace.from_dict(
    {
        "name": "odd",
        "d_model": [12, 24, 36],
        "depth": [1, 3],
        "n_heads": [1, 3, 6],
        "n_kv_heads": [1, 2, 3],
        "ffn_ratio": [0.3, 2.5],
        "attention_rank": [0.25, 0.1],
        "ffn_rank": [None, 0.5, 0.2],
        "patch_size": [1],
    }
)
SHRUNK = SearchSpace.from_dict(
    {**PRESETS["digits-tiny"].to_dict(), "name": "shrunk", "resolution": [16, 24, None]}
)
CASES = [
    (PRESETS["digits-tiny"], DIGITS),
    (narrowed("encoder-base"), TEXT),
    (narrowed("decoder-base"), MODELLING),
    (narrowed("vision-base"), IMAGES),
    (SHRUNK, IMAGES),
    (ODD, TEXT),
    (ODD, MODELLING),
]


def randomised(space, workload):
    """Norms, too: as they start, taking the wrong ones would not show."""
    supernet = Supernet.seeded(space, workload, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in supernet.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return supernet.eval()


def inputs_of(workload, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (workload.batch_size, *workload.input_shape)
    if workload.is_image:
        return torch.randn(shape, generator=generator)
    tokens = torch.randint(1, workload.vocab_size, shape, generator=generator)
    tokens[1, 5:] = 0
    return tokens


@pytest.mark.parametrize(("space", "workload"), CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("grad", [False, True])
def test_what_is_active_equals_what_is_extracted(space, workload, grad):
    supernet, inputs = randomised(space, workload), inputs_of(workload)
    rng = np.random.default_rng(0)
    members = [smallest(space), largest(space)] + [sample(space, rng) for _ in range(20)]
    found = set()
    # Attention takes one of two ways, by whether gradients are wanted.
    with torch.set_grad_enabled(grad):
        for architecture in members:
            with supernet.active(architecture):
                ours = supernet(inputs)
            theirs = extract(supernet, architecture).eval()(inputs)
            torch.testing.assert_close(ours, theirs, atol=5e-6, rtol=1e-5)
            found.add(float(ours.sum()))
    assert len(found) > len({a.hash for a in members}) * 0.5


def test_a_pruned_norm_of_the_wrong_width_would_show():
    supernet = randomised(PRESETS["digits-tiny"], DIGITS)
    member = smallest(PRESETS["digits-tiny"])
    before = extract(supernet, member)(inputs_of(DIGITS))
    with torch.no_grad():
        supernet.norm.gain_D["96"].mul_(2)
    assert torch.equal(before, extract(supernet, member)(inputs_of(DIGITS)))
    with torch.no_grad():
        supernet.norm.gain_D["16"].mul_(2)
    assert not torch.equal(before, extract(supernet, member)(inputs_of(DIGITS)))


def test_parameters_are_read_through_views_and_never_copied():
    supernet = randomised(ODD, TEXT)
    rng = np.random.default_rng(0)
    for _ in range(10):
        architecture = sample(ODD, rng)
        for layer, spec in zip(supernet.layers, architecture.layers, strict=False):
            found = layer.attention.views(architecture.d_model, spec.attention)
            found |= layer.ffn.views(architecture.d_model, spec.ffn)
            storages = {p.untyped_storage().data_ptr() for p in layer.parameters()}
            for views in found.values():
                for tensor in (*views.factors, views.bias):
                    assert tensor.untyped_storage().data_ptr() in storages


def test_gradients_reach_the_weights_of_the_active_and_no_others():
    supernet = randomised(PRESETS["digits-tiny"], DIGITS)
    with supernet.active(smallest(PRESETS["digits-tiny"])):
        supernet(inputs_of(DIGITS)).sum().backward()
    up = supernet.layers[0].ffn.up.weight_OI.grad
    assert up[:8, :16].abs().min() > 0 and up[8:].abs().max() == 0 == up[:, 16:].abs().max()
    assert supernet.layers[1].ffn.up.weight_OI.grad is None
    assert supernet.norm.gain_D["96"].grad is None


def test_nothing_stays_active():
    space = PRESETS["digits-tiny"]
    supernet, inputs = randomised(space, DIGITS), inputs_of(DIGITS)
    small, large = smallest(space), largest(space)
    assert supernet.architecture is None
    with pytest.raises(RuntimeError, match="active"):
        supernet(inputs)
    with supernet.active(small):
        alone = supernet(inputs)
        with pytest.raises(KeyError), supernet.active(large):
            raise KeyError
        assert supernet.architecture == small
        assert torch.equal(supernet(inputs), alone)
        # Another supernet has a state of its own, and a copy starts with none.
        assert copy.deepcopy(supernet).architecture is None
    assert supernet.architecture is None
    assert isinstance(pickle.loads(pickle.dumps(supernet)), Supernet)


def test_threads_do_not_disturb_each_other():
    space = PRESETS["digits-tiny"]
    supernet, seen = randomised(space, DIGITS), {}
    barrier = threading.Barrier(2)

    def be(architecture):
        with supernet.active(architecture):
            barrier.wait(10)
            seen[architecture.hash] = supernet.architecture
            barrier.wait(10)

    members = [smallest(space), largest(space)]
    threads = [threading.Thread(target=be, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {member.hash: member for member in members}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_model": 20}, "d_model must be one of 16, 24"),
        ({"patch_size": 1}, "patch_size must be one of 2, 4, got 1"),
        ({"depth": 4}, "depth must be at most 3"),
        ({"d_ff": 999}, r"layers\[0\].ffn.d_ff must be at most 384"),
        ({"d_head": 8}, r"layers\[0\].attention.d_head must be d_model / n_heads"),
        ({"rank": 30, "d_model": 96, "d_ff": 96}, r"layers\[0\].ffn.rank must be at most 24"),
    ],
)
def test_what_it_has_no_weights_for_is_named(changes, words):
    width = changes.get("d_model", 16)
    layer = LayerSpec(
        AttentionSpec(1, 1, changes.get("d_head", width)),
        FfnSpec(changes.get("d_ff", 16), changes.get("rank")),
    )
    layers = (layer,) * changes.get("depth", 1)
    architecture = Architecture(width, layers, changes.get("patch_size", 4))
    supernet = Supernet.seeded(PRESETS["digits-tiny"], DIGITS, 0)
    with pytest.raises(ValueError, match=words), supernet.active(architecture):
        pass
    with pytest.raises(ValueError, match=words):
        extract(supernet, architecture)


def test_a_patch_size_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="patch_size"):
        Supernet(PRESETS["vision-base"], DIGITS)


def test_weights_follow_from_the_seed_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again = (Supernet.seeded(ODD, TEXT, 3).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())
