"""``--from``: a pretrained checkpoint in place of architecture files or a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.measuring.subject import Sizes
    from search_spaces.pretrained import Checkpoint


def add_from(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add ``--from`` to a verb."""
    parser.add_argument("--from", dest="checkpoint", metavar="DIR", help=help_text)


def add_size_and_precision(parser: argparse.ArgumentParser, default: str) -> None:
    """Add options that require ``--from``; ``default`` describes the default precisions."""
    parser.add_argument(
        "--sequence-length",
        type=int,
        help="with --from: tokens of an input (default: the longest, 128 at most)",
    )
    parser.add_argument(
        "--image-size",
        type=image_size,
        metavar="N|HxW",
        help="with --from: height and width of an image in pixels, multiples of the patch size "
        "(default: the checkpoint's own)",
    )
    parser.add_argument(
        "--precision",
        action="append",
        help=f"with --from: precision of the products (repeatable; default: {default})",
    )


def image_size(text: str) -> tuple[int, int]:
    """Parse ``224`` or ``224x160``, for argparse."""
    sizes = text.split("x")
    if len(sizes) == 1:
        sizes *= 2
    if len(sizes) != 2 or not all(
        size.isascii() and size.isdecimal() and int(size) > 0 for size in sizes
    ):
        raise argparse.ArgumentTypeError(
            f"must be an integer > 0, or height x width such as 224x160, got {text!r}"
        )
    height, width = map(int, sizes)
    return height, width


def checkpoint_of(arguments: argparse.Namespace) -> Checkpoint:
    """Load the checkpoint that ``--from`` names."""
    from search_spaces.pretrained import load_checkpoint

    return load_checkpoint(arguments.checkpoint)


def sizes_of(
    arguments: argparse.Namespace, batch_size: int | None, workload: Path | None = None
) -> Sizes:
    """Return the sizes that the options of a verb set."""
    from nas.measuring.subject import Sizes
    from nas.tasks.registry import get_task

    return Sizes(
        task=None if arguments.task is None else get_task(arguments.task),
        workload=workload,
        batch_size=batch_size,
        sequence_length=arguments.sequence_length,
        image_size=arguments.image_size,
        phases=tuple(arguments.phase or ()),
    )


def refuse_without_from(arguments: argparse.Namespace, *names: str) -> None:
    """Raise ``ValueError`` if one of the options ``names`` is set without ``--from``."""
    for name in names:
        if arguments.checkpoint is None and getattr(arguments, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} requires --from DIR: add it, or leave it out"
            )
