"""Check before a search that the installed ``transformers`` loads members of its space."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.exporting.formats.base import ExportError
from nas.exporting.formats.stock import check_transformers, verify_written
from search_spaces.models.build import build
from search_spaces.pretrained.writing.new import write_new
from search_spaces.space.domains import Choice
from search_spaces.space.sampling import smallest

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace
    from search_spaces.workload import Workload


def check_installed(space: SearchSpace, workload: Workload) -> None:
    """Load the smallest member of each of the space's blocks, with random weights.

    Each takes some ten seconds in a fresh process.

    Raises:
        ValueError: ``transformers`` is not installed, or outputs of its class differ.
    """
    check_transformers()
    for blocks in space.values("blocks"):
        only = replace(space, domains={**space.domains, "blocks": Choice((blocks,))})
        member = smallest(only)
        network = build(member, workload, generator_seed=0).eval()
        with tempfile.TemporaryDirectory(prefix="nas-loadable-") as folder:
            write_new(network, member, workload, Path(folder))
            try:
                verify_written(Path(folder), network, member)
            except ExportError as error:
                raise ValueError(
                    f"loadable must be left out for blocks {blocks} with the installed "
                    f"{space.loadable}: {error}"
                ) from None
