"""Which forms of a checkpoint are measured: precisions that are real, in each runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.core.names import TORCH
from nas.core.user_folders import cache_folder
from nas.measuring.subject import Subject, precision_named
from search_spaces.architecture import PRECISIONS, Architecture, Precision
from search_spaces.compression.realness import RealnessReport, Shape
from search_spaces.cost.kernels import kernel_fault
from search_spaces.runtimes.base import Converter, Runtime
from search_spaces.runtimes.registry import get_runtime


@dataclass(frozen=True, slots=True)
class Variant:
    """A network in one precision and one runtime."""

    runtime: str
    precision: Precision
    architecture: Architecture

    @property
    def name(self) -> str:
        """The precision, after the runtime where that is not torch."""
        return self.precision if self.runtime == TORCH else f"{self.runtime} {self.precision}"


@dataclass(frozen=True, slots=True)
class Variants:
    """The variants, torch's fp32 first, and a line for each that is left out."""

    variants: tuple[Variant, ...]
    left_out: tuple[str, ...]


def variants_of(
    subject: Subject,
    device: str,
    names: Sequence[str] = (),
    runtimes: Sequence[Runtime] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Variants:
    """Return the forms to measure on ``device``, torch's fp32 first.

    In each runtime (by default torch alone) they are the precisions that the probe finds real at
    the checkpoint's width, with ``names`` those of them that can run. With runtimes other than
    torch there is torch's fp32 as the baseline. ``say`` is called with a line for each shape that
    is probed now.

    Raises:
        ValueError: a name is no precision, a runtime cannot hold the network, or no form is left.
    """
    named = tuple(map(precision_named, dict.fromkeys(names)))
    variants: list[Variant] = []
    left_out: list[str] = []
    for runtime in runtimes or (get_runtime(TORCH),):
        own, why = _of_runtime(subject, device, runtime, named, say)
        variants += own
        left_out += why
    if not variants:
        raise ValueError(f"precision must be one that runs on {device}: {'; '.join(left_out)}")
    if runtimes:
        baseline = Variant(TORCH, "fp32", subject.checkpoint.architecture.in_precision("fp32"))
        variants = [baseline, *(each for each in variants if each != baseline)]
    return Variants(tuple(variants), tuple(left_out))


def _of_runtime(
    subject: Subject,
    device: str,
    runtime: Runtime,
    named: Sequence[Precision],
    say: Callable[[str], None],
) -> tuple[list[Variant], list[str]]:
    """Return the variants of one runtime, and a line for each precision that is left out."""
    own, is_torch = subject.checkpoint.architecture, runtime.name == TORCH
    where = device if is_torch else runtime.name
    if is_torch and set(named) == {"fp32"}:
        return [Variant(TORCH, "fp32", own)], []
    left_out: list[str] = []
    possible: list[Variant] = []
    for precision in named or PRECISIONS:
        if not named and precision not in runtime.precisions:
            continue
        architecture = own.in_precision(precision)
        fault = _fault(subject, runtime, architecture, device)
        if fault is None:
            possible.append(Variant(runtime.name, precision, architecture))
        else:
            left_out.append(f"{precision} is left out on {where}: {fault}")
    if not possible:
        return [], left_out
    report = _probe(subject, device, runtime, [each.precision for each in possible], say)
    if report is None:
        return possible, left_out
    fitting = report.choices(("real", "harmful") if named else ("real",))
    for each in possible:
        if each.precision not in fitting:
            why = report.reason(each.precision)
            left_out.append(f"{each.precision} is left out on {where}: {why}")
    ordered = sorted(possible, key=lambda each: PRECISIONS.index(each.precision))
    return [each for each in ordered if each.precision in fitting], left_out


def _fault(
    subject: Subject, runtime: Runtime, architecture: Architecture, device: str
) -> str | None:
    """Return why a runtime cannot run the architecture, before anything is built."""
    if runtime.name == TORCH:
        return kernel_fault(architecture, device)
    refusals = (runtime.refusal(architecture, each, device) for each in subject.workloads)
    return next((text for text in refusals if text is not None), None)


def _probe(
    subject: Subject,
    device: str,
    runtime: Runtime,
    choices: Sequence[str],
    say: Callable[[str], None],
) -> RealnessReport | None:
    """Probe ``choices`` at the shapes nearest to the checkpoint's workloads.

    ``None`` for eager torch, which is named to be compared with, gaining or not.
    """
    from predictors.measurement.exclusive import DeviceLock
    from search_spaces.compression import probing
    from search_spaces.runtimes.realness import probe_runtime

    architecture = subject.checkpoint.architecture
    rows = [
        workload.batch_size
        * (1 if workload.phase == "generate" else workload.n_tokens(architecture))
        for workload in subject.workloads
    ]
    lock = DeviceLock(None, device)
    shapes = probing.shapes_for(device, [architecture.d_model], rows)
    where = "" if runtime.name == TORCH else f" in {runtime.name}"

    def on_shape(shape: Shape, done: int, total: int) -> None:
        say(f"probing which precisions are real{where} at {shape} ({done + 1} of {total})")

    if isinstance(runtime, Converter):
        return probe_runtime(
            runtime,
            shapes,
            choices,
            cache_dir=cache_folder(),
            alone=lock.exclusive,
            on_shape=on_shape,
        )
    if runtime.name != TORCH:
        return None
    return probing.probe(
        device,
        shapes=shapes,
        choices=choices,
        cache_dir=cache_folder(),
        on_shape=on_shape,
        beside=lock.shared,
        alone=lock.exclusive,
    )
