"""``--storage``: a database for the study, storage for files, or one of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from nas.store.run import Run


def add_storage(parser: Any, help_text: str) -> None:
    """Add ``--storage`` to a verb."""
    parser.add_argument("--storage", action="append", metavar="URL", help=help_text)


def add_run(parser: Any, *, is_optional: bool = False) -> None:
    """Add the run folder and its ``--storage`` to a verb that reads a run."""
    parser.add_argument("run", nargs="?" if is_optional else None, help="run folder")
    add_storage(
        parser,
        "where the run's study or files are; required for a database, because a run folder "
        "alone must not decide where your password is sent",
    )


def loaded(arguments: argparse.Namespace) -> Run:
    """Load the run that a verb reads, from the storage that ``--storage`` names.

    Joules are those of the device that ``--device`` names, for a verb with ``add_device_name``.

    Raises:
        ValueError: the folder is not a run, or the run has no such storage or device.
    """
    from nas.store.run_file import load

    return on_device(
        load(arguments.run, **storage_of(arguments.storage)), getattr(arguments, "device", None)
    )


def on_device(run: Run, name: str | None) -> Run:
    """Return ``run`` with the joules of the device called ``name``; unchanged if ``None``.

    Raises:
        ValueError: the run has no such device.
    """
    return run if name is None else run.on(name)


def loaded_pair(runs: Sequence[str], urls: Sequence[str] | None) -> list[Run]:
    """Load two runs, each from its own storage; one storage may serve both.

    Raises:
        ValueError: a folder is not a run, or the run does not use such storage.
    """
    from nas.store.run_file import load

    places = [storage_of([url]) for url in urls or ()]
    if len(places) > len(runs):
        raise ValueError(f"storage must be given once or twice, got {len(places)} times")
    if len(places) != 1:
        return [load(run, **(places[i] if places else {})) for i, run in enumerate(runs)]
    ((field, _),) = places[0].items()
    # One of the two runs may be stored in its folder.
    pair = [load(run) for run in runs]
    has_storage = [getattr(run.config, field) is not None for run in pair]
    if not any(has_storage):
        return [load(run, **places[0]) for run in runs]
    return [
        load(run.folder, **places[0]) if elsewhere else run
        for run, elsewhere in zip(pair, has_storage, strict=True)
    ]


def storage_of(urls: Sequence[str] | None) -> dict[str, str]:
    """Return the fields of ``SearchConfig`` to set: ``storage``, ``files_at`` or both.

    A folder or an object store holds files; anything else is a database.

    Raises:
        ValueError: there are two of one kind, or an address contains a credential.
    """
    from nas.core.files import is_place, place_at
    from nas.store.storage_url import shown

    fields: dict[str, str] = {}
    for url in urls or ():
        field, value = "storage", url
        if is_place(url):
            field = "files_at"
            # Absolute: workers and a resumed search may run in another folder.
            value = url if "://" in url else str(Path(url).expanduser().resolve())
            place_at(value)
        if field in fields:
            both = (fields[field], value)
            what, (first, second) = "a place for files", both
            if field == "storage":
                what, (first, second) = "a database for the study", map(shown, both)
            raise ValueError(f"storage may name {what} once, got {first} and {second}")
        fields[field] = value
    if "storage" in fields:
        # Allow this server before a run that uses it is opened.
        from nas.store.storage_host import name_storage

        name_storage(fields["storage"])
    return fields
