"""Questions, paragraphs and answers from JSON in the format of SQuAD 1.1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.tasks.base.problems import Problems
from nas.tasks.base.tables import read_text


@dataclass(frozen=True, slots=True)
class Question:
    """A question on a paragraph, ``context``, with every right answer.

    ``answer_at`` is the range of characters of the first answer.
    """

    place: str
    text: str
    context: str
    answers: tuple[str, ...]
    answer_at: tuple[int, int]


def read_squad(path: Path, problems: Problems) -> list[Question]:
    """Read the questions in the file at ``path``; errors are added to ``problems``."""
    text = read_text(path, problems, may_be_empty=False)
    if text is None:
        return []
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        problems.add(f"{path} must be JSON: {error}")
        return []
    if not isinstance(data, Mapping) or not isinstance(data.get("data"), list):
        problems.add(f"{path} must be an object with a list `data`, as SQuAD is")
        return []
    questions = []
    for place, context, entry in _entries(data["data"], str(path), problems):
        try:
            questions.append(_question(place, context, entry))
        except ValueError as error:
            problems.add(f"{place} {error}")
    if not questions and not problems:
        problems.add(f"{path} must hold questions, and holds none")
    return questions


def _entries(articles: list[Any], path: str, problems: Problems) -> Iterator[tuple[str, str, Any]]:
    """Yield the place, paragraph and JSON of each question."""
    for i, article in enumerate(articles):
        paragraphs = article.get("paragraphs") if isinstance(article, Mapping) else None
        if not isinstance(paragraphs, list):
            problems.add(f"{path}: data[{i}] must have a list `paragraphs`")
            continue
        for j, paragraph in enumerate(paragraphs):
            where = f"{path}: data[{i}].paragraphs[{j}]"
            context = paragraph.get("context") if isinstance(paragraph, Mapping) else None
            if not isinstance(context, str) or not isinstance(paragraph.get("qas"), list):
                problems.add(f"{where} must have a text `context` and a list `qas`")
                continue
            for k, entry in enumerate(paragraph["qas"]):
                yield f"{where}.qas[{k}]", context, entry


def _question(place: str, context: str, entry: Any) -> Question:
    text = entry.get("question") if isinstance(entry, Mapping) else None
    if not isinstance(text, str) or not text.strip():
        raise ValueError("must have a text `question`")
    if entry.get("is_impossible"):
        raise ValueError("must have an answer: questions without one (SQuAD 2.0) are not read")
    answers = entry.get("answers")
    if not isinstance(answers, list) or not answers:
        raise ValueError("must have a list `answers` of one or more")
    spans = []
    for answer in answers:
        right = answer.get("text") if isinstance(answer, Mapping) else None
        start = answer.get("answer_start") if isinstance(answer, Mapping) else None
        if not isinstance(right, str) or not right or type(start) is not int:
            raise ValueError("must have answers with a `text` and a number `answer_start`")
        if start < 0 or context[start : start + len(right)] != right:
            raise ValueError(f"must have the answer {right!r} at character {start} of its context")
        spans.append((start, start + len(right)))
    return Question(place, text, context, tuple(a["text"] for a in answers), spans[0])


def question_of(text: str) -> Question:
    """Read the JSON of ``dataclasses.asdict`` of a question."""
    data = json.loads(text)
    start, end = data.pop("answer_at")
    return Question(**{**data, "answers": tuple(data["answers"]), "answer_at": (start, end)})
