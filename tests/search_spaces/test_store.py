import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nas.training.weights import load_weights, save_weights
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.compression.sparsity import mask_2_4
from search_spaces.compression.store import (
    load_compressed,
    pack_2_4,
    save_compressed,
    stored_tensors,
    unpack_2_4,
)
from search_spaces.models.build import build
from search_spaces.workload import Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 4)
TEXT = Workload("text", "language_modelling", (12,), 17, 4, vocab_size=17)
PRECISIONS = ["fp32", "bf16", "int8", "int8wo", "int4wo"]
SPARSITIES = ["dense", "2:4", "unstructured-50", "unstructured-90"]


def inputs(workload):
    generator = torch.Generator().manual_seed(1)
    if workload.is_image:
        return torch.randn(4, *workload.input_shape, generator=generator)
    return torch.randint(0, 17, (4, 12), generator=generator)


def outputs(model, workload=DIGITS):
    return run_eagerly(model).call(inputs(workload))


@st.composite
def compressions(draw):
    precision = draw(st.sampled_from(PRECISIONS))
    sparsity = draw(st.sampled_from(["dense"] if precision == "int4wo" else SPARSITIES))
    return Compression(precision, sparsity)


@st.composite
def architectures(draw, patch_size):
    d_model = draw(st.sampled_from([16, 32, 64]))
    layers = []
    for _ in range(draw(st.integers(1, 2))):
        heads = draw(st.sampled_from([1, 2, 4]))
        kv_heads = draw(st.sampled_from([k for k in (1, 2, 4) if heads % k == 0]))
        ranks = st.sampled_from([None, 4, 8, 32])
        layers.append(
            LayerSpec(
                AttentionSpec(
                    heads, kv_heads, d_model // heads, draw(ranks), draw(compressions())
                ),
                FfnSpec(
                    d_model * draw(st.sampled_from([1, 2, 4])), draw(ranks), draw(compressions())
                ),
            )
        )
    return Architecture(d_model, tuple(layers), patch_size)


@settings(max_examples=30, deadline=None)
@given(st.data(), st.sampled_from([DIGITS, TEXT]), st.integers(0, 2**31))
def test_every_combination_is_held_to_the_bit(tmp_path_factory, data, workload, seed):
    architecture = data.draw(architectures(2 if workload is DIGITS else 1))
    trained = build(architecture, workload, generator_seed=seed)
    try:
        compressed = compress(trained, architecture)
    except ValueError as error:
        assume("int4wo" not in str(error))
        raise
    expected = outputs(compressed, workload)
    folder = tmp_path_factory.mktemp("held")
    # The trained weights, loaded into another network and compressed there.
    save_weights(trained, folder / "trained.safetensors")
    other = build(architecture, workload, generator_seed=seed + 1)
    load_weights(other, folder / "trained.safetensors")
    assert torch.equal(outputs(compress(other, architecture), workload), expected)
    # The compressed network itself.
    save_compressed(compressed, architecture, folder / "small.safetensors")
    loaded = load_compressed(architecture, workload, folder / "small.safetensors")
    assert torch.equal(outputs(loaded, workload), expected)
    for (name, ours), (_, theirs) in zip(
        stored_tensors(compressed, architecture).items(),
        stored_tensors(loaded, architecture).items(),
        strict=True,
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(
    ("compression", "most"),
    [
        (Compression("fp32"), 1.01),
        (Compression("bf16"), 0.51),
        (Compression("int8"), 0.27),
        (Compression("int8wo"), 0.27),
        (Compression("int4wo"), 0.18),
        # Half of the values, and two bits of position for each.
        (Compression("bf16", "2:4"), 0.29),
        (Compression("int8", "2:4"), 0.18),
        # Never credited: zeros are stored like any other value.
        (Compression("bf16", "unstructured-90"), 0.51),
    ],
)
def test_the_file_is_as_small_as_the_weights(tmp_path, compression, most):
    layer = LayerSpec(AttentionSpec(4, 4, 64, None, compression), FfnSpec(1024, None, compression))
    architecture = Architecture(256, (layer,), 2)
    trained = build(architecture, DIGITS, generator_seed=0)
    save_weights(trained, tmp_path / "trained.safetensors")
    save_compressed(compress(trained, architecture), architecture, tmp_path / "small.safetensors")
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("small", "trained")]
    assert most - 0.05 < sizes[0] / sizes[1] < most
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "small.safetensors",
        "trained.safetensors",
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**31))
def test_two_of_four_are_packed_without_loss(rows, groups, seed):
    weight = torch.randn(rows, 4 * groups, generator=torch.Generator().manual_seed(seed))
    masked = weight * mask_2_4(weight)
    masked[0, :3] = 0
    for dense in (masked, (masked * 40).clamp(-128, 127).to(torch.int8)):
        values, positions = pack_2_4(dense)
        assert values.numel() == dense.numel() // 2
        assert positions.numel() == -(-rows * groups // 2) and positions.dtype == torch.uint8
        assert torch.equal(unpack_2_4(values, positions), dense)
    with pytest.raises(ValueError, match="two values of each four"):
        pack_2_4(torch.ones(1, 4))


def small(precision="int8"):
    layer = LayerSpec(
        AttentionSpec(2, 2, 16, None, Compression(precision)), FfnSpec(32, None, Compression())
    )
    return Architecture(32, (layer,), 2)


def saved(path, precision="int8"):
    architecture = small(precision)
    model = compress(build(architecture, DIGITS, generator_seed=0), architecture)
    save_compressed(model, architecture, path)
    return architecture


def test_a_file_that_does_not_fit_is_named(tmp_path):
    path = tmp_path / "small.safetensors"
    architecture = small()
    with pytest.raises(ValueError, match="must exist"):
        load_compressed(architecture, DIGITS, path)
    path.write_bytes(b"\x80\x04not safetensors at all")
    with pytest.raises(ValueError, match="must be safetensors"):
        load_compressed(architecture, DIGITS, path)
    saved(path)
    with pytest.raises(ValueError, match="must have architecture"):
        load_compressed(small("bf16"), DIGITS, path)
    tensors = load_file(path)
    metadata = {
        "format": "joulenas-compressed-1",
        "architecture": architecture.hash,
        "layout": "any",
    }
    del tensors["layers.0.attention.q.weight:qdata"]
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=r"as layers\.0\.attention\.q\.weight:qdata, got None"):
        load_compressed(architecture, DIGITS, path)


def test_four_bit_weights_load_only_where_their_layout_is_read(tmp_path, monkeypatch):
    path = tmp_path / "small.safetensors"
    architecture = saved(path, "int4wo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "other")
    with pytest.raises(ValueError, match="must have layout 'cpu other'"):
        load_compressed(architecture, DIGITS, path)


def test_what_cannot_be_held_is_said_before_anything_is_written(tmp_path):
    architecture = small("fp32")
    model = compress(build(architecture, DIGITS), architecture)
    odd = torch.zeros(32, 32).as_subclass(type("Odd", (torch.Tensor,), {}))
    model.layers[0].ffn.up.weight = torch.nn.Parameter(odd, requires_grad=False)
    with pytest.raises(ValueError, match=r"layers\.0\.ffn\.up\.weight must be a plain"):
        save_compressed(model, architecture, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())
