"""CONTRIBUTING's map: one line a folder, from the first line of each package's docstring.

``python tests/package_map.py`` writes it anew; a test holds it.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("search_spaces", "predictors", "nas", "experiments")
PAGE = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- map -->\n", "<!-- end of map -->\n"


def folders():
    """Every package, from the outside in."""
    for top in PACKAGES:
        yield from sorted(init.parent for init in (ROOT / top).rglob("__init__.py"))


def summary_of(folder):
    """The first line of a package's docstring."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    return text.splitlines()[0].rstrip(".")


def package_map():
    """The map as it stands in CONTRIBUTING."""
    rows = [(f"{folder.relative_to(ROOT)}/", summary_of(folder)) for folder in folders()]
    width = max(len(path) for path, _ in rows)
    lines = (f"{path:<{width}}  {text}" for path, text in rows)
    return f"{BEGIN}```text\n" + "\n".join(lines) + f"\n```\n{END}"


def with_map(page):
    """The text of a page with the map as it should be."""
    before, _, rest = page.partition(BEGIN)
    return before + package_map() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text()))
