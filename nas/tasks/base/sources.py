"""Where the data of each split are, and which samples are held out where a split has no data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.tasks.base import SPLITS, SplitName
from nas.tasks.base.columns import Columns
from nas.tasks.base.problems import Problems, is_hidden
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
    """One input with its label, read when ``read`` is called.

    ``read`` returns an array of one shape for all samples, or raises a ``ValueError`` that
    completes a sentence about ``place``. Samples of one ``group`` are never in two splits.
    ``target`` is an array of rows where the target is neither a class nor read with the input.
    """

    place: str
    label: str | int
    read: Callable[[], Any]
    group: str | None = None
    target: Any = None


@dataclass(frozen=True, slots=True)
class Sources:
    """The data of each split, and their columns if they are tables.

    Splits without data are held out of the training data.

    ``notes`` are lines that name data beside them that are not read.
    """

    by_split: Mapping[SplitName, Any]
    validation_share: float = _SHARE
    test_share: float = _SHARE
    notes: tuple[str, ...] = field(default=(), compare=False)
    columns: Columns = Columns()

    @classmethod
    def from_file(
        cls, file: TaskFile, layout: Layout = "files", files: Collection[str] = ()
    ) -> Sources:
        """Read ``SOURCE_KEYS`` of a task file; relative paths become absolute.

        A folder under ``data`` may be divided by names of splits (``nas.tasks.base.split_names``):
        folders whose contents are in ``layout``, or files that end in ``files``.

        Raises:
            ValueError: there are no training data, a share is out of range, or the division of a
                folder is ambiguous.
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
        """The training split and its paths, for messages."""
        source = self.by_split["train"]
        paths = source.values() if isinstance(source, Mapping) else [source]
        return f"the training split ({', '.join(map(str, paths))})"

    def place(self, split: SplitName, digest: bytes) -> SplitName:
        """Return the split of a sample that is among the data of ``split``.

        Samples with one digest are never in two splits, and data that are added later move none.
        """
        if split != "train":
            return split
        # 53 bits, as many as a float holds.
        at = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
        shares: dict[SplitName, float] = {
            "test": self.test_share,
            "validation": self.validation_share,
        }
        for name, share in shares.items():
            if name not in self.by_split:
                if at < share:
                    return name
                at -= share
        return "train"


def shares_of(file: TaskFile) -> tuple[float, float]:
    """Read the shares of validation and test data of a task file, or the defaults.

    Raises:
        ValueError: a share is out of range, or nothing is left to train on.
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
    """Return the data by split and notes, or ``None`` if ``data`` is not divided by name."""
    if isinstance(whole, Path):
        split = named_splits(whole, layout, files, wanted) if whole.is_dir() else None
        return None if split is None else (dict(split.paths), split.notes())
    parts: dict[str, NamedSplits | None] = {
        name: named_splits(path, "files", files, wanted) if path.is_dir() else None
        for name, path in whole.items()
    }
    divided = {name: part for name, part in parts.items() if part is not None}
    if not divided:
        return None
    splits = {name: sorted(part.paths) for name, part in divided.items()}
    if len(divided) < len(parts) or len({tuple(names) for names in splits.values()}) > 1:
        shown = "; ".join(f"{whole[n]}: {', '.join(splits.get(n, ['none']))}" for n in parts)
        raise ValueError(f"data must be divided into the same splits on all sides, got {shown}")
    first = next(iter(divided.values())).paths
    by_split: dict[SplitName, Any] = {
        split: {name: part.paths[split] for name, part in divided.items()} for split in first
    }
    return by_split, tuple(line for part in divided.values() for line in part.notes())


def class_files(
    folder: Path, suffixes: Collection[str], problems: Problems
) -> list[tuple[Path, str]]:
    """List files below ``folder/CLASS/`` with one of ``suffixes``, and their class, sorted.

    Names that begin with a point or an underscore are not read. ``problems`` counts other files.
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
    """List files below ``folder`` that end in one of ``suffixes``, sorted; others are counted."""
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


def files_by_stem(
    folder: Path, suffixes: Collection[str], problems: Problems, what: str
) -> dict[str, Path]:
    """Files below ``folder``, which are ``what``, by relative path without the ending."""
    paths: dict[str, Path] = {}
    if not folder.is_dir():
        problems.add(f"{folder} must be a folder of {what}")
        return paths
    for path in files_below(folder, suffixes, problems):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in paths:
            problems.add(f"{path} must have a name of its own, as {paths[stem].name} has")
        paths[stem] = path
    if not paths:
        problems.add(f"{folder} must hold {what}, and holds none")
    return paths


def _whole(file: TaskFile, key: str) -> Any:
    """Return the path under ``key``, or a mapping of paths where it is one."""
    value = file.options[key]
    if isinstance(value, Mapping):
        inner = TaskFile(file.path, file.kind, value)
        return {str(name): inner.data_path(name) for name in value}
    return file.data_path(key)
