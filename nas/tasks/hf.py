"""Datasets of the Hugging Face hub, or on disk in the forms of its library: texts or pictures.

A task is a YAML file::

    name: reviews
    kind: hf
    dataset: stanfordnlp/imdb   # a name on the hub, or a path, relative to the YAML file
    config: plain_text          # where a dataset has several
    revision: e6281661ce1c      # a commit or tag of the hub
    splits: {train: train, test: test}     # ours: theirs; by default those of the same names
    text: text                  # or image: image
    label: label

A path is a folder that ``save_to_disk`` wrote, a folder of CSV, JSON, Parquet or pictures, or one
such file. Splits that are not there are held out of the training split, as in other tasks. What
``text_classification`` and ``images`` take further (``sequence_length``, ``tokens``, ``size`` and
so on) may be said here. Nothing of a dataset is ever executed: loading scripts, pickles and
archives that may hold them are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nas.tasks.base import SPLITS, SplitName, Task
from nas.tasks.base.columns import Columns, columns_of
from nas.tasks.base.kept import key_of
from nas.tasks.base.labels import BadLabel, check_label
from nas.tasks.base.prepared import Prepared, PreparedClassification
from nas.tasks.base.problems import Problems
from nas.tasks.base.samples import Sample, Sources, shares_of
from nas.tasks.base.split_names import splits_by_name
from nas.tasks.base.tables import Row, check_row
from nas.tasks.base.task_file import TaskFile
from nas.tasks.text.classification import OPTION_KEYS, TextClassification, TextOptions, placed
from nas.tasks.vision.images import picture_options
from nas.tasks.vision.picture_reader import PICTURE_KEYS, PictureOptions, PictureReader
from nas.tasks.vision.pictures import read_bytes

# What reads a file without running anything of it.
_BUILDERS = frozenset({"arrow", "csv", "imagefolder", "json", "parquet", "text"})
_FILES = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_SAVED = ("dataset_dict.json", "state.json")
_OWN_KEYS = ("dataset", "config", "revision", "splits", "label", "text", "image")
_SHARES = ("validation_share", "test_share")
_AT_A_TIME = 1000


class _RefusedError(ValueError):
    """What this module says, apart from what the library does."""


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset by its name on the hub or by its ``path``."""

    name: str
    path: Path | None
    config: str | None = None
    revision: str | None = None

    def splits(self) -> Mapping[str, Any]:
        """Its splits by their own names, mapped from disk.

        Raises:
            ValueError: it cannot be had, or is none that is safe to read.
        """
        return _load(self)

    def files(self) -> list[Path]:
        """The files that its rows come from."""
        if self.path is not None:
            if self.path.is_dir():
                return sorted(path for path in self.path.rglob("*") if path.is_file())
            return [self.path]
        found = {
            Path(file["filename"])
            for split in self.splits().values()
            for file in split.cache_files
        }
        return sorted(found)


def hf_task(file: TaskFile) -> Task:
    """The task that a user's file of kind ``hf`` describes.

    Raises:
        ValueError: a key is missing, unknown, or its value not allowed; or the dataset cannot be
            had.
    """
    is_image = "image" in file.options
    further = PICTURE_KEYS if is_image else ("separator", *OPTION_KEYS)
    file.check_keys(allowed=("name", *_OWN_KEYS, *_SHARES, *further), required=("name", "dataset"))
    if is_image and "text" in file.options:
        raise ValueError("must have text or image, got both")
    for key in ("dataset", "config", "revision", "image"):
        value = file.options.get(key)
        if key in file.options and not (isinstance(value, str) and value):
            raise ValueError(f"{key} must be a name, got {value!r}")
    columns = columns_of(file, ("image" if is_image else "text", "label"))
    dataset = _located(file)
    given = _given(file, dataset)
    unread = [str(name) for name in dataset.splits() if name not in given.values()]
    notes = (
        (f"not read: the splits {', '.join(unread)} of dataset {dataset.name}",) if unread else ()
    )
    # After what can be said without the dataset.
    shares = shares_of(file)
    _check_columns(dataset, given, columns)
    if not is_image:
        source = HubTexts(dataset, Sources(given, *shares, notes=notes), columns)
        return TextClassification(file.options["name"], source, TextOptions.from_file(file))
    options = PictureOptions(**picture_options(file, PICTURE_KEYS))
    reader = PictureReader(options)
    prepared = Prepared(
        Sources(given, *shares, notes=notes),
        {**asdict(options), "dataset": str(dataset), "columns": list(columns)},
        partial(_image_samples, dataset=dataset, columns=columns, reader=reader),
        axis=0,
        what="images",
        files=dataset.files,
        reader=reader,
    )
    return PreparedClassification(file.options["name"], prepared)


@dataclass(frozen=True, slots=True)
class HubTexts:
    """A ``TextSource``: texts and labels of two columns of a dataset."""

    dataset: HubDataset
    sources: Sources
    columns: Columns

    def key(self, options: Mapping[str, Any], files: Sequence[Path]) -> str:
        """See ``TextSource``."""
        sources = self.sources
        shares = [sources.validation_share, sources.test_share]
        what = {
            **options,
            "dataset": str(self.dataset),
            "given": dict(sources.given),
            "shares": shares,
            "columns": list(self.columns),
        }
        return key_of(what, [*self.dataset.files(), *files])

    def rows(self, problems: Problems) -> dict[SplitName, list[Row]]:
        """See ``TextSource``."""
        given: dict[SplitName, list[Row]] = {}
        for split, theirs in self.sources.given.items():
            where = f"{self.dataset.name}, {theirs}"
            given[split] = [
                row
                for number, text, label in _pairs(self.dataset, theirs, self.columns)
                for row in check_row(where, f" row {number},", text, label, problems)
            ]
            if not given[split]:
                problems.add(f"{where} must have rows, and has none")
        return placed(given, self.sources)


