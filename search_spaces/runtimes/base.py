"""The ``Runtime`` protocol: what runs a network where it is served.

Torch is one runtime among others. The others first *convert* the network into a file of their own
(``Converter``), and load that file without torch (``serve``).
"""

from __future__ import annotations

import abc
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from search_spaces.architecture import TRANSFORMER, Architecture, Precision
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

WhileCompiling = Callable[[], AbstractContextManager[object]]

# Largest difference of outputs from torch's in fp32, as a ratio of Euclidean norms. fp32 is summed
# in another order; bf16 rounds to 8 bits of mantissa; int8 rounds weights and activations.
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-3, "bf16": 0.05, "int8": 0.2}


class RuntimeRefusal(ValueError):  # noqa: N818  (what a runtime refuses is no fault of the code)
    """A runtime's converter or kernels do not hold a network; the message has the cause."""


@dataclass(frozen=True, slots=True)
class Running:
    """A network that is loaded in a runtime, with its batch.

    ``repeat`` runs the batch again. ``mode`` is how it runs, for records. ``compile_s`` is the
    time of converting or compiling. ``versions`` are those of the runtime's packages.
    ``difference`` is that of the outputs from torch's in fp32, ``None`` for torch itself.
    """

    repeat: Callable[[], object]
    mode: str
    compile_s: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    difference: float | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a network runs: ``threads`` of the CPU, and what is entered while torch compiles."""

    threads: int = 1
    while_compiling: WhileCompiling = nullcontext


@dataclass(frozen=True, slots=True)
class Form:
    """What a converted network computes in.

    ``precision`` is fp32, bf16 for the whole network, or int8 for the products of the blocks at
    ``int8_paths`` (such as ``layers.0.ffn``) with fp32 elsewhere.
    """

    precision: Precision
    int8_paths: tuple[str, ...] = ()

    @classmethod
    def of(cls, architecture: Architecture) -> Form:
        """Return the form of an architecture that ``Converter.refusal`` accepts."""
        placed = list(architecture.placed_blocks)
        paths = tuple(p.path for p in placed if p.spec.compression.precision == "int8")
        first = placed[0].spec.compression.precision
        return cls("int8", paths) if paths else cls(first)

    def is_int8(self, scope: str) -> bool:
        """Return whether the module at the dotted path ``scope`` is in a block of int8."""
        return any(f".{path}." in f".{scope}." for path in self.int8_paths)


class Runtime(abc.ABC):
    """What runs a network.

    Attributes:
        name: its name on the command line and in records.
        title: its name in prose.
        extra: the extra of this package that installs it, empty for none.
        packages: modules that it needs.
        distributions: packages beside torch whose versions change what it runs, as pip names them.
        precisions: the precisions of blocks that it can run.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    extra: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]] = ()
    distributions: ClassVar[tuple[str, ...]] = ()
    precisions: ClassVar[frozenset[Precision]]

    def missing(self) -> str | None:
        """Return what must be installed, with the command, or ``None``."""
        absent = next((name for name in self.packages if find_spec(name) is None), None)
        if absent is None:
            return None
        return f"runtime {self.name} needs {absent}: pip install 'joulenas[{self.extra}]'"

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that run networks, by distribution."""
        return {name: importlib.metadata.version(name) for name in self.distributions}

    def refusal(self, architecture: Architecture, workload: Workload, device: str) -> str | None:
        """Return why the network cannot run here, before anything is built; ``None``: it can."""
        return None

    @abc.abstractmethod
    def run(
        self,
        network: nn.Module,
        architecture: Architecture,
        workload: Workload,
        inputs: Tensor,
        setting: Setting,
    ) -> Running:
        """Prepare the trained or random fp32 ``network`` to run ``inputs``.

        Raises:
            RuntimeRefusal: it cannot be converted, or its outputs differ by more than
                ``TOLERANCES`` from torch's.
        """


class Converter(Runtime):
    """A runtime with files of its own, on the CPU.

    Blocks of int8 and fp32 may be mixed; bf16 is the precision of a whole network.

    Attributes:
        suffix: of its main file.
        has_any_batch: whether a file runs batches of any size.
    """

    suffix: ClassVar[str]
    has_any_batch: ClassVar[bool] = True

    def file(self, precision: Precision) -> str:
        """Return the name of the main file of a precision; bf16 is computed from fp32 weights."""
        return f"model{'-int8' if precision == 'int8' else ''}{self.suffix}"

    def files(self, precision: Precision) -> tuple[str, ...]:
        """Return the names of all files of a precision, the main one first."""
        return (self.file(precision),)

    def limit(self, architecture: Architecture, workload: Workload) -> str | None:
        """Return what the converter does not hold in a network of any precision, or ``None``."""
        return None

    def fault(self, precision: Precision) -> str | None:
        """Return what this CPU lacks for a precision, or ``None``."""
        return None

    def refusal(self, architecture: Architecture, workload: Workload, device: str) -> str | None:
        """See ``Runtime.refusal``."""
        if device != "cpu":
            return f"{self.name} runs on the CPU here, not on {device}"
        if architecture.decoder is not None:
            return f"{self.name} holds no encoder-decoders, which write in a loop of steps"
        named = {placed.spec.compression.precision for placed in architecture.placed_blocks}
        for precision in sorted(named - self.precisions):
            allowed = ", ".join(p for p in TOLERANCES if p in self.precisions)
            return f"{self.name} runs {allowed}, not {precision}"
        if "bf16" in named and len(named) > 1:
            other = next(iter(named - {"bf16"}))
            return f"{self.name} runs a whole network in bf16, got blocks of {other} beside it"
        if workload.phase is not None and architecture.family != TRANSFORMER:
            return f"{self.name} has no cache of the family {architecture.family}"
        faults = (self.fault(precision) for precision in sorted(named))
        fault = next((text for text in faults if text is not None), None)
        return fault or self.limit(architecture, workload)

    @abc.abstractmethod
    def convert(
        self,
        module: nn.Module,
        inputs: Sequence[Tensor],
        form: Form,
        folder: Path,
        *,
        is_any_batch: bool = False,
    ) -> None:
        """Write ``module``, in fp32 on the CPU, as the files of a precision into ``folder``.

        ``inputs`` are those of ``module.forward``. With ``is_any_batch`` the file runs batches of
        any size, where ``has_any_batch``.

        Raises:
            RuntimeRefusal: the converter does not support the network.
        """

    def run(
        self,
        network: nn.Module,
        architecture: Architecture,
        workload: Workload,
        inputs: Tensor,
        setting: Setting,
    ) -> Running:
        """See ``Runtime.run``."""
        from search_spaces.runtimes.converting import run_converted

        return run_converted(self, network, architecture, workload, inputs, setting)


def first_line(error: BaseException) -> str:
    """Return the type and the first line of an error of a converter."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
