"""Encoder-decoders: what is counted is what is built, cached steps say what whole passes say."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression.apply import compress, prepare_for_inference, run_eagerly
from search_spaces.cost.counting import count, count_batch, kv_cache_bytes
from search_spaces.cost.memory import peak_memory_of
from search_spaces.models.beam import SearchShape, beam_search
from search_spaces.models.build import build, build_network
from search_spaces.models.encoder_decoder import translate
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import sample
from search_spaces.workload import PADDING_TOKEN, Workload

MT = Workload("mt", "translation", (9,), 31, 3, 30, target_length=6)


def architecture(rank=None, d_model=32, compression=None):
    """A decoder of another width and depth than its encoder's."""
    made = Compression() if compression is None else compression
    layer = LayerSpec(AttentionSpec(4, 2, d_model // 4, rank, made), FfnSpec(64, rank, made))
    own = DecoderLayerSpec(
        AttentionSpec(3, 1, 8, rank), AttentionSpec(2, 2, 12, rank), FfnSpec(40, rank)
    )
    return Architecture(d_model, (layer,) * 2, decoder=DecoderSpec(24, (own,) * 3))


def network(workload=MT, **kind):
    made = build_network(architecture(**kind), workload, generator_seed=0).eval()
    # Untrained heads hardly prefer anything, whatever is read: mistakes would go unseen.
    with torch.no_grad():
        made.decoder.head.weight *= 8
        for side in (made, made.decoder):
            side.embed.weight *= 5
            side.position_TD *= 5
    return made


def sources(batch=3, length=9, seed=1):
    found = torch.randint(1, 30, (batch, length), generator=torch.Generator().manual_seed(seed))
    found[0, 5:] = PADDING_TOKEN
    return found


@pytest.mark.parametrize("kind", [{}, {"rank": 4}])
def test_parameters_are_counted_as_torch_counts_them(kind):
    built = network(**kind)
    assert count(architecture(**kind), MT).params == sum(p.numel() for p in built.parameters())


def test_parameters_of_drawn_members_are_those_that_are_built():
    space, rng = PRESETS["translation-base"], np.random.default_rng(0)
    members = [sample(space, rng) for _ in range(6)]
    counted = count_batch(ArchitectureBatch.of(members), MT).total("params")
    for member, params in zip(members, counted, strict=True):
        with torch.device("meta"):
            built = build_network(member, MT)
        assert params == sum(p.numel() for p in built.parameters())


def test_paths_of_blocks_are_those_of_modules():
    built = dict(network().named_modules())
    for placed in architecture().placed_blocks:
        for name, (d_in, d_out) in placed.shapes.items():
            linear = built[f"{placed.path}.{name}"]
            assert (linear.in_features, linear.out_features) == (d_in, d_out)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_counted_products_are_those_that_run(beam_size):
    workload = replace(MT, beam_size=beam_size)
    built, found = network(workload), []

    def count_linear(module, arguments, output):
        found.append(output.numel() // 3 * module.in_features)

    for module in built.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(count_linear)
    translate(built, sources(), stop_early=False)
    scores = 2 * (9 * 9 * 32) * 2
    scores += 2 * (6 * beam_size) * (6 * 24 + 9 * 24) * 3
    assert count(architecture(), workload).macs == sum(found) + scores


def test_every_step_reads_the_decoders_weights_and_a_batch_the_encoders():
    batch = ArchitectureBatch.of([architecture()])
    short, long = (count_batch(batch, replace(MT, target_length=t)) for t in (6, 12))
    layers = sum(p.weight_bytes.sum() for p in (short.decoder.attention, short.decoder.ffn))
    grown = sum(
        long_part.read_bytes.sum() - short_part.read_bytes.sum()
        for long_part, short_part in (
            (long.decoder.attention, short.decoder.attention),
            (long.decoder.ffn, short.decoder.ffn),
        )
    )
    assert grown == 6 * layers
    assert np.array_equal(short.attention.read_bytes, long.attention.read_bytes)
    assert np.array_equal(short.attention.read_bytes, short.attention.weight_bytes)


def test_the_cache_is_counted_in_memory():
    batch = ArchitectureBatch.of([architecture()])
    # Keys and values: 6 own places 8 wide and 9 of the source 24 wide, 3 layers, 2 beams, fp32.
    assert kv_cache_bytes(batch, replace(MT, beam_size=2))[0] == 4 * 2 * 2 * 3 * (6 * 8 + 9 * 24)
    assert peak_memory_of(architecture(), replace(MT, beam_size=2)) > peak_memory_of(
        architecture(), MT
    )


def test_padding_of_a_source_says_nothing():
    built, read = network(), sources()
    cut, forced = read[:1, :5], torch.tensor([[4, 7, 2]])
    with torch.no_grad():
        assert torch.allclose(built(read[:1], forced), built(cut, forced), atol=1e-5)
    assert torch.equal(built(read[:1]), built(cut))


def greedy_without_a_cache(built, read):
    """By whole passes, each of which reads everything again."""
    rows = []
    for row in read:
        written = torch.full((1, 0), 0)
        for _ in range(6):
            # What stands in the last place is not read: it only makes room for a prediction.
            room = torch.cat([written, torch.zeros(1, 1, dtype=torch.long)], dim=1)
            logits = built(row[None], room)[:, -1]
            logits[:, PADDING_TOKEN] = -torch.inf
            written = torch.cat([written, logits.argmax(-1, keepdim=True)], dim=1)
            if written[0, -1] == built.end:
                break
        rows.append(torch.nn.functional.pad(written[0], (0, 6 - written.shape[1])))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", [{}, {"rank": 4}])
@torch.no_grad()
def test_cached_steps_write_what_whole_passes_would(kind):
    built, read = network(**kind), sources(batch=8)
    expected = greedy_without_a_cache(built, read)
    assert len({tuple(row) for row in expected.tolist()}) > 2
    assert torch.equal(built(read), expected)
    assert torch.equal(translate(built, read, stop_early=False), expected)


@torch.no_grad()
def test_a_translation_ends_where_the_end_is_written():
    built = network()
    built.decoder.head.bias[built.end] += 40
    assert built(sources()).tolist() == [[30, 0, 0, 0, 0, 0]] * 3
    built.decoder.head.bias[PADDING_TOKEN] += 90
    assert built(sources()).tolist() == [[30, 0, 0, 0, 0, 0]] * 3


TINY = Workload("tiny", "translation", (4,), 4, 2, 5, target_length=3)


def every_translation(end, n_steps):
    """All that can be written: ended, or as long as may be."""
    tokens = [t for t in range(end + 1) if t != PADDING_TOKEN]
    for length in range(1, n_steps + 1):
        for written in itertools.product(tokens, repeat=length):
            if end in written[:-1]:
                continue
            if written[-1] == end or length == n_steps:
                yield written


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_a_wide_beam_finds_what_looking_at_everything_finds(seed):
    made = architecture()
    built = build_network(made, replace(TINY, beam_size=16), generator_seed=seed).eval()
    built.decoder.head.weight *= 4
    read = torch.randint(1, 5, (2, 4), generator=torch.Generator().manual_seed(seed))
    found = built(read)
    for row, chosen in zip(read, found, strict=True):
        best, best_score = None, -np.inf
        for written in every_translation(built.end, 3):
            logits = built(row[None], torch.tensor([written]))[0]
            logits[:, PADDING_TOKEN] = -torch.inf
            logs = logits.log_softmax(-1)
            score = float(logs[torch.arange(len(written)), list(written)].mean())
            if score > best_score:
                best, best_score = written, score
        assert chosen.tolist() == [*best, *[PADDING_TOKEN] * (3 - len(best))]


def test_a_narrow_beam_finds_what_greedy_search_misses():
    # After 1 nothing is likely; after 2, which is less likely at first, the end is sure.
    following = torch.tensor([[-9.0, -9, -9, -9], [-9, 0, 0, 0], [-9, -9, -9, 9], [-9, 1, 0.8, 0]])

    def run(beam):
        return beam_search(
            lambda tokens, position: following[tokens].clone(),
            lambda rows: None,
            beam,
            SearchShape(1, 3, 3),
        ).tolist()

    assert run(1)[0][0] == 1
    assert run(2) == [[2, 3, 0]]


@torch.no_grad()
def test_a_beam_of_one_is_greedy():
    built, read = network(), sources(batch=8)
    greedy = built(read)
    decoder = built.decoder
    assert greedy.shape == (8, 6) and decoder.position_TD.shape == (6, 24)
    rows = []
    for row in read:

        def step(tokens, position, row=row, kept=[]):  # noqa: B006
            kept[position:] = [int(tokens)]
            forced = torch.tensor([[*kept[1:], 0]])
            return built(row[None], forced)[:, -1]

        rows += beam_search(step, lambda _: None, 1, SearchShape(1, 6, 30)).tolist()
    assert rows == greedy.tolist()


def test_what_is_priced_is_compiled_and_writes_the_same():
    workload, made = replace(MT, beam_size=2), architecture()
    made = replace(
        made, layers=made.layers[:1], decoder=replace(made.decoder, layers=made.decoder.layers[:1])
    )
    built, read = build_network(made, workload, generator_seed=0).eval(), sources()
    prepared = prepare_for_inference(compress(built, made), made, read)
    assert prepared.mode == "compile"
    for _ in range(2):
        assert torch.equal(prepared.call(read), run_eagerly(built).call(read))


def test_what_a_decoder_cannot_have_is_said():
    quantised = architecture(compression=Compression("int8"))
    with pytest.raises(ValueError, match="layers.0.attention must be fp32 and dense beside a dec"):
        compress(network(), quantised)
    with pytest.raises(ValueError, match="only single stacks are supported"):
        build(architecture(), MT)
