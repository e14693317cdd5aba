"""KANLinear and KAN: B-splines over a grid of their own per input, plus a base branch (efficient-kan)."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .bases import bspline_values
from .basis import lookup_dtype, widened
from .checks import autocast, count, ends, tensors
from .features import FROZEN, POLYNOMIAL, differentiation, from_values
from .functional import link
from .operands import Layout, Operands, derivative_tables, placed, watched
from .reference import expand


class KANLinear(nn.Module):
    """y = base_weight act(x) + sum_i spline_oi(x_i): a KAN layer, by efficient-kan's names and defaults.

    x [..., in_features], y [..., out_features]. Parameters `base_weight` [out, in], `spline_weight`
    [out, in, grid_size + spline_order], `spline_scaler` [out, in] (only with enable_standalone_scale_spline);
    buffer `grid` [in, grid_size + 2 spline_order + 1], which `update_grid` adapts to data. Outside its grid a
    spline is 0. The grid stays in at least float32. ValueError and TypeError name a wrong argument.
    Source: efficient-kan, KANLinear; bit-equal initial weights (splines to 1e-6) from the same seed.
    """

    grid: Tensor
    spline_scaler: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        scale_noise: float = 0.1,
        scale_base: float = 1.0,
        scale_spline: float = 1.0,
        enable_standalone_scale_spline: bool = True,
        base_activation: Callable[[], nn.Module] = nn.SiLU,
        grid_eps: float = 0.02,
        grid_range: Sequence[float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = (
            count("in_features", in_features),
            count("out_features", out_features),
        )
        self.grid_size, self.spline_order = (
            count("grid_size", grid_size),
            count("spline_order", spline_order, 0),
        )
        self.grid_range = ends("grid_range", tuple(grid_range))  # type: ignore[arg-type]
        self.scale_noise, self.scale_base, self.scale_spline = scale_noise, scale_base, scale_spline
        self.enable_standalone_scale_spline, self.grid_eps = enable_standalone_scale_spline, grid_eps
        if not callable(base_activation):
            got = type(base_activation).__name__
            raise TypeError(f"base_activation: got {got}, needs a function or class that makes a module")
        self.base_activation = base_activation()
        self.register_buffer("grid", self._uniform_grid())
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, grid_size + spline_order))
        if enable_standalone_scale_spline:
            self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features))
        self._to_features = from_values(spline_order + 1)
        self._differentiation = differentiation(spline_order + 1, POLYNOMIAL)
        self._tabulated: tuple[Tensor, torch.dtype, Operands] | None = None
        self.reset_parameters()

    def _uniform_grid(self) -> Tensor:
        low, high = self.grid_range
        wide = torch.promote_types(torch.get_default_dtype(), torch.float32)
        numbers = torch.arange(-self.spline_order, self.grid_size + self.spline_order + 1, dtype=wide)
        grid = numbers * ((high - low) / self.grid_size) + low
        return grid.expand(self.in_features, -1).contiguous()

    def reset_parameters(self) -> None:
        """Draw the weights anew: kaiming-uniform base and scaler, splines fitted to noise at the knots.

        The grid stays, unless its knots do not increase, as in memory that nothing has been written to.
        """
        if not self.grid.is_meta and not bool((self.grid.diff(dim=1) > 0).all()):
            self.grid.copy_(self._uniform_grid())
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5) * self.scale_base)
        with torch.no_grad():
            shape = (self.grid_size + 1, self.in_features, self.out_features)
            noise = (torch.rand(shape, device=self.grid.device) - 0.5) * self.scale_noise / self.grid_size
            inner = self.grid.T[self.spline_order : self.spline_order + self.grid_size + 1]
            scale = 1.0 if self.enable_standalone_scale_spline else self.scale_spline
            self.spline_weight.copy_(scale * self.curve2coeff(inner, noise.to(inner.dtype)))
        if self.enable_standalone_scale_spline:
            nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5) * self.scale_spline)

    @property
    def scaled_spline_weight(self) -> Tensor:
        """spline_weight times the scaler, if there is one: [out, in, grid_size + spline_order]."""
        if not self.enable_standalone_scale_spline:
            return self.spline_weight
        return self.spline_weight * self.spline_scaler.unsqueeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        base_weight = self.base_weight
        dtype = base_weight.dtype
        if x.dtype != dtype and (torch.float64 in (x.dtype, dtype) or not autocast(x)):
            raise TypeError(f"x: got {x.dtype}, needs that of the layer, {dtype}")
        scaler = self.spline_scaler.T if self.enable_standalone_scale_spline else None
        weight, basis = self.spline_weight.permute(1, 2, 0), self._basis(lookup_dtype(x))
        base = None if _plain_silu(self.base_activation) else self.base_activation(x)
        return link(x, weight, basis, gain=scaler, base=base, base_weight=base_weight)

    def b_splines(self, x: Tensor) -> Tensor:
        """The B-splines at x [N, in]: [N, in, grid_size + spline_order], in x's dtype; 0 outside the grid."""
        self._check(x)
        rows = x.reshape(1, -1, self.in_features)
        splines = expand(rows, self._basis(lookup_dtype(x))).to(x.dtype)
        return splines.reshape(*x.shape, self.grid_size + self.spline_order)

    def curve2coeff(self, x: Tensor, y: Tensor) -> Tensor:
        """Coefficients [out, in, grid_size + spline_order] of least squares, of least norm where not unique.

        x [N, in]; y [N, in, out], the values of the splines there.
        """
        self._check(x)
        if not isinstance(y, Tensor):
            raise TypeError(f"y: got {type(y).__name__}, needs a tensor")
        if y.shape != (*x.shape, self.out_features):
            raise ValueError(f"y: got shape {tuple(y.shape)}, needs {(*x.shape, self.out_features)}")
        splines = self.b_splines(x).transpose(0, 1)
        return _least_squares(splines, y.transpose(0, 1)).permute(2, 0, 1).contiguous()

    @torch.no_grad()
    def update_grid(self, x: Tensor, margin: float = 0.01, corrected: bool = False) -> None:
        """Move the knots to where the data x [..., in] is and refit the splines to themselves there.

        The new grid mixes grid_eps of a uniform one with quantiles of x. As in the peer, the fit is made to
        the scaled splines and then scaled again, which changes the function when there is a scaler;
        corrected=True keeps the function. ValueError for no rows, NaN, or knots that would coincide (no
        margin and constant data).
        """
        self._check(x)
        x = x.reshape(-1, self.in_features).to(self.grid.dtype)
        if x.shape[0] == 0 or not bool(x.isfinite().all()):
            raise ValueError(
                f"x: got {x.shape[0]} rows, {int((~x.isfinite()).sum())} values not finite, needs finite rows"
            )
        old, grid = self.b_splines(x), self._adapted_grid(x, margin)
        if not bool((grid.diff(dim=1) > 0).all()):
            raise ValueError(f"margin: got {margin} with constant data, needs more for knots that increase")
        self.grid.copy_(grid)
        change = _least_squares(self.b_splines(x).transpose(0, 1), old.transpose(0, 1))  # [in, K, K]
        weight = self.spline_weight if corrected else self.scaled_spline_weight
        self.spline_weight.copy_(torch.einsum("ikl,oil->oik", change.to(weight.dtype), weight))

    def _adapted_grid(self, x: Tensor, margin: float) -> Tensor:
        """[in, grid_size + 2 spline_order + 1]; the order of operations is the peer's."""
        size, order = self.grid_size, self.spline_order
        ordered = x.sort(dim=0).values
        picks = torch.linspace(0, x.shape[0] - 1, size + 1, dtype=torch.int64, device=x.device)
        step = (ordered[-1] - ordered[0] + 2 * margin) / size
        uniform = (
            torch.arange(size + 1, dtype=x.dtype, device=x.device).unsqueeze(1) * step + ordered[0] - margin
        )
        inner = self.grid_eps * uniform + (1 - self.grid_eps) * ordered[picks]
        beyond = torch.arange(1, order + 1, device=x.device).unsqueeze(1) * step
        return torch.cat([inner[:1] - beyond.flip(0), inner, inner[-1:] + beyond]).T

    def regularization_loss(
        self, regularize_activation: float = 1.0, regularize_entropy: float = 1.0
    ) -> Tensor:
        """L1 of the spline coefficients, and the entropy of its distribution over the edges (0 log 0 = 0)."""
        l1 = self.spline_weight.abs().mean(-1)
        total = l1.sum()
        share = l1 / torch.where(total > 0, total, 1.0)
        entropy = -(share * torch.where(share > 0, share, 1.0).log()).sum()
        return regularize_activation * total + regularize_entropy * entropy

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"grid_size={self.grid_size}, spline_order={self.spline_order}"
        )

    def _check(self, x: Tensor) -> None:
        tensors(x)
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"x: got shape {tuple(x.shape)}, needs [..., {self.in_features}]")
        if x.device != self.grid.device:
            raise ValueError(f"x: got device {x.device}, needs that of the layer, {self.grid.device}")

    def _basis(self, dtype: torch.dtype) -> Operands:
        """The splines of the grid as it now is; kept between calls, compared with the grid by value.

        By value, since loading, `.to`, edits of `grid.data` and functional calls change it in ways that a
        version counter misses. The comparison would make a GPU wait, so there the tables are made at each
        call, as inside compiled graphs.
        """
        grid = self.grid
        if torch.compiler.is_compiling() or grid.device.type != "cpu" or watched((grid,)):
            return self._tabulate(grid, dtype)  # and nothing is kept that belongs to a transform
        kept = self._tabulated
        if kept is None or kept[1] != dtype or not torch.equal(kept[0], grid):
            with torch.inference_mode(False):
                own = grid.detach().clone()
                # the same knots until `update_grid`: one table for all stays in the nearest cache
                one = own[:1] if bool((own == own[:1]).all()) else own
                kept = self._tabulated = (own, dtype, self._tabulate(one, dtype))
        return kept[2]

    @torch.no_grad()
    def _tabulate(self, grid: Tensor, dtype: torch.dtype) -> Operands:
        order, grid = self.spline_order, grid.to(torch.float64)
        table = bspline_values(grid, order) @ placed(self._to_features, grid.dtype, grid.device)
        table = functional.pad(table, (0, 0, 0, 0, 1, 1))  # nothing outside
        domain, knots = torch.stack([grid[:, 0], grid[:, -1]], 1), widened(grid)
        segment = torch.arange(-1, grid.shape[1], device=grid.device)
        start = (segment - order).clamp(0, self.grid_size - 1)
        layout = Layout(POLYNOMIAL, 0, FROZEN, self.grid_size + order, 0)
        tables = derivative_tables(table, knots, self._differentiation).to(dtype)
        return Operands(domain.to(dtype), knots.to(dtype), tables, start, layout)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "KANLinear":
        before = self.grid
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if before.is_meta and not self.grid.is_meta:  # `to_empty`; what resets parameters leaves the grid
            before = self.grid.copy_(self._uniform_grid())
        if self.grid.dtype in (torch.float16, torch.bfloat16):  # knots must stay apart
            self.grid = before.to(self.grid.device, torch.promote_types(before.dtype, torch.float32))
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tabulated": None}


