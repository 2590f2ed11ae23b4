"""The measuring campaign of the device at hand: ``python -m experiments.campaign``.

Each run takes ``--minutes`` (8 by default), says first what it will do and how long that takes,
and appends to the folder of its device; the same command goes on where the last one stopped, also
after a kill. On an NVIDIA GPU it asks the board for facts, measures fp32, bf16 and 2:4 networks
beside a reference in fresh processes, follows a cold start, then measures the rest. It installs
nothing and changes no setting of the board.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.campaign.needs import missing


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.campaign", description=__doc__)
    parser.add_argument("--device", help="cpu or cuda:N (default: CUDA where there is one)")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="minutes that this run may take (default: 8)"
    )
    parser.add_argument("--to", type=Path, help="folder of records (default: the device's own)")
    parser.add_argument(
        "--protocol", help="brief, screening or final (default: brief on GPUs, quick on CPUs)"
    )
    parser.add_argument(
        "--n", type=int, help="architectures of each kind and workload in the first stage"
    )
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed")
    parser.add_argument("--plan", action="store_true", help="say what is to be done, and end")
    parser.add_argument(
        "--check", type=Path, metavar="FOLDER", help="check records of others or of your own"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the next minutes of the campaign."""
    arguments = build_parser().parse_args(argv)
    lacking = missing()
    if lacking:
        print(
            f"campaign: {sys.executable} lacks {', '.join(lacking)}: name a Python that has them, "
            f"make campaign PYTHON=...",
            file=sys.stderr,
        )
        return 2
    from experiments.campaign.command import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
