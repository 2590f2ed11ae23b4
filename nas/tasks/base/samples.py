"""Samples that are files in folders named after classes, and how some are held out of others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.core.names import MOST_TEXT, check_name
from nas.tasks.base import SPLITS, SplitName
from nas.tasks.base.problems import Problems
from nas.tasks.base.skipped import is_hidden
from nas.tasks.base.split_names import (
    SPLIT_FOLDERS,
    Layout,
    NamedSplits,
    named_splits,
    undivided_notes,
)
from nas.tasks.base.task_file import TaskFile

# Keys that say where the data are, and which shares are held out where a split has no data.
SOURCE_KEYS = ("data", *SPLITS, "validation_share", "test_share", SPLIT_FOLDERS)
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
    """Where the data of each split are; splits without data are held out of the training data.

    ``notes`` are lines that name what lies beside the data and is not read.
    """

    given: Mapping[SplitName, Any]
    validation_share: float = _SHARE
    test_share: float = _SHARE
    notes: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def from_file(
        cls, file: TaskFile, layout: Layout = "files", files: Collection[str] = ()
    ) -> Sources:
        """Those that a task file names by ``SOURCE_KEYS``; relative paths are made whole.

        A folder under ``data`` may be divided by names of splits (``nas.tasks.base.split_names``):
        folders whose contents are in ``layout``, or files that end in ``files``.

        Raises:
            ValueError: there are no training data, a share is not one, or how a folder is divided
                is not clear.
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
        wanted = options.get(SPLIT_FOLDERS)
        if wanted is not None and not isinstance(wanted, bool):
            raise ValueError(f"{SPLIT_FOLDERS} must be true or false, got {wanted!r}")
        divided = _divided(whole, layout, files, wanted)
        if divided is None:
            is_open = wanted is None and layout == "classes"
            is_folder = isinstance(whole, Path) and whole.is_dir()
            notes = undivided_notes(whole) if is_open and is_folder else ()
            return cls({"train": whole}, *shares, notes=notes)
        return cls(divided[0], *shares, notes=divided[1])

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


def _divided(
    whole: Any, layout: Layout, files: Collection[str], wanted: bool | None
) -> tuple[dict[SplitName, Any], tuple[str, ...]] | None:
    """What is under ``data`` by split and what is not read, or ``None`` if it is not divided."""
    if isinstance(whole, Path):
        found = named_splits(whole, layout, files, wanted) if whole.is_dir() else None
        return None if found is None else (dict(found.paths), found.notes())
    parts: dict[str, NamedSplits | None] = {
        name: named_splits(path, "files", files, wanted) if path.is_dir() else None
        for name, path in whole.items()
    }
    sides = {name: part for name, part in parts.items() if part is not None}
    if not sides:
        return None
    splits = {name: sorted(part.paths) for name, part in sides.items()}
    if len(sides) < len(parts) or len({tuple(found) for found in splits.values()}) > 1:
        shown = "; ".join(f"{whole[n]}: {', '.join(splits.get(n, ['none']))}" for n in parts)
        raise ValueError(f"data must be divided into the same splits on all sides, got {shown}")
    first = next(iter(sides.values())).paths
    given = {split: {name: part.paths[split] for name, part in sides.items()} for split in first}
    return dict(given), tuple(line for part in sides.values() for line in part.notes())


def class_files(
    folder: Path, suffixes: Collection[str], problems: Problems
) -> list[tuple[Path, str]]:
    """Files below ``folder/CLASS/`` with one of ``suffixes``, and their class, in a fixed order.

    Other files, and names that begin with a point or an underscore, are passed over; ``problems``
    count what a user may have meant.
    """
    if not folder.is_dir():
        problems.add(f"{folder} must be a folder of folders named after classes")
        return []
    found = []
    for child in sorted(folder.iterdir()):
        if not child.is_dir():
            problems.skipped.add(child, "in no folder named after a class")
        elif is_hidden(child):
            problems.skipped.add_folder(child)
        else:
            files = files_below(child, suffixes, problems)
            if not files:
                problems.add(f"{child} must hold files ending in {', '.join(sorted(suffixes))}")
            found += [(path, child.name) for path in files]
    if not found:
        problems.add(f"{folder} must hold folders named after classes, with files in them")
    return found


def files_below(folder: Path, suffixes: Collection[str], problems: Problems) -> list[Path]:
    """Files below ``folder`` that end in one of ``suffixes``, in a fixed order; others count."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            if path.is_symlink():
                problems.skipped.add(path, "links to folders are not followed")
            continue
        if path.suffix.lower() in suffixes and not is_hidden(path):
            found.append(path)
        else:
            problems.skipped.add(path)
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
