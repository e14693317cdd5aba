"""Where a network's data lies: the inputs of each layer, and how many of them its domain does not hold."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import bases
from .basis import Basis, lookup_dtype
from .conv_layers import PeerConvolution, ProductConv2d
from .kan import KANLinear
from .sums import make_periodic

Visit = Callable[[str, nn.Module, Tensor], None]


class Share(NamedTuple):
    """What a layer, or one of its variables, has met: the shares of `values` below, above and NaN.

    domain: the interval, or the smallest that holds all features'. outside: what the functions do there, by
    the names of `bases`; "falls to zero" for the splines of a KAN layer, whose grid goes on.
    """

    name: str
    kind: str
    domain: tuple[float, float]
    outside: str
    values: int
    below: float
    above: float
    nan: float


class DomainReport(tuple[Share, ...]):
    """The shares of a model's layers, in the order in which they were called; printed, a table."""

    def __str__(self) -> str:
        if not self:
            return "no layer of ours was called; hof.fuse swaps those of other packages for ours"
        rows: list[tuple[str, ...]] = [
            ("layer", "kind", "domain", "below", "above", "NaN", "values", "beyond it")
        ]
        for s in self:
            low, high = s.domain
            shares = (f"{share:.2%}" for share in (s.below, s.above, s.nan))
            rows.append((s.name, s.kind, f"{low:.4g} .. {high:.4g}", *shares, f"{s.values:,}", s.outside))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        right = (3, 4, 5, 6)
        return "\n".join(
            "  ".join(
                cell.rjust(width) if k in right else cell.ljust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )

    __repr__ = __str__


@dataclass
class _Counts:
    kind: str
    basis: Basis
    there: str  # what the functions do outside
    values: int = 0
    outside: list[int] = field(default_factory=lambda: [0, 0, 0])  # below, above, NaN


def domain_report(model: nn.Module, x: Any) -> DomainReport:
    """How many of the inputs of each layer lie outside its domain when the model is given x.

    For every layer of ours, by whatever name; a KAN layer's domain is that of its grid, feature by feature,
    where all its splines are; of several variables each is told for itself, of a layer that is called several
    times all calls together. x is mirrored first where a layer has a periodicity. The model runs once as by
    `watch`, in evaluation mode: batch norm uses its running statistics.
    """
    found: dict[str, _Counts] = {}

    def count(name: str, layer: nn.Module, x: Tensor) -> None:
        several = variables(layer, x)
        for number, (basis, values) in enumerate(several):
            key = f"{name}, variable {number}" if len(several) > 1 else name
            there = "falls to zero" if isinstance(layer, KANLinear) else basis.outside
            counts = found.setdefault(key, _Counts(type(layer).__name__, basis, there))
            counts.values += values.numel()
            for k, beyond in enumerate(beyond_domain(basis, values)):
                counts.outside[k] += int(beyond.sum())

    watch(model, x, count)
    return DomainReport(
        Share(
            name or "the model",
            counts.kind,
            counts.basis.interval,
            counts.there,
            counts.values,
            *(number / max(1, counts.values) for number in counts.outside),
        )
        for name, counts in found.items()
    )


@torch.no_grad()
def watch(model: nn.Module, x: Any, visit: Visit) -> Any:
    """Run the model on x and call visit(name, module, input) before each module that is called.

    x is a tensor or a tuple of arguments. In evaluation mode and without gradients; training flags and hooks
    are afterwards as before. A module that makes its parameters at its first call does so. Returns the
    model's output.
    """
    names = {module: name for name, module in model.named_modules()}
    training = [module for module in names if module.training]

    def before(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        first = next(iter(positional or named.values()), None)
        if isinstance(first, Tensor):
            visit(names[module], module, first)

    hooks = [module.register_forward_pre_hook(before, with_kwargs=True) for module in names]
    try:
        model.eval()
        return model(*x) if isinstance(x, tuple) else model(x)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True


def bases_of(layer: nn.Module) -> tuple[Basis, ...]:
    """The bases of a layer's functions, one for each variable; none of another module.

    Of a KAN layer the splines of its grid as it now is, in float64, on the host.
    """
    if isinstance(layer, KANLinear):
        grid = layer.grid.detach().cpu()
        return (bases.bspline(layer.spline_order, knots=grid, outside="zero"),)
    several = getattr(layer, "bases", None)
    if isinstance(several, tuple) and all(isinstance(basis, Basis) for basis in several):
        return several
    basis = getattr(layer, "basis", None)
    return (basis,) if isinstance(basis, Basis) else ()


def variables(layer: nn.Module, x: Tensor) -> list[tuple[Basis, Tensor]]:
    """The bases of a layer, each with what it looks up of the layer's input x: [N, features].

    In the dtype of the lookup. None of a module without functions.
    """
    found = bases_of(layer)
    if not found:
        return []
    x = x.to(lookup_dtype(x))
    periodicity = getattr(layer, "periodicity", None)
    if periodicity is not None:
        x = make_periodic(x, periodicity)
    if hasattr(layer, "bases"):
        each = (variable.reshape(-1, variable.shape[-1]) for variable in x.unbind(-1))
        return list(zip(found, each, strict=True))
    x = x.movedim(-1 - image_axes(layer), -1)
    return [(found[0], x.reshape(-1, found[0].inputs or x.shape[-1]))]


def image_axes(layer: nn.Module) -> int:
    """The axes behind the channels of a convolution's input; 0 of another layer."""
    if isinstance(layer, PeerConvolution):
        return len(layer.conv.kernel_size)
    if isinstance(layer, ProductConv2d):
        return 2
    return int(getattr(layer, "axes", 0))


def beyond_domain(basis: Basis, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which values of x [..., features] are below the basis's domain, above it, NaN."""
    low, high = basis.domain.to(x).unbind(-1)
    return x < low, x > high, x.isnan()
