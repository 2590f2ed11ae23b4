"""The state of a training loop on disk, so that one that was killed goes on and repeats little.

One safetensors file, whole or absent: weights, moments of AdamW, the state of the random
generator, and in its header the epoch that they are of, their checksum and the versions of the
libraries that trained them. No pickle.
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

# Of epochs that are shorter than this, not each is kept: writing would cost as much as they do.
EACH_S = 2.0
# Seconds of training for each second of writing, at least.
_TRAINING_PER_WRITING = 20.0
_GENERATOR = "generator"


@dataclass(frozen=True, slots=True)
class LoopState:
    """What a loop consists of between two epochs; ``modules`` by names that stay the same."""

    modules: Mapping[str, nn.Module]
    optimizer: Optimizer
    generator: torch.Generator

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all of it, by name."""
        found = {
            f"{name}/{key}": value
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        for index, values in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{index}/{key}": value for key, value in values.items()}
        found[_GENERATOR] = self.generator.get_state()
        # Copies: safetensors refuses tensors that share memory, as tied weights do.
        return {key: value.detach().cpu().clone() for key, value in found.items()}

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether ``tensors`` are of an equal loop, whose optimizer may have stepped already."""
        own = self.tensors()
        names = {name for name in own if not name.startswith("optimizer/")}
        given = {name for name in tensors if not name.startswith("optimizer/")}
        return names == given and all(
            tensors[name].shape == own[name].shape and tensors[name].dtype == own[name].dtype
            for name in names
        )

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what ``tensors`` of an equal loop said.

        Raises:
            KeyError, RuntimeError: they are another loop's.
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


class Keeper:
    """Writes a loop's state to ``path``: after each of ``epochs``, and of others now and then."""

    def __init__(
        self, path: Place, epochs: Container[int] = frozenset(), *, each_s: float = EACH_S
    ) -> None:
        """``each_s`` is how many seconds of training a kill may cost, beside an epoch.

        Where writing takes long, it is more: a twentieth of the time goes into it at most, but
        for ``epochs``. With 0 each epoch is kept, whatever that takes.
        """
        self.path = path
        #: Versions of libraries that trained what is in the loop, in the order of their use.
        self.trained_by = with_these((), versions())
        self._epochs = epochs
        self._least_each_s = self._each_s = each_s
        self._kept_s = time.perf_counter()

    def restore(self, state: LoopState) -> int:
        """Fill ``state`` from disk and return its epoch; 0 where there is none that fits.

        A file that is cut off or damaged is none: training makes it again.
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
            epoch, is_whole = int(metadata["epoch"]), metadata["crc32"] == _checksum(tensors)
            earlier = json.loads(metadata["trained_by"])
        except (SafetensorError, KeyError, ValueError, OSError):
            return 0
        if not is_whole or not state.fits(tensors):
            return 0
        state.load(tensors)
        self.trained_by = with_these(earlier, versions())
        return epoch

    def after(self, epoch: int, state: LoopState) -> None:
        """Keep ``state`` of ``epoch``, if it is time to."""
        if epoch not in self._epochs and time.perf_counter() - self._kept_s < self._each_s:
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
        self._kept_s = time.perf_counter()
        if self._least_each_s > 0:
            took_s = self._kept_s - started_s
            self._each_s = max(self._least_each_s, took_s * _TRAINING_PER_WRITING)


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Of names and values: a disk may return what nobody wrote."""
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(name.encode(), found)
        values = tensors[name].contiguous().reshape(-1).view(torch.uint8)
        found = zlib.crc32(values.numpy().data, found)
    return f"{found:08x}"
