"""The fully connected layers of high-order-layers-torch that sum functions; layers.py names them all."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from . import bases, init
from .basis import Basis
from .checks import count
from .functional import link


def make_periodic(x: Tensor, periodicity: float) -> Tensor:
    """Mirror x into [-p/2, p/2]: a triangle wave of period 2p with slope 1 around 0.

    Source: high-order-layers-torch, make_periodic.
    """
    u = torch.remainder(x + 0.5 * periodicity, 2 * periodicity)
    return torch.where(u > periodicity, 2 * periodicity - u, u) - 0.5 * periodicity


class PeerLayer(nn.Module):
    """Coefficients `w` [out, in, K] as high-order-layers-torch keeps them, in one of our bases.

    combine(x, weight, basis): how the functions of an output's edges make it. initialize(w): fills w in
    place; `reset_parameters`, which calls it, is a constructor's last step.
    """

    combine: Callable[[Tensor, Tensor, Basis], Tensor] = staticmethod(link)

    def __init__(
        self,
        basis: Basis,
        in_features: int,
        out_features: int,
        periodicity: float | None,
        device: torch.device | str | None,
        initialize: Callable[[Tensor], Any],
        size: int | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = (
            count("in_features", in_features),
            count("out_features", out_features),
        )
        self.basis, self.periodicity = basis, periodicity
        self.w = nn.Parameter(torch.empty(out_features, in_features, size or basis.size, device=device))
        self._initialize = initialize

    def reset_parameters(self) -> None:
        """Draw the coefficients anew."""
        with torch.no_grad():
            self._initialize(self.w)

    def forward(self, x: Tensor) -> Tensor:
        if self.periodicity is not None:
            x = make_periodic(x, self.periodicity)
        return self.combine(x, self.w.permute(1, 2, 0), self.basis)

    def interpolate(self, layer_out: nn.Module) -> None:
        """Give layer_out this layer's functions; as `peer_refinement.interpolate_polynomial_layer`."""
        from .peer_refinement import interpolate_polynomial_layer

        interpolate_polynomial_layer(self, layer_out)

    def refine(self, layer_out: nn.Module) -> None:
        """Give layer_out this layer's functions; as `peer_refinement.refine_polynomial_layer`."""
        from .peer_refinement import refine_polynomial_layer

        refine_polynomial_layer(self, layer_out)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, basis={self.basis!r}"


class PiecewiseLayer(PeerLayer):
    """Piecewise layers; they differ in whether neighbouring segments share a coefficient."""

    continuous: bool

    def __init__(
        self,
        n: int,
        in_features: int,
        out_features: int,
        segments: int,
        length: float = 2.0,
        weight_magnitude: float = 1.0,
        periodicity: float | None = None,
        device: torch.device | str | None = None,
        consistent_length: bool = False,
        **ignored: Any,
    ) -> None:
        half = 0.5 * length
        if consistent_length:
            basis = bases.piecewise_lagrange(n, segments, (-half, half), self.continuous, "extrapolate")
        else:
            basis = peer_piecewise(n, segments, length, self.continuous)
        draw = partial(init.peer_constants_, weight_magnitude=weight_magnitude)
        super().__init__(basis, in_features, out_features, periodicity, device, draw)
        self.reset_parameters()
        self.n, self.segments, self.length = n, segments, length

    def which_segment(self, x: Tensor) -> Tensor:
        """Segment of x, int64, of x's shape; -inf, inf and NaN belong to the first, last and first one."""
        return self.basis.locate(x if self.periodicity is None else make_periodic(x, self.periodicity))[0]

    def x_local(self, x_global: Tensor, index: Tensor | int) -> Tensor:
        """The coordinate in [-length / 2, length / 2] of x in a segment, which the peer puts on [-1, 1]."""
        return self.length * ((x_global + 1) * (self.segments / 2) - index) - 0.5 * self.length

    def x_global(self, x_local: Tensor, index: Tensor | int) -> Tensor:
        """Where a coordinate in a segment lies: the inverse of `x_local`."""
        return (x_local / self.length + 0.5 + index) * (2 / self.segments) - 1


