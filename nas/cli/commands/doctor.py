"""``nas doctor``: report the meters and kernels of this machine, and how to improve them."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from nas.cli.options.common import add_device, add_json, add_quiet
from nas.cli.output.kernels import probe_kernels, render_kernels
from nas.cli.output.tables import print_result

HELP = "report which meters and low-precision kernels this machine has"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
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
    chosen = None
    with suppress(MeterError):
        meter = choose_meter(None, device)
        chosen = meter.name
        meter.close()
    result: dict[str, Any] = {
        "device": device,
        "meter": chosen,
        "meters": [asdict(status) for status in meters],
    }
    text = _text(result)
    if arguments.kernels:
        report = probe_kernels(device, quiet=arguments.quiet)
        result["kernels"] = report.to_dict()
        text += f"\n{render_kernels(report)}"
    print_result(result, text, as_json=arguments.json)
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
