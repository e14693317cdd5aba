"""The functions every basis is tabulated in: a space on [-1, 1] that d/du does not leave.

`polynomial` features are hats and bubbles: (1-u)/2, (1+u)/2, (1-u^2) T_k(u) for k = 0, 1, ...; m = 1 is the
constant. At u = -1 and u = +1 every one but a hat is exactly 0, so nodes on the ends are exact.
Beside outer segments (`outer`) they end with their segment, and hats go on where functions are lines: far
outside, powers of u would exceed a dtype, and sums of hats that are a constant would lose it.
`harmonic` features are 1, sin(pi u), cos(pi u), sin(2 pi u), cos(2 pi u), ...; m is odd.
"""

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

POLYNOMIAL, HARMONIC = 0, 1
NONE, LIVE, FROZEN = 0, 1, 2  # outer segments: there are none; of lines, u as inside; of constants, u is 0

Matrix = tuple[
    tuple[float, ...], ...
]  # plain numbers: they stay real while a compiler traces with fake tensors


def polynomial_features(u: Tensor, m: int, outer: int = NONE) -> Tensor:
    """The m hat-and-bubble functions at u: shape (*u.shape, m). NaN stays NaN."""
    if m == 1:
        return torch.where(u.isnan(), u, torch.ones_like(u)).unsqueeze(-1)
    within = u if outer == NONE else u.clamp(-1, 1)
    u = u if outer == LIVE else within
    columns = [(1 - u) / 2, (1 + u) / 2]
    bubble = (1 - within) * (1 + within)
    older, old = bubble, bubble * within
    for _ in range(m - 2):
        columns.append(older)
        older, old = old, 2 * within * old - older
    return torch.stack(columns, -1)


def harmonic_features(u: Tensor, m: int) -> Tensor:
    """1, sin(j pi u), cos(j pi u) for j = 1 .. (m-1)/2 at u: shape (*u.shape, m). Infinite u gives NaN."""
    columns = [torch.where(u.isnan(), u, torch.ones_like(u))]
    turn = u - 2 * torch.round(u / 2)  # exact, and sin and cos have period 2 in u
    for j in range(1, (m + 1) // 2):
        angle = math.pi * (j * turn - 2 * torch.round(j * turn / 2))
        columns += [angle.sin(), angle.cos()]
    return torch.stack(columns, -1)


def features(u: Tensor, m: int, kind: int, outer: int = NONE) -> Tensor:
    """The m features of a kind (POLYNOMIAL or HARMONIC) at local coordinate u: shape (*u.shape, m)."""
    return polynomial_features(u, m, outer) if kind == POLYNOMIAL else harmonic_features(u, m)


# where tables are made, whatever the default device and dtype
HOST: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}


def lobatto(n: int) -> Tensor:
    """n Chebyshev-Lobatto points, ascending from -1 to 1, float64; exactly symmetric; n = 1 gives 0."""
    return torch.tensor(lobatto_points(n), **HOST)


def lobatto_points(n: int) -> tuple[float, ...]:
    """lobatto(n) as numbers."""
    return tuple(math.sin(math.pi / 2 * (2 * i - (n - 1)) / (n - 1)) for i in range(n)) if n > 1 else (0.0,)


# torch 2.11 cannot trace what makes numbers of tensors
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def from_values(m: int) -> Matrix:
    """The matrix C [m, m] with coefficients = values @ C, for values at the lobatto(m) points.

    The rows of the end points and the columns of the hats are exact, so a function that is 0 at an end
    has a coefficient there that is exactly 0.
    """
    return _from_values(m)


@lru_cache
def _from_values(m: int) -> Matrix:
    values = torch.eye(m, **HOST)
    if m > 2:
        u = lobatto(m)
        inner = u[1:-1]
        chebyshev = torch.cos(torch.arange(m - 2, **HOST)[:, None] * torch.acos(inner))
        ends = values[:, [0, -1]]
        rest = values - ends @ torch.stack([(1 - u) / 2, (1 + u) / 2])
        bubbles = torch.linalg.solve(chebyshev.T, (rest[:, 1:-1] / ((1 - inner) * (1 + inner))).T).T
        values = torch.cat([ends, bubbles], 1)
    return _rows(values)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def differentiation(m: int, kind: int) -> Matrix:
    """The matrix D [m, m] with d features / du = D @ features."""
    return _differentiation(m, kind)


@lru_cache
def _differentiation(m: int, kind: int) -> Matrix:
    d = torch.zeros(m, m, **HOST)
    if kind == HARMONIC:
        for j in range(1, (m + 1) // 2):
            d[2 * j - 1, 2 * j], d[2 * j, 2 * j - 1] = j * math.pi, -j * math.pi
    elif m > 1:
        u = lobatto(m)
        slopes = [torch.full_like(u, -0.5), torch.full_like(u, 0.5)]
        # d/du (1-u^2) T_k = -2u T_k + (1-u^2) k U_(k-1)
        t, s = [torch.ones_like(u), u], [torch.zeros_like(u), torch.ones_like(u)]
        for k in range(m - 2):
            slopes.append(-2 * u * t[k] + (1 - u) * (1 + u) * k * s[k])
            t.append(2 * u * t[-1] - t[-2])
            s.append(2 * u * s[-1] - s[-2])
        d = torch.stack(slopes) @ torch.tensor(from_values(m), **HOST)
        d[:2, 2:] = 0.0  # slopes of hats are constants; rounding has put bubbles to them
    return _rows(d)


def constant(m: int, kind: int) -> Tensor:
    """The coefficients [m] of the function 1, float64."""
    ones = min(m, 2) if kind == POLYNOMIAL else 1
    return (torch.arange(m, device="cpu") < ones).to(torch.float64)


def _rows(matrix: Tensor) -> Matrix:
    return tuple(tuple(row) for row in matrix.tolist())
