"""Which layers a network loses first."""

import pytest
import torch
import torch.nn.functional as F

from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.compression.layer_order import layer_order
from search_spaces.models.build import build
from search_spaces.workload import Workload

TEXT = Workload("text", "text_classification", (8,), 3, 8, vocab_size=20)
LAYER = LayerSpec(AttentionSpec(2, 2, 8), FfnSpec(32))


@pytest.fixture(scope="module")
def network():
    """Four layers: the second adds nothing, the third next to nothing."""
    model = build(Architecture(16, (LAYER,) * 4), TEXT, generator_seed=0).eval()
    with torch.no_grad():
        for index, factor in ((1, 0.0), (2, 0.01)):
            layer = model.layers[index]
            for last in (layer.attention.o, layer.ffn.down):
                last.weight.mul_(factor)
                last.bias.mul_(factor)
    return model


@pytest.fixture(scope="module")
def batches(network):
    inputs = torch.randint(1, 20, (64, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # Its own outputs, so that every change costs.
        targets = network(inputs)
    return list(zip(inputs.split(32), targets.split(32), strict=True))


@pytest.mark.parametrize(
    ("most_macs", "method"),
    [(1e12, "loss of sets"), (2e7, "loss of layers"), (0, "block influence")],
)
def test_layers_that_add_nothing_go_first(network, batches, most_macs, method):
    before = [layer.ffn.up.weight.clone() for layer in network.layers]
    order = layer_order(network, batches, F.mse_loss, most_macs=most_macs)
    assert order.method == method
    kept = [row.nonzero().flatten().tolist() for row in order.keeps]
    assert kept[1:] == [[0, 3], [0, 2, 3], [0, 1, 2, 3]]
    assert len(network.layers) == 4
    for layer, weight in zip(network.layers, before, strict=True):
        assert torch.equal(layer.ffn.up.weight, weight)


def test_a_set_may_lack_a_layer_that_a_larger_one_has(network, batches):
    """The best pair is none of the best triple's, which a greedy order cannot give."""
    losses = {(0, 1, 2): 0.1, (1, 2, 3): 0.2, (1, 3): 0.3, (3,): 0.1}
    numbers = {id(layer): index for index, layer in enumerate(network.layers)}

    def loss(outputs, targets):
        kept = tuple(numbers[id(layer)] for layer in network.layers)
        return torch.tensor(losses.get(kept, 1.0))

    keeps = layer_order(network, batches, loss).keeps
    assert [row.nonzero().flatten().tolist() for row in keeps[:3]] == [[3], [1, 3], [0, 1, 2]]


def test_data_are_needed(network):
    with pytest.raises(ValueError, match="batches must hold"):
        layer_order(network, [], F.mse_loss)
