"""Check, before a search begins, that the installed transformers loads members of its space."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.exporting.formats.base import ExportError
from nas.exporting.formats.stock import check_transformers, prove_written
from search_spaces.models.build import build
from search_spaces.pretrained.writing.new import write_new
from search_spaces.space.domains import Choice
from search_spaces.space.sampling import smallest

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace
    from search_spaces.workload import Workload


def check_installed(space: SearchSpace, workload: Workload) -> None:
    """Load the smallest member of each of the space's blocks, with random weights.

    Some ten seconds for each, in fresh processes.

    Raises:
        ValueError: transformers is not installed, or its class gives other outputs.
    """
    check_transformers()
    for blocks in space.values("blocks"):
        only = replace(space, domains={**space.domains, "blocks": Choice((blocks,))})
        member = smallest(only)
        network = build(member, workload, generator_seed=0).eval()
        with tempfile.TemporaryDirectory(prefix="nas-loadable-") as folder:
            write_new(network, member, workload, Path(folder))
            try:
                prove_written(Path(folder), network, member)
            except ExportError as error:
                raise ValueError(
                    f"loadable must be left out for blocks {blocks} with the installed "
                    f"{space.loadable}: {error}"
                ) from None
