"""The most memory that a step held."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    """Most memory this process held since `reset_peak_memory`; since its start where that is impossible."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+)", status.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> None:
    """Start a new count for `peak_memory_bytes` where the system allows it (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not permitted: the peak is then that of the whole process
