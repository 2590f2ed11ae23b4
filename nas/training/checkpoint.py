"""Checkpoints: the state of a training loop on disk, to resume it after an interruption.

A checkpoint is one safetensors file, written atomically. It contains weights, AdamW's moments and
the state of the random generator; its header contains the epoch, a checksum, and the versions of
the libraries that trained it. No pickle.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Container, Mapping
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.core.files import Place, as_local, write_atomic
from nas.core.versions import versions, with_these

# Default least time between checkpoints: an epoch may be shorter than a write.
INTERVAL_S = 2.0
# Least seconds of training for each second of writing.
_TRAINING_PER_WRITING = 20.0
_GENERATOR = "generator"


@dataclass(frozen=True, slots=True)
class TrainingState:
    """The mutable parts of a training loop; names of ``modules`` must not change between runs."""

    modules: Mapping[str, nn.Module]
    optimizer: Optimizer
    generator: torch.Generator

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all tensors, by name."""
        tensors = {
            f"{name}/{key}": value
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": value for key, value in values.items()}
        tensors[_GENERATOR] = self.generator.get_state()
        # Copies: safetensors refuses tensors that share memory, as tied weights do.
        return {key: value.detach().cpu().clone() for key, value in tensors.items()}

    def matches(self, tensors: Mapping[str, Tensor]) -> bool:
        """Return whether ``tensors`` have the names, shapes and types of this state.

        The optimizer's tensors are not compared: they do not exist before its first step.
        """
        own = self.tensors()
        names = {name for name in own if not name.startswith("optimizer/")}
        return names == {name for name in tensors if not name.startswith("optimizer/")} and all(
            tensors[name].shape == own[name].shape and tensors[name].dtype == own[name].dtype
            for name in names
        )

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state from ``tensors``.

        Raises:
            KeyError, RuntimeError: ``tensors`` do not match.
        """
        for name, module in self.modules.items():
            prefix = f"{name}/"
            module.load_state_dict(
                {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            )
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                state.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.generator.set_state(tensors[_GENERATOR])


class CheckpointManager:
    """Save and load the checkpoint of one training loop."""

    def __init__(
        self, path: Place, epochs: Container[int] = frozenset(), *, interval_s: float = INTERVAL_S
    ) -> None:
        """Save to ``path`` after each of ``epochs``, and after others every ``interval_s``.

        If writing is slow the interval grows, so that writing takes at most 5% of the time.
        With ``interval_s=0`` every epoch is saved.
        """
        self.path = path
        #: Versions of the libraries that have run the loop, in order of use.
        self.trained_by = with_these((), versions())
        self._epochs = epochs
        self._min_interval_s = self._interval_s = interval_s
        self._saved_s = time.perf_counter()

    def load(self, state: TrainingState) -> int:
        """Restore ``state`` and return its epoch, or 0 without a matching checkpoint.

        A truncated or corrupt file is ignored: training starts again.
        """
        if not self.path.is_file():
            return 0
        try:
            with (
                as_local(self.path) as local,
                safe_open(str(local), framework="pt") as file,
            ):
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            epoch, is_intact = int(metadata["epoch"]), metadata["crc32"] == _checksum(tensors)
            trained_by = json.loads(metadata["trained_by"])
        except (SafetensorError, KeyError, ValueError, OSError):
            return 0
        if not is_intact or not state.matches(tensors):
            return 0
        state.load(tensors)
        self.trained_by = with_these(trained_by, versions())
        return epoch

    def save(self, epoch: int, state: TrainingState) -> None:
        """Write ``state`` after ``epoch``, if a checkpoint is due."""
        if epoch not in self._epochs and time.perf_counter() - self._saved_s < self._interval_s:
            return
        started_s = time.perf_counter()
        tensors = state.tensors()
        metadata = {
            "epoch": str(epoch),
            "crc32": _checksum(tensors),
            "trained_by": json.dumps(self.trained_by),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, lambda path: save_file(tensors, str(path), metadata))
        self._saved_s = time.perf_counter()
        if self._min_interval_s > 0:
            writing_s = self._saved_s - started_s
            self._interval_s = max(self._min_interval_s, writing_s * _TRAINING_PER_WRITING)


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of names and values, to detect a corrupt file."""
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(name.encode(), crc)
        values = tensors[name].contiguous().reshape(-1).view(torch.uint8)
        crc = zlib.crc32(values.numpy().data, crc)
    return f"{crc:08x}"
