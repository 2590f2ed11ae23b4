"""Check that a search space fits a task, and adapt recipes' spaces to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from search_spaces.architecture import TRANSFORMER
from search_spaces.cost.families import get_family
from search_spaces.pretrained.writing.stock import loadable_blocks, stock_refusals
from search_spaces.space import SearchSpace
from search_spaces.space.domains import Choice
from search_spaces.space.sampling import smallest
from search_spaces.workload import Workload

# Patches per image: with fewer, attention is pointless; with more, it costs too much.
_FEWEST_TOKENS, _MOST_TOKENS = 4, 1024
# Substitutes for a recipe's resolutions if none fits, as shares of the image's height.
_SHARES = (0.5, 0.75)


def check_fits(space: SearchSpace, workload: Workload) -> None:
    """Reject a space with members that cannot process the task's inputs.

    Raises:
        ValueError: a member cannot; the message names the space, the task and values that fit.
            Or the space has ``loadable`` and a member that no stock class supports.
    """
    if space.family != TRANSFORMER:
        get_family(space.family)
    member = smallest(space)
    for patch_size in space.values("patch_size"):
        for resolution, style in product(space.values("resolution"), space.styles):
            try:
                workload.check_fits(
                    replace(
                        member,
                        patch_size=patch_size,
                        resolution=resolution,
                        style=style,
                    )
                )
            except ValueError as error:
                raise ValueError(
                    f"space {space.name} does not fit task {workload.name}, which is "
                    f"{_description(workload)}: {error}{_suggestion(space, workload)}"
                ) from None
    narrowed = for_classes(space, workload)
    for gene in ("blocks", "resolution"):
        if narrowed.values(gene) != space.values(gene):
            raise ValueError(
                f"{gene} of space {space.name}, which has loadable, must be "
                f"{list(narrowed.values(gene))} for task {workload.name}, got "
                f"{list(space.values(gene))}"
            )


def for_classes(space: SearchSpace, workload: Workload) -> SearchSpace:
    """Return a space with ``loadable`` without unsupported blocks and resolutions.

    Other spaces are returned unchanged.

    Raises:
        ValueError: no member is left.
    """
    if space.loadable is None:
        return space
    if space.parent is not None:
        reasons = stock_refusals(smallest(space), workload)
        if reasons:
            raise ValueError(
                f"space {space.name} has loadable and members that no class of "
                f"{space.loadable} supports: {reasons[0]}"
            )
        return space
    able = loadable_blocks(workload)
    blocks = [name for name in space.values("blocks") if name in able]
    if not blocks:
        needed = f"blocks must offer one of {', '.join(able)}" if able else "there is none"
        raise ValueError(
            f"space {space.name} has loadable and no member that a class of {space.loadable} "
            f"supports on task {workload.name}, which is {_description(workload)}: {needed}, got "
            f"{', '.join(map(str, space.values('blocks')))}"
        )
    if None not in space.values("resolution"):
        raise ValueError(
            f"resolution of space {space.name}, which has loadable, must offer null: stock "
            f"classes read whole samples, got {list(space.values('resolution'))}"
        )
    domains = {**space.domains, "blocks": Choice(tuple(blocks)), "resolution": Choice((None,))}
    return replace(space, domains=domains)


def check_teacher(has_teacher: bool, workload: Workload) -> None:
    """Raise ``ValueError`` if candidates cannot learn from a teacher's outputs."""
    if has_teacher and workload.is_detection:
        raise ValueError(
            f"teacher must be None for {workload.kind}: its outputs are those of other patches "
            f"(leave out --distill and --inherit)"
        )
    if has_teacher and workload.is_transcription:
        raise ValueError(
            f"teacher must be None for {workload.kind}: networks with other patches write at "
            f"other times (leave out --distill and --inherit)"
        )


def _description(workload: Workload) -> str:
    kind = workload.kind.replace("_", " ")
    if not workload.is_image:
        return f"{kind} of {workload.input_shape[0]} tokens"
    _, height, width = workload.input_shape
    if workload.is_transcription:
        return f"{kind} of {width} frames"
    return f"{kind} of {height}x{width} pixels"


