"""Measure the shape of a source tree: files, functions, imports, and the hops of a candidate.

``python experiments/house.py [TREE] [--hops WORKERS]`` prints one line for each figure. With
``--hops`` a search of one candidate runs in the tree. A hop is a file of the tree with a function
that runs for the candidate: in the driver from its proposal to its stored outcome, in all other
processes (Ray's workers, measuring) at any time. Functions that run while a module is imported do
not count.
"""

from __future__ import annotations

import argparse
import ast
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("nas", "predictors", "search_spaces")

# Runs at the start of each Python process, before anything of the tree.
_SITE = """
import os, sys, threading

tree, log = os.environ["HOUSE_TREE"], os.environ["HOUSE_LOG"]
is_driver = os.environ.get("HOUSE_DRIVER") == str(os.getppid())
state = {"is_on": not is_driver}
seen = set()


def is_import(frame):
    while frame is not None:
        name = frame.f_code.co_filename
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            if name.startswith(tree):
                return True
        frame = frame.f_back
    return False


def profile(frame, event, _):
    code = frame.f_code
    name = code.co_filename
    if event not in ("call", "return") or not name.startswith(tree):
        return
    if is_driver and name.endswith("session.py"):
        if event == "call" and code.co_name in ("propose", "next_candidate"):
            state["is_on"] = not state.get("is_over", False)
        elif event == "return" and code.co_name == "finish":
            state.update(is_on=False, is_over=True)
    # Bodies of modules and classes are not functions.
    if state["is_on"] and name not in seen and code.co_flags & 1 and not is_import(frame):
        seen.add(name)
        with open(log, "a") as file:
            file.write(("driver" if is_driver else "other") + chr(9) + name + chr(10))


sys.setprofile(profile)
threading.setprofile(profile)
"""

_SEARCH = """
import sys
from pathlib import Path

if __name__ == "__main__":
    import nas
    from nas.training.config import TrainingConfig
    from search_spaces.space import SearchSpace
    try:
        from nas.records.config import SearchConfig
    except ImportError:
        from nas.searching.config import SearchConfig
    space = SearchSpace.from_dict({
        "name": "one", "d_model": [16], "depth": [1], "patch_size": [4], "n_heads": [2],
        "n_kv_heads": [2], "ffn_ratio": [2],
    })
    config = SearchConfig(
        task="digits", space=space, trials=1, batch_size=64, protocol="quick",
        training=TrainingConfig(epochs=1, batch_size=256),
    )
    run = nas.search(config, Path(sys.argv[1]), workers=int(sys.argv[2]))
    assert [trial.state for trial in run.trials()] == ["complete"], run.trials()
"""


def main() -> None:
    """Print the figures of one tree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path, nargs="?", default=Path(__file__).parent.parent)
    parser.add_argument("--hops", type=int, metavar="WORKERS", help="0 for this process, no Ray")
    arguments = parser.parse_args()
    tree = arguments.tree.resolve()
    for name, value in figures(tree).items():
        print(f"{name:<40} {value}")
    if arguments.hops is not None:
        files, of_driver = hops(tree, arguments.hops)
        print(f"{'hops of a candidate, in the driver':<40} {len(of_driver)}")
        for package in PACKAGES:
            n = sum(file.startswith(package + os.sep) for file in files)
            print(f"{f'hops of a candidate, in {package}':<40} {n}")
        print(f"{f'hops of a candidate, {arguments.hops} workers':<40} {len(files)}")
        print("\n".join(f"{'* ' if file in of_driver else '  '}{file}" for file in files))


def figures(tree: Path) -> dict[str, object]:
    """Return the figures that need no search."""
    sources = {path: path.read_text() for top in PACKAGES for path in (tree / top).rglob("*.py")}
    lines = {path: len(text.splitlines()) for path, text in sources.items()}
    parsed = {path: ast.parse(text) for path, text in sources.items()}
    functions = sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for module in parsed.values()
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    modules = {_name(tree, path): path for path in sources}
    imports = {
        path: {name for name in _imported(module, modules) if modules[name] != path}
        for path, module in parsed.items()
    }
    folders = [path.parent for path in sources]
    sizes = sorted({folder: folders.count(folder) for folder in folders}.values())
    fan_out = sorted(len(names) for names in imports.values())
    packages: dict[str, set[str]] = {}
    for path, names in imports.items():
        own = _package(tree, path)
        packages.setdefault(own, set())
        packages[own] |= {_package(tree, modules[name]) for name in names} - {own}
    return {
        "lines": sum(lines.values()),
        "files": len(sources),
        "folders": len(sizes),
        "files in the largest folder": sizes[-1],
        "lines of the median file": statistics.median(lines.values()),
        "lines of the p95 function": functions[round(0.95 * (len(functions) - 1))],
        "modules that a file imports, median": statistics.median(fan_out),
        "modules that a file imports, most": fan_out[-1],
        "packages in import cycles": ", ".join(_in_cycles(packages)) or "none",
    }


def hops(tree: Path, workers: int) -> tuple[list[str], set[str]]:
    """Search one candidate in ``tree``; return the files that it comes through.

    The second are those in the driver's process, which also trains if ``workers`` is 0.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(_SITE)
        (folder / "search.py").write_text(_SEARCH)
        log = folder / "log"
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(tree)]),
            "HOUSE_TREE": str(tree) + os.sep,
            "HOUSE_LOG": str(log),
            "HOUSE_DRIVER": str(os.getpid()),
        }
        command = [sys.executable, str(folder / "search.py"), str(folder / "run"), str(workers)]
        subprocess.run(command, cwd=folder, env=environment, check=True)
        lines = [line.split("\t") for line in log.read_text().splitlines()]
    files = {(side, str(Path(name).relative_to(tree))) for side, name in lines}
    ours = {(side, name) for side, name in files if Path(name).parts[0] in PACKAGES}
    return sorted({name for _, name in ours}), {n for side, n in ours if side == "driver"}


def _name(tree: Path, path: Path) -> str:
    parts = path.relative_to(tree).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _package(tree: Path, path: Path) -> str:
    return ".".join(path.relative_to(tree).parent.parts)


def _imported(module: ast.Module, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of the tree that a file imports, inside functions as well."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [
                whole if (whole := f"{node.module}.{alias.name}") in modules else node.module
                for alias in node.names
            ]
        else:
            continue
        yield from (name for name in names if name in modules)


def _in_cycles(packages: dict[str, set[str]]) -> list[str]:
    """Return the packages that import themselves through others."""

    def reaches(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for name in packages.get(waiting.pop(), set()) - seen:
                seen.add(name)
                waiting.append(name)
        return seen

    return sorted(name for name in packages if name in reaches(name))


if __name__ == "__main__":
    main()
