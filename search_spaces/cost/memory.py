"""Peak memory of a forward pass in closed form, without torch.

The estimate is the sum of stored weights, the largest set of activations alive at once, and a
decoder's cache of keys and values, where the workload is a phase that has one. Activations are:

* in attention: the residual stream, its norm (in pre-norm networks), queries, keys, values, the
  heads' outputs and the block's output; with rotary positions, if that is more, the stream, its
  norm, keys, values and four times the queries, which are rotated in four operators;
* in the feed-forward block: the layer's input, the stream, its norm, and the hidden layer before
  and after its activation, or in a gated block the two hidden layers and their product;
* in segmentation: the outputs of all pixels, if that is more;
* in language modelling, masked or not, and in detection: the outputs of all tokens, or of the last
  in a phase of decoding, beside the stream and its norm, if that is more;
* in an encoder-decoder: the larger of the encoder's pass and one step of the decoder, logits
  included, beside both caches.

Scores are left out, as a fused kernel never writes them, and so are the allocator's rounding,
workspaces and the framework. Eager PyTorch with fused attention is within a tenth of the estimate
(a test compares them); compiled networks may need less.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import PRECISIONS, TRANSFORMER, Architecture, BlockStyle
from search_spaces.cost.counting import count_batch, kv_cache_bytes, stream_precisions
from search_spaces.cost.counts import BYTES_PER_WEIGHT
from search_spaces.cost.families import get_family
from search_spaces.space.batch import ArchitectureBatch, AttentionBatch, DecoderBatch
from search_spaces.workload import AS_IT_IS, Workload

_PER_VALUE = np.array([BYTES_PER_WEIGHT[precision] for precision in PRECISIONS])


def peak_memory_bytes(
    batch: ArchitectureBatch, workload: Workload, device: str = "cpu"
) -> NDArray[np.float64]:
    """Peak memory of every architecture in ``batch`` at the workload's batch size, ``(N,)``.

    Weights are those of their form on ``device`` (``counting.count_batch``).

    Raises:
        ValueError: a patch size does not fit the workload.
    """
    weights = count_batch(batch, workload, device).total("weight_bytes")
    if batch.family != TRANSFORMER:
        values = get_family(batch.family).count(batch, workload).peak_values
        return values * BYTES_PER_WEIGHT["fp32"] * workload.batch_size + weights
    d_model = batch.d_model[:, None].astype(float)
    streams = batch.of_style(lambda style: 2 + style.is_pre_norm)[:, None] * d_model
    in_attention = _attention_values(batch, batch.attention, d_model, streams)
    in_ffn = streams + _hidden_layers(batch) * batch.ffn.d_ff
    in_addition = batch.of_style(_adding)[:, None] * d_model
    largest = np.maximum(np.maximum(in_attention, in_ffn), in_addition)
    values = (largest * batch.active).max(axis=1)
    values *= batch.n_new_tokens(workload)
    if workload.is_dense:
        heights, widths = workload.image_sizes(batch.resolution)
        _, height, width = workload.input_shape
        # Of each pixel, and where images were shrunk of each pixel of those as well.
        pixels = height * width + heights * widths * (batch.resolution != AS_IT_IS)
        values = np.maximum(values, workload.n_classes * pixels)
    if workload.predicts_tokens or workload.is_detection:
        tokens = batch.n_new_tokens(workload)
        n_predicted = tokens if workload.phase is None else 1
        values = np.maximum(values, workload.n_outputs * n_predicted + streams[:, 0] * tokens)
    if batch.decoder is not None:
        values = np.maximum(values, _step_values(batch, batch.decoder, workload))
    of_a_sample = values * _PER_VALUE[stream_precisions(batch)] + kv_cache_bytes(batch, workload)
    activations = of_a_sample * workload.batch_size
    peak: NDArray[np.float64] = activations + weights
    return peak


def _attention_values(
    batch: ArchitectureBatch,
    blocks: AttentionBatch,
    d_model: NDArray[np.float64],
    streams: NDArray[np.float64],
    *,
    is_crossed: bool = False,
) -> NDArray[np.float64]:
    """Largest set of values alive at once in attention blocks, ``(N, L)``."""
    d_q, d_kv = blocks.n_heads * blocks.d_head, blocks.n_kv_heads * blocks.d_head
    is_rotary = batch.of_style(lambda style: style.is_rotary and not is_crossed)[:, None]
    rotating = is_rotary * (streams - d_model + 4 * d_q + 2 * d_kv)
    # Normed queries lie head by head, so that the heads' outputs are copied to be joined.
    copied = batch.of_style(lambda style: style.norm.on_queries_and_keys)[:, None] * d_q
    values: NDArray[np.float64] = np.maximum(streams + 2 * d_q + 2 * d_kv + copied, rotating)
    return values


def _adding(style: BlockStyle) -> float:
    """Copies of the stream that are alive while a block's output is added and normed."""
    if style.is_pre_norm:
        return 3
    return 4 + (style.norm.kind == "rms")


def _hidden_layers(batch: ArchitectureBatch) -> NDArray[np.float64]:
    """Tensors of a feed-forward block's inner width that are alive at once, ``(N, 1)``."""
    return batch.of_style(lambda style: 3 if style.is_gated else 2)[:, None]


def _step_values(
    batch: ArchitectureBatch, decoder: DecoderBatch, workload: Workload
) -> NDArray[np.float64]:
    d_model = decoder.d_model[:, None].astype(float)
    streams = batch.of_style(lambda style: 2 + style.is_pre_norm)[:, None] * d_model
    widest = streams + _hidden_layers(batch) * decoder.ffn.d_ff
    for blocks in (decoder.attention, decoder.cross_attention):
        is_crossed = blocks is decoder.cross_attention
        values = _attention_values(batch, blocks, d_model, streams, is_crossed=is_crossed)
        widest = np.maximum(widest, values)
    of_layers: NDArray[np.float64] = (widest * decoder.active).max(axis=1)
    return workload.beam_size * np.maximum(of_layers, decoder.d_model + workload.n_classes)


def peak_memory_of(architecture: Architecture, workload: Workload, device: str = "cpu") -> float:
    """``peak_memory_bytes`` of one architecture."""
    return float(peak_memory_bytes(ArchitectureBatch.of([architecture]), workload, device)[0])