def _image_samples(
    theirs: str,
    problems: Problems,
    *,
    dataset: HubDataset,
    columns: Columns,
    reader: PictureReader,
) -> list[Sample]:
    from datasets import Image

    found = []
    (column,) = columns.texts
    rows = dataset.splits()[theirs].select_columns([column])
    if isinstance(rows.features[column], Image):
        rows = rows.cast_column(column, Image(decode=False))
    labels = Columns(columns.label, columns.label)
    for number, _, label in _pairs(dataset, theirs, labels):
        where = f"{dataset.name}, {theirs} row {number},"
        checked = check_label(label)
        if isinstance(checked, BadLabel):
            problems.add(f"{where} {checked.why}")
            continue
        found.append(Sample(where, checked, partial(_picture, rows, number, dataset, reader)))
    return found


def _picture(rows: Any, number: int, dataset: HubDataset, reader: PictureReader) -> NDArray[Any]:
    (image,) = rows[number].values()
    raw = image.get("bytes") if isinstance(image, Mapping) else image
    if raw is None and isinstance(image, Mapping) and isinstance(image.get("path"), str):
        path = Path(image["path"]).resolve()
        # A row must not name any file of this machine.
        if dataset.path is None or not path.is_relative_to(dataset.path):
            raise ValueError("must hold the bytes of a picture, or name a file of the dataset")
        raw = read_bytes(path)
    if not isinstance(raw, bytes) or not raw:
        raise ValueError(f"must hold the bytes of a picture, got {type(raw).__name__}")
    return reader.read(raw)


def _pairs(dataset: HubDataset, theirs: str, columns: Columns) -> Iterator[tuple[int, Any, Any]]:
    """Row, input and label of each row; a class by its name, where the dataset has names."""
    from datasets import ClassLabel

    split = dataset.splits()[theirs].select_columns(list(columns.names))
    feature = split.features[columns.label]
    names = feature.names if isinstance(feature, ClassLabel) else None
    number = 0
    for batch in split.iter(batch_size=_AT_A_TIME):
        for values in zip(*(batch[name] for name in columns.names), strict=True):
            cells = dict(zip(columns.names, values, strict=True))
            value, label = columns.text_of(cells), cells[columns.label]
            if names is not None:
                # -1 stands for a label that was not published.
                known = isinstance(label, int) and 0 <= label < len(names)
                label = names[label] if known else None
            yield number, value, label
            number += 1


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


def _given(file: TaskFile, dataset: HubDataset) -> dict[SplitName, str]:
    """Their split for each of ours that the task file or the dataset has."""
    theirs = dataset.splits()
    asked = file.options.get("splits")
    given: dict[SplitName, Any]
    if asked is None:
        given = dict(
            splits_by_name(
                {str(name): str(name) for name in theirs},
                f"dataset {dataset.name}",
                how="splits: {{{split}: ...}}",
            )
        )
        if "train" not in given and len(theirs) == 1:
            (given["train"],) = theirs
    else:
        if not isinstance(asked, Mapping) or not asked.keys() <= set(SPLITS):
            raise ValueError(
                f"splits must say, for some of {', '.join(SPLITS)}, a split of the dataset, got "
                f"{asked!r}"
            )
        given = dict(asked)
    for split, name in given.items():
        if not isinstance(name, str) or name not in theirs:
            raise ValueError(
                f"splits: {split} must be one of {', '.join(map(str, theirs))}, got {name!r}"
            )
    if "train" not in given:
        raise ValueError(
            f"splits must say which of {', '.join(map(str, theirs))} is the training split"
        )
    return given


def _check_columns(dataset: HubDataset, given: Mapping[SplitName, str], columns: Columns) -> None:
    for theirs in given.values():
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
        found = _read(dataset)
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
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"dataset {dataset.name!r} must be one that can be read: {line}"
        ) from None
    if isinstance(found, datasets.Dataset):
        return {str(found.split or "train"): found}
    return dict(found)


def _read(dataset: HubDataset) -> Any:
    import datasets

    path = dataset.path
    if path is not None and any((path / name).is_file() for name in _SAVED):
        return datasets.load_from_disk(str(path))
    options: dict[str, Any] = {}
    asked = dataset.name if path is None else str(path)
    if path is not None and path.is_file():
        if path.suffix.lower() not in _FILES:
            raise _RefusedError(
                f"dataset must be a folder or end in {', '.join(_FILES)}, got {dataset.name!r}"
            )
        asked, options["data_files"] = _FILES[path.suffix.lower()], {"train": str(path)}
        if path.suffix.lower() == ".tsv":
            options["sep"] = "\t"
    if dataset.revision is not None:
        options["revision"] = dataset.revision
    builder = datasets.load_dataset_builder(asked, dataset.config, **options)
    kind = type(builder).__module__.split(".")
    if kind[:2] != ["datasets", "packaged_modules"] or kind[2] not in _BUILDERS:
        raise _RefusedError(
            f"dataset {dataset.name!r} must consist of {', '.join(sorted(_BUILDERS))} files, "
            f"got {kind[-1]}"
        )
    builder.download_and_prepare()
    return builder.as_dataset()
