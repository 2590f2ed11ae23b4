"""Text files as passages: contiguous text in one split.

A file of a split of its own is one passage. A file that is held out in part is cut into blocks of
whole lines, and a hash of a block's text decides its split: the same block is never in two, and
text that is added at the end moves no block but the last. Neighbours in one split are one passage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.tasks.base import SPLITS, SplitName
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import Sources, files_below
from nas.tasks.base.splits import text_digest
from nas.tasks.base.tables import read_text

SUFFIXES = (".txt", ".text", ".md")


@dataclass(frozen=True, slots=True)
class Passage:
    """Contiguous text of ``path`` from ``line`` (from 1) on.

    ``n_edges`` is the number of its two ends that touch text of another split.
    """

    split: SplitName
    path: Path
    line: int
    text: str
    n_edges: int = 0

    @property
    def place(self) -> str:
        """The file and line of its beginning."""
        return self.place_at(0)

    def place_at(self, n_bytes: int) -> str:
        """The file and line after ``n_bytes`` of the text."""
        before = self.text.encode()[:n_bytes].count(b"\n")
        return f"{self.path}, line {self.line + before}"


def text_files(path: Path, problems: Problems) -> list[Path]:
    """List ``path`` itself, or the text files below it, sorted."""
    if not path.is_dir():
        return [path]
    files = files_below(path, SUFFIXES, problems)
    if not files:
        problems.add(f"{path} must hold files ending in {', '.join(SUFFIXES)}")
    return files


def read_passages(
    files: Sequence[tuple[SplitName, Path]],
    sources: Sources,
    block_length: int,
    problems: Problems,
) -> dict[SplitName, list[Passage]]:
    """Read the passages of each split, in the order of ``files``.

    ``block_length`` is in characters. Errors are added to ``problems``.
    """
    passages: dict[SplitName, list[Passage]] = {split: [] for split in SPLITS}
    for split, path in files:
        text = read_text(path, problems)
        if text is None:
            continue
        if not text.strip():
            problems.add(f"{path} must have text, and has none")
            continue
        held_out = split == "train" and any(name not in sources.by_split for name in SPLITS)
        blocks = _blocks(text, block_length) if held_out else [text]
        for passage in _placed(split, path, blocks, sources):
            passages[passage.split].append(passage)
    return passages


def _blocks(text: str, length: int) -> Iterator[str]:
    """Cut ``text`` after the first line end beyond ``length`` characters, repeatedly.

    Lines longer than ``length`` are cut inside.
    """
    start = 0
    while start < len(text):
        end = text.find("\n", start + length - 1, start + 2 * length) + 1
        end = end or min(start + 2 * length, len(text))
        yield text[start:end]
        start = end


def _placed(
    source_split: SplitName, path: Path, blocks: Iterator[str] | list[str], sources: Sources
) -> Iterator[Passage]:
    """Join neighbouring blocks that are in one split."""
    joined: list[tuple[SplitName, list[str]]] = []
    for block in blocks:
        split = sources.place(source_split, text_digest(block))
        if not joined or joined[-1][0] != split:
            joined.append((split, []))
        joined[-1][1].append(block)
    line = 1
    for i, (split, parts) in enumerate(joined):
        text = "".join(parts)
        yield Passage(split, path, line, text, (i > 0) + (i < len(joined) - 1))
        line += text.count("\n")
