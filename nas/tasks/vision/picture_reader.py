"""Read pictures of any depth, with or without transparency, as values of one scale.

Values are those of 8 bits, 0 to 255. 16 bits become fractions of that scale, so that all levels
remain. 32-bit integers and floats keep their own scale. Transparent pixels show a ground.

Shape legend: C channels, H height, W width.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nas.tasks.base.array_task import Reader
from nas.tasks.vision.pictures import Size, opened, read_bytes, resized

# Grounds to choose from where the task file names none; of equals the first wins.
GROUNDS: Mapping[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
}
LEVELS = ("full", "percentile")
# Percentiles that `levels: percentile` maps to black and white.
_PERCENTILES = (1.0, 99.0)
# Ratio of 16-bit values to 8-bit ones.
_PER_LEVEL = 257
_FULL_8 = 255
# Formats of 16 bits that Pillow reads as 32 bits.
_OF_16_BITS = ("PPM", "PNG", "JPEG2000")
# A picture with no more levels than this is blank.
_BLANK_LEVELS = 8
_MOST_SURVEYED = 64
_MAX_SIDE = 4096
# How lines about blank pictures begin.
_BLANK = "blank: "


@dataclass(frozen=True, slots=True)
class PictureOptions:
    """Options of pictures in a task file; ``size`` is in pixels, one number or height and width.

    ``ground`` is the colour behind transparent pixels, a name of ``GROUNDS`` or red, green and
    blue; ``None`` chooses. ``levels`` of ``full`` keeps the range of the file's format,
    ``percentile`` stretches each picture between its 1st and 99th percentile.

    Raises:
        ValueError: a field is not allowed.
    """

    size: Size | None = None
    channels: int = 3
    ground: str | tuple[int, ...] | None = None
    levels: str = "full"

    def __post_init__(self) -> None:
        if self.size is not None:
            object.__setattr__(self, "size", parse_size(self.size))
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colours), got {self.channels!r}")
        if self.levels not in LEVELS:
            raise ValueError(f"levels must be {' or '.join(LEVELS)}, got {self.levels!r}")
        if self.ground is not None:
            object.__setattr__(self, "ground", parse_ground(self.ground))


def parse_size(value: object) -> Size:
    """``(height, width)`` from a number of pixels or a pair of them; ``ValueError`` if neither."""
    pair: Any = value if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2 or not all(type(side) is int and 1 <= side <= _MAX_SIDE for side in pair):
        raise ValueError(
            f"size must be pixels in 1..{_MAX_SIDE} or [height, width] of them, got {value!r}"
        )
    return int(pair[0]), int(pair[1])


def parse_ground(value: object) -> str | tuple[int, ...]:
    """A ground's name, or its red, green and blue; ``ValueError`` if neither."""
    if isinstance(value, str) and value in GROUNDS:
        return value
    levels = [value] * 3 if type(value) is int else value
    if (
        isinstance(levels, list | tuple)
        and len(levels) == 3
        and all(type(level) is int and 0 <= level <= _FULL_8 for level in levels)
    ):
        return tuple(levels)
    raise ValueError(
        f"ground must be {', '.join(GROUNDS)}, a grey level in 0..{_FULL_8} or "
        f"[red, green, blue] of such, got {value!r}"
    )


