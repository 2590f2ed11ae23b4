"""Decode one untrusted picture: known formats only, and a limit of pixels.

Shape legend: C channels, H height, W width.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from nas.tasks.base.limits import check_size

# None of these formats executes anything: Pillow passes PostScript to another program.
_WANTED = (
    *("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "DIB", "DDS"),
    *("ICO", "PCX", "QOI", "SGI", "TGA"),
)
Image.init()
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)
if not features.check("avif"):
    FORMATS = tuple(name for name in FORMATS if name != "AVIF")
SUFFIXES = frozenset(
    ending for ending, name in Image.registered_extensions().items() if name in FORMATS
)
MAX_PIXELS = 64_000_000
MAX_BYTES = 256_000_000
# The tag of a picture's orientation in EXIF, and its values for pictures that lie on their side.
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)
# Larger pictures take a gigabyte while they are read: one is open at a time.
_LARGE_PIXELS = 8_000_000
_LARGE_LOCK = threading.Lock()

Size = tuple[int, int]
Pixels = TypeVar("Pixels")


def read_bytes(path: Path) -> bytes:
    """Read a file that may be a picture.

    Raises:
        ValueError: it cannot be read, is empty or too large.
    """
    try:
        check_size(path.stat().st_size, MAX_BYTES)
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"must be readable: {error.strerror}") from None


def opened(raw: bytes, read: Callable[[Image.Image], Pixels]) -> Pixels:
    """Return ``read`` of the picture in ``raw``, or of its first frame.

    Raises:
        ValueError: it is damaged, in none of ``FORMATS``, or has too many pixels.
    """
    with warnings.catch_warnings():
        # The limit here is below Pillow's own, at which it only warns.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # Of invalid tags and sizes: those that matter raise an error.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        try:
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                n_pixels = image.width * image.height
                if n_pixels > MAX_PIXELS:
                    raise ValueError(
                        f"must have at most {MAX_PIXELS} pixels, got {image.width}x{image.height}"
                    )
                with _LARGE_LOCK if n_pixels > _LARGE_PIXELS else nullcontext():
                    return read(image)
        except Image.DecompressionBombError:
            raise ValueError(f"must have at most {MAX_PIXELS} pixels") from None
        except UnidentifiedImageError:
            raise ValueError(f"must be a picture ({', '.join(FORMATS)})") from None
        except (OSError, SyntaxError, EOFError, IndexError, MemoryError) as error:
            # Damaged files.
            raise ValueError(f"must be a whole picture: {error}") from None


def upright_size(raw: bytes) -> Size:
    """Return the height and width of the picture in ``raw``, upright, from its header.

    Raises:
        ValueError: as ``opened``.
    """

    def read(image: Image.Image) -> Size:
        is_turned = image.getexif().get(_ORIENTATION) in _TURNED
        return (image.width, image.height) if is_turned else (image.height, image.width)

    return opened(raw, read)


def decode_mask(raw: bytes, size: Size | None) -> NDArray[np.int64]:
    """Read the class of each pixel, ``(H, W)``: grey values, or indices of a palette.

    The mask is resized by the nearest pixel. Values of 16 and 32 bits are not scaled.

    Raises:
        ValueError: as ``opened``, or it has colours or fractions.
    """

    def read(image: Image.Image) -> NDArray[np.int64]:
        image = ImageOps.exif_transpose(image)
        if image.mode not in ("1", "L", "P", "I", "F") and not image.mode.startswith("I;16"):
            raise ValueError(f"must be grey or have a palette of classes, got mode {image.mode}")
        values = np.asarray(image)
        if size is not None:
            values = _nearest(values, size)
        if values.dtype.kind == "f" and not (np.isfinite(values) & (values % 1 == 0)).all():
            raise ValueError("must hold whole numbers, got others")
        return values.astype(np.int64)

    return opened(raw, read)


def _nearest(values_HW: NDArray[Any], size: Size) -> NDArray[Any]:
    """Value at the centre of each new pixel, as in Pillow; of any type."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, values_HW.shape, strict=True)
    )
    nearest: NDArray[Any] = values_HW[rows][:, columns]
    return nearest


def resized(values_CHW: NDArray[np.generic], size: Size) -> NDArray[np.generic]:
    """Resize values, of any type, by bilinear interpolation; smaller sizes are smoothed."""
    if values_CHW.shape[1:] == size:
        return values_CHW
    height, width = size
    planes = [
        np.asarray(
            Image.fromarray(plane.astype(np.float32)).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for plane in values_CHW
    ]
    values = np.stack(planes)
    return (np.rint(values) if values_CHW.dtype.kind in "iu" else values).astype(values_CHW.dtype)
