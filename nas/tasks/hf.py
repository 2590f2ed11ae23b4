"""Datasets of the Hugging Face hub, or on disk in the forms of its library: texts or pictures.

``dataset`` is a name on the hub, a folder that ``save_to_disk`` wrote, a folder of CSV, JSON,
Parquet or pictures, or one such file. ``splits`` maps our splits to the dataset's. All options of
``text_classification`` and ``images`` are allowed. Nothing of a dataset is executed: loading
scripts, pickles and archives that may contain them are refused. See ``docs/data.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from nas.core.names import first_line
from nas.tasks.base import SPLITS, SplitName, Task
from nas.tasks.base.columns import Columns, columns_of
from nas.tasks.base.file_task import FileTask, Placed
from nas.tasks.base.labels import BadLabel, check_label
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import Sample, Sources, shares_of
from nas.tasks.base.split_names import splits_by_name
from nas.tasks.base.tables import Row, check_row
from nas.tasks.base.task_file import TaskFile
from nas.tasks.text.classification import TextClassification, TextOptions
from nas.tasks.vision.images import PictureTask
from nas.tasks.vision.picture_reader import PictureOptions, PictureReader

# Builders that execute nothing of a dataset.
_BUILDERS = frozenset({"arrow", "csv", "imagefolder", "json", "parquet", "text"})
_FILES = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_SAVED = ("dataset_dict.json", "state.json")
_OWN_KEYS = ("dataset", "config", "revision", "splits", "label", "text", "image")
_SHARES = ("validation_share", "test_share")
_AT_A_TIME = 1000


class _RefusedError(ValueError):
    """A refusal of this module, as opposed to the library's."""


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset by its name on the hub or by its ``path``."""

    name: str
    path: Path | None
    config: str | None = None
    revision: str | None = None

    def splits(self) -> Mapping[str, Any]:
        """Return its splits by their own names, mapped from disk.

        Raises:
            ValueError: it cannot be loaded, or is not safe to read.
        """
        return _load(self)

    def files(self) -> list[Path]:
        """List the files of its rows."""
        if self.path is not None:
            if self.path.is_dir():
                return sorted(path for path in self.path.rglob("*") if path.is_file())
            return [self.path]
        files = {
            Path(file["filename"])
            for split in self.splits().values()
            for file in split.cache_files
        }
        return sorted(files)


def hf_task(file: TaskFile) -> Task:
    """Make the task that a user's file of kind ``hf`` describes.

    Raises:
        ValueError: a key is missing, unknown, or its value is not allowed; or the dataset cannot
            be read.
    """
    is_image = "image" in file.options
    options_type: type[PictureOptions | TextOptions] = PictureOptions if is_image else TextOptions
    own = [field.name for field in fields(options_type)]
    further = own if is_image else ("separator", *own)
    file.check_keys(allowed=("name", *_OWN_KEYS, *_SHARES, *further), required=("name", "dataset"))
    if is_image and "text" in file.options:
        raise ValueError("must have text or image, got both")
    for key in ("dataset", "config", "revision", "image"):
        value = file.options.get(key)
        if key in file.options and not (isinstance(value, str) and value):
            raise ValueError(f"{key} must be a name, got {value!r}")
    columns = columns_of(file, ("image" if is_image else "text", "label"))
    options = file.read_options(options_type)
    shares = shares_of(file)
    # The dataset is read after all checks that do not need it.
    dataset = _located(file)
    splits = _splits(file, dataset)
    unread = [str(name) for name in dataset.splits() if name not in splits.values()]
    notes = (
        (f"not read: the splits {', '.join(unread)} of dataset {dataset.name}",) if unread else ()
    )
    _check_columns(dataset, splits, columns)
    sources = Sources(splits, *shares, notes=notes, columns=columns)
    make = HubPictures if is_image else HubTexts
    return make(file.options["name"], sources, options, dataset)


AnyRow = TypeVar("AnyRow", bound=Placed)


class _HubTask(FileTask[AnyRow]):
    """A ``FileTask`` whose sources are splits of a dataset."""

    # Its files are large, and changed by no editor.
    by_content = False

    def __init__(self, name: str, sources: Sources, options: Any, dataset: HubDataset) -> None:
        """Read nothing yet."""
        super().__init__(name, sources, options)
        self.dataset = dataset

    def files(self) -> list[Path]:
        """See ``FileTask.files``."""
        return self.dataset.files()

    def cache_fields(self) -> dict[str, Any]:
        """See ``FileTask.cache_fields``."""
        return {**super().cache_fields(), "dataset": str(self.dataset)}


class HubTexts(_HubTask[Row], TextClassification):
    """Texts and labels of columns of a dataset."""

    def rows(self, source: str, problems: Problems) -> Iterator[Row]:
        """See ``RowTask.rows``."""
        place = f"{self.dataset.name}, {source}"
        n_rows = 0
        for place, text, label in _cells(self.dataset, source, self.sources.columns):
            n_rows += 1
            try:
                yield check_row(place, text, label)
            except ValueError as error:
                problems.add(f"{place} {error}")
        if n_rows == 0:
            problems.add(f"{self.dataset.name}, {source} must have rows, and has none")


class HubPictures(_HubTask[Sample], PictureTask):
    """Pictures and labels of two columns of a dataset."""

    def rows(self, source: str, problems: Problems) -> Iterator[Sample]:
        """See ``ArrayTask.rows``."""
        from datasets import Image

        (column,) = self.sources.columns.texts
        pictures = self.dataset.splits()[source].select_columns([column])
        if isinstance(pictures.features[column], Image):
            pictures = pictures.cast_column(column, Image(decode=False))
        labels = Columns(self.sources.columns.label, self.sources.columns.label)
        for row, (place, _, label) in enumerate(_cells(self.dataset, source, labels)):
            parsed = check_label(label)
            if isinstance(parsed, BadLabel):
                problems.add(f"{place} {parsed.why}")
                continue
            read = partial(_picture, pictures, row, self.dataset, self.reader)
            yield Sample(place, parsed, read)


def _picture(rows: Any, row: int, dataset: HubDataset, reader: PictureReader) -> NDArray[Any]:
    (image,) = rows[row].values()
    named = image.get("path") if isinstance(image, Mapping) else None
    if not isinstance(named, str) or image.get("bytes") is not None:
        return reader.read_cell(image)
    path = Path(named).resolve()
    # A row must not name any file of this machine.
    if dataset.path is None or not path.is_relative_to(dataset.path):
        raise ValueError("must hold the bytes of a picture, or name a file of the dataset")
    return reader.read_file(path)


def _cells(dataset: HubDataset, split: str, columns: Columns) -> Iterator[tuple[str, Any, Any]]:
    """Yield place, input and label of each row; a class by its name, if it has one."""
    from datasets import ClassLabel

    rows = dataset.splits()[split].select_columns(list(columns.names))
    feature = rows.features[columns.label]
    names = feature.names if isinstance(feature, ClassLabel) else None
    row = 0
    for batch in rows.iter(batch_size=_AT_A_TIME):
        for values in zip(*(batch[name] for name in columns.names), strict=True):
            value, label = columns.cells_of(dict(zip(columns.names, values, strict=True)))
            if names is not None:
                # -1 is a label that was not published.
                is_known = isinstance(label, int) and 0 <= label < len(names)
                label = names[label] if is_known else None
            yield f"{dataset.name}, {split} row {row},", value, label
            row += 1


def _located(file: TaskFile) -> HubDataset:
    options = file.options
    name = options["dataset"]
    path = file.data_path("dataset")
    config, revision = options.get("config"), options.get("revision")
    if not path.exists():
        looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1
        if looks_local or Path(name).suffix in _FILES:
            raise ValueError(f"dataset {path} must exist, and does not")
        return HubDataset(name, None, config, revision)
    if revision is not None:
        raise ValueError("revision must be left out for a dataset on disk")
    return HubDataset(name, path, config)


def _splits(file: TaskFile, dataset: HubDataset) -> dict[SplitName, str]:
    """Return the dataset's split for each of ours that it or the task file has."""
    theirs = dataset.splits()
    wanted = file.options.get("splits")
    splits: dict[SplitName, Any]
    if wanted is None:
        splits = dict(
            splits_by_name(
                {str(name): str(name) for name in theirs},
                f"dataset {dataset.name}",
                how="splits: {{{split}: ...}}",
            )
        )
        if "train" not in splits and len(theirs) == 1:
            (splits["train"],) = theirs
    else:
        if not isinstance(wanted, Mapping) or not wanted.keys() <= set(SPLITS):
            raise ValueError(
                f"splits must say, for some of {', '.join(SPLITS)}, a split of the dataset, got "
                f"{wanted!r}"
            )
        splits = dict(wanted)
    for split, name in splits.items():
        if not isinstance(name, str) or name not in theirs:
            raise ValueError(
                f"splits: {split} must be one of {', '.join(map(str, theirs))}, got {name!r}"
            )
    if "train" not in splits:
        raise ValueError(
            f"splits must say which of {', '.join(map(str, theirs))} is the training split"
        )
    return splits


