"""``nas report``: write a run as one HTML page, or serve it while the search runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from nas.cli.options.common import add_device_name, add_json
from nas.cli.options.storage import add_run, loaded, storage_of
from nas.cli.output.tables import print_result

HELP = "write a run as one HTML page, or serve it while it runs"
DEFAULT_PORT = 8765


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_run(parser)
    add_device_name(parser)
    parser.add_argument("--to", type=Path, help="HTML file (default: report.html in the run)")
    parser.add_argument(
        "--watch", action="store_true", help="serve the page on this machine and update it"
    )
    parser.add_argument(
        "--port", type=int, help=f"port of --watch; 0 for any free one (default: {DEFAULT_PORT})"
    )
    parser.add_argument(
        "--optuna",
        type=Path,
        metavar="FILE",
        help="write the study as a journal for optuna-dashboard instead of the page",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.optuna is not None:
        return _export(arguments)
    if arguments.watch:
        if arguments.to is not None:
            raise ValueError("to must be left out with --watch, which writes no file")
        if arguments.device is not None:
            raise ValueError("device must be left out with --watch, which shows the first")
        return _watch(arguments)
    if arguments.port is not None:
        raise ValueError(f"port requires --watch, got {arguments.port}")
    from nas.reporting.data import page_data
    from nas.reporting.page import write_page

    source = loaded(arguments)
    name = "report.html" if arguments.device is None else f"report-{arguments.device}.html"
    path = arguments.to or source.folder / name
    write_page(page_data(source, with_importance=True), path)
    print_result({"page": str(path)}, str(path), as_json=arguments.json)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    for name in ("to", "watch", "device", "port"):
        if getattr(arguments, name):
            raise ValueError(f"{name} must be left out with --optuna, which writes no page")
    from nas.store.optuna_export import export_study

    path = arguments.optuna
    export_study(loaded(arguments), path)
    print_result({"study": str(path)}, str(path), as_json=arguments.json)
    return 0


def _watch(arguments: argparse.Namespace) -> int:
    from nas.reporting.server import serve

    port = DEFAULT_PORT if arguments.port is None else arguments.port
    with serve(Path(arguments.run), port, **storage_of(arguments.storage)) as server:
        try:
            print(f"{server.url}  (Ctrl-C ends)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0
