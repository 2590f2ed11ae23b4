"""The compression choices of a space that are available on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from nas.core.names import TORCH, place_of
from nas.core.user_folders import cache_folder
from search_spaces.architecture import PRECISIONS, SPARSITIES, Precision, Sparsity
from search_spaces.runtimes.registry import get_runtime
from search_spaces.space import SearchSpace
from search_spaces.space.presets import PRESETS

if TYPE_CHECKING:
    from search_spaces.compression.realness import RealnessReport

# Rows that products read, one figure a workload: see ``search_spaces.cost.kernels.rows_read``.
Rows = tuple[int, ...]
# Precisions and sparsities.
Choices = tuple[Sequence[Precision], Sequence[Sparsity]]
# Probes a device, on the machine that has it, with the choices of a space, in a runtime.
Prober = Callable[[SearchSpace, str, Rows, str], "RealnessReport"]

_GENES = {block: (f"{block}_precision", f"{block}_sparsity") for block in ("attention", "ffn")}


def available_space(
    space: SearchSpace, device: str, rows: Rows, runtime: str = TORCH
) -> SearchSpace:
    """Restrict ``space`` to what is available on ``device`` where products read ``rows``.

    A preset keeps the choices that are real at one of its shapes. A user's own space keeps all
    that can run, whether or not they gain anything (``unreal_choices`` lists those that do not).

    Raises:
        ValueError: nothing is left of a gene; the message names it.
    """
    from search_spaces.compression.realness import real_choices, runnable_choices

    report = _probed(space, device, rows, runtime)
    choices = real_choices if is_preset(space) else runnable_choices
    precisions, sparsities = choices(report)
    return space.restrict(precisions=_mixed(precisions, runtime), sparsities=sparsities)


def real_space(space: SearchSpace, device: str, rows: Rows, runtime: str = TORCH) -> SearchSpace:
    """Restrict ``space`` to what is real on ``device`` where products read ``rows``.

    Raises:
        ValueError: nothing is left of a gene; the message names it.
    """
    from search_spaces.compression.realness import real_choices

    precisions, sparsities = real_choices(_probed(space, device, rows, runtime))
    return space.restrict(precisions=_mixed(precisions, runtime), sparsities=sparsities)


def _mixed(precisions: Sequence[Precision], runtime: str) -> Sequence[Precision]:
    """Return the precisions that one network may mix in ``runtime``.

    Converted networks compute in bf16 throughout, which is then no choice of a block.
    """
    # The probe of torch is of compiled networks; op by op it runs fewer precisions.
    precisions = tuple(p for p in precisions if p in get_runtime(runtime).precisions)
    if runtime == TORCH or len(precisions) == 1:
        return precisions
    return tuple(precision for precision in precisions if precision != "bf16")


def choices_in(
    space: SearchSpace, device: str, rows: Rows, runtimes: Sequence[str], *, only_real: bool
) -> dict[str, tuple[str, ...]]:
    """Return the precisions and sparsities of members that each of ``runtimes`` measures.

    They are those that are real there. A user's own space keeps, without ``only_real``, what is
    real in no runtime in those that run it.

    Raises:
        ValueError: a runtime would measure no member; the message names it and the gene.
    """
    from search_spaces.compression.realness import real_choices, runnable_choices

    named = _choices(space)

    def kept(name: str, find: Callable[[RealnessReport], Choices]) -> tuple[str, ...]:
        precisions, sparsities = find(_probed(space, device, rows, name))
        found = (*_mixed(precisions, name), *sparsities)
        return tuple(choice for choice in found if choice in named)

    choices = {name: kept(name, real_choices) for name in runtimes}
    if not only_real and not is_preset(space):
        somewhere = {choice for found in choices.values() for choice in found}
        for name in runtimes:
            further = (c for c in kept(name, runnable_choices) if c not in somewhere)
            choices[name] = (*choices[name], *further)
    for name, found in choices.items():
        try:
            space.restrict(precisions=found, sparsities=found)
        except ValueError as error:
            raise ValueError(f"runtime {name} must hold members of the space: {error}") from None
    return choices


def space_for(
    space: SearchSpace,
    device: str,
    rows: Rows,
    runtimes: Sequence[str],
    *,
    only_real: bool = False,
) -> tuple[SearchSpace, dict[str, tuple[str, ...]]]:
    """Return the part of ``space`` that some runtime measures, and the choices of each.

    With one runtime the space says it all, and there are no choices. ``only_real`` leaves out
    what gains nothing of a user's own space as well.

    Raises:
        ValueError: nothing is left of a gene; the message names it.
    """
    if len(runtimes) == 1:
        find = real_space if only_real else available_space
        return find(space, device, rows, runtimes[0]), {}
    choices = choices_in(space, device, rows, runtimes, only_real=only_real)
    somewhere = {choice for found in choices.values() for choice in found}
    return space.restrict(precisions=somewhere, sparsities=somewhere), choices


def unmeasured_choices(
    space: SearchSpace,
    device: str,
    rows: Rows,
    choices: Mapping[str, Sequence[str]],
) -> tuple[str, ...]:
    """Return a line for each runtime and choice of ``space`` that it does not measure.

    ``choices`` are those of each runtime, as ``space_for`` returns them.
    """
    lines = []
    for name, found in choices.items():
        report = _probed(space, device, rows, name)
        for choice in _choices(space):
            if choice in found:
                continue
            reason = report.reason(choice)
            if choice == "bf16" and choice in report.choices(("real",)):
                reason = "it is the precision of a whole network there"
            lines.append(f"{choice} is not measured in {name}: {reason}")
    return tuple(lines)


def is_preset(space: SearchSpace) -> bool:
    """Whether ``space`` is an unchanged preset."""
    return PRESETS.get(space.name) == space


def unreal_choices(
    space: SearchSpace, device: str, rows: Rows, runtime: str = TORCH
) -> tuple[str, ...]:
    """Return a line for each choice of a user's own space that gains nothing or cannot run."""
    if is_preset(space):
        return ()
    report = _probed(space, device, rows, runtime)
    real = report.choices(("real",))
    simulated = report.choices(("simulated",))
    runnable = report.choices(("harmful", "simulated"))
    lines = []
    for choice in _choices(space):
        if choice in real:
            continue
        if choice in simulated:
            what = "is simulated"
        else:
            what = "only harms" if choice in runnable else "is left out"
        lines.append(f"{choice} {what} on {place_of(device, runtime)}: {report.reason(choice)}")
    return tuple(lines)


