"""Questions, paragraphs and answers from JSON in the format of SQuAD 1.1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.tasks.base.limits import check_size
from nas.tasks.base.problems import Problems

_MAX_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Question:
    """One question on a paragraph, with every answer that counts as right.

    ``answer_at`` are the first character of the first answer and the one after its last.
    """

    where: str
    text: str
    context: str
    answers: tuple[str, ...]
    answer_at: tuple[int, int]


def read_squad(path: Path, problems: Problems) -> list[Question]:
    """The questions in the file at ``path``; what is wrong with it is added to ``problems``."""
    try:
        check_size(path.stat().st_size, _MAX_BYTES)
        data = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        problems.add(f"{path} must be readable: {error.strerror}")
        return []
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        problems.add(f"{path}, line {line}, must be UTF-8 text, got byte {byte:#04x}")
        return []
    except (json.JSONDecodeError, RecursionError) as error:
        problems.add(f"{path} must be JSON: {error}")
        return []
    except ValueError as error:
        problems.add(f"{path} {error}")
        return []
    if not isinstance(data, Mapping) or not isinstance(data.get("data"), list):
        problems.add(f"{path} must be an object with a list `data`, as SQuAD is")
        return []
    found = []
    for where, context, entry in _entries(data["data"], str(path), problems):
        try:
            found.append(_question(where, context, entry))
        except ValueError as error:
            problems.add(f"{where} {error}")
    if not found and not problems:
        problems.add(f"{path} must hold questions, and holds none")
    return found


def _entries(articles: list[Any], path: str, problems: Problems) -> Iterator[tuple[str, str, Any]]:
    """Every question's place, its paragraph and itself, not looked at yet."""
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


def _question(where: str, context: str, entry: Any) -> Question:
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
        given = answer.get("text") if isinstance(answer, Mapping) else None
        start = answer.get("answer_start") if isinstance(answer, Mapping) else None
        if not isinstance(given, str) or not given or type(start) is not int:
            raise ValueError("must have answers with a `text` and a number `answer_start`")
        if start < 0 or context[start : start + len(given)] != given:
            raise ValueError(f"must have the answer {given!r} at character {start} of its context")
        spans.append((start, start + len(given)))
    return Question(where, text, context, tuple(a["text"] for a in answers), spans[0])
