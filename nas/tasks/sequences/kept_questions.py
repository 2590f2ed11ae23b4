"""Questions on disk: each is read when its answer is judged, and processes share them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import overload

import numpy as np

from nas.tasks.base.kept import Kept
from nas.tasks.sequences.squad import Question

_TEXTS, _ENDS = "questions", "questions.ends"


def write_questions(questions: Sequence[Question], folder: Path) -> None:
    """Write ``questions`` into ``folder``, where ``KeptQuestions`` reads them."""
    lines = [json.dumps(asdict(question)).encode() for question in questions]
    np.save(folder / f"{_TEXTS}.npy", np.frombuffer(b"".join(lines), dtype=np.uint8))
    np.save(folder / f"{_ENDS}.npy", np.cumsum([len(line) for line in lines], dtype=np.int64))


class KeptQuestions(Sequence[Question]):
    """What ``write_questions`` wrote, mapped: each question is made when it is asked for."""

    def __init__(self, kept: Kept) -> None:
        """Nothing is read yet."""
        self._texts, self._ends = kept.array(_TEXTS), kept.array(_ENDS)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> Question: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Question]: ...
    def __getitem__(self, at: int | slice) -> Question | Sequence[Question]:
        """The question at that place, or those of a slice.

        Raises:
            IndexError: there is none.
        """
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        place = range(len(self))[at]
        start = 0 if place == 0 else int(self._ends[place - 1])
        data = json.loads(self._texts[start : int(self._ends[place])].tobytes())
        first, end = data.pop("answer_at")
        return Question(**{**data, "answers": tuple(data["answers"]), "answer_at": (first, end)})
