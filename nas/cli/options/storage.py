"""``--storage``: a database for the study, a place for files, or one of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from nas.store.run import Run


def add_storage(parser: Any, help_text: str) -> None:
    """``--storage``, of verbs that search."""
    parser.add_argument("--storage", action="append", metavar="URL", help=help_text)


def add_run_storage(parser: Any) -> None:
    """``--storage``, of verbs that read a run."""
    add_storage(
        parser,
        "where the run's study or files are now; a database that only the run folder names is "
        "not connected to, since it would be sent your password",
    )


def loaded(arguments: argparse.Namespace, run: str | Path | None = None) -> Run:
    """The run that a verb reads, from where ``--storage`` says.

    Raises:
        ValueError: it is no run, or keeps nothing in such storage.
    """
    from nas.store.run import load

    return load(run or arguments.run, **storage_of(arguments.storage))


def loaded_pair(runs: Sequence[str], given: Sequence[str] | None) -> list[Run]:
    """Two runs, each from where its place in ``given`` says; one place is for both.

    Raises:
        ValueError: one is no run, or keeps nothing in such storage.
    """
    from nas.store.run import load

    places = [storage_of([text]) for text in given or ()]
    if len(places) > len(runs):
        raise ValueError(f"storage must be given once or twice, got {len(places)} times")
    if len(places) != 1:
        return [load(run, **(places[i] if places else {})) for i, run in enumerate(runs)]
    ((field, _),) = places[0].items()
    # One of the two may be in its folder.
    read = [load(run) for run in runs]
    stored = [getattr(run.config, field) is not None for run in read]
    if not any(stored):
        return [load(run, **places[0]) for run in runs]
    return [
        load(run.folder, **places[0]) if elsewhere else run
        for run, elsewhere in zip(read, stored, strict=True)
    ]


def storage_of(given: Sequence[str] | None) -> dict[str, str]:
    """The fields of a ``SearchConfig`` that ``given`` sets: ``storage``, ``files_at`` or both.

    What names a folder or an object store is a place for files, all else a database.

    Raises:
        ValueError: there are two of a kind, or a place has a credential in it.
    """
    from nas.core.files import is_place, place_at
    from nas.store.storage_url import shown

    found: dict[str, str] = {}
    for text in given or ():
        kind, value = "storage", text
        if is_place(text):
            kind = "files_at"
            # Whole, so that workers and a resumed search find a folder from anywhere.
            value = text if "://" in text else str(Path(text).expanduser().resolve())
            place_at(value)
        if kind in found:
            both = (found[kind], value)
            what, (first, second) = "a place for files", both
            if kind == "storage":
                what, (first, second) = "a database for the study", map(shown, both)
            raise ValueError(f"storage may name {what} once, got {first} and {second}")
        found[kind] = value
    if "storage" in found:
        # Before any run is opened that leads to the same server.
        from nas.store.storage_host import name_storage

        name_storage(found["storage"])
    return found
