"""Which precisions of a checkpoint are measured: those that are real on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.core.user_folders import cache_folder
from nas.measuring.subject import Subject, in_precision, precision_named
from search_spaces.architecture import PRECISIONS, Architecture, Precision
from search_spaces.compression.realness import RealnessReport
from search_spaces.cost.kernels import kernel_fault


@dataclass(frozen=True, slots=True)
class Variants:
    """Architectures by precision, and a line for each precision that is left out."""

    architectures: dict[Precision, Architecture]
    left_out: tuple[str, ...]


def variants_of(
    subject: Subject,
    device: str,
    names: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Variants:
    """Return the precisions to measure on ``device``, fp32 first.

    By default those that the device's probe finds real at the checkpoint's width, with ``names``
    those of them that can run. ``say`` is called with a line for each shape that is probed now.

    Raises:
        ValueError: a name is no precision, or none of them can run here.
    """
    named = tuple(map(precision_named, dict.fromkeys(names)))
    if set(named) == {"fp32"}:
        return Variants({"fp32": subject.checkpoint.architecture}, ())
    report = _probe(subject, device, named or PRECISIONS, say)
    statuses = ("real", "harmful") if named else ("real",)
    fitting = report.choices(statuses)
    architectures: dict[Precision, Architecture] = {}
    left_out: list[str] = []
    for precision in PRECISIONS:
        if named and precision not in named:
            continue
        architecture = in_precision(subject.checkpoint.architecture, precision)
        fault = kernel_fault(architecture, device)
        if precision in fitting and fault is None:
            architectures[precision] = architecture
        else:
            why = fault or report.reason(precision)
            left_out.append(f"{precision} is left out on {device}: {why}")
    if not architectures:
        raise ValueError(f"precision must be one that runs on {device}: {'; '.join(left_out)}")
    return Variants(architectures, tuple(left_out))


def _probe(
    subject: Subject, device: str, choices: Sequence[str], say: Callable[[str], None]
) -> RealnessReport:
    """Probe ``choices`` at the shapes nearest to the checkpoint's workloads."""
    from predictors.measurement.exclusive import DeviceLock
    from search_spaces.compression import probing

    architecture = subject.checkpoint.architecture
    rows = [
        workload.batch_size
        * (1 if workload.phase == "generate" else workload.n_tokens(architecture))
        for workload in subject.workloads
    ]
    lock = DeviceLock(None, device)
    return probing.probe(
        device,
        shapes=probing.shapes_for(device, [architecture.d_model], rows),
        choices=choices,
        cache_dir=cache_folder(),
        on_shape=lambda shape, done, total: say(
            f"probing which precisions are real at {shape} ({done + 1} of {total})"
        ),
        beside=lock.shared,
        alone=lock.exclusive,
    )
