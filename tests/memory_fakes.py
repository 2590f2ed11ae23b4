"""Hostile files: a bound on memory, an error in one line, and heads of arrays that lie."""

import io
import tracemalloc
from contextlib import contextmanager

import numpy as np

MOST = 64_000_000


@contextmanager
def little_memory(most=MOST):
    """Fail if Python's allocators are asked for more than ``most`` bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


def head(shape, dtype="<f8"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()