def _check_columns(dataset: HubDataset, splits: Mapping[SplitName, str], columns: Columns) -> None:
    for theirs in splits.values():
        names = dataset.splits()[theirs].column_names
        for column in columns.names:
            if column not in names:
                raise ValueError(
                    f"{dataset.name}, {theirs}, must have a column {column!r}, got "
                    f"{', '.join(names)}"
                )


@lru_cache(maxsize=4)
def _load(dataset: HubDataset) -> Mapping[str, Any]:
    # Before the first import of the library, which reads it then.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import datasets
    except ImportError:
        raise ValueError("kind hf needs: pip install 'joulenas[hf]'") from None
    datasets.disable_progress_bars()
    try:
        loaded = _read(dataset)
    except _RefusedError:
        raise
    except ConnectionError:
        raise ValueError(
            f"dataset {dataset.name!r} must be on this machine or within reach: the hub cannot be "
            f"reached (a folder on disk by its path, or HF_HUB_OFFLINE=1 for what was loaded "
            f"before, needs no network)"
        ) from None
    except Exception as error:
        # The library has many error types of its own and of those that it builds on.
        raise ValueError(
            f"dataset {dataset.name!r} must be one that can be read: {first_line(error)}"
        ) from None
    if isinstance(loaded, datasets.Dataset):
        return {str(loaded.split or "train"): loaded}
    return dict(loaded)


def _read(dataset: HubDataset) -> Any:
    import datasets

    path = dataset.path
    if path is not None and any((path / name).is_file() for name in _SAVED):
        return datasets.load_from_disk(str(path))
    options: dict[str, Any] = {}
    source = dataset.name if path is None else str(path)
    if path is not None and path.is_file():
        if path.suffix.lower() not in _FILES:
            raise _RefusedError(
                f"dataset must be a folder or end in {', '.join(_FILES)}, got {dataset.name!r}"
            )
        source, options["data_files"] = _FILES[path.suffix.lower()], {"train": str(path)}
        if path.suffix.lower() == ".tsv":
            options["sep"] = "\t"
    if dataset.revision is not None:
        options["revision"] = dataset.revision
    builder = datasets.load_dataset_builder(source, dataset.config, **options)
    kind = type(builder).__module__.split(".")
    if kind[:2] != ["datasets", "packaged_modules"] or kind[2] not in _BUILDERS:
        raise _RefusedError(
            f"dataset {dataset.name!r} must consist of {', '.join(sorted(_BUILDERS))} files, "
            f"got {kind[-1]}"
        )
    builder.download_and_prepare()
    return builder.as_dataset()
