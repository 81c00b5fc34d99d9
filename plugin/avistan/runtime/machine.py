"""What of a machine decides the bytes that it computes."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path


def processor() -> str:
    """The processor's model."""
    return _cpuinfo("model name") or platform.processor()


def processor_features() -> str:
    """What instructions it has; empty where the system does not say."""
    return _cpuinfo("flags") or _cpuinfo("Features")


def num_processors() -> int:
    """How many this process may use: XLA splits sums by them."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _cpuinfo(entry: str) -> str:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == entry:
                return value.strip()
    return ""
