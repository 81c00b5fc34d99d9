"""How much memory this process can still take."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_CGROUPS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
_CGROUP_FOLDERS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory"))


def available_memory() -> int:
    """Bytes that can still be taken without swapping: the least of what the machine, a container's limit and the limit
    on this process's addresses leave.
    """
    found = [_of_machine()]
    for folder in _CGROUP_FOLDERS:
        for most, used in _CGROUPS:
            with contextlib.suppress(OSError, ValueError):  # not there, or "max"
                found.append(int((folder / most).read_text()) - int((folder / used).read_text()))
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            found.append(limit - pages * os.sysconf("SC_PAGE_SIZE"))
    return max(0, min(found))


def _of_machine() -> int:
    with contextlib.suppress(OSError, ValueError), Path("/proc/meminfo").open() as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def in_bytes(number: int | float) -> str:
    """A size: 512 bytes, 1.5 KiB, 120 MiB."""
    if number < 1024:
        return f"{number:.0f} byte{'' if number == 1 else 's'}"
    size, unit = float(number), 0
    while size >= 1000 and unit < len(_UNITS):
        size, unit = size / 1024, unit + 1
    return f"{size:.{1 if size < 10 else 0}f} {_UNITS[unit - 1]}"
