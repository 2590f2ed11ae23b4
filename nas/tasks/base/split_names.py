"""Find folders and files that are named after splits, in the spellings of public data sets.

``val``, ``Valid``, ``dev-set`` and ``validation`` all mean the validation split. A folder is
divided by such names if one is that of training data; other entries are not read, and noted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nas.tasks.base import SPLITS, SplitName

SPLIT_FOLDERS = "split_folders"
# How lines about folders that are read as classes begin.
OF_CLASSES = "classes: "
# Contents of a folder named after a split: folders named after classes, or samples.
Layout = Literal["classes", "files"]
_SPELLINGS: Mapping[SplitName, frozenset[str]] = {
    "train": frozenset({"train", "training", "trn"}),
    "validation": frozenset(
        {"validation", "validate", "valid", "val", "dev", "development", "eval", "evaluation"}
    ),
    "test": frozenset({"test", "testing", "tests", "tst"}),
}
# As in `train_set`, `test-data` and `ValidationSplit`.
_ENDING = re.compile(r"[\s_.-]*(set|split|data|images|samples)$")
# As in `train2017`.
_YEAR = re.compile(r"[\s_.-]*(19|20)\d\d$")
# Names that begin like those of splits.
_LIKE_SPLIT = re.compile(
    r"(x[\s_.-]?)?(train(ing)?|trn|test(ing|s)?|tst|val(id(ation|ate)?)?|dev|eval(uation)?)(?![a-z])"
)
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class NamedSplits:
    """Paths of the splits in a folder, and entries that are not read."""

    paths: Mapping[SplitName, Path]
    unread: tuple[Path, ...] = ()

    def notes(self) -> tuple[str, ...]:
        """A line about entries that are not read, if there are any."""
        if not self.unread:
            return ()
        names = sorted(path.name + "/" * path.is_dir() for path in self.unread)
        read = ", ".join(self.paths[split].name for split in SPLITS if split in self.paths)
        return (f"not read: {_listed(names)} beside {read} in {self.unread[0].parent}",)


def split_named(name: str) -> SplitName | None:
    """The split that ``name`` means, in any case, or ``None``."""
    plain = _ENDING.sub("", _YEAR.sub("", name.strip().casefold()))
    for split, spellings in _SPELLINGS.items():
        if plain in spellings:
            return split
    return None


def undivided_notes(folder: Path) -> tuple[str, ...]:
    """Lines about folders that are read as classes and may be splits."""
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    folders = [path for path in folders if path.name[0] not in "._"]
    names = [path.name for path in folders if _LIKE_SPLIT.match(path.name.strip().casefold())]
    notes = []
    if names:
        notes.append(
            f"{OF_CLASSES}folders of {folder} are classes, though {_listed(names)} may be splits "
            f"(say {SPLIT_FOLDERS}: false, or name train: and test: in the task file)"
        )
    if len(folders) == 1:
        inner = [path.name for path in sorted(folders[0].iterdir()) if split_named(path.name)]
        if inner:
            notes.append(
                f"{OF_CLASSES}{folders[0]} holds {_listed(inner)}: name it under data in the task "
                f"file if they are splits"
            )
    return tuple(notes)


def splits_by_name(
    names: Mapping[str, str], where: str, how: str = "{split}: ..."
) -> dict[SplitName, str]:
    """Return those keys of ``names`` whose values mean splits, by split.

    ``how`` is the key of a task file for one.

    Raises:
        ValueError: two of them mean one split; the message names both and ``where``.
    """
    found: dict[SplitName, str] = {}
    for name, plain in names.items():
        split = split_named(plain)
        if split is None:
            continue
        # The user decides, even if one has the split's own name.
        if split in found:
            raise ValueError(
                f"{where} has {found[split]} and {name}, which both mean the {split} split: "
                f"name the one to read in the task file ({how.format(split=split)})"
            )
        found[split] = name
    return found


def named_splits(
    folder: Path, layout: Layout, files: Collection[str] = (), wanted: bool | None = None
) -> NamedSplits | None:
    """Find the splits among the folders in ``folder``, or its files ending in ``files``.

    ``wanted`` is ``split_folders`` of the task file. Where that is ``None``, folders are splits
    unless ``train`` looks like a class: it has pictures, not classes, beside folders of other
    names. The result is ``None`` where the folder is not divided by name.

    Raises:
        ValueError: two names mean one split, there are no training data, or both readings are
            possible.
    """
    if wanted is False:
        return None
    entries = [path for path in sorted(folder.iterdir()) if path.name[0] not in "._"]
    folders = [path for path in entries if path.is_dir()]
    found = splits_by_name({path.name: path.name for path in folders}, str(folder))
    if found:
        return _of_folders(folder, folders, entries, found, layout, wanted)
    read = [path.name for path in entries if path.is_file() and path.suffix.lower() in files]
    found = {} if folders else splits_by_name({n: n.split(".")[0] for n in read}, str(folder))
    if "train" in found:
        if len(read) > len(found) == 1 and wanted is None:
            raise _either(folder, list(found.values()), "files")
        paths = {split: folder / name for split, name in found.items()}
        return NamedSplits(paths, _beside(entries, paths))
    _check_unwanted(folder, wanted)
    return None


def _of_folders(
    folder: Path,
    folders: list[Path],
    entries: list[Path],
    found: Mapping[SplitName, str],
    layout: Layout,
    wanted: bool | None,
) -> NamedSplits | None:
    paths = {split: folder / name for split, name in found.items()}
    others = [path for path in folders if path not in paths.values()]
    named = list(found.values())
    divided = NamedSplits(paths, _beside(entries, paths))
    if wanted and "train" in found:
        return divided
    _check_unwanted(folder, wanted)
    if layout == "classes":
        holds_classes = [has_folders(path) for path in paths.values()]
        if not any(holds_classes) and others:
            # Such as `train` beside `car` and `bus`.
            return None
        if not any(holds_classes):
            raise ValueError(
                f"{folder} has {_listed(named)}, which are named after splits but hold no folders "
                f"named after classes: put those in, or say {SPLIT_FOLDERS}: false if they are "
                f"classes"
            )
    if "train" not in found:
        if others:
            return None
        raise ValueError(
            f"{folder} has {_listed(named)} and no folder of training data (such as train): "
            f"name it in the task file, or say {SPLIT_FOLDERS}: false if they are classes"
        )
    # One name alone may be a class with folders of its own, or one folder of texts among many.
    if len(found) == 1 and any(_looks_alike(path, paths["train"], layout) for path in others):
        raise _either(folder, named, "folders")
    return divided


def _looks_alike(path: Path, train: Path, layout: Layout) -> bool:
    """Whether a folder beside ``train`` may be of the same sort: a class, or texts."""
    shares_classes = layout == "classes" and any(
        child.is_dir() and (train / child.name).is_dir() for child in path.iterdir()
    )
    return not shares_classes and any(child.is_file() for child in path.rglob("*"))


def _beside(entries: Iterable[Path], paths: Mapping[SplitName, Path]) -> tuple[Path, ...]:
    return tuple(path for path in entries if path not in paths.values())


def _either(folder: Path, named: list[str], what: str) -> ValueError:
    return ValueError(
        f"{folder} has {_listed(named)} beside {what} of other names: say {SPLIT_FOLDERS}: true "
        f"if they are splits (the others are then not read), or {SPLIT_FOLDERS}: false if all are "
        f"data alike"
    )


def _check_unwanted(folder: Path, wanted: bool | None) -> None:
    if wanted:
        raise ValueError(
            f"{SPLIT_FOLDERS} must be false or left out for {folder}: nothing in it is named "
            f"after the training split"
        )


def has_folders(path: Path) -> bool:
    """Whether there is a folder in ``path`` that is not hidden."""
    return any(child.is_dir() and child.name[0] not in "._" for child in path.iterdir())


def _listed(names: Collection[str]) -> str:
    shown = list(names)[:_MOST_NAMED]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(shown) + more
