"""Base class of tasks over a user's files, which are read once, checked and cached as arrays.

A kind of task derives from a class for its type of data: ``ArrayTask`` (pictures, recordings),
``TokenTask`` (texts), ``PairTask`` (a text in, a text out), ``RowTask`` (other rows) or
``FileTask``. It sets the class attributes below, implements the abstract methods, and is
registered in ``nas.tasks.registry``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from nas.core.names import check_name
from nas.tasks.base import SPLITS, Split, SplitName, Task, check_split_name
from nas.tasks.base.cache import Cache, cached, key_of
from nas.tasks.base.columns import columns_of
from nas.tasks.base.lengths import length_notes
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import SOURCE_KEYS, Sources
from nas.tasks.base.split_names import Layout
from nas.tasks.base.splits import check_not_empty, repeats
from nas.tasks.base.task_file import TaskFile


class Placed(Protocol):
    """A row of a user's data."""

    @property
    def place(self) -> str:
        """The file and row, for messages."""


Row = TypeVar("Row", bound=Placed)
Rows = Mapping[SplitName, Sequence[Row]]


class FileTask(Task, Generic[Row]):
    """A task over ``sources``, read by ``options``, a frozen dataclass of the task file's keys.

    Raises:
        ValueError: the name is not allowed.
    """

    #: Plural noun for samples in messages.
    noun: ClassVar[str]
    #: Increase it where the same files would give other arrays.
    cache_version: ClassVar[int] = 1
    #: Whether the cache key has files' bytes, or their sizes and times.
    by_content: ClassVar[bool] = True
    #: The dataclass of options, and those that do not change the arrays.
    options_type: ClassVar[type[Any]]
    not_cached: ClassVar[Collection[str]] = ()
    #: Keys of the task file beside ``name``, those of sources and of options; and required ones.
    keys: ClassVar[Collection[str]] = ()
    required: ClassVar[Collection[str]] = ()
    #: Keys of the columns of input and label, for kinds that read tables.
    column_keys: ClassVar[tuple[str, str] | None] = None
    #: What ``data`` may be divided into; whether a source may be a mapping of several paths.
    layout: ClassVar[Layout] = "files"
    endings: ClassVar[Collection[str]] = ()
    has_parts: ClassVar[bool] = False

    def __init__(self, name: str, sources: Sources, options: Any) -> None:
        """Read nothing yet."""
        check_name("name", name)
        self.name, self.sources, self.options = name, sources, options

    @classmethod
    def from_file(cls, file: TaskFile) -> Self:
        """Make the task that ``file`` describes.

        Raises:
            ValueError: a key is missing, unknown, or its value is not allowed.
        """
        own = [field.name for field in fields(cls.options_type)]
        allowed = ("name", *SOURCE_KEYS, *cls.keys, *own)
        file.check_keys(allowed=allowed, required=("name", *cls.required))
        if not cls.has_parts:
            file.check_paths(("data", *SPLITS))
        sources = Sources.from_file(file, cls.layout, cls.endings)
        if cls.column_keys is not None:
            sources = replace(sources, columns=columns_of(file, cls.column_keys))
        return cls(file.options["name"], sources, file.read_options(cls.options_type))

    @abstractmethod
    def read(self, problems: Problems) -> Rows[Row]:
        """Read all sources and divide the rows into splits; errors are added to ``problems``."""

    @abstractmethod
    def write(self, rows: Rows[Row], folder: Path, problems: Problems) -> dict[str, Any]:
        """Write ``SPLIT.inputs.npy`` and ``SPLIT.targets.npy`` into ``folder``.

        Returns ``about()``. Raises ``DataError`` with all problems.
        """

    def files(self) -> list[Path]:
        """Return every file of the sources."""
        return [path for source in self.sources.by_split.values() for path in files_of(source)]

    def option_files(self) -> list[Path]:
        """Return the files that options name."""
        return []

    def cache_fields(self) -> dict[str, Any]:
        """Return the options that the arrays depend on, as plain data."""
        options = asdict(self.options)
        return {key: value for key, value in options.items() if key not in self.not_cached}

    @cached_property
    def cache(self) -> Cache:
        """The cached arrays; raises ``DataError`` with all that is wrong with the data."""
        sources = self.sources
        key_fields = {
            "kind": self.kind,
            "version": self.cache_version,
            "by_split": sources.by_split,
            "shares": [sources.validation_share, sources.test_share],
            "columns": list(sources.columns),
            **self.cache_fields(),
        }
        files = [*self.files(), *self.option_files()]
        try:
            key = key_of(key_fields, files, by_content=self.by_content)
        except ValueError:
            if self.by_content:
                # Report every missing file together with the errors in the others.
                problems = Problems()
                self.read(problems)
                problems.check()
            raise
        return cached(key, self._make)

    def _make(self, folder: Path) -> Mapping[str, Any]:
        problems = Problems()
        rows = self.read(problems)
        samples = {split: len(split_rows) for split, split_rows in rows.items()}
        about = self.write(rows, folder, problems)
        return {"samples": samples, **about, "skipped": problems.skipped.lines()}

    def split(self, name: SplitName) -> Split:
        """Map one split from the cache; see ``Task.split``."""
        check_split_name(name)
        return Split(self.cache.array(f"{name}.inputs"), self.cache.array(f"{name}.targets"))

    def about(self) -> Mapping[str, Any]:
        """See ``Task.about``."""
        return self.cache.about

    def notes(self) -> list[str]:
        """List the files and splits that are not read."""
        return [*self.sources.notes, *self.about()["skipped"]]

    def warnings(self) -> list[str]:
        """Warn of padding and cut samples, by ``lengths`` of ``about()``."""
        return [line for summary in self.about()["lengths"] for line in length_notes(summary)]


class RowTask(FileTask[Row]):
    """A ``FileTask`` of rows that are divided into splits by a hash of their input."""

    @abstractmethod
    def rows(self, source: Any, problems: Problems) -> Iterable[Row]:
        """Read the rows of one source; errors are added to ``problems``."""

    def split_digest(self, row: Row) -> bytes:
        """Return the hash that decides which split a row without one belongs to."""
        return self.digest(row)

    @abstractmethod
    def digest(self, row: Row) -> bytes:
        """Return a hash that rows with the same input have in common."""

    def read(self, problems: Problems) -> Rows[Row]:
        """Read all sources and divide the rows into splits."""
        splits: dict[SplitName, list[Row]] = {split: [] for split in SPLITS}
        for source_split, source in self.sources.by_split.items():
            for row in self.rows(source, problems):
                split = self.sources.place(source_split, self.split_digest(row))
                splits[split].append(row)
        check_not_empty(splits, self.noun, problems)
        return splits

    def repeats(self, rows: Rows[Row], labels: Mapping[SplitName, Sequence[Any]]) -> Any:
        """See ``splits.repeats``."""
        digests = {split: [self.digest(row) for row in rows[split]] for split in SPLITS}
        return repeats(digests, labels, {s: [row.place for row in rows[s]] for s in SPLITS})


def files_of(source: Any) -> list[Path]:
    """Every file that a source consists of."""
    if isinstance(source, Mapping):
        return [path for part in source.values() for path in files_of(part)]
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.is_file())
    return [source]
