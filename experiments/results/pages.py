"""Tables of kept results in Markdown: a pair of comments names the file, the rest is made.

<!-- results: THEME_HARDWARE_DATE.json TABLE -->
<!-- end of results -->
"""

from __future__ import annotations

import re
from pathlib import Path

from experiments.results.record import FOLDER, Result

_END = "<!-- end of results -->"
_BLOCK = re.compile(
    rf"^(?P<begin><!-- results: (?P<file>\S+) (?P<table>\S+) -->)\n(?P<shown>.*?)^{_END}$",
    re.DOTALL | re.MULTILINE,
)


def named(text: str) -> list[tuple[str, str]]:
    """The file and the table of each block of a page."""
    return [(found["file"], found["table"]) for found in _BLOCK.finditer(text)]


def updated(text: str, folder: Path = FOLDER) -> str:
    """The page with every block as its file has it.

    Raises:
        ValueError: a file or table is not there, or a comment has no pair.
    """
    n_begun, n_ended = text.count("<!-- results:"), text.count(_END)
    if not n_begun == n_ended == len(named(text)):
        raise ValueError(
            f"each '<!-- results: FILE TABLE -->' must have its '{_END}', each alone on its line"
        )

    def made(found: re.Match[str]) -> str:
        if "/" in found["file"]:
            raise ValueError(f"file must be a name without a folder, got {found['file']!r}")
        result = Result.read(folder / found["file"])
        table = result.table(found["table"]).markdown()
        source = f"{result.source()}; `experiments/results/{result.name}`"
        return f"{found['begin']}\n\n{table}\n\n{source}\n\n{_END}"

    return _BLOCK.sub(made, text)