class PictureReader(Reader):
    """Reads pictures by ``options`` and counts what is worth a line."""

    def __init__(self, options: PictureOptions) -> None:
        """Use the ground of ``options``, or white until ``settle`` chooses."""
        self.options = options
        self.ground = options.ground or "white"
        self._lock, self._surveys = threading.Lock(), False
        self._counts: Counter[str] = Counter()

    def read(self, raw: bytes) -> NDArray[Any]:
        """Read the picture in ``raw`` as ``(C, H, W)``, upright, 8-bit values or float32.

        Raises:
            ValueError: as ``opened``.
        """
        return opened(raw, self._values)

    def read_file(self, path: Path) -> NDArray[Any]:
        """Read the picture at ``path``; see ``read``."""
        return self.read(read_bytes(path))

    def read_cell(self, value: Any) -> NDArray[Any]:
        """Read the picture of a table's cell: bytes, or a struct of bytes and a path.

        Raises:
            ValueError: as ``read``, or the cell has no bytes.
        """
        # The struct is how Hugging Face's datasets store pictures.
        raw = value.get("bytes") if isinstance(value, Mapping) else value
        if not isinstance(raw, bytes) or not raw:
            raise ValueError(f"must hold the bytes of a picture, got {type(raw).__name__}")
        return self.read(raw)

    def settle(self, reads: Iterable[Callable[[], Any]]) -> None:
        """Choose the ground on which the fewest of some transparent pictures are blank.

        A ground that the task file names stays.
        """
        if self.options.ground is None:
            self._surveys = True
            every = list(reads)
            for read in every[:: max(1, len(every) // _MOST_SURVEYED)][:_MOST_SURVEYED]:
                # Errors are reported when all are read.
                with suppress(ValueError):
                    read()
            # Names in order, so that the first of equals wins.
            self.ground = min(GROUNDS, key=lambda name: self._counts[f"blank on {name}"])
            self._surveys = False
        self._counts.clear()

    def about(self) -> dict[str, Any]:
        """The ground and the counts, as plain data."""
        ground = self.ground if isinstance(self.ground, str) else list(self.ground)
        return {"ground": ground, "levels": self.options.levels, "seen": dict(self._counts)}

    def preprocessing(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """The options, with the ground that was chosen."""
        options = {name: getattr(self.options, name) for name in ("size", "channels", "levels")}
        return {**options, "ground": about["ground"]}

    def notes(self, about: Mapping[str, Any]) -> list[str]:
        """See ``Reader.notes``."""
        return notes_of(about)

    def causes(self, about: Mapping[str, Any]) -> list[str]:
        """Lines about blank pictures, which explain why all look alike."""
        return [line for line in notes_of(about) if line.startswith(_BLANK)]

    def _values(self, image: Image.Image) -> NDArray[Any]:
        if getattr(image, "is_animated", False):
            self._count("frames")
        # Pillow has no mode for colours of 16 bits, and reads their upper half.
        if _is_cut_to_8_bits(image):
            self._count("cut to 8 bits")
        image_format = image.format
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16") or image.mode in ("I", "F"):
            values: NDArray[Any] = self._deep(image, image_format)
        else:
            values = self._flat(image)
        size = self.options.size
        if size is not None and values.shape[1:] != size:
            values = _brought_to(values, size)
        return self._stretched(values)

    def _deep(self, image: Image.Image, image_format: str | None) -> NDArray[np.float32]:
        """Grey values of more than 8 bits."""
        values_HW = np.asarray(image).astype(np.float32)
        if image.mode == "F":
            self._count("float")
        elif image.mode == "I" and image_format not in _OF_16_BITS:
            self._count("32 bits")
        else:
            self._count("16 bits")
            values_HW /= _PER_LEVEL
        return np.repeat(values_HW[None], self.options.channels, axis=0)

    def _flat(self, image: Image.Image) -> NDArray[np.uint8]:
        """Values of 8 bits a channel, transparent pixels on the ground."""
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            alpha = rgba.getchannel("A")
            low, high = alpha.getextrema()
            if low != _FULL_8:
                self._count("transparent")
                image = _laid_on(rgba, self.ground)
                if high == 0:
                    self._count("all transparent")
                elif self._surveys or _is_blank(image):
                    self._count_blank(rgba, image)
        converted = image.convert("L" if self.options.channels == 1 else "RGB")
        values = np.asarray(converted)
        return values[None] if self.options.channels == 1 else values.transpose(2, 0, 1)

    def _count_blank(self, rgba: Image.Image, laid: Image.Image) -> None:
        """Count the grounds on which a transparent picture is blank."""
        if _is_blank(laid):
            self._count("blank")
        for name in GROUNDS:
            if _is_blank(_laid_on(rgba, name)):
                self._count(f"blank on {name}")

    def _stretched(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.options.levels == "full":
            return values
        low, high = np.percentile(values, _PERCENTILES)
        if high <= low:
            return np.zeros_like(values, dtype=np.float32)
        stretched = (values.astype(np.float32) - low) * (_FULL_8 / (high - low))
        clipped: NDArray[Any] = np.clip(stretched, 0, _FULL_8).astype(np.float32)
        return clipped

    def _count(self, what: str) -> None:
        # Pictures are read by several threads.
        with self._lock:
            self._counts[what] += 1


def notes_of(about: Mapping[str, Any]) -> list[str]:
    """Describe ``PictureReader.about`` in lines for people."""
    seen = Counter(about.get("seen", {}))
    ground, stretched = about.get("ground"), about.get("levels") == "percentile"
    kept = (
        "each is stretched between its percentiles 1 and 99"
        if stretched
        else "their full range is kept; levels: percentile would stretch each"
    )
    lines = []
    if seen["transparent"]:
        lines.append(
            f"transparent: {seen['transparent']:,} pictures are laid on {ground} "
            f"(ground: {ground})"
        )
    if seen["blank"]:
        better = min(GROUNDS, key=lambda name: seen[f"blank on {name}"])
        hint = (
            f"; ground: {better} shows more"
            if seen[f"blank on {better}"] < seen["blank"]
            else "; no ground shows them all"
        )
        lines.append(
            f"{_BLANK}of {seen['blank']:,} transparent pictures nothing is seen on {ground}{hint}"
        )
    if seen["all transparent"]:
        lines.append(f"{_BLANK}{seen['all transparent']:,} pictures are transparent everywhere")
    for depth in ("16 bits", "32 bits", "float"):
        if seen[depth]:
            how = "their own scale" if depth != "16 bits" and not stretched else kept
            how = how if depth == "16 bits" or stretched else f"{how} is kept"
            lines.append(f"depth: {seen[depth]:,} pictures are of {depth}: {how}")
    if seen["cut to 8 bits"]:
        lines.append(
            f"depth: {seen['cut to 8 bits']:,} pictures have 16 bits a colour, of which the upper "
            f"8 are read: save them as grey, or as arrays (NPZ), to keep all"
        )
    if seen["frames"]:
        lines.append(
            f"frames: {seen['frames']:,} files have several frames or pages: the first is read"
        )
    return lines


def _laid_on(rgba: Image.Image, ground: str | tuple[int, ...]) -> Image.Image:
    colour = GROUNDS[ground] if isinstance(ground, str) else ground
    below = Image.new("RGBA", rgba.size, (*colour, _FULL_8))
    return Image.alpha_composite(below, rgba).convert("RGB")


def _is_blank(image: Image.Image) -> bool:
    levels = np.asarray(image)
    return bool(levels.max() - levels.min() <= _BLANK_LEVELS)


def _is_cut_to_8_bits(image: Image.Image) -> bool:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return False
    parts = [tile[3] for tile in getattr(image, "tile", ())]
    modes = [part if isinstance(part, str) else part[0] for part in parts if part]
    return any(isinstance(mode, str) and ";16" in mode for mode in modes)


def _brought_to(values_CHW: NDArray[Any], size: Size) -> NDArray[Any]:
    if values_CHW.dtype.kind == "f":
        return resized(values_CHW, size)
    n_channels = len(values_CHW)
    pixels = values_CHW[0] if n_channels == 1 else values_CHW.transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    values: NDArray[Any] = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return values[None] if n_channels == 1 else values.transpose(2, 0, 1)
