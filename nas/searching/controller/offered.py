"""What a device offers of a space, and what of it must carry a label."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from nas.core.user_folders import cache_folder
from search_spaces.architecture import PRECISIONS, SPARSITIES
from search_spaces.space import SearchSpace
from search_spaces.space.presets import PRESETS

if TYPE_CHECKING:
    from search_spaces.compression.realness import RealnessReport

# Rows that products read, one figure a workload: see ``search_spaces.cost.kernels.rows_read``.
Rows = tuple[int, ...]
# From a space, a device and rows to what was found where such a device is.
Prober = Callable[[SearchSpace, str, Rows], "RealnessReport"]

_GENES = {block: (f"{block}_precision", f"{block}_sparsity") for block in ("attention", "ffn")}


def offered_space(space: SearchSpace, device: str, rows: Rows) -> SearchSpace:
    """The part of ``space`` that is offered on ``device`` where products read ``rows``.

    A preset is cut down to the choices that are real at one of its shapes. A space of the user's
    own asks for its choices by name: all that can run stay, whether or not they gain anything
    (``unreal_choices`` names those that do not).

    Raises:
        ValueError: nothing is left of a gene; the message names it.
    """
    from search_spaces.compression.realness import real_choices, runnable_choices

    report = _probed(space, device, rows)
    offered = real_choices(report) if is_preset(space) else runnable_choices(report)
    return space.restrict(precisions=offered[0], sparsities=offered[1])


def is_preset(space: SearchSpace) -> bool:
    """Whether ``space`` is one of ours as it stands."""
    return PRESETS.get(space.name) == space


def unreal_choices(space: SearchSpace, device: str, rows: Rows) -> tuple[str, ...]:
    """A line for each choice of the user's own ``space`` that gains nothing or cannot run."""
    if is_preset(space):
        return ()
    report = _probed(space, device, rows)
    real = report.choices(("real",))
    simulated = report.choices(("simulated",))
    runnable = report.choices(("harmful", "simulated"))
    lines = []
    for choice in _asked(space):
        if choice in real:
            continue
        if choice in simulated:
            what = "is simulated"
        else:
            what = "only harms" if choice in runnable else "is left out"
        lines.append(f"{choice} {what} on {device}: {report.reason(choice)}")
    return tuple(lines)


def _asked(space: SearchSpace) -> tuple[str, ...]:
    genes = [gene for pair in _GENES.values() for gene in pair]
    asked = {value for gene in genes for value in space.values(gene)}
    return tuple(choice for choice in (*PRECISIONS, *SPARSITIES) if choice in asked)


def probe_here(space: SearchSpace, device: str, rows: Rows) -> RealnessReport:
    """What this machine's ``device`` does with the choices that ``space`` names.

    Raises:
        ValueError: torch has no such device.
    """
    from predictors.measurement.exclusive import DeviceLock
    from search_spaces.compression import probing

    lock = DeviceLock(None, device)
    return probing.probe(
        device,
        shapes=probing.shapes_for(device, space.values("d_model"), rows),
        choices=_asked(space),
        cache_dir=cache_folder(),
        beside=lock.shared,
        alone=lock.exclusive,
    )


_PROBER: ContextVar[Prober] = ContextVar("prober", default=probe_here)


@contextmanager
def probed_by(prober: Prober) -> Iterator[None]:
    """Ask ``prober`` meanwhile: the device may be another machine's."""
    token = _PROBER.set(prober)
    try:
        yield
    finally:
        _PROBER.reset(token)


def _probed(space: SearchSpace, device: str, rows: Rows) -> RealnessReport:
    return _PROBER.get()(space, device, rows)
