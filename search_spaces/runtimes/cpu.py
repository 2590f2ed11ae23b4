"""Instructions of this machine's CPU that decide which precisions its kernels compute."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


@cache
def cpu_flags(path: Path = _CPU_INFO) -> frozenset[str]:
    """Return the names of the CPU's instruction sets, as Linux lists them; empty if unknown."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    # ``Features`` on Arm.
    found = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(found, "").split())


def has_vnni() -> bool:
    """Return whether products of 8-bit integers are summed in 32 bits, which cannot overflow."""
    return bool(cpu_flags() & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def has_bf16() -> bool:
    """Return whether the CPU multiplies in bf16."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})
