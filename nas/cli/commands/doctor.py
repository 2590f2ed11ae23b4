"""``nas doctor``: report the meters and kernels of this machine, and how to improve them."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from nas.cli.options.common import add_device, add_json, add_quiet
from nas.cli.output.kernels import probe_kernels, render_kernels


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor", help="report which meters and low-precision kernels this machine has"
    )
    add_device(parser)
    parser.add_argument(
        "--kernels",
        action="store_true",
        help="probe precisions and sparsities at several shapes (a minute, once)",
    )
    add_quiet(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    from nas.searching.recipes import default_device
    from predictors.meters.base import MeterError
    from predictors.meters.select import choose_meter, parse_device, survey

    device = parse_device(arguments.device or default_device())
    meters = survey(device)
    chosen: str | None
    try:
        meter = choose_meter(None, device)
        chosen = meter.name
        meter.close()
    except MeterError:
        chosen = None
    result: dict[str, Any] = {
        "device": device,
        "meter": chosen,
        "meters": [asdict(status) for status in meters],
    }
    report = probe_kernels(device, quiet=arguments.quiet) if arguments.kernels else None
    if arguments.json:
        kernels = {} if report is None else {"kernels": report.to_dict()}
        print(json.dumps(result | kernels, allow_nan=False))
    else:
        print(_text(result))
        if report is not None:
            print(render_kernels(report))
    return 0


def _text(result: dict[str, Any]) -> str:
    lines = [f"device: {result['device']}", "meters:"]
    for status in result["meters"]:
        mark = "yes" if status["is_available"] else "no "
        lines.append(f"  {mark}  {status['name']:<9} {status['detail']}")
    if result["meter"] is None:
        lines.append(f"used: none, because no meter covers {result['device']}")
    else:
        lines.append(f"used: {result['meter']} ({_why(result['meter'])})")
    return "\n".join(lines)


def _why(name: str) -> str:
    return {
        "nvml": "the GPU's own counter",
        "rapl": "the CPU package's own counter",
        "zeus": "the device's own counter, read by Zeus",
        "estimate": "no energy counter can be read here, so joules are estimates from measured "
        "CPU time; run on bare metal with readable RAPL, or on an NVIDIA GPU, to measure",
    }.get(name, "a plug-in")
