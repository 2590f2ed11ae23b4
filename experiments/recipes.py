"""Searches that can be named on the command line: functions that return a configuration.

Registered as entry points of the group ``joulenas.recipes``; a package of yours can register its
own the same way. A recipe takes the device and returns what to search there.
"""

from __future__ import annotations

from nas.searching.config import GateConfig, SearchConfig
from nas.training.config import TrainingConfig
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.presets import get_space


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
