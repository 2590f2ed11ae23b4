"""``nas doctor``: what this machine can measure and run, and how to get better."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor", help="say what this machine can measure and which kernels are real"
    )
    parser.add_argument("--device", help="cpu or cuda:N (default: CUDA where there is one)")
    parser.add_argument(
        "--kernels", action="store_true", help="probe precisions and sparsities (some seconds)"
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    from nas.searching.recipes import cache_folder, default_device
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
    if arguments.kernels:
        from search_spaces.compression.realness import probe

        result["kernels"] = probe(device, cache_dir=cache_folder()).to_dict()
    print(json.dumps(result, allow_nan=False) if arguments.json else _text(result))
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
    for kind in ("precisions", "sparsities"):
        for choice in result.get("kernels", {}).get(kind, ()):
            ratio = choice["time_ratio"]
            shown = "" if ratio is None else f"{ratio:.2f}x the time of fp32"
            kernel = "" if choice["kernel"] is None else f", mostly {choice['kernel']}"
            what = (
                f"real: {shown}{kernel}" if choice["is_real"] else f"not real: {choice['reason']}"
            )
            lines.append(f"  {choice['name']:<6} {what}")
    return "\n".join(lines)


def _why(name: str) -> str:
    return {
        "nvml": "the GPU's own counter",
        "rapl": "the CPU package's own counter",
        "zeus": "the device's own counter, read by Zeus",
        "estimate": "no energy counter can be read here, so joules are estimates from measured "
        "CPU time; run on bare metal with readable RAPL, or on an NVIDIA GPU, to measure",
    }.get(name, "a plug-in")
