"""How much memory there is, so that what cannot fit is refused before it is asked for."""

import math
import resource
from pathlib import Path

import psutil

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def installed_bytes() -> int:
    """Return the bytes of memory of the machine."""
    return psutil.virtual_memory().total


def memory_bytes() -> int:
    """Return the bytes of memory that this process can have at most: those of the machine, or a limit below."""
    limits = [installed_bytes()]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    for file in map(Path, _CONTAINER_LIMITS):
        if file.exists() and (text := file.read_text().strip()).isdecimal():
            limits.append(int(text))
    return min(limits)


def readable_bytes(number: float) -> str:
    """Return a number of bytes for people, such as "1.5 GB"."""
    power = min(int(math.log10(max(number, 1))) // 3, len(_UNITS) - 1)
    return f"{number / 1000**power:.3g} {_UNITS[power]}"