def _suggestion(space: SearchSpace, workload: Workload) -> str:
    """Suggest values that fit, if only patch sizes or resolutions do not."""
    if space.has_decoder != workload.is_sequence_to_sequence:
        return ""
    try:
        adapted = for_task(space, workload)
    except ValueError:
        return ""
    suggestions = [
        f"{gene}: [{', '.join('null' if v is None else str(v) for v in adapted.values(gene))}]"
        for gene in ("patch_size", "resolution")
        if adapted.values(gene) != space.values(gene)
    ]
    return f" ({' and '.join(suggestions)} would fit)" if suggestions else ""


def for_task(space: SearchSpace, workload: Workload) -> SearchSpace:
    """Return ``space`` with the patch sizes and resolutions that fit ``workload``.

    If none fits, values with about the same number of tokens replace them.

    Raises:
        ValueError: no patch size fits.
    """
    if not workload.is_image:
        resolutions = [r for r in space.values("resolution") if r is None or workload.is_pooled]
        fitting = replace(
            space,
            domains={
                **space.domains,
                "patch_size": Choice((1,)),
                "resolution": Choice(tuple(resolutions) or (None,)),
            },
        )
        return fitting.for_samples_of(workload)
    _, height, width = workload.input_shape
    if workload.is_transcription:
        return _for_frames(space, width)
    patches = [
        patch
        for patch in space.values("patch_size")
        if height % patch == 0 and width % patch == 0 and (patch < height or patch < width)
    ]
    patches = patches or _patches_for(height, width, space.values("patch_size"))
    requested = [r for r in space.values("resolution") if r is not None and r != height]
    resolutions = [r for r in requested if _is_resolution(r, height, width, patches)]
    if requested and not resolutions:
        resolutions = _resolutions_for(height, width, patches)
    is_whole = {None, height} & set(space.values("resolution"))
    named = [*resolutions, *([None] if is_whole else [])]
    return replace(
        space,
        domains={
            **space.domains,
            "patch_size": Choice(tuple(patches)),
            "resolution": Choice(tuple(named) or (None,)),
        },
    )


def _for_frames(space: SearchSpace, n_frames: int) -> SearchSpace:
    """Return ``space`` with the patch sizes that divide the frames of recordings."""
    patches = [patch for patch in space.values("patch_size") if n_frames % patch == 0]
    if not patches:
        # The nearest ones that do.
        able = [patch for patch in range(1, n_frames) if n_frames % patch == 0]
        wanted = space.values("patch_size")
        patches = sorted({min(able, key=lambda p: abs(math.log(p / w))) for w in wanted})
    domains = {"patch_size": Choice(tuple(patches)), "resolution": Choice((None,))}
    return replace(space, domains={**space.domains, **domains})


def _patches_for(height: int, width: int, wanted: Sequence[int]) -> list[int]:
    """Return the patch sizes that divide an image, nearest to the ``wanted`` ones."""
    shared = math.gcd(height, width)
    sizes = [
        patch
        for patch in range(1, shared + 1)
        if shared % patch == 0
        and _FEWEST_TOKENS <= (height // patch) * (width // patch) <= _MOST_TOKENS
    ]
    if not sizes:
        step = max(wanted)
        near = [max(step, round(side / step) * step) for side in (height, width)]
        raise ValueError(
            f"patch_size must divide the image's {height}x{width} pixels into at most "
            f"{_MOST_TOKENS} patches, and no size does: resize images in the task file, "
            f"for example size: {near if near[0] != near[1] else near[0]}"
        )
    nearest = {min(sizes, key=lambda p: abs(math.log(p / patch))) for patch in wanted}
    return sorted(nearest)


def _is_resolution(resolution: int, height: int, width: int, patches: Sequence[int]) -> bool:
    if not 0 < resolution < height or resolution * width % height:
        return False
    shrunk = resolution * width // height
    return all(resolution % patch == 0 and shrunk % patch == 0 for patch in patches)


def _resolutions_for(height: int, width: int, patches: Sequence[int]) -> list[int]:
    """Return heights near ``_SHARES`` of the image's that every patch size divides."""
    sizes = [r for r in range(1, height) if _is_resolution(r, height, width, patches)]
    # Attention needs more than one patch.
    sizes = [r for r in sizes if r >= 2 * max(patches)]
    nearest = {min(sizes, key=lambda r: abs(r - share * height)) for share in _SHARES if sizes}
    return sorted(nearest)
