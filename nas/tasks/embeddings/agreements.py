"""Agreement of a trial's network with the checkpoint, by every metric, for reports."""

from __future__ import annotations

from dataclasses import dataclass

from nas.core.files import Place, read_json, write_json
from nas.core.plain import from_plain, to_plain

AGREEMENTS = "agreements.json"


@dataclass(frozen=True, slots=True)
class AgreementOf:
    """The value of a metric, by its key, on the validation split, with its standard error."""

    metric: str
    value: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Agreements:
    """The agreement by every metric."""

    scores: tuple[AgreementOf, ...]


def save_agreements(folder: Place, agreements: Agreements) -> None:
    """Write ``agreements`` into a trial's ``folder``."""
    write_json(folder / AGREEMENTS, to_plain(agreements))


def agreements_in(folder: Place) -> tuple[AgreementOf, ...]:
    """Return the agreements in a trial's ``folder``, empty if there are none.

    Raises:
        ValueError: the file is invalid.
    """
    path = folder / AGREEMENTS
    if not path.is_file():
        return ()
    return from_plain(Agreements, read_json(path), str(path)).scores
