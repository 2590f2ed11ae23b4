"""Small networks of every style, and a plain float64 transcription of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from search_spaces.architecture import STYLES, Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.architecture.style import BlockStyle, NormStyle, PositionStyle, RotaryScaling
from search_spaces.models.build import build_network
from search_spaces.workload import Workload

TEXT = Workload("text", "text_classification", (12,), 3, 4, vocab_size=50)
IMAGE = Workload("image", "image_classification", (1, 8, 8), 10, 4)
SEGMENT = Workload("segment", "image_segmentation", (1, 8, 8), 3, 4)
ANSWER = Workload("answer", "question_answering", (12,), 2, 4, vocab_size=50)
LM = Workload("lm", "language_modelling", (12,), 50, 4, vocab_size=50)
MLM = Workload("mlm", "masked_language_modelling", (12,), 50, 4, vocab_size=50, padding_token=1)
TEXT_VECTOR = Workload("texts", "text_embedding", (12,), 32, 4, vocab_size=50, padding_token=1)
IMAGE_VECTOR = Workload("images", "image_embedding", (1, 8, 8), 32, 4)

# Styles, and what none of the named ones has.
EVERY_STYLE: dict[str, BlockStyle] = STYLES | {
    "last": BlockStyle(activation="relu", pooling="last", positions=PositionStyle("none")),
    "linear": replace(
        STYLES["llama"], positions=PositionStyle("rotary", 500.0, RotaryScaling("linear", 3.0))
    ),
    "llama3": replace(
        STYLES["qwen3"],
        positions=PositionStyle("rotary", 500.0, RotaryScaling("llama3", 4.0, 1.0, 4.0, 64)),
    ),
    "post": replace(STYLES["qwen3"], norm=NormStyle("rms", 1e-3, "post", True, True)),
    "heads": BlockStyle(NormStyle(on_queries_and_keys=True), is_gated=True),
    # What classifiers and embeddings of Llama and GPT-2 are.
    "past": replace(STYLES["llama"], is_causal=True, pooling="last"),
    "past-mean": replace(STYLES["gpt2"], is_causal=True),
    "past-cls": BlockStyle(is_causal=True, pooling="cls", has_head_transform=True),
    "masked": replace(STYLES["bert"], is_head_tied=True, has_head_transform=True),
    "distilled": BlockStyle(pooling="pooler-relu", has_head_transform=True, activation="relu"),
    "registers": replace(STYLES["vit"], n_prefix_tokens=5, pooling="cls-mean"),
    "patches": replace(STYLES["vit"], n_prefix_tokens=2, pooling="mean"),
    "two": replace(STYLES["vit"], n_prefix_tokens=2, pooling="prefix"),
}


def workload_of(style: BlockStyle) -> Workload:
    """A workload that networks of ``style`` can read, with one output for each sample."""
    return IMAGE if style.n_prefix_tokens else TEXT


def fitting(style: BlockStyle) -> list[Workload]:
    """Every workload here that networks of ``style`` can read."""
    fits = []
    vector = replace(IMAGE_VECTOR, n_classes=32 * style.n_pooled)
    for workload in (TEXT, IMAGE, SEGMENT, ANSWER, LM, MLM, TEXT_VECTOR, vector):
        try:
            workload.check_style(style)
        except ValueError:
            continue
        fits.append(workload)
    return fits


def architecture(style: BlockStyle, workload: Workload, *, rank=None, kv=2) -> Architecture:
    """Two unlike layers; the size of heads is not the width by their number."""
    layers = (
        LayerSpec(AttentionSpec(4, kv, 6, rank), FfnSpec(40, rank)),
        LayerSpec(AttentionSpec(2, 1, 10, rank), FfnSpec(24, rank)),
    )
    return Architecture(32, layers, 2 if workload.is_image else 1, style=style)


def network(of: Architecture, workload: Workload, seed=0):
    """A network whose norms and biases are not the identity."""
    made = build_network(of, workload, generator_seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return made


def inputs_of(workload: Workload, *, n=4, seed=0):
    """A batch; texts are padded to several lengths."""
    generator = torch.Generator().manual_seed(seed)
    if workload.is_image:
        return torch.randn(n, *workload.input_shape, generator=generator)
    tokens = torch.randint(2, workload.vocab_size, (n, *workload.input_shape), generator=generator)
    if not workload.is_causal:
        lengths = torch.arange(n) * 3 + 2
        is_padding = torch.arange(tokens.shape[1]) >= lengths[:, None]
        tokens[is_padding] = workload.padding_token
    return tokens


class Transcription:
    """A network's outputs in float64, written from the papers: no torch, no fused kernels."""

    def __init__(self, made, of: Architecture, workload: Workload):
        self.of, self.style, self.workload = of, of.style, workload
        self.weights = {
            name: value.detach().double().numpy() for name, value in made.state_dict().items()
        }

    def linear(self, name, x):
        weights = self.weights
        if f"{name}.reduce.weight" in weights:
            x, name = x @ weights[f"{name}.reduce.weight"].T, f"{name}.expand"
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)

    def norm(self, name, x):
        how = self.style.norm
        if how.kind == "layer":
            x = x - x.mean(-1, keepdims=True)
        scaled = x / np.sqrt((x**2).mean(-1, keepdims=True) + how.epsilon)
        return scaled * self.weights[f"{name}.weight"] + self.weights.get(f"{name}.bias", 0.0)

    def activate(self, x):
        match self.style.activation:
            case "gelu":
                return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
            case "gelu-tanh":
                return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
            case "relu":
                return np.maximum(x, 0)
            case "silu":
                return x / (1 + np.exp(-x))

    def turned(self, x_TE):
        """Rotate each pair of features as one complex number."""
        how, size = self.style.positions, x_TE.shape[-1]
        out = np.empty_like(x_TE)
        for i in range(size // 2):
            frequency = how.theta ** (-2 * i / size)
            if (scaling := how.scaling) is not None and scaling.kind == "linear":
                frequency /= scaling.factor
            elif scaling is not None:
                wave = 2 * math.pi / frequency
                low = scaling.original_length / scaling.low_frequency_factor
                high = scaling.original_length / scaling.high_frequency_factor
                if wave > low:
                    frequency /= scaling.factor
                elif wave >= high:
                    smooth = (scaling.original_length / wave - scaling.low_frequency_factor) / (
                        scaling.high_frequency_factor - scaling.low_frequency_factor
                    )
                    frequency *= (1 - smooth) / scaling.factor + smooth
            pair = x_TE[..., i] + 1j * x_TE[..., i + size // 2]
            pair = pair * np.exp(1j * np.arange(x_TE.shape[-2]) * frequency)
            out[..., i], out[..., i + size // 2] = pair.real, pair.imag
        return out

    def attention(self, where, spec, x_TD, keep_T):
        q, k, v = (self.linear(f"{where}.{name}", x_TD) for name in "qkv")
        outs, size, group = [], spec.d_head, spec.n_heads // spec.n_kv_heads
        for head in range(spec.n_heads):
            shared = head // group
            q_TE = q[:, head * size : (head + 1) * size]
            k_TE, v_TE = (x[:, shared * size : (shared + 1) * size] for x in (k, v))
            if self.style.norm.on_queries_and_keys:
                q_TE = self.norm(f"{where}.q_norm", q_TE)
                k_TE = self.norm(f"{where}.k_norm", k_TE)
            if self.style.positions.kind == "rotary":
                q_TE, k_TE = self.turned(q_TE), self.turned(k_TE)
            scores = q_TE @ k_TE.T / math.sqrt(size)
            is_causal = self.workload.is_causal or self.style.is_causal
            if not is_causal:
                scores[:, ~keep_T] = -np.inf
            if is_causal:
                scores[np.triu(np.ones(scores.shape, dtype=bool), 1)] = -np.inf
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            outs.append(shares / shares.sum(-1, keepdims=True) @ v_TE)
        return self.linear(f"{where}.o", np.concatenate(outs, -1))

    def feed_forward(self, where, x):
        if self.style.is_gated:
            gate = self.activate(self.linear(f"{where}.gate", x))
            return self.linear(f"{where}.down", gate * self.linear(f"{where}.up", x))
        return self.linear(f"{where}.down", self.activate(self.linear(f"{where}.up", x)))

    def residual(self, norm, x, block):
        if self.style.norm.place == "pre":
            return x + block(self.norm(norm, x))
        return self.norm(norm, x + block(x))

    def embedded(self, sample):
        if self.workload.is_image:
            side, image = self.of.patch_size, sample.astype(float)
            patches = [
                image[:, r : r + side, c : c + side].ravel()
                for r in range(0, image.shape[1], side)
                for c in range(0, image.shape[2], side)
            ]
            x = self.linear("embed.project", np.stack(patches))
        else:
            x = self.weights["embed.weight"][sample]
        if self.style.n_prefix_tokens:
            x = np.concatenate([self.weights["prefix_ND"], x])
        if self.style.n_token_types:
            x = x + self.weights["token_types.weight"][0]
        if self.style.positions.kind == "learned":
            x = x + self.weights["position_TD"][: len(x)]
        return self.norm("embed_norm", x) if self.style.norm.after_embeddings else x

    def head(self, x):
        if self.workload.is_embedding:
            return x
        if self.workload.predicts_tokens and self.style.has_head_transform:
            mapped = self.activate(self.linear("head_transform.dense", x))
            x = self.norm("head_transform.norm", mapped)
        if self.workload.has_tied_head(self.style):
            return x @ self.weights["embed.weight"].T + self.weights.get("head.bias_C", 0.0)
        return self.linear("head", x)

    def of_sample(self, sample):
        x = self.embedded(sample)
        keep = np.ones(len(x), dtype=bool)
        if not (self.workload.is_image or self.workload.is_causal):
            keep = (sample != self.workload.padding_token) | (np.arange(len(x)) == 0)
        for index, layer in enumerate(self.of.layers):
            where = f"layers.{index}"
            x = self.residual(
                f"{where}.attention_norm",
                x,
                lambda y, w=where, s=layer.attention: self.attention(f"{w}.attention", s, y, keep),
            )
            x = self.residual(
                f"{where}.ffn_norm", x, lambda y, w=where: self.feed_forward(f"{w}.ffn", y)
            )
        if self.style.norm.place == "pre":
            x = self.norm("norm", x)
        return self.logits(x, keep)

    def pooled(self, x, keep):
        n = self.style.n_prefix_tokens
        match self.style.pooling:
            case "mean":
                return x[n:][keep[n:]].mean(0)
            case "last":
                return x[np.flatnonzero(keep)[-1]]
            case "cls":
                return x[0]
            case "pooler":
                return np.tanh(self.linear("pooler", x[0]))
            case "pooler-relu":
                return np.maximum(self.linear("pooler", x[0]), 0)
            case "cls-mean":
                return np.concatenate([x[0], x[n:].mean(0)])
            case "prefix":
                return np.concatenate(list(x[:n]))

    def logits(self, x, keep):
        kind, style = self.workload.kind, self.style
        if self.workload.is_pooled:
            return self.head(self.pooled(x, keep))
        if self.workload.predicts_tokens:
            return self.head(x)
        if kind == "question_answering":
            return self.head(x).T
        out, side = self.head(x[style.n_prefix_tokens :]), self.of.patch_size
        pixels = np.empty((*self.workload.input_shape[1:], self.workload.n_classes))
        columns = pixels.shape[1] // side
        for index, patch in enumerate(out):
            r, c = index // columns * side, index % columns * side
            pixels[r : r + side, c : c + side] = patch.reshape(side, side, -1)
        return pixels

    def __call__(self, inputs):
        return np.stack([self.of_sample(sample) for sample in inputs.numpy()])
