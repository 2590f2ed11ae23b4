"""Read pictures and recordings for an artifact, as its ``preprocessing.json`` describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.audio.recording import FrontEnd
from nas.tasks.audio.recording_reader import RecordingReader
from nas.tasks.audio.utterances import Utterances
from nas.tasks.vision.picture_reader import PictureOptions, PictureReader
from nas.tasks.vision.pictures import Size, read_bytes, upright_size

_ALLOWED = ("size", "channels", "ground", "levels")


@dataclass(frozen=True, slots=True)
class RawInputs:
    """Makes standardised inputs of one shape from files."""

    shape: tuple[int, ...]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    made_by: FrontEnd | PictureOptions | Utterances

    @classmethod
    def of(cls, data: Any, shape: tuple[int, ...], where: str) -> RawInputs | None:
        """Parse the contents ``data`` of the file ``where``; ``None`` for other kinds of inputs.

        Raises:
            ValueError: they are invalid for inputs of ``shape``.
        """
        made_of = data.get("of") if isinstance(data, Mapping) else None
        if not isinstance(made_of, Mapping) or not {"channels", "front_end"} & made_of.keys():
            return None
        axis, n_axes = data.get("axis"), len(shape)
        if type(axis) is not int or not 0 <= axis < n_axes:
            raise ValueError(f"axis in {where} must be in 0..{n_axes - 1}, got {axis!r}")
        along = [1] * n_axes
        along[axis] = shape[axis]
        arrays = {}
        for name in ("mean", "deviation"):
            try:
                arrays[name] = np.array(data.get(name), dtype=np.float64).reshape(along)
            except (TypeError, ValueError):
                raise ValueError(f"{name} in {where} must be {shape[axis]} numbers") from None
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} in {where} must be finite")
        if not (arrays["deviation"] > 0).all():
            raise ValueError(f"deviation in {where} must be > 0")
        try:
            made_by = _made_by(made_of)
        except (TypeError, ValueError) as error:
            raise ValueError(f"of in {where} must say how inputs are made: {error}") from None
        if isinstance(made_by, Utterances) and made_by.n_frames != shape[-1]:
            raise ValueError(
                f"of in {where} must give {shape[-1]} frames, as the network reads, got "
                f"{made_by.n_frames}"
            )
        return cls(shape, arrays["mean"], arrays["deviation"], made_by)

    def read(self, files: Sequence[str | Path | bytes]) -> NDArray[np.float32]:
        """Read ``files``, paths or bytes of pictures, into inputs ``(N, ...)``.

        Raises:
            ValueError: a file cannot be read, or gives another shape; the message names it.
        """
        rows = []
        for number, file in enumerate(files):
            where = f"input {number}" if isinstance(file, bytes) else str(file)
            try:
                values = self._values(file)
            except ValueError as error:
                raise ValueError(f"{where} {error}") from None
            if isinstance(self.made_by, Utterances):
                rows.append(
                    self.made_by.padded(values, self.mean.flatten(), self.deviation.flatten())
                )
                continue
            if values.shape != self.shape:
                raise ValueError(
                    f"{where} must give the shape {self.shape} of the training data, got "
                    f"{values.shape}"
                )
            rows.append(((values - self.mean) / self.deviation).astype(np.float32))
        return np.stack(rows) if rows else np.zeros((0, *self.shape), np.float32)

    def _values(self, file: str | Path | bytes) -> NDArray[Any]:
        if isinstance(self.made_by, FrontEnd | Utterances):
            if isinstance(file, bytes):
                raise ValueError("must be the path of a WAV file, got bytes")
            if isinstance(self.made_by, Utterances):
                return self.made_by.read(Path(file))[0]
            return RecordingReader(self.made_by).read(Path(file))
        reader = PictureReader(self.made_by)
        return reader.read(file if isinstance(file, bytes) else read_bytes(Path(file)))


def size_of_picture(picture: str | Path | bytes) -> Size:
    """Return the height and width of a picture, a path or a file's bytes, when it is upright.

    Raises:
        ValueError: it cannot be read; the message names it.
    """
    where = "a picture given as bytes" if isinstance(picture, bytes) else str(picture)
    try:
        return upright_size(picture if isinstance(picture, bytes) else read_bytes(Path(picture)))
    except ValueError as error:
        raise ValueError(f"{where} {error}") from None


def _made_by(made_of: Mapping[str, Any]) -> FrontEnd | PictureOptions | Utterances:
    if made_of.get("padding") == "zeros":
        return Utterances(FrontEnd(**made_of["front_end"]))
    if "front_end" in made_of:
        return FrontEnd(**made_of["front_end"])
    return PictureOptions(**{name: made_of[name] for name in _ALLOWED if name in made_of})
