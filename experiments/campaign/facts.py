"""Facts of an NVIDIA board that decide whether joules are right, each asked of the board.

``python -m experiments.campaign.facts --to FILE`` runs in a process of its own, so that whatever
it does to the device ends with it. It reads settings and changes none. ``--cold`` follows power,
temperature and clock from rest, a line of JSON every two seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nas.core.files import write_json
from predictors.meters.base import MeterError
from predictors.meters.nvml import load_pynvml
from predictors.meters.nvml_board import SM_CLOCK, find_uuid, maybe, watts
from predictors.meters.select import parse_device
from predictors.meters.visible import visible_gpu

_FIELD_POWER_INSTANT = 186
_REST_S, _COLD_S, _COLD_STEP_S = 30.0, 100.0, 2.0
_N_CALLS = 40
_ROWS = (8, 16, 17)


def call_times(
    nvml: Any, handle: Any, load: Callable[[], object], clock: Callable[[], float]
) -> dict[str, dict[str, float] | str]:
    """Milliseconds that each call to the driver takes while the device works."""
    calls: dict[str, Callable[[], object]] = {
        "energy": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle),
        "processes": lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle),
        "instant_power": lambda: nvml.nvmlDeviceGetFieldValues(handle, [_FIELD_POWER_INSTANT]),
        "clock_reasons": lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
    }
    times: dict[str, dict[str, float] | str] = {}
    for name, call in calls.items():
        seen = []
        try:
            for _ in range(_N_CALLS):
                load()
                started_s = clock()
                call()
                seen.append((clock() - started_s) * 1e3)
        except (nvml.NVMLError, AttributeError) as error:
            # An older driver or binding lacks some calls.
            times[name] = f"not reported: {error}"
            continue
        times[name] = {"median_ms": statistics.median(seen), "most_ms": max(seen)}
    return times


def _board(nvml: Any, handle: Any, device: str) -> dict[str, Any]:
    import torch

    def ask(name: str, *arguments: Any) -> Any:
        try:
            value = getattr(nvml, name)(handle, *arguments)
        except nvml.NVMLError as error:
            return f"not reported: {error}"
        return value.decode() if isinstance(value, bytes) else value

    properties = torch.cuda.get_device_properties(device)
    idle_mw = []
    for _ in range(5):
        time.sleep(0.3)
        idle_mw.append(ask("nvmlDeviceGetPowerUsage"))
    running = ask("nvmlDeviceGetComputeRunningProcesses")
    return {
        "name": ask("nvmlDeviceGetName"),
        "uuid_nvml": ask("nvmlDeviceGetUUID"),
        "uuid_torch": str(properties.uuid),
        "capability": list(torch.cuda.get_device_capability(device)),
        "power_limit_mw": ask("nvmlDeviceGetEnforcedPowerLimit"),
        "idle_mw_with_context": idle_mw,
        "pids_seen": (
            running if isinstance(running, str) else [process.pid for process in running]
        ),
        "own_pid": os.getpid(),
        "torch": str(torch.__version__),
    }


def _attention(device: str) -> dict[str, Any]:
    """Which kernels of attention take grouped queries, by dtype and mask."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention as attend

    rows: dict[str, Any] = {}
    backends = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")
    for dtype in (torch.float32, torch.bfloat16):
        for is_masked in (False, True):
            queries = torch.randn(32, 8, 128, 64, device=device, dtype=dtype)
            keys = torch.randn(32, 2, 128, 64, device=device, dtype=dtype)
            mask = torch.ones(32, 1, 1, 128, dtype=torch.bool, device=device)
            row = {}
            for name in backends:
                try:
                    with sdpa_kernel(getattr(SDPBackend, name)):
                        attend(
                            queries,
                            keys,
                            keys,
                            attn_mask=mask if is_masked else None,
                            enable_gqa=True,
                        )
                    row[name] = "runs"
                except RuntimeError:
                    row[name] = "refuses"
            rows[f"{str(dtype).removeprefix('torch.')} {'masked' if is_masked else 'plain'}"] = row
    return rows


def _int8_rows(device: str) -> dict[str, str]:
    """Whether the int8 product takes so few rows."""
    import torch

    from search_spaces.compression.torch_internals import int8_product

    found = {}
    for rows in _ROWS:
        x = torch.ones(rows, 256, dtype=torch.int8, device=device)
        weight = torch.ones(256, 256, dtype=torch.int8, device=device).t()
        try:
            int8_product(x, weight)
            found[str(rows)] = "runs"
        except RuntimeError as error:
            found[str(rows)] = str(error).splitlines()[0]
    return found


def _load(device: str) -> Callable[[], None]:
    import torch

    factor = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)

    def load() -> None:
        for _ in range(4):
            factor @ factor
        torch.cuda.synchronize()

    return load


def cold_start(nvml: Any, handle: Any, load: Callable[[], None], path: Path) -> None:
    """Follow the board from rest under load; each line is on disk at once.

    What the board does not report is ``null``.
    """
    time.sleep(_REST_S)
    began_s = time.perf_counter()
    with path.open("w", encoding="utf-8") as lines:
        while time.perf_counter() - began_s < _COLD_S:
            before_mj = maybe(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle)
            started_s, n = time.perf_counter(), 0
            while time.perf_counter() - started_s < _COLD_STEP_S:
                load()
                n += 1
            after_mj = maybe(nvml, "nvmlDeviceGetTotalEnergyConsumption", handle)
            has_joules = before_mj is not None and after_mj is not None
            line = {
                "after_s": round(time.perf_counter() - began_s, 2),
                "temperature_c": maybe(nvml, "nvmlDeviceGetTemperature", handle, 0),
                "sm_clock_mhz": maybe(nvml, "nvmlDeviceGetClockInfo", handle, SM_CLOCK),
                "power_w": watts(nvml, "nvmlDeviceGetPowerUsage", handle),
                "joules_per_batch": (after_mj - before_mj) / 1e3 / n if has_joules else None,
                "clock_reasons": maybe(nvml, "nvmlDeviceGetCurrentClocksEventReasons", handle),
            }
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            os.fsync(lines.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Ask the board."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.campaign.facts", description=__doc__
    )
    parser.add_argument("--device", default="cuda:0", help="cuda:N (default: cuda:0)")
    parser.add_argument("--to", type=Path, required=True, help="file to write")
    parser.add_argument("--cold", action="store_true", help="follow the board from rest")
    arguments = parser.parse_args(argv)
    try:
        device = parse_device(arguments.device)
        if not device.startswith("cuda"):
            raise ValueError(f"--device must be cuda:N, got {device}")
        nvml = load_pynvml()
        gpu = visible_gpu(int(device.partition(":")[2]))
        # CUDA takes the beginning of a UUID for the whole, and the driver does not.
        uuid = find_uuid(nvml, gpu)
        if uuid is None:
            raise ValueError(f"--device must be a board that the driver knows, got {device}")
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        import torch

        torch.cuda.set_device(device)
        if arguments.cold:
            cold_start(nvml, handle, _load(device), arguments.to)
            return 0
        facts: dict[str, Any] = {"board": _board(nvml, handle, device)}
        facts["calls"] = call_times(nvml, handle, _load(device), time.perf_counter)
        facts["attention"], facts["int8_rows"] = _attention(device), _int8_rows(device)
        write_json(arguments.to, facts)
    except (MeterError, ValueError, OSError, RuntimeError, AssertionError) as error:
        print(f"facts: {(str(error).splitlines() or [type(error).__name__])[0]}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
