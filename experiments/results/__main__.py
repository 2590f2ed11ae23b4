"""Show kept results: ``python -m experiments.results``.

Without a name it lists them; with the name of a file, or its beginning, it prints its tables;
``--update`` makes the tables anew that pages show between ``<!-- results: FILE TABLE -->`` and
``<!-- end of results -->``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.results.pages import updated
from experiments.results.record import FOLDER, Result, kept
from nas.cli.output.tables import render_columns
from nas.core.files import write_atomic
from nas.core.printing import print_anything


def describe(result: Result, *, markdown: bool) -> str:
    """All that one file says, for people."""
    parts = [f"{result.about}\n{result.source()}"]
    spent = [
        f"{value:,.0f} s {what}"
        for value, what in ((result.cpu_s, "of CPU"), (result.wall_s, "by the clock"))
        if value is not None
    ]
    known = [f"{name} {version}" for name, version in result.versions.items()]
    parts[0] += "\n" + "; ".join(
        [*spent, f"revision {result.revision or 'not known'}", ", ".join(known)]
    )
    for table in result.tables:
        parts.append(f"{table.name}\n{table.markdown() if markdown else table.text()}")
    return "\n\n".join([*parts, result.note] if result.note else parts)


def main(argv: Sequence[str] | None = None) -> int:
    """List, print or update."""
    print_anything()
    parser = argparse.ArgumentParser(prog="python -m experiments.results", description=__doc__)
    parser.add_argument("names", nargs="*", help="files, or how their names begin")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they are kept")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    parser.add_argument("--update", type=Path, nargs="+", metavar="PAGE", help="Markdown files")
    arguments = parser.parse_args(argv)
    try:
        if arguments.update is not None:
            for page in arguments.update:
                _update(page, arguments.folder)
            return 0
        results = kept(arguments.folder)
        for name in arguments.names:
            if not any(result.name.startswith(name) for result in results):
                raise ValueError(f"{name!r} must begin the name of a file in {arguments.folder}")
    except (ValueError, OSError) as error:
        print(f"results: {error}", file=sys.stderr)
        return 2
    if arguments.names:
        chosen = [r for r in results if r.name.startswith(tuple(arguments.names))]
        print("\n\n\n".join(describe(r, markdown=arguments.markdown) for r in chosen))
    else:
        rows = [[r.name, ", ".join(t.name for t in r.tables), r.command] for r in results]
        print(render_columns(["file", "tables", "command"], rows))
    return 0


def _update(page: Path, folder: Path) -> None:
    before = page.read_text(encoding="utf-8")
    after = updated(before, folder)
    if after != before:
        write_atomic(page, lambda path: path.write_text(after, encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
