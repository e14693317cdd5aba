"""The rival to beat, in plain torch: expand the basis to (batch, in * K), then one matrix product.

Written from the formulas alone, so that it is also an oracle for our layers.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, linear, silu

from .cases import SUMS, TRANSPOSED, Case


class _Expanded(nn.Module):
    table: Tensor

    def __init__(self, case: Case, weight: Tensor, size: int) -> None:
        super().__init__()
        self.case, self.weight, self.size = case, nn.Parameter(weight), size
        self.compute = torch.promote_types(weight.dtype, torch.float32)
        self.register_buffer("table", lagrange_table(case.n).to(weight.device, self.compute))
        family = next(kind for kind in SUMS if case.kind.startswith(kind))
        self.shared = family == "continuous"
        self.expand: Callable[[Tensor], Tensor] = {
            "continuous": self.piecewise,
            "discontinuous": self.piecewise,
            "polynomial": self.polynomial,
            "fourier": self.fourier,
            "monomial": self.monomial,
            "chebyshev": self.chebyshev,
        }[family]

    def polynomial(self, u: Tensor) -> Tensor:
        """Lagrange polynomials of n Chebyshev-Lobatto nodes on [-1, 1]."""
        return self.chebyshev(u) @ self.table

    def chebyshev(self, u: Tensor) -> Tensor:
        """T_0(u), T_1(u), ..."""
        functions = [torch.ones_like(u), u]
        for _ in range(2, self.case.n):
            functions.append(2 * u * functions[-1] - functions[-2])
        return torch.stack(functions[: self.case.n], -1)

    def piecewise(self, x: Tensor) -> Tensor:
        """The same in the local coordinate of each segment, in the segment's place among K values."""
        n, segments = self.case.n, self.case.segments
        segment = ((x + 1) / 2 * segments).long().clamp(0, segments - 1)
        left, right = (2 * (edge / segments) - 1 for edge in (segment, segment + 1))
        values = self.polynomial(2 * ((x - left) / (right - left)) - 1)
        columns = (segment * (n - self.shared)).unsqueeze(-1) + torch.arange(n, device=x.device)
        return values.new_zeros(*x.shape, self.size).scatter(-1, columns, values)

    def fourier(self, x: Tensor) -> Tensor:
        """1/2, sin(pi x), cos(pi x), sin(2 pi x), ..."""
        waves = [torch.full_like(x, 0.5)]
        for j in range(1, self.case.n):
            angle = math.pi * ((j + 1) // 2) * x
            waves.append(angle.sin() if j % 2 else angle.cos())
        return torch.stack(waves, -1)

    def monomial(self, x: Tensor) -> Tensor:
        """1, x, x^2, ..."""
        powers = [torch.ones_like(x)]
        for _ in range(1, self.case.n):
            powers.append(powers[-1] * x)
        return torch.stack(powers, -1)


class ExpandedLinear(_Expanded):
    """All K functions of every input as a row of a matrix, times the coefficients `weight` [in, K, out]."""

    def __init__(self, case: Case, weight: Tensor) -> None:
        super().__init__(case, weight, weight.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        functions = self.expand(x.to(self.compute)).flatten(1)
        return functions.to(self.weight.dtype) @ self.weight.flatten(0, 1)


class ExpandedConv(_Expanded):
    """All K functions of every channel as channels, then torch's convolution with `weight` [out, in K, k, k].

    A transposed convolution has [in K, out, k, k]. The functions lie innermost, as torch's channels_last has
    it, so that nothing is copied between the two.
    """

    def __init__(self, case: Case, weight: Tensor) -> None:
        self.transposed = case.kind in TRANSPOSED
        super().__init__(case, weight, weight.shape[0 if self.transposed else 1] // case.in_features)

    def forward(self, x: Tensor) -> Tensor:
        functions = self.expand(x.movedim(1, -1)).flatten(-2).movedim(-1, 1)
        over = conv_transpose2d if self.transposed else conv2d
        return over(functions, self.weight, stride=self.case.stride, padding=self.case.padding)


class CoxDeBoorKAN(nn.Module):
    """A KAN layer by the Cox-de Boor recurrence over all splines, with base branch and scaler.

    base_weight, spline_scaler [out, in], spline_weight [out, in, K], grid [in, K + order + 1].
    """

    grid: Tensor

    def __init__(
        self, base_weight: Tensor, spline_weight: Tensor, spline_scaler: Tensor, grid: Tensor
    ) -> None:
        super().__init__()
        self.base_weight, self.spline_weight = nn.Parameter(base_weight), nn.Parameter(spline_weight)
        self.spline_scaler = nn.Parameter(spline_scaler)
        self.register_buffer("grid", grid)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.spline_weight * self.spline_scaler.unsqueeze(-1)
        return linear(silu(x), self.base_weight) + linear(self.splines(x).flatten(1), weight.flatten(1))

    def splines(self, x: Tensor) -> Tensor:
        """The K splines at x [N, in]: [N, in, K]."""
        knots, x = self.grid, x.unsqueeze(-1)
        after = (x >= knots).to(x.dtype)
        values = after[..., :-1] - after[..., 1:]
        for degree in range(1, knots.shape[1] - self.spline_weight.shape[2]):
            start = knots[:, :-degree]
            ramp = (x - start) / (knots[:, degree:] - start)
            values = ramp[..., :-1] * values[..., :-1] + (1 - ramp[..., 1:]) * values[..., 1:]
        return values


def lagrange_table(n: int) -> Tensor:
    """float64 [n, n]: Chebyshev polynomials T_0 .. T_(n-1) at a point, times this, are the Lagrange ones."""
    j = torch.arange(n, dtype=torch.float64)
    angle = math.pi * (n - 1 - j) / max(n - 1, 1)  # the nodes are its cosines, ascending
    table: Tensor = torch.linalg.inv(torch.cos(angle.unsqueeze(-1) * j))
    return table
