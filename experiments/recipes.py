"""Searches that can be named on the command line: functions that return a configuration.

Registered as entry points of the group ``joulenas.recipes``; a package of yours can register its
own the same way. A recipe takes the device and returns what to search there; ``for_kinds`` says
for which kinds of tasks.
"""

from __future__ import annotations

from nas.records.config import GateConfig, SearchConfig
from nas.searching.task_kinds import for_kinds
from nas.training.config import TrainingConfig
from search_spaces.architecture import (
    STYLES,
    Architecture,
    AttentionSpec,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
)
from search_spaces.space import SearchSpace
from search_spaces.space.presets import get_space


@for_kinds("images")
def quickstart(device: str) -> SearchConfig:
    """Small vision Transformers on 8x8 handwritten digits: minutes on two CPU cores.

    The baseline is a plain hand-made ViT: full heads, FFN ratio 4, fp32, no compression.
    """
    layer = LayerSpec(AttentionSpec(n_heads=4, n_kv_heads=4, d_head=16), FfnSpec(d_ff=256))
    return SearchConfig(
        task="digits",
        space=get_space("digits-tiny"),
        trials=32,
        batch_size=512,
        seed=0,
        # A GPU's counter steps each 100 ms, so its windows must be longer than a CPU clock's.
        protocol="quick" if device == "cpu" else "screening",
        training=TrainingConfig(epochs=60, batch_size=64, learning_rate=5e-3, weight_decay=0.3),
        gate=GateConfig(startup_trials=8),
        baselines=(Architecture(d_model=64, layers=(layer,) * 3, patch_size=2),),
    )


@for_kinds("images")
def images(device: str) -> SearchConfig:
    """Pictures of 32 pixels a side: ``nas search images --task flowers.yaml``.

    Reads ``images.yaml`` where no task is named. How many pixels and how large the patches are
    rules the number of tokens, which is what such models spend most of their joules by.
    """
    return SearchConfig(
        task="images.yaml",
        space=SearchSpace.from_dict(
            {
                "name": "images-32",
                "d_model": [32, 48, 64, 96, 128, 192],
                "depth": {"low": 2, "high": 6},
                "n_heads": [2, 4, 8],
                "n_kv_heads": [1, 2, 4, 8],
                "ffn_ratio": [1, 2, 4],
                "patch_size": [2, 4, 8],
                "resolution": [16, 24, None],
                "attention_precision": ["fp32", "bf16", "int8"],
                "ffn_precision": ["fp32", "bf16", "int8"],
            }
        ),
        trials=40,
        batch_size=64,
        protocol="quick" if device == "cpu" else "screening",
        training=TrainingConfig(epochs=60, learning_rate=2e-3, weight_decay=0.1, shift_pixels=4),
        gate=GateConfig(startup_trials=10),
    )


@for_kinds("speech")
def speech(device: str) -> SearchConfig:
    """Keywords of a second, 40 bands by 100 frames: ``nas search speech --task keywords.yaml``.

    Reads ``speech.yaml`` where no task is named. A resolution of 20 halves bands and frames.
    """
    return SearchConfig(
        task="speech.yaml",
        space=SearchSpace.from_dict(
            {
                "name": "speech-40x100",
                "d_model": [32, 48, 64, 96, 128],
                "depth": {"low": 1, "high": 5},
                "n_heads": [2, 4],
                "n_kv_heads": [1, 2, 4],
                "ffn_ratio": [1, 2, 4],
                "patch_size": [5, 10],
                "resolution": [20, None],
                "attention_precision": ["fp32", "bf16", "int8"],
                "ffn_precision": ["fp32", "bf16", "int8"],
            }
        ),
        trials=40,
        batch_size=64,
        protocol="quick" if device == "cpu" else "screening",
        training=TrainingConfig(epochs=40, learning_rate=2e-3, weight_decay=0.1, shift_pixels=2),
        gate=GateConfig(startup_trials=10),
    )


@for_kinds("transcription")
def transcription(device: str) -> SearchConfig:
    """Speech to text of some seconds: ``nas search transcription --task letters.yaml``.

    Reads ``transcription.yaml`` where no task is named. How many frames a patch has rules the
    number of tokens; a text needs as many patches as it has characters.
    """
    layer = LayerSpec(AttentionSpec(n_heads=4, n_kv_heads=4, d_head=16), FfnSpec(d_ff=256))
    return SearchConfig(
        task="transcription.yaml",
        space=SearchSpace.from_dict(
            {
                "name": "transcription-small",
                "d_model": [32, 48, 64, 96, 128],
                "depth": {"low": 1, "high": 5},
                "n_heads": [2, 4],
                "n_kv_heads": [1, 2, 4],
                "ffn_ratio": [1, 2, 4],
                "patch_size": [2, 4, 8],
                "attention_precision": ["fp32", "bf16", "int8"],
                "ffn_precision": ["fp32", "bf16", "int8"],
            }
        ),
        trials=24,
        batch_size=16,
        protocol="quick" if device == "cpu" else "screening",
        training=TrainingConfig(
            epochs=30, batch_size=16, learning_rate=3e-3, weight_decay=0.05, label_smoothing=0.0
        ),
        gate=GateConfig(startup_trials=8),
        baselines=(Architecture(64, (layer,) * 3, patch_size=4),),
    )