class KAN(nn.Module):
    """A stack of `KANLinear` layers, `layers`, of widths layers_hidden. Source: efficient-kan, KAN."""

    def __init__(
        self,
        layers_hidden: Sequence[int],
        grid_size: int = 5,
        spline_order: int = 3,
        scale_noise: float = 0.1,
        scale_base: float = 1.0,
        scale_spline: float = 1.0,
        base_activation: Callable[[], nn.Module] = nn.SiLU,
        grid_eps: float = 0.02,
        grid_range: Sequence[float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        self.grid_size, self.spline_order = grid_size, spline_order
        self.layers = nn.ModuleList(
            KANLinear(
                in_features,
                out_features,
                grid_size,
                spline_order,
                scale_noise,
                scale_base,
                scale_spline,
                base_activation=base_activation,
                grid_eps=grid_eps,
                grid_range=grid_range,
            )
            for in_features, out_features in pairwise(layers_hidden)
        )

    def forward(self, x: Tensor, update_grid: bool = False, corrected: bool = False) -> Tensor:
        """The network's output; update_grid first adapts each layer's grid to the input it gets."""
        for layer in self.layers:
            if update_grid:
                cast(KANLinear, layer).update_grid(x, corrected=corrected)
            x = layer(x)
        return x

    def regularization_loss(
        self, regularize_activation: float = 1.0, regularize_entropy: float = 1.0
    ) -> Tensor:
        """The sum of the layers' losses."""
        weights = regularize_activation, regularize_entropy
        layers = (cast(KANLinear, layer) for layer in self.layers)
        return torch.stack([layer.regularization_loss(*weights) for layer in layers]).sum()


def _plain_silu(activation: nn.Module) -> bool:
    """Whether `link`, whose branch is of silu(x) by itself, may take its place: nobody could tell."""
    if type(activation) is not nn.SiLU or activation.inplace or "forward" in activation.__dict__:
        return False
    return not (
        activation._forward_hooks
        or activation._forward_pre_hooks
        or activation._backward_hooks
        or activation._backward_pre_hooks
        or nn.modules.module._has_any_global_hook()
    )


def _least_squares(a: Tensor, b: Tensor) -> Tensor:
    """The smallest x [i, K, o] with |a x - b| least, for a [i, N, K] of any rank and b [i, N, o].

    By eigenvalues of the normal equations in float64; singular values below float32's resolution are 0.
    """
    dtype, (_, rows, columns) = b.dtype, a.shape
    a, b = a.double(), b.double()
    squares, vectors = torch.linalg.eigh(a.mT @ a)
    resolution = torch.finfo(torch.float32).eps * max(rows, columns)
    kept = squares > resolution**2 * squares[:, -1:]
    inverse = torch.where(kept, 1 / torch.where(kept, squares, 1.0), 0.0)
    solution: Tensor = vectors @ (inverse.unsqueeze(-1) * (vectors.mT @ (a.mT @ b)))
    return solution.to(dtype)
