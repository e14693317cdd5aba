"""Checks of arguments: each error names the argument, what it got and what it needs."""

import math
from collections.abc import Collection


def count(name: str, value: object, least: int = 1) -> int:
    """value as an int of at least `least`; TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: got {value!r}, needs an int of at least {least}")
    if value < least:
        raise ValueError(f"{name}: got {value}, needs an int of at least {least}")
    return value


def choice(name: str, value: object, options: Collection[str]) -> str:
    """value if it is one of the options; ValueError otherwise."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: got {value!r}, needs one of {', '.join(map(repr, options))}")
    return value


def ends(name: str, value: tuple[float, float]) -> tuple[float, float]:
    """value as a finite, increasing (low, high) pair; ValueError otherwise."""
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: got {value!r}, needs two numbers (low, high)") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{name}: got ({low}, {high}), needs finite low < high")
    return low, high