@for_kinds("text_classification")
def text(device: str) -> SearchConfig:
    """Sentences of some tens of tokens into classes: ``nas search text --task sentiment.yaml``.

    Reads ``text.yaml`` where no task is named. Some thousands of sentences are learnt by heart
    within a few epochs, so that training is short, drops every other word at each showing, and
    decays weights strongly. How many of a text's tokens are read rules its joules.
    """
    return SearchConfig(
        task="text.yaml",
        space=SearchSpace.from_dict(
            {
                "name": "text-small",
                "d_model": [8, 16, 24, 32, 48, 64, 96, 128],
                "depth": [1, 2, 3],
                "resolution": [4, 8, 16, 24, 32, 48, None],
                "n_heads": [1, 2, 4],
                "n_kv_heads": [1, 2, 4],
                "ffn_ratio": [0.5, 1, 2, 4],
                "attention_precision": ["fp32", "bf16", "int8"],
                "ffn_precision": ["fp32", "bf16", "int8"],
            }
        ),
        trials=24,
        batch_size=128,
        protocol="quick" if device == "cpu" else "screening",
        training=TrainingConfig(
            epochs=10,
            learning_rate=3e-3,
            weight_decay=1.0,
            token_dropout=0.5,
            averaged_share=0.5,
        ),
        gate=GateConfig(startup_trials=8),
    )


@for_kinds("segmentation")
def segmentation(device: str) -> SearchConfig:
    """A class for each pixel of pictures of 64 a side: ``nas search segmentation --task s.yaml``.

    Reads ``segmentation.yaml`` where no task is named.
    """
    return SearchConfig(
        task="segmentation.yaml",
        space=SearchSpace.from_dict(
            {
                "name": "segmentation-64",
                "d_model": [32, 48, 64, 96, 128, 192],
                "depth": {"low": 2, "high": 6},
                "n_heads": [2, 4, 8],
                "n_kv_heads": [1, 2, 4, 8],
                "ffn_ratio": [1, 2, 4],
                # A patch is told apart inside by the head alone: large ones blur borders.
                "patch_size": [4, 8],
                "resolution": [32, None],
                "attention_precision": ["fp32", "bf16", "int8"],
                "ffn_precision": ["fp32", "bf16", "int8"],
            }
        ),
        trials=40,
        batch_size=16,
        protocol="quick" if device == "cpu" else "screening",
        training=TrainingConfig(
            epochs=60,
            batch_size=16,
            learning_rate=2e-3,
            weight_decay=0.1,
            label_smoothing=0.0,
            shift_pixels=4,
        ),
        gate=GateConfig(startup_trials=10),
    )


@for_kinds("detection")
def detection(device: str) -> SearchConfig:
    """Boxes of objects in pictures of 64 a side: ``nas search detection --task shapes.yaml``.

    Reads ``detection.yaml`` where no task is named. A patch finds one object: where objects crowd,
    smaller patches separate them, and cost more tokens.
    """
    return SearchConfig(
        task="detection.yaml",
        space=SearchSpace.from_dict(
            {
                "name": "detection-64",
                "d_model": [32, 48, 64, 96],
                "depth": {"low": 1, "high": 4},
                "n_heads": [2, 4],
                "n_kv_heads": [1, 2, 4],
                "ffn_ratio": [1, 2, 4],
                "patch_size": [4, 8],
                "resolution": [32, None],
                "attention_precision": ["fp32", "bf16", "int8"],
                "ffn_precision": ["fp32", "bf16", "int8"],
            }
        ),
        trials=24,
        batch_size=16,
        protocol="quick" if device == "cpu" else "screening",
        training=TrainingConfig(
            epochs=80,
            batch_size=16,
            learning_rate=3e-3,
            weight_decay=0.1,
            label_smoothing=0.0,
            shift_pixels=4,
        ),
        gate=GateConfig(startup_trials=8),
    )


