import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from style_fakes import EVERY_STYLE, MLM, inputs_of, workload_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search_spaces.architecture import (
    INT4_GROUP_SIZE,
    PRECISIONS,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression.quantize import quiet_torchao
from search_spaces.cost.counting import count, count_batch
from search_spaces.cost.counts import BYTES_PER_WEIGHT
from search_spaces.cost.memory import peak_memory_bytes, peak_memory_of
from search_spaces.models.build import build
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.sampling import sample
from search_spaces.workload import Workload

SPACE = SearchSpace.from_dict(
    {
        "name": "memory",
        "d_model": [32, 64, 128],
        "depth": [1, 2, 3],
        "n_heads": [1, 2, 4],
        "n_kv_heads": [1, 2, 4],
        "ffn_ratio": [0.5, 1, 2, 4],
        "attention_precision": ["fp32", "bf16"],
        "ffn_precision": ["fp32", "bf16"],
    }
)
WORKLOAD = Workload("text", "text_classification", (32,), 2, 16, vocab_size=50)


class LiveTensors(TorchDispatchMode):
    """The most bytes that results of operators held at once."""

    def __init__(self, model):
        super().__init__()
        self.peak, self._now = 0, 0
        self._seen = {p.untyped_storage()._cdata for p in model.parameters()}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._seen and storage.nbytes():
                    self._seen.add(key)
                    self._now += storage.nbytes()
                    self.peak = max(self.peak, self._now)
                    weakref.finalize(storage, self._free, key, storage.nbytes())
        return out

    def _free(self, key, size):
        self._seen.discard(key)
        self._now -= size


@pytest.mark.parametrize("seed", range(6))
def test_activations_are_about_those_that_torch_holds(seed):
    architecture = sample(SPACE, np.random.default_rng(seed))
    model = build(architecture, WORKLOAD, generator_seed=0).eval()
    weights = sum(p.numel() * 4 for p in model.parameters())
    tokens = torch.randint(1, 50, (16, 32))
    with torch.no_grad(), LiveTensors(model) as live:
        model(tokens)
    plain = replace(
        architecture,
        layers=tuple(
            replace(
                layer,
                attention=replace(layer.attention, compression=Compression()),
                ffn=replace(layer.ffn, compression=Compression()),
            )
            for layer in architecture.layers
        ),
    )
    counted = peak_memory_of(plain, WORKLOAD) - weights
    assert counted == pytest.approx(live.peak, rel=0.1)


@pytest.mark.parametrize("heads, d_ff", [(4, 64), (4, 256), (8, 32), (2, 32)])
@pytest.mark.parametrize("style", EVERY_STYLE.values(), ids=EVERY_STYLE)
def test_activations_of_every_style_are_about_those_that_torch_holds(style, heads, d_ff):
    workload = replace(
        workload_of(style),
        batch_size=16,
        input_shape=(1, 24, 24) if style.n_prefix_tokens else (32,),
    )
    layer = LayerSpec(AttentionSpec(heads, 2, 16), FfnSpec(d_ff))
    of = Architecture(64, (layer,) * 2, 4 if workload.is_image else 1, style=style)
    model = build(of, workload, generator_seed=0).eval()
    with torch.no_grad(), LiveTensors(model) as live:
        model(inputs_of(workload, n=16))
    counted = peak_memory_of(of, workload) - sum(p.numel() * 4 for p in model.parameters())
    assert counted == pytest.approx(live.peak, rel=0.1)


@pytest.mark.parametrize("n_tokens", [50, 600])
@pytest.mark.parametrize("name", ["masked", "bert", "distilled"])
def test_outputs_over_a_vocabulary_are_about_those_that_torch_holds(name, n_tokens):
    workload = replace(MLM, batch_size=16, vocab_size=n_tokens, n_classes=n_tokens)
    layer = LayerSpec(AttentionSpec(4, 2, 16), FfnSpec(64))
    of = Architecture(64, (layer,) * 2, style=EVERY_STYLE[name])
    model = build(of, workload, generator_seed=0).eval()
    with torch.no_grad(), LiveTensors(model) as live:
        model(inputs_of(workload, n=16))
    counted = peak_memory_of(of, workload) - sum(p.numel() * 4 for p in model.parameters())
    assert counted == pytest.approx(live.peak, rel=0.1)


def test_it_grows_with_the_batch_and_shrinks_with_the_stream():
    wide = {"d_model": 64, "depth": 1, "n_heads": 4, "n_kv_heads": 4, "ffn_ratio": 4}
    one = {name: [value] for name, value in wide.items()}
    spaces = [
        SearchSpace.from_dict({"name": p, **one, "attention_precision": [p], "ffn_precision": [p]})
        for p in ("fp32", "bf16")
    ]
    full, half = (sample(space, np.random.default_rng(0)) for space in spaces)
    assert peak_memory_of(half, WORKLOAD) == pytest.approx(peak_memory_of(full, WORKLOAD) / 2)
    batch = ArchitectureBatch.of([full, half])
    once, twice = (peak_memory_bytes(batch, WORKLOAD.with_batch_size(n)) for n in (16, 32))
    assert np.all(twice > once)
    assert np.all(twice < 2 * once)


def in_4_bits(d_model, d_ff, rank):
    block = Compression("int4wo")
    attention = AttentionSpec(4, 2, d_model // 4, rank, block)
    return Architecture(d_model, (LayerSpec(attention, FfnSpec(d_ff, rank, block)),))


@pytest.mark.parametrize(
    ("d_model", "d_ff", "rank"), [(128, 512, None), (1024, 2048, None), (1056, 64, 32)]
)
def test_4_bit_weights_are_counted_as_torchao_stores_them_for_gpus(
    monkeypatch, d_model, d_ff, rank
):
    architecture = in_4_bits(d_model, d_ff, rank)
    workload = Workload("text", "text_classification", (8,), 2, 4, 16)
    # No numbers are needed for sizes, and no GPU.
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    with quiet_torchao():
        from torchao.quantization.quantize_.workflows import Int4TilePackedTo4dTensor

    stored = in_any_form = 0
    layers = build(architecture, workload, generator_seed=0).layers
    for module in layers.modules():
        if isinstance(module, torch.nn.Linear):
            weight = module.weight.detach().to("meta", torch.bfloat16)
            packed = Int4TilePackedTo4dTensor.from_hp(weight, [1, INT4_GROUP_SIZE])
            stored += packed.qdata.nbytes + packed.scale_and_zero.nbytes
            in_any_form += weight.numel() * BYTES_PER_WEIGHT["int4wo"]
    on_gpu, on_cpu = (count(architecture, workload, d).weight_bytes for d in ("cuda:0", "cpu"))
    assert on_gpu - on_cpu == stored - in_any_form
    assert (on_gpu > on_cpu) == (d_model != 1024)
    assert peak_memory_of(architecture, workload, "cuda:0") - peak_memory_of(
        architecture, workload
    ) == pytest.approx(on_gpu - on_cpu)


def test_what_a_batch_reads_of_4_bit_weights_is_what_is_stored():
    batch = ArchitectureBatch.of([in_4_bits(128, 512, None)])
    workload = Workload("text", "text_classification", (8,), 2, 4, 16)
    parts = count_batch(batch, workload, "cuda:0")
    assert parts.total("read_bytes") == parts.total("weight_bytes")


def test_other_precisions_have_one_form_on_all_devices():
    for precision in set(PRECISIONS) - {"int4wo"}:
        block = Compression(precision)
        layer = LayerSpec(AttentionSpec(4, 4, 32, None, block), FfnSpec(512, None, block))
        batch = ArchitectureBatch.of([Architecture(128, (layer,))])
        workload = Workload("text", "text_classification", (8,), 2, 4, 16)
        assert count_batch(batch, workload, "cuda:0").total("weight_bytes") == count_batch(
            batch, workload
        ).total("weight_bytes")
