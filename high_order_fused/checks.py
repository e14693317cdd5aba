"""Checks of arguments: each error names the argument, what it got and what it needs."""

import math
from collections.abc import Collection

import torch
from torch import Tensor

from .basis import Basis

_HALF = (torch.float16, torch.bfloat16)
_DTYPES = (torch.float32, torch.float64, *_HALF)


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


def needs_basis(value: object, name: str = "basis") -> Basis:
    """value if it is a Basis; TypeError otherwise."""
    if not isinstance(value, Basis):
        raise TypeError(
            f"{name}: got {type(value).__name__}, needs a Basis, for example hof.bases.lagrange(4)"
        )
    return value


def autocast(x: Tensor) -> bool:
    """Whether autocast is on where x is; False on devices that have none, such as meta."""
    if not torch._C._is_any_autocast_enabled():  # most calls end here, without asking for a device
        return False
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def lowered(t: Tensor, x: Tensor) -> Tensor:
    """What autocast makes of coefficients and cotangents."""
    return t.to(torch.get_autocast_dtype(x.device.type)) if t.dtype == torch.float32 else t


def tensors(x: Tensor, **others: Tensor | None) -> None:
    """TypeError or ValueError unless all are tensors whose dtypes and devices go together."""
    for name, t in {"x": x, **others}.items():
        if t is None and name in ("s", "scale", "gain", "base", "base_weight"):
            continue
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}: got {type(t).__name__}, needs a tensor")
        if t.dtype not in _DTYPES:
            raise TypeError(f"{name}: got {t.dtype}, needs float32, float64, bfloat16 or float16")
        if t is x:
            continue
        if t.device != x.device:
            raise ValueError(f"{name}: got device {t.device}, needs that of x, {x.device}")
        if t.dtype != x.dtype and not _may_differ(name, t, x):
            raise TypeError(f"{name}: got {t.dtype}, needs that of x, {x.dtype}")


def _may_differ(name: str, t: Tensor, x: Tensor) -> bool:
    """Coefficients and cotangents may be narrower than float32 inputs; autocast makes them so."""
    if name in ("s", "scale"):
        return False
    if x.dtype == torch.float32:
        return t.dtype in _HALF
    return x.dtype in _HALF and t.dtype == torch.float32 and autocast(x)