class PiecewisePolynomial(PiecewiseLayer):
    """Layer "continuous": piecewise polynomials of n nodes a segment, end values shared by neighbours.

    `w` [out, in, (n - 1) segments + 1] holds the values at the nodes; outside [-length/2, length/2] the end
    polynomials go on. Edges start as constants from U[0, weight_magnitude / in). For length other than 2 the
    peer looks up segments on [-length/2, length/2] but places nodes on [-1, 1] of a stretched coordinate;
    this is reproduced; `consistent_length=True` puts the nodes where the segments are.
    Other keywords, `initialize` among them, are ignored, as by the peer.
    Source: high-order-layers-torch, PiecewisePolynomial.
    """

    continuous = True


class PiecewiseDiscontinuousPolynomial(PiecewiseLayer):
    """Layer "discontinuous": as `PiecewisePolynomial`, each segment with n values of its own.

    `w` [out, in, n segments].
    Source: high-order-layers-torch, PiecewiseDiscontinuousPolynomial.
    """

    continuous = False


class FunctionLayer(PeerLayer):
    """One function an edge over the whole interval; an input of one feature serves all in_features."""

    def __init__(
        self,
        basis: Basis,
        in_features: int,
        out_features: int,
        weight_magnitude: float = 1.0,
        periodicity: float | None = None,
        initialize: str = "constant_random",
        device: torch.device | str | None = None,
        size: int | None = None,
    ) -> None:
        bound = weight_magnitude / count("in_features", in_features)
        draw = (
            partial(init.peer_constants_, weight_magnitude=weight_magnitude)
            if initialize == "constant_random"
            else partial(nn.init.uniform_, a=-bound, b=bound)
        )
        super().__init__(basis, in_features, out_features, periodicity, device, draw, size)
        # unused; the peer's checkpoints hold it
        self.result = nn.Parameter(torch.empty(out_features, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.result)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.expand(*x.shape[:-1], self.in_features) if x.shape[-1:] == (1,) else x)


class Polynomial(FunctionLayer):
    """Layer "polynomial": a polynomial through n Chebyshev-Lobatto nodes on [-length/2, length/2], per edge.

    `w` [out, in, n] holds the values at the nodes; `result` [out] is unused, for the peer's checkpoints.
    Edges start as constants from U[0, weight_magnitude / in), or with another `initialize` all coefficients
    from U(-weight_magnitude / in, weight_magnitude / in). Source: high-order-layers-torch, Polynomial.
    """

    def __init__(
        self,
        n: int,
        in_features: int,
        out_features: int,
        length: float = 2.0,
        weight_magnitude: float = 1.0,
        periodicity: float | None = None,
        initialize: str = "constant_random",
        device: torch.device | str | None = None,
        **ignored: Any,
    ) -> None:
        basis = bases.lagrange(n, (-0.5 * length, 0.5 * length), "extrapolate")
        super().__init__(basis, in_features, out_features, weight_magnitude, periodicity, initialize, device)
        self.n, self.length = n, length


class FourierSeries(FunctionLayer):
    """Layer "fourier": the first n of 1/2, sin, cos, sin 2, cos 2, ... of period `length`, per edge.

    `w` [out, in, n]; `result` as in `Polynomial`. All other keywords are ignored, as by the peer.
    Source: high-order-layers-torch, FourierSeries.
    """

    def __init__(
        self, n: int, in_features: int, out_features: int, length: float = 2.0, **ignored: Any
    ) -> None:
        super().__init__(bases.fourier(n, (-0.5 * length, 0.5 * length)), in_features, out_features)
        self.n, self.length = n, length


def peer_piecewise(n: int, segments: int, length: float, continuous: bool, scaled: bool = False) -> Basis:
    """The peer's basis for any length: lookup on [-half, half], segments on [-1, 1], nodes at half u.

    scaled: nodes stretched with u, as in its convolutions.
    """
    half = 0.5 * length
    if length == 2:
        return bases.piecewise_lagrange(n, segments, (-half, half), continuous, "extrapolate")
    nodes = bases.lobatto(count("n", n))
    start = torch.arange(count("segments", segments), device="cpu") * (n - 1 if continuous else n)
    values = bases.lagrange_values(nodes, nodes if scaled else half * nodes)[None, None]
    spec = f"high_order_layers(n={n}, segments={segments}, continuous={continuous}{', scaled' * scaled}"
    return bases.tabulated(
        spec, values, start, interval=(-half, half), span=(-1.0, 1.0), outside="extrapolate"
    )
