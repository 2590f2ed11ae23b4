"""Read columns of untrusted Parquet files, batch by batch.

A value that is written once and referred to by a million rows takes hardly any bytes in the file,
and all of memory once it is unpacked. So batches are short, and their unpacked bytes are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nas.core.names import first_line
from nas.tasks.base.limits import check_parquet, check_unpacked

# Rows of a batch at most, and bytes of one that its longest values may fill.
_MOST_ROWS, _BATCH_BYTES = 1024, 64_000_000


class ParquetTable:
    """The Parquet file at ``path``; ``names`` are its columns.

    Raises:
        ValueError: it cannot be read or claims too much; the message names it.
    """

    def __init__(self, path: Path) -> None:
        """Read and check the metadata, and no values."""
        import pyarrow
        import pyarrow.parquet

        self._path = path
        try:
            self._n_bytes = path.stat().st_size
            self._file = pyarrow.parquet.ParquetFile(path)
            names = list(self._file.schema_arrow.names)
        except (OSError, pyarrow.ArrowException) as error:
            raise self._refused(error) from None
        try:
            check_parquet(self._file.metadata, self._n_bytes)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from None
        self.names = names

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Yield record batches of ``columns``.

        Raises:
            ValueError: the file is damaged, or unpacks to too much.
        """
        import pyarrow

        unpacked = 0
        options = {"batch_size": self._batch_size(), "columns": list(columns)}
        try:
            for batch in self._file.iter_batches(**options):
                unpacked += batch.nbytes
                try:
                    check_unpacked(unpacked, self._n_bytes)
                except ValueError as error:
                    raise ValueError(f"{self._path} {error}") from None
                yield batch
        except (OSError, MemoryError, pyarrow.ArrowException) as error:
            raise self._refused(error) from None

    def lists(self, columns: Sequence[str]) -> Iterator[list[Any]]:
        """Yield the values of each row, in the order of ``columns``.

        Raises:
            ValueError: as ``batches``, or Python has no such value.
        """
        import pyarrow

        for batch in self.batches(columns):
            try:
                values = [batch.column(name).to_pylist() for name in columns]
            except (ValueError, OverflowError, pyarrow.ArrowException) as error:
                # Text that is not UTF-8, dates beyond year 9999.
                raise self._refused(error) from None
            yield from map(list, zip(*values, strict=True))

    def _batch_size(self) -> int:
        """Number of rows in a batch, if each has the longest value that the file may hold."""
        metadata = self._file.metadata
        longest = max(
            (
                metadata.row_group(group).column(column).total_uncompressed_size
                for group in range(metadata.num_row_groups)
                for column in range(metadata.num_columns)
            ),
            default=0,
        )
        return max(1, min(_MOST_ROWS, _BATCH_BYTES // max(1, longest)))

    def _refused(self, error: Exception) -> ValueError:
        if isinstance(error, OSError) and error.errno is not None:
            return ValueError(f"{self._path} must be readable: {error.strerror}")
        return ValueError(f"{self._path} must be a whole Parquet file: {first_line(error)}")
