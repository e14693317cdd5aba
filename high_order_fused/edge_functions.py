"""The functions of a layer's edges, each for itself, as pictures need them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import bases
from .basis import Basis, boundaries
from .conv_layers import ProductConv2d
from .domain import bases_of, image_axes
from .features import HOST
from .functional import conv_product, product
from .kan import KANLinear
from .multiplied import HighOrderProduct, Product
from .refinement import edge_coefficients
from .sums import make_periodic

_NEAR = 1e-6  # of a segment: how far from its ends a curve begins, on whose other side may be another value


@dataclass(frozen=True)
class EdgeFunctions:
    """f_oi(x) = sum_k weight[o, i, k] phi_k(x): weight float64 [outputs, inputs, K], on the host.

    phi: of x [P, inputs] the values [P, inputs, K]. ends: of the segments, [inputs or 1, segments + 1].
    multiplied: an output is the product of its edges' functions, not their sum.
    """

    weight: Tensor
    phi: Callable[[Tensor], Tensor]
    ends: Tensor
    multiplied: bool

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        return self.weight.shape[1]

    def values(self, x: Tensor, inputs: Sequence[int], outputs: Sequence[int]) -> Tensor:
        """The functions of these edges at x [P, len(inputs)], a column an input: [P, outputs, inputs]."""
        columns, rows = list(inputs), list(outputs)
        whole = torch.zeros(len(x), self.inputs, **HOST)
        whole[:, columns] = x.detach().cpu().double()
        return torch.einsum("pik,oik->poi", self.phi(whole)[:, columns], self.weight[rows][:, columns])

    def ends_of(self, feature: int) -> Tensor:
        """The ends of an input's segments: [segments + 1]."""
        return self.ends[feature % len(self.ends)]

    def curve(self, feature: int, number: int = 200) -> Tensor:
        """Points [P] to draw the edges of an input by: each segment up to its ends, then a NaN."""
        ends = self.ends_of(feature)
        u = torch.linspace(_NEAR, 1 - _NEAR, max(5, number // (len(ends) - 1)), **HOST)
        points = ends[:-1, None] + ends.diff()[:, None] * u
        return nn.functional.pad(points, (0, 1), value=torch.nan).flatten()

    def strength(self, x: Tensor) -> Tensor:
        """The standard deviation [outputs, inputs] of the functions over the rows of x [N, inputs]."""
        phi = self.phi(x.detach().cpu().double())
        phi = phi[phi.isfinite().flatten(1).all(1)]  # rows with a NaN tell nothing
        centred = phi - phi.mean(0)
        spread = torch.einsum("pik,pil->ikl", centred, centred) / max(1, len(phi) - 1)
        return torch.einsum("oik,ikl,oil->oi", self.weight, spread, self.weight).clamp_min(0).sqrt()


@torch.no_grad()
def edge_functions(layer: nn.Module, tap: Sequence[int] | None = None) -> EdgeFunctions:
    """Those of a fully connected layer, nn.Linear among them, or of a tap of a convolution, as they now are.

    tap: indices into the kernel, by default its middle; the inputs of grouped convolutions are the channels
    of the output's group. TypeError for layers of several variables and for other modules.
    """
    if isinstance(layer, KANLinear):
        return _splines(layer)
    weight, basis = _known(layer)
    if weight.dim() > 3:
        kernel = weight.shape[1:-2]
        place = tuple(size // 2 for size in kernel) if tap is None else tuple(tap)
        if len(place) != len(kernel) or not all(0 <= t < size for t, size in zip(place, kernel, strict=True)):
            raise ValueError(f"tap: got {tap}, needs {len(kernel)} indices into the kernel {tuple(kernel)}")
        for t in place:
            weight = weight[:, t]
    elif tap is not None:
        raise ValueError(f"tap: got {tap}, needs None for a layer that is no convolution")
    periodicity = getattr(layer, "periodicity", None)

    def phi(x: Tensor) -> Tensor:
        return basis.tabulate(x if periodicity is None else make_periodic(x, periodicity))

    return EdgeFunctions(weight.cpu().double(), phi, boundaries(basis), _multiplies(layer))


def _known(layer: nn.Module) -> tuple[Tensor, Basis]:
    """Coefficients [out, *kernel, in, K] of a layer, and their basis."""
    if isinstance(layer, (nn.Linear, Product, ProductConv2d)):  # lines through 0
        slopes = layer.weight.movedim(1, -1)
        return torch.stack([torch.zeros_like(slopes), slopes], -1), bases.monomial(1)
    found = edge_coefficients(layer)
    if found is None or len(found[1]) > 1:
        raise TypeError(
            f"layer: got {type(layer).__name__}, needs a layer whose edges are functions of one variable"
        )
    weight, (basis,) = found
    ours = image_axes(layer) and not hasattr(layer, "conv")  # outputs behind the kernel
    return (weight.movedim(-3, 0) if ours else weight), basis


def _splines(layer: KANLinear) -> EdgeFunctions:
    """With the base branch as one function more."""
    weight = torch.cat([layer.scaled_spline_weight, layer.base_weight.unsqueeze(-1)], -1)

    @torch.no_grad()
    def phi(x: Tensor) -> Tensor:
        x = x.to(layer.grid)
        return torch.cat([layer.b_splines(x), layer.base_activation(x).unsqueeze(-1)], -1).cpu().double()

    return EdgeFunctions(weight.cpu().double(), phi, boundaries(*bases_of(layer)), False)


def _multiplies(layer: nn.Module) -> bool:
    combine = getattr(layer, "combine", None)
    return isinstance(layer, (HighOrderProduct, Product, ProductConv2d)) or combine in (product, conv_product)
