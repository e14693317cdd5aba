"""Peak memory of one training step, in a process of its own."""

import contextlib
import ctypes
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from . import rivals
from .cases import Case
from .step import forward_backward

MIB = 2**20
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_in_fresh_process(case: Case, name: str, device: torch.device) -> tuple[float | None, str]:
    """MiB that forward and backward add to what is there after a first step, and how that was found out.

    None, and why not, where the process was killed or the system does not tell.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(
            [__name__]
        )  # it imports torch once, runs nothing, and is forked for each call
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_peak, case, name, str(device), torch.get_num_threads()).result()
        except BrokenProcessPool:
            return None, "the process was killed"


def _peak(case: Case, name: str, device_name: str, threads: int) -> tuple[float | None, str]:
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    if device.type == "cpu" and not _reset_high_water():
        return _growth(case, name, device)
    module, x, cotangent = rivals.build(case, name, device), *rivals.data(case, device)
    forward_backward(module, x, cotangent)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        forward_backward(module, x, cotangent)
        peak = torch.cuda.max_memory_allocated(device)
        return (peak - allocated) / MIB, "allocated on the device by a second step"
    _return_freed_memory()
    _reset_high_water()
    resident = _status("VmRSS")
    forward_backward(module, x, cotangent)
    return (_status("VmHWM") - resident) / MIB, "resident set of a second step"


def _growth(case: Case, name: str, device: torch.device) -> tuple[float | None, str]:
    """The same where the high-water mark cannot be reset: a first step after a small one."""
    if sys.platform == "win32":
        return None, "not known on Windows"
    import resource

    def high_water() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    for tried in (case.small(), case):
        module, x, cotangent = rivals.build(tried, name, device), *rivals.data(tried, device)
        before = high_water()
        forward_backward(module, x, cotangent)
    return (high_water() - before) / MIB, "growth of the largest resident set in a first step"


def _reset_high_water() -> bool:
    """Set VmHWM to the present resident set, where the system allows it (Linux, proc(5))."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _return_freed_memory() -> None:
    """Have glibc give back what was freed, so that the step that follows has to ask for all of its own."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
