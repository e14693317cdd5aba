"""What the cost models of the Triton and the CUDA kernels share: dense tiles or gathers, sums in parts."""

from collections.abc import Iterator
from contextlib import contextmanager

# By how much a dense product is faster than a gather, a function of an input and an output at a time, on an
# H100 (docs/performance.md). With every number that a gather multiplies comes a load.
DENSE_OVER_GATHER = {"ieee": 4, "tf32x3": 8, "bf16x3": 24, "tf32": 24, "16 bits": 40}


@contextmanager
def prefer(kind: str) -> Iterator[None]:
    """Within the block "dense" or "gather" kernels run wherever there is such a one, for tests and timing."""
    global _preferred
    before, _preferred = _preferred, kind
    try:
        yield
    finally:
        _preferred = before


_preferred = "auto"


def preferred() -> str:
    """The kind of kernels that runs wherever there is such a one, or "auto"."""
    return _preferred


def gathers(gathered: int, multiplied: int, precision: str, hopeless: bool = False) -> bool:
    """Whether a gather of so many numbers is cheaper than a dense tile of so many, or all that is left."""
    if _preferred != "auto":
        return _preferred == "gather"
    return hopeless or gathered * DENSE_OVER_GATHER[precision] < multiplied


def parts(programs: int, wanted: int, most: int) -> int:
    """Into how many parts a sum is cut, so that there are as many programs as wanted; at most so many."""
    return max(1, min(-(-wanted // max(programs, 1)), most))