def _choices(space: SearchSpace) -> tuple[str, ...]:
    genes = [gene for pair in _GENES.values() for gene in pair]
    named = {value for gene in genes for value in space.values(gene)}
    return tuple(choice for choice in (*PRECISIONS, *SPARSITIES) if choice in named)


def probe_here(
    space: SearchSpace, device: str, rows: Rows, runtime: str = TORCH
) -> RealnessReport:
    """Probe this machine's ``device`` with the choices that ``space`` names.

    Raises:
        ValueError: torch has no such device, or the runtime is not installed.
    """
    from predictors.measurement.exclusive import DeviceLock
    from search_spaces.compression import probing
    from search_spaces.runtimes.base import Converter
    from search_spaces.runtimes.realness import probe_runtime
    from search_spaces.runtimes.registry import parse_runtimes

    lock = DeviceLock(None, device)
    (chosen,) = parse_runtimes([runtime])
    if isinstance(chosen, Converter):
        return probe_runtime(
            chosen,
            probing.shapes_for(device, space.values("d_model"), rows),
            _choices(space),
            cache_dir=cache_folder(),
            alone=lock.exclusive,
        )
    return probing.probe(
        device,
        shapes=probing.shapes_for(device, space.values("d_model"), rows),
        choices=_choices(space),
        cache_dir=cache_folder(),
        beside=lock.shared,
        alone=lock.exclusive,
    )


_PROBER: ContextVar[Prober] = ContextVar("prober", default=probe_here)


@contextmanager
def probed_by(prober: Prober) -> Iterator[None]:
    """Use ``prober`` within the context: the device may be another machine's."""
    token = _PROBER.set(prober)
    try:
        yield
    finally:
        _PROBER.reset(token)


def _probed(space: SearchSpace, device: str, rows: Rows, runtime: str) -> RealnessReport:
    return _PROBER.get()(space, device, rows, runtime)
