"""What becomes of memory that this process frees, where its C library is glibc: see mallopt(3)."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def return_freed() -> None:
    """Give every block of 64 KiB pages of its own, returned when it is freed."""
    _set(M_MMAP_THRESHOLD, 2**16)


def keep_freed() -> None:
    """Keep what was freed for what is asked for next."""
    _set(M_TRIM_THRESHOLD, 2**30)
    _set(M_MMAP_THRESHOLD, 2**25)  # the most it takes


def _set(option: int, value: int) -> None:
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, or none
        ctypes.CDLL(None).mallopt(option, value)
