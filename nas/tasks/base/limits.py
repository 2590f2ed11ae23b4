"""Limits of what a data file may claim to contain, by its own length."""

from __future__ import annotations

from typing import Any

# No larger array fits a machine.
MAX_BYTES = 16_000_000_000
# A text takes several times as much memory as its file.
MAX_TEXT_BYTES = 4_000_000_000
# Any file may unpack to so much; beyond it, by this ratio. Real data pack by 2 to 30.
_ALWAYS_BYTES = 256_000_000
_MOST_RATIO = 100
# Any file may have so many rows: a table of equal values takes hardly any bytes.
_ALWAYS_ROWS = 1_000_000


def check_unpacked(claimed_bytes: int, packed_bytes: int) -> None:
    """Check the size that ``packed_bytes`` of a file claim to unpack to.

    Raises:
        ValueError: data of no kind pack so well.
    """
    most = min(MAX_BYTES, max(_ALWAYS_BYTES, _MOST_RATIO * packed_bytes))
    if claimed_bytes > most:
        raise ValueError(
            f"must unpack to at most {most:,} bytes, as {packed_bytes:,} packed ones may, and "
            f"claims {claimed_bytes:,}"
        )


def check_size(n_bytes: int, most: int) -> None:
    """Raise ``ValueError`` unless a file has 1 to ``most`` bytes."""
    if not 0 < n_bytes <= most:
        raise ValueError(f"must have 1 to {most:,} bytes, got {n_bytes:,}")


def check_rows(n_rows: int, n_bytes: int) -> None:
    """Raise ``ValueError`` if a file of ``n_bytes`` claims too many samples."""
    most = max(_ALWAYS_ROWS, n_bytes)
    if n_rows > most:
        raise ValueError(f"must have at most {most:,} rows, and claims {n_rows:,}")


def check_parquet(metadata: Any, n_bytes: int) -> None:
    """Check the ``metadata`` of a Parquet file of ``n_bytes``.

    Raises:
        ValueError: it claims too many bytes or rows.
    """
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    check_unpacked(sum(group.total_byte_size for group in groups), n_bytes)
    check_rows(metadata.num_rows, n_bytes)