@for_kinds("question_answering")
def question_answering(device: str) -> SearchConfig:
    """Answers that stand in a paragraph: ``nas search question-answering --task facts.yaml``.

    Reads ``question_answering.yaml`` where no task is named.
    """
    return SearchConfig(
        task="question_answering.yaml",
        space=SearchSpace.from_dict(
            {
                "name": "spans-128",
                "d_model": [32, 64, 96, 128, 192, 256],
                "depth": {"low": 1, "high": 6},
                "n_heads": [2, 4, 8],
                "n_kv_heads": [1, 2, 4, 8],
                "ffn_ratio": [1, 2, 4],
                "attention_precision": ["fp32", "bf16", "int8"],
                "ffn_precision": ["fp32", "bf16", "int8"],
            }
        ),
        trials=40,
        batch_size=32,
        protocol="quick" if device == "cpu" else "screening",
        training=TrainingConfig(epochs=20, batch_size=32, weight_decay=0.1, label_smoothing=0.0),
        gate=GateConfig(startup_trials=10),
    )


@for_kinds("translation")
def translation(device: str) -> SearchConfig:
    """Sentences of some tens of tokens: ``nas search translation --task captions.yaml``.

    Reads ``translation.yaml`` where no task is named. Encoder and decoder are searched apart, as
    in HAT (Wang et al. 2020): the encoder reads a source at once, the decoder runs anew for each
    token that it writes. The baseline is a scaled-down Transformer of the usual proportions
    (Vaswani et al. 2017): both stacks alike, four times as wide inside, full heads.
    """
    return _of_pairs(
        "translation", TrainingConfig(epochs=8, batch_size=64, learning_rate=3e-3), device
    )


@for_kinds("summarisation")
def summarisation(device: str) -> SearchConfig:
    """Documents of some hundred tokens: ``nas search summarisation --task news.yaml``.

    Reads ``summarisation.yaml`` where no task is named. The space and the baseline are those of
    translation: a document takes longer to read than a sentence, and its summary is as long.
    """
    return _of_pairs(
        "summarisation", TrainingConfig(epochs=10, batch_size=32, learning_rate=3e-3), device
    )


def _of_pairs(kind: str, training: TrainingConfig, device: str) -> SearchConfig:
    """The search of a kind that reads a text and writes another."""
    attention, ffn = AttentionSpec(n_heads=4, n_kv_heads=4, d_head=16), FfnSpec(d_ff=256)
    baseline = Architecture(
        64,
        (LayerSpec(attention, ffn),) * 3,
        decoder=DecoderSpec(64, (DecoderLayerSpec(attention, attention, ffn),) * 3),
    )
    heads = ("", "decoder_", "cross_")
    return SearchConfig(
        task=f"{kind}.yaml",
        space=SearchSpace.from_dict(
            {
                "name": f"{kind}-small",
                "d_model": [32, 48, 64, 96, 128],
                "depth": [1, 2, 3, 4],
                "ffn_ratio": [1, 2, 4],
                "decoder_d_model": [32, 48, 64, 96, 128],
                "decoder_depth": [1, 2, 3],
                "decoder_ffn_ratio": [0.5, 1, 2, 4],
                **{f"{side}n_heads": [2, 4] for side in heads},
                **{f"{side}n_kv_heads": [1, 2, 4] for side in heads},
            }
        ),
        trials=24,
        batch_size=32,
        protocol="quick" if device == "cpu" else "screening",
        training=training,
        gate=GateConfig(startup_trials=8),
        baselines=(baseline,),
    )


@for_kinds("language_modelling")
def language_modelling(device: str) -> SearchConfig:
    """The next token of texts of some megabytes: ``nas search language-modelling --task p.yaml``.

    Reads ``language_modelling.yaml`` where no task is named. Its ``phase`` says which joules are
    searched by: those of a generated token, for which all weights are read anew, or those of a
    token of a prompt, which are read together. Blocks are Llama's, which had fewer bits at equal
    joules (``experiments/LOG.md``). The baseline is a scaled-down decoder of about their
    proportions (Touvron et al. 2023): full heads of 16, three times as wide inside, fp32.
    """
    layer = LayerSpec(AttentionSpec(n_heads=4, n_kv_heads=4, d_head=16), FfnSpec(d_ff=192))
    return SearchConfig(
        task="language_modelling.yaml",
        space=SearchSpace.from_dict(
            {
                "name": "decoder-small",
                "d_model": [16, 24, 32, 48, 64, 96, 128],
                "depth": [1, 2, 3, 4],
                "n_heads": [1, 2, 4],
                "n_kv_heads": [1, 2, 4],
                "ffn_ratio": [0.5, 1, 2, 3],
                "attention_precision": ["fp32", "bf16", "int8"],
                "ffn_precision": ["fp32", "bf16", "int8"],
                "blocks": ["llama"],
            }
        ),
        trials=24,
        batch_size=32,
        protocol="quick" if device == "cpu" else "screening",
        training=TrainingConfig(
            epochs=6,
            batch_size=16,
            learning_rate=4e-3,
            weight_decay=0.1,
            label_smoothing=0.0,
        ),
        gate=GateConfig(startup_trials=8),
        baselines=(Architecture(64, (layer,) * 3, style=STYLES["llama"]),),
    )
