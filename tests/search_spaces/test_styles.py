"""Networks of every style are what their style says, by a plain float64 transcription."""

from dataclasses import replace

import pytest
import torch
from style_fakes import (
    EVERY_STYLE,
    LM,
    TEXT,
    TEXT_VECTOR,
    Transcription,
    architecture,
    fitting,
    inputs_of,
    network,
    workload_of,
)
from torch import nn

from search_spaces.cost.counting import count
from search_spaces.cost.memory import peak_memory_of
from search_spaces.models.decoding import decode, empty_caches, generate
from search_spaces.models.style import TiedHead

STYLES = [pytest.param(style, id=name) for name, style in EVERY_STYLE.items()]
CASES = [
    pytest.param(style, workload, id=f"{name}-{workload.name}")
    for name, style in EVERY_STYLE.items()
    for workload in fitting(style)
]
WRITERS = [
    pytest.param(style, id=name) for name, style in EVERY_STYLE.items() if LM in fitting(style)
]


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("style, workload", CASES)
def test_a_network_is_its_formula(style, workload, rank):
    of = architecture(style, workload, rank=rank)
    made, inputs = network(of, workload), inputs_of(workload)
    expected = torch.from_numpy(Transcription(made, of, workload)(inputs))
    with torch.no_grad():
        found, double = (
            made(inputs),
            made.double()(inputs.double() if workload.is_image else inputs),
        )
    scale = expected.abs().max()
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * scale
    # Angles are computed in fp32, whatever the network's type.
    assert (double - expected).abs().max() < (1e-6 if style.is_rotary else 1e-12) * scale


@pytest.mark.parametrize("style, workload", CASES)
def test_counts_are_those_of_the_network_that_is_built(style, workload):
    of = architecture(style, workload, rank=3)
    made, ran = network(of, workload), 0
    counts = count(of, workload)
    assert counts.params == sum(p.numel() for p in made.parameters())
    assert counts.weight_bytes == 4 * counts.params

    def add(module, inputs, output):
        nonlocal ran
        ran += output.numel() // len(output) * inputs[0].shape[-1]

    for module in made.modules():
        if isinstance(module, nn.Linear | TiedHead):
            module.register_forward_hook(add)
    made(inputs_of(workload, n=1))
    inside = 2 * workload.n_tokens(of) ** 2 * (4 * 6 + 2 * 10)
    assert counts.macs == ran + inside
    assert peak_memory_of(of, workload) > counts.weight_bytes


@pytest.mark.parametrize("prompt", [1, 5, 11])
@pytest.mark.parametrize("style", WRITERS)
def test_cached_logits_are_those_of_the_formula(style, prompt):
    of = architecture(style, LM)
    made, read = network(of, LM), inputs_of(LM)
    expected = torch.from_numpy(Transcription(made, of, LM)(read))[:, prompt - 1 :]
    with torch.no_grad():
        caches = empty_caches(made)
        found = [decode(made, read[:, :prompt], caches, 0)]
        found += [decode(made, read[:, i : i + 1], caches, i) for i in range(prompt, 12)]
    assert (torch.stack(found, 1) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("style", WRITERS)
def test_greedy_tokens_are_those_of_full_passes(style):
    of = architecture(style, LM)
    made, read = network(of, LM), inputs_of(LM)[:, :3]
    found = generate(made, read, 9)
    for _ in range(9):
        with torch.no_grad():
            read = torch.cat([read, made(read)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(found, read[:, 3:])


@pytest.mark.parametrize("workload", [TEXT, TEXT_VECTOR], ids=lambda workload: workload.name)
@pytest.mark.parametrize("name", ["past", "past-mean", "past-cls"])
def test_causal_texts_are_those_without_their_padding(name, workload):
    of = architecture(EVERY_STYLE[name], workload)
    made, inputs = network(of, workload), inputs_of(workload)
    with torch.no_grad():
        found = made(inputs)
        for row, tokens in zip(found, inputs, strict=True):
            alone = made(tokens[tokens != workload.padding_token][None])[0]
            assert torch.allclose(row, alone, atol=1e-5)
        # A later token changes no earlier one.
        changed = inputs.clone()
        changed[:, 0] = inputs[:, 0] % (workload.vocab_size - 2) + 2
        assert name == "past-cls" or not torch.allclose(made(changed), found, atol=1e-3)
        changed = inputs.clone()
        changed[:, 1] = inputs[:, 1] % (workload.vocab_size - 2) + 2
        assert torch.allclose(made(changed), found, atol=1e-6) == (name == "past-cls")
    with pytest.raises(ValueError, match="network must be a decoder, got an encoder"):
        generate(made, inputs, 1)


def test_a_token_that_is_not_in_the_vocabulary_pads_nothing():
    style = EVERY_STYLE["bert"]
    of = architecture(style, TEXT)
    whole = replace(TEXT, padding_token=50)
    made, plain = network(of, whole), network(of, TEXT)
    inputs = inputs_of(TEXT)
    expected = torch.from_numpy(Transcription(made, of, whole)(inputs)).float()
    with torch.no_grad():
        assert torch.allclose(made(inputs), expected, atol=1e-4)
        assert not torch.allclose(plain(inputs), expected, atol=1e-2)


def test_types_of_tokens_choose_their_vectors():
    style = EVERY_STYLE["bert"]
    of, workload = architecture(style, workload_of(style)), workload_of(style)
    made, inputs = network(of, workload), inputs_of(workload)
    with torch.no_grad():
        plain, first = made(inputs), made(inputs, torch.zeros_like(inputs))
        assert torch.allclose(plain, first, atol=1e-6)
        assert not torch.allclose(made(inputs, torch.ones_like(inputs)), plain, atol=1e-3)
