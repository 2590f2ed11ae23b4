"""Text files as passages: stretches of text in one split, each with its place.

A file of a split of its own is one passage. One of which some is held out is cut into blocks of
whole lines; a hash of a block's text says its split, so the same block is never in two, and text
that is added at the end moves no block but the last. Neighbours in one split are one passage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.tasks.base import SPLITS, SplitName
from nas.tasks.base.limits import MAX_TEXT_BYTES, check_size
from nas.tasks.base.problems import Problems
from nas.tasks.base.samples import Sources, files_below
from nas.tasks.base.splits import text_digest

SUFFIXES = (".txt", ".text", ".md")
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Passage:
    """Text that follows on itself, the line of ``path`` (from 1) that it begins at, its split.

    ``n_edges`` is how many of its two ends touch text of another split.
    """

    split: SplitName
    path: Path
    line: int
    text: str
    n_edges: int = 0

    def place(self, n_bytes: int) -> str:
        """The file and line that ``n_bytes`` of the text lead to."""
        before = self.text.encode()[:n_bytes].count(b"\n")
        return f"{self.path}, line {self.line + before}"


def text_files(path: Path, problems: Problems) -> list[Path]:
    """``path`` itself, or the text files below it in a fixed order."""
    if not path.is_dir():
        return [path]
    found = files_below(path, SUFFIXES, problems)
    if not found:
        problems.add(f"{path} must hold files ending in {', '.join(SUFFIXES)}")
    return found


def read_passages(
    files: Sequence[tuple[SplitName, Path]],
    sources: Sources,
    block_length: int,
    problems: Problems,
) -> dict[SplitName, list[Passage]]:
    """The passages of each split, in the order of ``files``.

    ``block_length`` is in characters. What is wrong with a file is added to ``problems``.
    """
    found: dict[SplitName, list[Passage]] = {split: [] for split in SPLITS}
    for asked, path in files:
        text = _read(path, problems)
        if text is None:
            continue
        held_out = asked == "train" and any(split not in sources.given for split in SPLITS)
        blocks = _blocks(text, block_length) if held_out else [text]
        for passage in _placed(asked, path, blocks, sources):
            found[passage.split].append(passage)
    return found


def _read(path: Path, problems: Problems) -> str | None:
    try:
        check_size(max(1, path.stat().st_size), MAX_TEXT_BYTES)
        raw = path.read_bytes()
    except OSError as error:
        problems.add(f"{path} must be readable: {error.strerror}")
        return None
    except (ValueError, MemoryError) as error:
        problems.add(f"{path} {str(error) or 'must fit into memory, and does not'}")
        return None
    try:
        text = raw.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        problems.add(f"{path}, line {line}, must be UTF-8 text, got byte {raw[error.start]:#04x}")
        return None
    if not text.strip():
        problems.add(f"{path} must have text, and has none")
        return None
    return text


def _blocks(text: str, length: int) -> Iterator[str]:
    """``text`` cut after the first end of a line beyond ``length`` characters, again and again.

    Where none comes within as many again, inside a line.
    """
    start = 0
    while start < len(text):
        end = text.find("\n", start + length - 1, start + 2 * length) + 1
        end = end or min(start + 2 * length, len(text))
        yield text[start:end]
        start = end


def _placed(
    asked: SplitName, path: Path, blocks: Iterator[str] | list[str], sources: Sources
) -> Iterator[Passage]:
    """Passages of the neighbouring blocks that are in one split."""
    joined: list[tuple[SplitName, list[str]]] = []
    for block in blocks:
        split = sources.place(asked, text_digest(block))
        if not joined or joined[-1][0] != split:
            joined.append((split, []))
        joined[-1][1].append(block)
    line = 1
    for i, (split, parts) in enumerate(joined):
        text = "".join(parts)
        yield Passage(split, path, line, text, (i > 0) + (i < len(joined) - 1))
        line += text.count("\n")
