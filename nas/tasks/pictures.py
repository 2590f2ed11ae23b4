"""One picture from a file's bytes, safely: known formats only, and never more pixels than stated.

Shape legend: C channels, H height, W width.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

# No format among them runs anything: Pillow hands PostScript, for one, to another program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
# A few bytes may claim to be a picture that fills the memory.
MAX_PIXELS = 64_000_000
MAX_BYTES = 256_000_000

Size = tuple[int, int]
Pixels = TypeVar("Pixels")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that may be a picture.

    Raises:
        ValueError: it cannot be read, is empty or too large.
    """
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise ValueError(f"must have 1 to {MAX_BYTES} bytes, got {size}")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"must be readable: {error.strerror}") from None


def decode(raw: bytes, channels: int, size: Size | None) -> NDArray[np.uint8]:
    """The picture in ``raw`` as ``(C, H, W)``: upright, grey (1) or red, green and blue (3).

    It is brought to ``size``, ``(height, width)``, if there is one. Transparency is dropped, of
    several frames the first is taken, and 16 bits become 8.

    Raises:
        ValueError: it is no picture in a format of ``FORMATS``, damaged, or has too many pixels.
    """
    return _opened(raw, lambda image: _values(image, channels, size))


def _opened(raw: bytes, read: Callable[[Image.Image], Pixels]) -> Pixels:
    with warnings.catch_warnings():
        # The limit here is below Pillow's own, at which it only warns.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(
                        f"must have at most {MAX_PIXELS} pixels, got {image.width}x{image.height}"
                    )
                return read(ImageOps.exif_transpose(image))
        except Image.DecompressionBombError:
            raise ValueError(f"must have at most {MAX_PIXELS} pixels") from None
        except UnidentifiedImageError:
            raise ValueError(f"must be a picture ({', '.join(FORMATS)})") from None
        except (OSError, SyntaxError, EOFError, IndexError, MemoryError) as error:
            # What Pillow's decoders raise for damaged files.
            raise ValueError(f"must be a whole picture: {error}") from None


def decode_mask(raw: bytes, size: Size | None) -> NDArray[np.int64]:
    """The class of each pixel, ``(H, W)``: values of a grey picture, or places in its palette.

    It is brought to ``size`` by the nearest pixel: between two classes there is none.

    Raises:
        ValueError: as ``decode``, or it has colours.
    """

    def read(image: Image.Image) -> NDArray[np.int64]:
        if image.mode not in ("1", "L", "P"):
            raise ValueError(f"must be grey or have a palette of classes, got mode {image.mode}")
        if size is not None:
            image = image.resize((size[1], size[0]), Image.Resampling.NEAREST)
        return np.asarray(image).astype(np.int64)

    return _opened(raw, read)


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


def _values(image: Image.Image, channels: int, size: Size | None) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        # Pillow cuts such values off at 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"must have 8 or 16 bits a channel, got mode {image.mode}")
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    values = np.asarray(image)
    return values[None] if channels == 1 else values.transpose(2, 0, 1)
