"""What other networks can, networks of every style can: compress, prune, slice, translate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from style_fakes import (
    EVERY_STYLE,
    IMAGE,
    LM,
    TEXT,
    TEXT_VECTOR,
    architecture,
    fitting,
    inputs_of,
    network,
    workload_of,
)
from torch import nn

from nas.tasks.base import Split
from nas.training.config import DistillConfig, TrainingConfig
from nas.training.distill import Distillation, tabulate
from nas.training.objectives import OBJECTIVES
from search_spaces.architecture import (
    STYLES,
    Architecture,
    AttentionSpec,
    Compression,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression.apply import compress, prepare_for_inference
from search_spaces.compression.inherit import check_fits_in, inherit
from search_spaces.compression.prune import magnitude_importance, taylor_importance
from search_spaces.compression.qat import fake_quantised
from search_spaces.compression.sparsity import Masks
from search_spaces.compression.store import load_compressed, save_compressed
from search_spaces.cost.counting import count
from search_spaces.models.build import build_network
from search_spaces.models.decoding import Phase
from search_spaces.models.encoder_decoder import translate
from search_spaces.models.extract import extract
from search_spaces.models.supernet import Supernet
from search_spaces.space import SearchSpace
from search_spaces.space.sampling import largest, sample, smallest
from search_spaces.workload import Workload

EVERY = [pytest.param(style, id=name) for name, style in EVERY_STYLE.items()]
SLICED = [*STYLES, "past", "past-mean", "masked", "distilled", "registers", "patches", "two"]
MT = Workload("mt", "translation", (9,), 31, 3, 30, target_length=6)
TRANSLATING = [
    pytest.param(style, id=name)
    for name, style in EVERY_STYLE.items()
    if not (style.n_prefix_tokens or style.n_token_types)
    and not (style.is_causal or style.has_head_transform)
]


def uniform(style, workload, compression=None, *, depth=2):
    """Sizes that every kernel of a CPU takes."""
    how = compression or Compression()
    layer = LayerSpec(AttentionSpec(4, 2, 16, None, how), FfnSpec(64, None, how))
    return Architecture(64, (layer,) * depth, 2 if workload.is_image else 1, style=style)


@pytest.mark.parametrize(
    "precision, sparsity, most",
    [
        ("bf16", "dense", 0.06),
        ("int8", "dense", 0.08),
        ("int8wo", "dense", 0.08),
        ("int4wo", "dense", 0.5),
        ("fp32", "2:4", None),
        ("fp32", "unstructured-50", None),
    ],
)
@pytest.mark.parametrize("style", EVERY)
def test_every_precision_and_sparsity_runs(style, precision, sparsity, most):
    workload = workload_of(style)
    of = uniform(style, workload, Compression(precision, sparsity))
    made, inputs = network(of, workload), inputs_of(workload)
    with torch.no_grad():
        whole, found = made(inputs), compress(made, of)(inputs).float()
        if most is not None:
            assert float((found - whole).norm() / whole.norm()) < most
            return
        # Masks by hand are those of compression, a gate's included.
        masks = Masks.of(made, of)
        assert torch.allclose(made(inputs), found, atol=1e-4, rtol=1e-4)
        assert len(masks.weights) == 2 * (7 if style.is_gated else 6)


@pytest.mark.parametrize("style", EVERY)
def test_stored_compressed_weights_are_read_back_to_the_bit(style, tmp_path):
    workload = workload_of(style)
    of = uniform(style, workload, Compression("int8"))
    made, inputs = compress(network(of, workload), of), inputs_of(workload)
    save_compressed(made, of, tmp_path / "weights")
    with torch.no_grad():
        loaded = load_compressed(of, workload, tmp_path / "weights")
        assert torch.equal(loaded(inputs), made(inputs))


@pytest.mark.parametrize("style", EVERY)
def test_quantisation_aware_training_reaches_every_weight(style):
    workload = workload_of(style)
    of = uniform(style, workload, Compression("int8"))
    made, inputs = network(of, workload), inputs_of(workload)
    fake = fake_quantised(made, of)
    fake(inputs).square().sum().backward()
    assert fake.state_dict().keys() == made.state_dict().keys()
    for name, parameter in fake.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("style", EVERY)
def test_heads_and_channels_that_add_nothing_can_be_cut(style):
    for workload in fitting(style)[:2]:
        of = uniform(style, workload)
        teacher, inputs = network(of, workload), inputs_of(workload)
        same = inherit(teacher, of, of, workload)
        with torch.no_grad():
            assert torch.equal(same(inputs), teacher(inputs))
            for layer in teacher.layers:
                # The second key-value head and its queries, and half of the channels.
                layer.attention.v.weight[16:] = 0
                if layer.attention.v.bias is not None:
                    layer.attention.v.bias[16:] = 0
                layer.ffn.down.weight[:, 10:42] = 0
            layers = tuple(LayerSpec(AttentionSpec(2, 1, 16), FfnSpec(32)) for _ in teacher.layers)
            scores = magnitude_importance(teacher)
            assert int((scores.channels[0] == 0).sum()) == 32
            smaller = replace(of, layers=layers)
            student = inherit(teacher, of, smaller, workload)
            whole = teacher(inputs)
            difference = (student(inputs) - whole).abs().max()
            assert difference < 1e-5 * whole.abs().max()


@pytest.mark.parametrize("style", EVERY)
def test_taylor_scores_are_of_the_heads_and_channels_that_matter(style):
    workload = workload_of(style)
    of = uniform(style, workload)
    made, inputs = network(of, workload), inputs_of(workload)
    with torch.no_grad():
        for layer in made.layers:
            layer.ffn.down.weight[:, 5:9] = 0
    scores = taylor_importance(made, [(inputs, torch.tensor([0, 1, 2, 0]))])
    for heads, channels in zip(scores.heads, scores.channels, strict=True):
        assert heads.shape == (4,) and bool((heads > 0).all())
        # ReLU has other channels without a gradient.
        assert bool((channels[5:9] == 0).all()) and int((channels > 0).sum()) > 30


def test_a_student_has_its_teachers_style():
    llama, qwen = (uniform(STYLES[name], LM) for name in ("llama", "qwen2"))
    with pytest.raises(ValueError, match="style must be llama .the teacher's., got qwen2"):
        check_fits_in(llama, qwen)


def test_magnitude_folds_the_norm_that_feeds_a_post_norm_block():
    style = STYLES["bert"]
    made = network(uniform(style, TEXT), TEXT)
    before = magnitude_importance(made)
    with torch.no_grad():
        for norm in (made.embed_norm, made.layers[0].attention_norm):
            norm.weight.mul_(3)
            norm.bias.mul_(3)
        made.layers[0].attention.v.bias.mul_(3)
        made.layers[0].ffn.up.bias.mul_(3)
    after = magnitude_importance(made)
    assert torch.allclose(after.heads[0], 3 * before.heads[0])
    assert torch.allclose(after.channels[0], 3 * before.channels[0])
    assert torch.equal(after.channels[1], before.channels[1])


@pytest.mark.parametrize("style", EVERY)
def test_a_student_of_another_style_is_distilled(style):
    workload = workload_of(style)
    teacher_of = architecture(STYLES["default"], workload)
    student = network(architecture(style, workload), workload)
    inputs, targets = inputs_of(workload), torch.tensor([0, 1, 2, 0])
    training = TrainingConfig(epochs=1, shift_pixels=0)
    table = tabulate(
        network(teacher_of, workload), Split(inputs.numpy(), targets.numpy()), training
    )
    objective = OBJECTIVES[workload.kind]
    loss = Distillation(student, table, DistillConfig(feature_weight=1.0), objective, seed=0)
    rest = (torch.arange(4), torch.zeros(4, dtype=torch.int64), 0.0)
    loss(student, inputs, targets, *rest).backward()
    assert all(bool(p.grad.isfinite().all()) for p in student.parameters())


def space_of(name, **changes):
    return SearchSpace.from_dict(
        {
            "name": "elastic",
            "d_model": [24, 32, 48],
            "depth": [1, 3],
            "n_heads": [1, 2, 4],
            "n_kv_heads": [1, 2],
            "ffn_ratio": [0.5, 2],
            "ffn_rank": [None, 0.25],
            "blocks": name,
            **changes,
        }
    )


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", SLICED)
def test_slices_of_a_supernet_are_the_networks_that_are_extracted(name, grad, monkeypatch):
    monkeypatch.setitem(STYLES, name, EVERY_STYLE[name])
    for workload in fitting(STYLES[name]):
        if workload.is_dense:
            continue
        patches = [2, 4] if workload.is_image else [1]
        widths = [32] if workload.is_embedding else [24, 32, 48]
        space = space_of(name, patch_size=patches, d_model=widths)
        supernet = Supernet.seeded(space, workload, 0).eval()
        with torch.no_grad():
            for parameter in supernet.parameters():
                parameter.add_(torch.rand(parameter.shape) * 0.3)
        rng, inputs = np.random.default_rng(0), inputs_of(workload)
        members = [smallest(space), largest(space)] + [sample(space, rng) for _ in range(6)]
        for member in members:
            with torch.set_grad_enabled(grad), supernet.active(member):
                ours = supernet(inputs)
            theirs = extract(supernet, member).eval()(inputs)
            difference = (ours - theirs).detach().abs().max() / theirs.detach().abs().max()
            assert float(difference) < 1e-4


def test_a_supernet_is_of_one_style():
    with pytest.raises(ValueError, match="blocks must hold one style for a supernet.*llama, def"):
        Supernet(space_of(["llama", "default"]), LM)
    supernet = Supernet.seeded(space_of("llama"), LM, 0)
    other = replace(smallest(space_of("llama")), style=STYLES["qwen2"])
    with (
        pytest.raises(ValueError, match="style must be llama .the supernet's., got qwen2"),
        supernet.active(other),
    ):
        pass


def test_a_supernet_of_embeddings_has_one_width():
    with pytest.raises(ValueError, match="n_classes must be the pooled width 24 for text_emb.*32"):
        Supernet(space_of("default"), TEXT_VECTOR)


def translator(style, rank=None):
    layer = LayerSpec(AttentionSpec(4, 2, 8, rank), FfnSpec(64, rank))
    own = DecoderLayerSpec(
        AttentionSpec(3, 1, 8, rank), AttentionSpec(2, 2, 12, rank), FfnSpec(40, rank)
    )
    return Architecture(32, (layer,) * 2, decoder=DecoderSpec(24, (own,) * 3), style=style)


def sources():
    found = torch.randint(1, 30, (3, 9), generator=torch.Generator().manual_seed(1))
    found[0, 5:] = 0
    return found


@pytest.mark.parametrize("style", TRANSLATING)
def test_a_translators_steps_are_those_of_whole_passes(style):
    made, read = network(translator(style), MT), sources()
    assert count(translator(style), MT).params == sum(p.numel() for p in made.parameters())
    written = translate(made, read, stop_early=False)
    with torch.no_grad():
        logits = made(read, written)
    logits[:, :, 0] = -torch.inf
    for row, tokens in zip(logits.argmax(-1), written, strict=True):
        ends = (tokens == made.end).nonzero().flatten().tolist()
        read_to = ends[0] + 1 if ends else len(tokens)
        assert torch.equal(row[:read_to], tokens[:read_to])
    with torch.no_grad():
        assert torch.allclose(
            made(read[:1, :5], written[:1]), made(read[:1], written[:1]), atol=1e-4
        )


@pytest.mark.parametrize("style", TRANSLATING)
def test_products_of_translations_are_counted(style):
    of = translator(style, rank=4)
    made, ran = network(of, MT), []

    def add(module, arguments, output):
        ran.append(output.numel() // 3 * arguments[0].shape[-1])

    for module in made.modules():
        if isinstance(module, nn.Linear) or module is made.decoder.head:
            module.register_forward_hook(add)
    translate(made, sources(), stop_early=False)
    scores = 2 * (9 * 9 * 32) * 2 + 2 * 6 * (6 * 24 + 9 * 24) * 3
    assert count(of, MT).macs == sum(ran) + scores


def test_translators_refuse_what_they_have_no_use_for():
    for name in ("bert", "vit", "past", "past-cls", "distilled"):
        with pytest.raises(ValueError, match="style..* must be .* for translation, got"):
            build_network(translator(EVERY_STYLE[name]), MT)


def test_a_compiled_generation_step_repeats_the_last_logits():
    workload = replace(LM, phase="generate")
    of = uniform(STYLES["qwen3"], LM, Compression("int8"), depth=1)
    made, read = compress(network(of, LM), of), inputs_of(LM)
    phase = Phase(made, read, 11)
    call = prepare_for_inference(phase, of, read[:, 11:]).call
    with torch.no_grad():
        whole = made(read)[:, -1].float()
    for _ in range(2):
        found = call(read[:, 11:]).float()
        assert float((found - whole).norm() / whole.norm()) < 0.03
    plain = uniform(STYLES["gpt2"], LM, depth=1)
    assert count(of, workload).n_kernels > count(plain, workload).n_kernels


def test_images_of_a_class_token_are_compiled():
    of = uniform(STYLES["vit"], IMAGE, Compression("int8"), depth=1)
    made, inputs = compress(network(of, IMAGE), of), inputs_of(IMAGE)
    with torch.no_grad():
        whole = made(inputs)
    found = prepare_for_inference(made, of, inputs).call(inputs)
    assert float((found - whole).norm() / whole.norm()) < 0.03
