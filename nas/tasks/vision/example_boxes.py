"""Some validation samples of a trial with its network's outputs, for reports and plots."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from nas.core.files import Place, read_json, write_json
from nas.core.plain import from_plain, require_int, to_plain

EXAMPLES = "examples.json"
_MOST_SIDE = 512


@dataclass(frozen=True, slots=True)
class ExampleBox:
    """A box in shares of a picture's sides; ``score`` is ``None`` for a true one."""

    label: str
    score: float | None
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class ExamplePicture:
    """A picture with its boxes; ``pixels`` are red, green and blue bytes in Base64.

    Raises:
        ValueError: the pixels are not those of a picture of this size.
    """

    height: int
    width: int
    pixels: str
    true: tuple[ExampleBox, ...]
    found: tuple[ExampleBox, ...]

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            side = getattr(self, name)
            require_int(name, side, 1)
            if side > _MOST_SIDE:
                raise ValueError(f"{name} must be at most {_MOST_SIDE}, got {side}")
        if len(self.rgb) != 3 * self.height * self.width:
            raise ValueError(
                f"pixels must be {3 * self.height * self.width} bytes, got {len(self.rgb)}"
            )

    @property
    def rgb(self) -> bytes:
        """The bytes of ``pixels``."""
        try:
            return base64.b64decode(self.pixels, validate=True)
        except binascii.Error as error:
            raise ValueError(f"pixels must be Base64: {error}") from None


@dataclass(frozen=True, slots=True)
class ExampleScore:
    """The value of a metric, by its key, on the whole validation split."""

    metric: str
    value: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Examples:
    """Pictures with the boxes found in them, and metrics of the split that they are of."""

    scores: tuple[ExampleScore, ...]
    pictures: tuple[ExamplePicture, ...]


def save_examples(folder: Place, examples: Examples) -> None:
    """Write ``examples`` into a trial's ``folder``."""
    write_json(folder / EXAMPLES, to_plain(examples))


def examples_in(folder: Place) -> Examples | None:
    """Return the examples in a trial's ``folder``, ``None`` if there are none.

    Raises:
        ValueError: the file is invalid.
    """
    path = folder / EXAMPLES
    return from_plain(Examples, read_json(path), str(path)) if path.is_file() else None
