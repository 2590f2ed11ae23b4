"""The pages that people read, and the blocks of code on them."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "experiments" / "README.md",
    *sorted(DOCS.rglob("*.md")),
]


def name_of(page):
    """How tests call a page."""
    return str(page.relative_to(ROOT))


def blocks(path, language):
    """The blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def lines_of(path):
    """Each line that a page gives to a shell, without its comment."""
    for block in blocks(path, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if stripped := line.partition("  #")[0].strip():
                yield stripped


def output_of(example, folder, timeout):
    """What a script prints that runs in ``folder``."""
    (folder / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
