"""Labels on disk: one JSON object a line, in a file for each set of measuring conditions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from nas.core.plain import from_plain, to_plain
from nas.core.user_folders import cache_folder
from predictors.measurement.records import append_line
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture

# Part of every file's name: another number where labels of older versions do not compare.
CACHE_VERSION = 1
# Most labels that are read, the newest: they resemble the device as it is now.
_MOST_READ = 1000
_MOST_BYTES = 1 << 28

Weights = Literal["random", "trained"]


@dataclass(frozen=True, slots=True)
class Label:
    """Measured joules of an architecture under the conditions of its file.

    ``session`` names the process of the driver that measured it. A reference is the fixed model
    that is measured again and again (``predictors.campaign.plan.reference_architecture``).

    Raises:
        ValueError: ``weights`` is neither random nor trained.
    """

    architecture: Architecture
    reading: EnergyReading
    session: str
    weights: Weights = "random"
    is_reference: bool = False

    def __post_init__(self) -> None:
        """Check the choice."""
        if self.weights not in get_args(Weights):
            raise ValueError(f"weights must be random or trained, got {self.weights!r}")


class LabelCache:
    """The labels in one file; several searches may append to it at once."""

    def __init__(self, path: Path) -> None:
        """``path`` need not exist."""
        self.path = path

    @classmethod
    def of(cls, key: str) -> LabelCache:
        """Return the user's cache for measuring conditions with this key, a digest.

        Raises:
            OSError: the cache folder cannot be created or belongs to another user.
        """
        return cls(cache_folder("labels") / f"{key}-{CACHE_VERSION}.jsonl")

    def read(self) -> list[Label]:
        """Return the newest labels, oldest first, without lines that are damaged."""
        try:
            if self.path.stat().st_size > _MOST_BYTES:
                return []
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        labels = []
        for line in lines[-_MOST_READ:]:
            try:
                labels.append(from_plain(Label, json.loads(line), "label"))
            except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
                # A cache: a line that a kill cut off is measured again.
                continue
        return labels

    def add(self, label: Label) -> None:
        """Append ``label``; it is on disk on return.

        Raises:
            OSError: it could not be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.path, to_plain(label))
