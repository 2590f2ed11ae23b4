"""Samples that are files in folders named after classes, and how some are held out of others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.tasks.base import SPLITS, SplitName
from nas.tasks.problems import Problems
from nas.tasks.task_file import TaskFile
from search_spaces.names import MOST_TEXT, check_name

# Keys that say where the data are, and which shares are held out where a split has no data.
SOURCE_KEYS = ("data", *SPLITS, "validation_share", "test_share")
_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Sample:
    """One input with its label: where it stands, in words, and how its values are read.

    ``read`` gives an array of one shape for all samples, or raises ``ValueError`` that says what
    is wrong (``where`` is added). Samples of one ``group`` are never in two splits.
    """

    where: str
    label: str | int
    read: Callable[[], Any]
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the data of each split are; splits without data are held out of the training data."""

    given: Mapping[SplitName, Any]
    validation_share: float = _SHARE
    test_share: float = _SHARE

    @classmethod
    def from_file(cls, file: TaskFile) -> Sources:
        """Those that a task file names by ``SOURCE_KEYS``; relative paths are made whole.

        Raises:
            ValueError: there are no training data, or a share is not one.
        """
        options = file.options
        if ("data" in options) == ("train" in options):
            raise ValueError("must have data (of all splits) or train, one of them")
        shares = shares_of(file)
        if "data" not in options:
            return cls({key: _whole(file, key) for key in SPLITS if key in options}, *shares)
        extra = [key for key in SPLITS if key in options]
        if extra:
            raise ValueError(f"must have data (of all splits) or train, got data and {extra[0]}")
        whole = _whole(file, "data")
        if isinstance(whole, Path) and (whole / "train").is_dir():
            return cls({key: whole / key for key in SPLITS if (whole / key).is_dir()}, *shares)
        return cls({"train": whole}, *shares)

    @property
    def training(self) -> str:
        """How messages name the training split: with what it comes from."""
        given = self.given["train"]
        named = given.values() if isinstance(given, Mapping) else [given]
        return f"the training split ({', '.join(map(str, named))})"

    def split_of(self, asked: SplitName, sample: Sample, digest: bytes) -> SplitName:
        """The split of a sample that was found among the data of split ``asked``.

        By its group, else by ``digest``, a hash of its values: equal samples are never in two
        splits, and whatever is added later, a sample stays where it was.
        """
        group = sample.group
        return self.place(
            asked, digest if group is None else hashlib.sha256(group.encode()).digest()
        )

    def place(self, asked: SplitName, named: bytes) -> SplitName:
        """The split of what the hash ``named`` stands for; see ``split_of``."""
        if asked != "train":
            return asked
        # 53 bits, as many as a float holds.
        at = (int.from_bytes(named[:8], "big") >> 11) / 2**53
        for name, share in (("test", self.test_share), ("validation", self.validation_share)):
            if name not in self.given:
                if at < share:
                    return name  # type: ignore[return-value]
                at -= share
        return "train"


def shares_of(file: TaskFile) -> tuple[float, float]:
    """The shares of validation and test data that a task file says, or the usual ones.

    Raises:
        ValueError: a share is not one, or nothing is left to train on.
    """
    shares = {key: file.options.get(key, _SHARE) for key in ("validation_share", "test_share")}
    for key, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ValueError(f"{key} must be a number in (0, 1), got {share!r}")
    if sum(shares.values()) >= 1:
        raise ValueError(f"validation_share and test_share must leave training data: {shares}")
    return shares["validation_share"], shares["test_share"]


def class_files(
    folder: Path, suffixes: Collection[str], problems: Problems
) -> list[tuple[Path, str]]:
    """Files below ``folder/CLASS/`` with one of ``suffixes``, and their class, in a fixed order.

    Names that begin with a point or an underscore are passed over.
    """
    if not folder.is_dir():
        problems.add(f"{folder} must be a folder of folders named after classes")
        return []
    found = []
    for child in sorted(folder.iterdir()):
        if child.is_dir() and child.name[0] not in "._":
            files = [
                path
                for path in sorted(child.rglob("*"))
                if path.suffix.lower() in suffixes and path.name[0] not in "._"
            ]
            if not files:
                problems.add(f"{child} must hold files ending in {', '.join(sorted(suffixes))}")
            found += [(path, child.name) for path in files]
    if not found:
        problems.add(f"{folder} must hold folders named after classes, with files in them")
    return found


def classes_of(labels: Sequence[str | int], where: str, problems: Problems) -> list[str | int]:
    """The classes that ``labels`` of the training split name, in order."""
    kinds = {type(label) for label in labels}
    if len(kinds) > 1:
        problems.add(f"{where} must have labels of one kind, got whole numbers and texts")
        return []
    classes = sorted(set(labels))
    for label in classes:
        try:
            check_name(f"{where}: a label", str(label), most=MOST_TEXT)
        except ValueError as error:
            problems.add(str(error))
            return []
    if len(classes) < 2:
        got = ", ".join(map(str, classes)) or "none"
        problems.add(f"{where} must have two classes or more, got {got}")
    return classes


def _whole(file: TaskFile, key: str) -> Any:
    """The path under ``key``, or a mapping of paths where it has one."""
    value = file.options[key]
    if isinstance(value, Mapping):
        inner = TaskFile(file.path, file.kind, value)
        return {str(name): inner.data_path(name) for name in value}
    return file.data_path(key)
