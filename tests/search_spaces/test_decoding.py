"""Decoding from a cache says what reading everything again would say."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression.apply import compress, prepare_for_inference
from search_spaces.cost.counting import count, count_batch, kv_cache_bytes
from search_spaces.cost.memory import peak_memory_of
from search_spaces.models.build import build
from search_spaces.models.decoding import Phase, as_priced, decode, empty_caches, generate
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

LM = Workload("lm", "language_modelling", (24,), 40, 3, vocab_size=40)
PREFILL, GENERATE = replace(LM, phase="prefill"), replace(LM, phase="generate")


def model(n_kv_heads=2, rank=None, precision="fp32", tokens=24, depth=2):
    compression = Compression(precision)
    layer = LayerSpec(
        AttentionSpec(4, n_kv_heads, 8, rank, compression), FfnSpec(64, rank, compression)
    )
    architecture = Architecture(32, (layer,) * depth)
    network = build(architecture, replace(LM, input_shape=(tokens,)), generator_seed=0)
    return architecture, compress(network, architecture)


def tokens(length=24, batch=3):
    return torch.randint(40, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("prompt", [1, 7, 23])
@pytest.mark.parametrize("kind", [{"n_kv_heads": 4}, {"n_kv_heads": 1}, {"rank": 4}])
def test_cached_logits_are_those_of_reading_everything(kind, prompt):
    _, network = model(**kind)
    read = tokens()
    with torch.no_grad():
        whole = network(read)
        caches = empty_caches(network)
        found = [decode(network, read[:, :prompt], caches, 0)]
        found += [decode(network, read[:, i : i + 1], caches, i) for i in range(prompt, 24)]
    assert torch.allclose(torch.stack(found, 1), whole[:, prompt - 1 :], atol=1e-5, rtol=0)


def test_a_block_of_another_precision_keeps_its_own():
    mixed = Architecture(
        32,
        (
            LayerSpec(AttentionSpec(4, 2, 8, None, Compression("bf16")), FfnSpec(64)),
            LayerSpec(AttentionSpec(4, 2, 8), FfnSpec(64)),
        ),
    )
    network = compress(build(mixed, LM, generator_seed=0), mixed)
    caches, read = empty_caches(network), tokens()
    with torch.no_grad():
        decode(network, read[:, :20], caches, 0)
        found = decode(network, read[:, 20:21], caches, 20)
        whole = network(read)[:, 20]
    assert [cache.k_BKSE.dtype for cache in caches] == [torch.bfloat16, torch.float32]
    assert torch.allclose(found, whole, atol=0.03)


def test_greedy_generation_is_what_full_passes_would_choose():
    _, network = model()
    read = tokens(5)
    found = generate(network, read, 19)
    for _ in range(19):
        with torch.no_grad():
            following = network(read)[:, -1].argmax(-1, keepdim=True)
        read = torch.cat([read, following], dim=1)
    assert torch.equal(found, read[:, 5:])


def test_draws_follow_from_their_generator():
    _, network = model()
    drawn = [
        generate(
            network, tokens(4), 12, temperature=2.0, generator=torch.Generator().manual_seed(s)
        )
        for s in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    "ask, match",
    [
        (lambda n: generate(n, tokens(20), 6), "at most 24 .the network's positions., got 25"),
        (lambda n: generate(n, tokens(0), 6), "prompt_BT must have a token"),
        (lambda n: generate(n, tokens(2), 0), "n_tokens must be >= 1"),
        (lambda n: generate(n, tokens(2), 1, temperature=-1.0), "temperature must be >= 0"),
        (lambda n: decode(n, tokens(3), empty_caches(n), 2), "tokens must come singly"),
    ],
)
def test_what_cannot_be_decoded_is_refused(ask, match):
    with pytest.raises(ValueError, match=match):
        ask(model()[1])


def test_an_encoder_has_nothing_to_generate():
    encoder = Workload("t", "text_classification", (8,), 2, 1, vocab_size=40)
    layer = LayerSpec(AttentionSpec(2, 2, 8), FfnSpec(16))
    network = build(Architecture(16, (layer,)), encoder, generator_seed=0)
    with pytest.raises(ValueError, match="must be a decoder"):
        generate(network, tokens(2), 1)
    with pytest.raises(ValueError, match="phase must be null for text_classification"):
        replace(encoder, phase="generate")
    with pytest.raises(ValueError, match="phase must be one of prefill, generate or null"):
        replace(LM, phase="decode")


@pytest.mark.parametrize(
    "workload, precision, atol",
    # One step in 127 may be rounded to the other side.
    [(PREFILL, "fp32", 1e-5), (GENERATE, "int8", 0.02)],
)
def test_a_phase_repeats_the_last_logits_compiled_call_after_call(workload, precision, atol):
    architecture, network = model(precision=precision, depth=1)
    read = tokens()
    phase, inputs = as_priced(network, workload, read)
    assert inputs.shape == ((3, 24) if workload is PREFILL else (3, 1))
    call = prepare_for_inference(phase, architecture, inputs).call
    with torch.no_grad():
        whole = network(read)[:, -1]
    for _ in range(3):
        assert torch.allclose(call(inputs), whole, atol=atol)


def test_a_generation_step_reads_the_cache_and_not_only_its_token():
    _, network = model()
    read = tokens()
    other = read.clone()
    other[:, 0] = (other[:, 0] + 1) % 40
    steps = [Phase(network, t, 23)(read[:, 23:]) for t in (read, other)]
    assert not torch.allclose(*steps, atol=1e-3)


def test_a_workload_names_what_its_joules_are_per():
    assert (LM.unit, LM.n_units) == ("sample", 3)
    assert (PREFILL.unit, PREFILL.n_units) == ("prefill token", 72)
    assert (GENERATE.unit, GENERATE.n_units) == ("generated token", 3)
    assert GENERATE.key == "lm@24/generate/b3"
    for workload in (LM, PREFILL, GENERATE):
        assert Workload.from_dict(workload.to_dict()) == workload
    assert "phase" not in LM.to_dict()


def hooked_macs(network, run):
    """Multiply-accumulates of every Linear that ``run`` calls, a sample's."""
    found = []

    def count_linear(module, arguments, output):
        found.append(output.numel() // 3 * module.in_features)

    handles = [
        m.register_forward_hook(count_linear)
        for m in network.modules()
        if isinstance(m, torch.nn.Linear)
    ]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return sum(found)


@pytest.mark.parametrize("workload", [PREFILL, GENERATE])
def test_counted_products_are_those_that_run(workload):
    architecture, network = model()
    phase, inputs = as_priced(network, workload, tokens())
    ran = hooked_macs(network, lambda: phase(inputs))
    scores = 2 * 24 * 32 * 2 * inputs.shape[1]
    assert count(architecture, workload).macs == ran + scores
    assert count(architecture, workload).params == count(architecture, LM).params


def test_the_cache_is_counted_as_it_lies_in_memory():
    architecture, network = model(n_kv_heads=1)
    phase, _ = as_priced(network, GENERATE, tokens())
    lies = sum(b.numel() * b.element_size() for b in phase.caches.buffers())
    batch = ArchitectureBatch.of([architecture])
    assert 3 * kv_cache_bytes(batch, GENERATE)[0] == lies
    assert kv_cache_bytes(batch, LM)[0] == 0
    more = peak_memory_of(architecture, PREFILL) - peak_memory_of(architecture, LM)
    assert more == lies


def test_a_longer_context_costs_a_step_its_cache_and_nothing_else():
    architecture, _ = model(n_kv_heads=1)
    batch = ArchitectureBatch.of([architecture])
    short, long = (replace(GENERATE, input_shape=(t,)) for t in (24, 48))
    found = [count_batch(batch, w) for w in (short, long)]
    moved = [c.total("activation_bytes")[0] for c in found]
    cache = [kv_cache_bytes(batch, w)[0] for w in (short, long)]
    assert moved[1] - moved[0] == cache[1] - cache[0] > 0
    assert np.array_equal(found[0].ffn.macs, found[1].ffn.macs)
