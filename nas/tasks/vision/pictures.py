"""One picture from a file's bytes, safely: known formats only, and never more pixels than stated.

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

# No format among them runs anything: Pillow hands PostScript, for one, to another program. Those
# that this Pillow was built without are left out.
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
# A few bytes may claim to be a picture that fills the memory.
MAX_PIXELS = 64_000_000
MAX_BYTES = 256_000_000
# Of larger ones, which take a gigabyte while they are read, one is open at a time.
_LARGE_PIXELS = 8_000_000
_LARGE_LOCK = threading.Lock()

Size = tuple[int, int]
Pixels = TypeVar("Pixels")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that may be a picture.

    Raises:
        ValueError: it cannot be read, is empty or too large.
    """
    try:
        check_size(path.stat().st_size, MAX_BYTES)
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"must be readable: {error.strerror}") from None


def opened(raw: bytes, read: Callable[[Image.Image], Pixels]) -> Pixels:
    """What ``read`` makes of the picture in ``raw``, of several frames the first.

    Raises:
        ValueError: it is no picture in a format of ``FORMATS``, damaged, or has too many pixels.
    """
    with warnings.catch_warnings():
        # The limit here is below Pillow's own, at which it only warns.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        # Of tags and sizes in heads that are none: what matters of them is an error.
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
            # What Pillow's decoders raise for damaged files.
            raise ValueError(f"must be a whole picture: {error}") from None


def decode_mask(raw: bytes, size: Size | None) -> NDArray[np.int64]:
    """The class of each pixel, ``(H, W)``: values of a grey picture, or places in its palette.

    It is brought to ``size`` by the nearest pixel: between two classes there is none. Values of
    16 and 32 bits are read as they are.

    Raises:
        ValueError: as ``opened``, or it has colours or no whole numbers.
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
    """The value at the centre of each new pixel, as Pillow chooses it; of any type."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, values_HW.shape, strict=True)
    )
    found: NDArray[Any] = values_HW[rows][:, columns]
    return found


def resized(values_CHW: NDArray[np.generic], size: Size) -> NDArray[np.generic]:
    """Values in another size, smoothed where that is smaller; their type stays.

    Bilinear, over the area that a pixel covers where there are fewer of them than before.
    """
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
    found = np.stack(planes)
    if values_CHW.dtype.kind in "iu":
        found = np.rint(found)
    return found.astype(values_CHW.dtype)
