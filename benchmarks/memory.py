"""Peak memory of one training step, in a process of its own."""

import os
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import torch

from . import fresh, rivals
from .allocator import return_freed
from .cases import Case
from .step import forward_backward

MIB = 2**20
RESOLUTION = (os.cpu_count() or 1) / 4  # MiB: Linux keeps some pages of each core out of the high-water mark
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak(NamedTuple):
    """MiB that a step adds, None if not known; the error that this may have; how it was found, or why not."""

    mib: float | None
    resolution: float
    how: str


def peak(case: Case, name: str, device: torch.device) -> Peak:
    """The memory that forward and backward add at most to what is there before, after a first step.

    On a CPU in a fresh process; None in it where the process failed, or the system does not tell.
    """
    if device.type == "cuda":  # its allocator counts for itself
        try:
            return _allocated(case, name, device)
        except torch.cuda.OutOfMemoryError:
            return Peak(None, 0, "more than there is")
    try:
        found: Peak = fresh.call(_peak, case, name, str(device))
        return found
    except BrokenProcessPool:
        return Peak(None, 0, "the process was killed")
    except Exception as error:
        return Peak(None, 0, f"it raised {type(error).__name__}")


def _peak(case: Case, name: str, device_name: str) -> Peak:
    return_freed()  # else it depends on where blocks happen to lie in the heap, by tens of per cent
    device = torch.device(device_name)
    if device.type == "cpu" and not _reset_high_water():
        return _growth(case, name, device)
    module, x, cotangent = rivals.build(case, name, device), *rivals.data(case, device)
    forward_backward(module, x, cotangent)
    _reset_high_water()
    resident = _status("VmRSS")
    forward_backward(module, x, cotangent)
    return Peak((_status("VmHWM") - resident) / MIB, RESOLUTION, "resident set of a second step")


def _allocated(case: Case, name: str, device: torch.device) -> Peak:
    module, x, cotangent = rivals.build(case, name, device), *rivals.data(case, device)
    forward_backward(module, x, cotangent)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    forward_backward(module, x, cotangent)
    peak = torch.cuda.max_memory_allocated(device)
    return Peak((peak - before) / MIB, 0, "allocated on the device by a second step")


def _growth(case: Case, name: str, device: torch.device) -> Peak:
    """The same where the high-water mark cannot be reset: a first step after a small one."""
    if sys.platform == "win32":
        return Peak(None, 0, "not known on Windows")
    import resource

    def high_water() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    for tried in (case.small(), case):
        module, x, cotangent = rivals.build(tried, name, device), *rivals.data(tried, device)
        before = high_water()
        forward_backward(module, x, cotangent)
    return Peak((high_water() - before) / MIB, RESOLUTION, "growth of the resident set in a first step")


def _reset_high_water() -> bool:
    """Set VmHWM to the present resident set, where the system allows it (Linux, proc(5))."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _status(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
