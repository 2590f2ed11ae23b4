"""What each kind of compression costs in accuracy: one trained network on the digits."""

from __future__ import annotations

from dataclasses import replace

from nas.tasks.base import Split
from nas.tasks.registry import get_task
from nas.training.config import TrainingConfig
from nas.training.evaluate import evaluate
from nas.training.loop import LoopOptions, train
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.compression.inherit import inherit
from search_spaces.compression.sparsity import Masks
from search_spaces.models.build import build
from search_spaces.models.transformer import Transformer

_TRAINING = TrainingConfig(epochs=30, batch_size=64, learning_rate=5e-3, weight_decay=0.3)
_TUNING = replace(_TRAINING, epochs=5, learning_rate=1e-3)
_D_MODEL = 64


def digits_accuracies(device: str) -> dict[str, tuple[float, float | None]]:
    """Points of validation accuracy lost by each choice, at once and after a short fine-tune.

    Choices that cannot run on ``device`` are left out; only structure and masks are fine-tuned.
    """
    task = get_task("digits")
    split = task.split("train")
    workload = task.workload(64)
    reference = _architecture()
    teacher = build(reference, workload, generator_seed=0)
    train(teacher, split, _TRAINING, seed=0, options=LoopOptions(device=device))

    def points(model: Transformer, architecture: Architecture) -> float:
        found = evaluate(
            run_eagerly(compress(model, architecture)).call,
            task.split("validation"),
            batch_size=workload.batch_size,
            device=device,
        )
        return 100 * found.value

    full = points(teacher, reference)
    lost: dict[str, tuple[float, float | None]] = {}
    for name, architecture in _choices().items():
        student = inherit(teacher, reference, architecture, workload)
        try:
            drop = full - points(student, architecture)
        except ValueError:
            continue
        later = None
        is_masked = architecture.layers[0].ffn.compression.sparsity != "dense"
        if is_masked or name in _STRUCTURES:
            later = full - points(_tuned(student, architecture, split, device), architecture)
        lost[name] = (drop, later)
    return lost


def _tuned(
    student: Transformer, architecture: Architecture, split: Split, device: str
) -> Transformer:
    masks = Masks.of(student, architecture)
    train(student, split, _TUNING, seed=1, hold=masks.apply_, options=LoopOptions(device=device))
    return student


def _architecture(
    *,
    d_ff: int = 4 * _D_MODEL,
    depth: int = 2,
    heads: int = 4,
    rank: int | None = None,
    compression: Compression | None = None,
) -> Architecture:
    chosen = compression or Compression()
    layer = LayerSpec(AttentionSpec(heads, heads, 16, rank, chosen), FfnSpec(d_ff, rank, chosen))
    return Architecture(_D_MODEL, (layer,) * depth, patch_size=2)


_STRUCTURES = {
    "half-ffn": _architecture(d_ff=2 * _D_MODEL),
    "half-heads": _architecture(heads=2),
    "half-depth": _architecture(depth=1),
    "rank-d/4": _architecture(rank=_D_MODEL // 4),
}


def _choices() -> dict[str, Architecture]:
    precisions = ("bf16", "int8", "fp8", "int8wo", "int4wo")
    sparsities = ("2:4", "unstructured-50", "unstructured-90")
    return {
        **{p: _architecture(compression=Compression(precision=p)) for p in precisions},  # type: ignore[arg-type]
        **{s: _architecture(compression=Compression("bf16", s)) for s in sparsities},  # type: ignore[arg-type]
        **_STRUCTURES,
    }
