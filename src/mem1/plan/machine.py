"""THE MACHINE that a run is planned for: this one, or one that is described.

"80GB", 8 -> Machine(devices=8, memory=80_000_000_000)
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mem1.errors import ConfigError

_UNITS = {"": 1, "MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Devices of one kind; a process runs on each."""

    devices: int = 1
    memory: int
    """Bytes of each."""
    kind: Literal["gpu", "cpu"] = "gpu"
    bfloat16: bool = True
    """Whether it computes in it; all GPUs that matter do."""

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ConfigError(f"--devices {self.devices}: give at least 1")


def parse_memory(text: str) -> int:
    """Bytes. GB are 10^9, GiB 2^30. Raises: ConfigError for what is no amount of memory.

    >>> parse_memory("80GB")
    80000000000
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    if not match or match[2].upper() not in _UNITS or not float(match[1]):
        raise ConfigError(f"--memory {text}: write it as  80GB  or  24GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def this_machine(*, on_cpu: bool, devices: int | None = None, memory: int | None = None) -> Machine:
    """This machine, as far as `devices` and `memory` don't describe another.

    Args: `on_cpu`, whether the run computes there, GPUs or not. Raises: ConfigError for a number
    of GPUs without a memory where there are none.
    """
    gpus = [] if on_cpu else _gpus()
    if gpus or (memory and not on_cpu):
        count = (len(gpus) or 1) if devices is None else devices
        return Machine(devices=count, memory=memory or min(gpus))
    count = 1 if devices is None else devices
    if count > 1 and not on_cpu:
        raise ConfigError(f"--devices {count}: no GPU here, add their  --memory 80GB")
    each = memory or _ram() // max(count, 1)
    return Machine(devices=count, memory=each, kind="cpu", bfloat16=_cpu_has_bfloat16())


def _gpus() -> list[int]:
    """Bytes of each GPU, as the driver tells; none without a driver."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) * 2**20 for line in told.stdout.split() if line.isdecimal()]


def _ram() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpu_has_bfloat16() -> bool:
    """As the kernel tells; False where it doesn't."""
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)
