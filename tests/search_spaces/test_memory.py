import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search_spaces.architecture import Compression
from search_spaces.batch import ArchitectureBatch
from search_spaces.memory import peak_memory_bytes, peak_memory_of
from search_spaces.models.build import build
from search_spaces.sampling import sample
from search_spaces.space import SearchSpace
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
