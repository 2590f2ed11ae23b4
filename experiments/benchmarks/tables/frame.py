"""A user's table of measured candidates, as CSV or Parquet, with every cell filled."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd


def read_frame(path: Path) -> pd.DataFrame:
    """The table in a file; by its ending Parquet, else CSV.

    In a CSV only an empty cell has no value: ``None`` or ``NA`` is a value like any other text.

    Raises:
        ValueError: the file cannot be read as such, or has no row.
        OSError: there is no such file.
    """
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            data = pd.read_parquet(path)
        else:
            data = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except ImportError:
        raise ValueError(f"table {path} needs pyarrow to be read: pip install pyarrow") from None
    except ValueError as error:
        cause = (str(error).strip().splitlines() or ["it cannot be read"])[0]
        raise ValueError(f"table {path} must be a CSV or Parquet table: {cause}") from None
    if not len(data):
        raise ValueError(f"table {path} must have rows, got none")
    return data.rename(columns=str)


def check_columns(data: pd.DataFrame, names: Iterable[str | None]) -> None:
    """Raise ``ValueError`` where a column is named that ``data`` lacks."""
    for name in names:
        if name is not None and name not in data:
            raise ValueError(
                f"column must be one of {', '.join(map(str, data.columns))}, got {name!r}"
            )


def check_filled(path: Path, data: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise ``ValueError`` where a cell of the columns ``names`` is empty or infinite."""
    for name in names:
        empty = data[name].isna().to_numpy()
        if empty.any():
            raise ValueError(
                f"table {path} must have a value in every row of {name!r}, got none in row "
                f"{int(empty.argmax()) + 1}"
            )
        if pd.api.types.is_numeric_dtype(data[name]):
            check_numbers(path, data, (name,))


def check_numbers(path: Path, data: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise ``ValueError`` where a cell of the columns ``names`` is no finite number."""
    for name in names:
        numbers = pd.to_numeric(data[name], errors="coerce").astype(float)
        wrong = ~numbers.abs().lt(float("inf")).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            value = data[name].iloc[row]
            # As people write it, and not as NumPy does.
            got = (
                "none" if pd.isna(value) else repr(value) if isinstance(value, str) else str(value)
            )
            raise ValueError(
                f"table {path} must have a finite number in every row of {name!r}, got {got} in "
                f"row {row + 1}"
            )
