"""fuse: the layers of other packages in a model replaced by ours, over the very same Parameters."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .conv_layers import PeerConvolution, peer_basis
from .kan import KANLinear
from .layers import (
    FourierSeries,
    PiecewiseDiscontinuousPolynomial,
    PiecewiseDiscontinuousPolynomialProd,
    PiecewisePolynomial,
    PiecewisePolynomialProd,
    Polynomial,
    PolynomialLayer,
    PolynomialND,
    Product,
)
from .sums import PiecewiseLayer

Maker = Callable[..., nn.Module | str]  # our layer for a module, or why there is none


class Fused(NamedTuple):
    """A fused model, the names of what was swapped with its class, and of what was left with the reason."""

    model: nn.Module
    swapped: dict[str, str]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"swapped {name or 'the model'}: {kind}" for name, kind in self.swapped.items()]
        lines += [f"left {name or 'the model'}: {why}" for name, why in self.left.items()]
        return "\n".join(lines) or f"nothing was swapped: no layer of {', '.join(_MAKERS)} was found"


def fuse(model: nn.Module) -> Fused:
    """Swap a model's layers of high-order-layers-torch, efficient-kan and polynomial-mlp for ours, in place.

    Parameters and buffers stay the same objects, so optimizers and state dicts go on working; hooks, the
    training flag and shared modules are kept. A model that is itself such a layer comes back as `model` of
    the result. Subclasses, and layers of those packages that we do not have, are left and reported. Layers
    in a module's plain lists and dicts, where the peer keeps some of those it calls, are swapped there, too;
    those in tuples are left and reported, those in other objects are not found. TypeError for no module.
    """
    return _walk(model, _fused)


def unfuse(model: nn.Module) -> Fused:
    """Put back what `fuse` replaced, with the Parameters as they now are. TypeError for no module."""
    return _walk(model, _restored)


def _walk(model: nn.Module, replacement: Callable[[nn.Module], "nn.Module | str | None"]) -> Fused:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, needs a module")
    swapped: dict[str, str] = {}
    left: dict[str, str] = {}
    done: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module, name: str) -> nn.Module:
        if module in done:
            return done[module]
        found = replacement(module)
        if isinstance(found, nn.Module):
            swapped[name] = type(module).__name__
            done[module] = found
            return found
        if found is not None:
            left[name] = found
        done[module] = module
        for inner, holder, key in list(_held(module)):
            inner = f"{name}.{inner}" if name else inner
            if not isinstance(holder, tuple):
                holder[key] = visit(holder[key], inner)
            elif isinstance(replacement(holder[key]), nn.Module):
                left[inner] = f"{type(holder[key]).__name__} is in a tuple, which keeps what it holds"
            else:
                visit(holder[key], inner)
        return module

    return Fused(visit(model, ""), swapped, left)


def _fused(module: nn.Module) -> nn.Module | str | None:
    """Our layer over the module's Parameters; why there is none, for a layer of a peer; None for others."""
    kind = type(module)
    makers = _MAKERS.get(_package(kind), {})
    if kind.__name__ not in makers:
        for base in kind.__mro__[1:]:
            if base.__name__ in _MAKERS.get(_package(base), {}):
                return f"{kind.__name__} is a subclass of {base.__name__} and may do something else"
        leaf = next(_held(module), None) is None
        return f"{kind.__name__} has no fused layer yet" if makers and leaf else None
    with torch.random.fork_rng(
        devices=[]
    ):  # our first, unused, coefficients must not change the user's draws
        ours = makers[kind.__name__](module)
    if isinstance(ours, str):
        return ours
    lacking = ours._parameters.keys() - module._parameters.keys()
    if lacking:  # as torch.nn.utils.prune and the older weight_norm leave them
        return f"{kind.__name__} has no parameter {', '.join(sorted(lacking))}"
    for name, parameter in module._parameters.items():
        ours._parameters[name] = parameter
    for name, buffer in module._buffers.items():
        ours._buffers[name] = buffer
    ours.training = module.training
    for name, value in module.__dict__.items():
        if "_hooks" in name or name == "_is_full_backward_hook":
            ours.__dict__[name] = value
    ours.__dict__["_unfused"] = module  # not registered: it is not part of the model
    return ours


def _restored(module: nn.Module) -> nn.Module | None:
    """The module that this one replaced, with the state this one has now."""
    before: nn.Module | None = module.__dict__.get("_unfused")
    if before is not None:
        before._parameters.update(module._parameters)
        before._buffers.update(module._buffers)
        before.training = module.training
    return before


def _held(module: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """The modules in a module, registered or in lists, dicts and tuples: a name, the container, the key."""
    seen: set[int] = set()  # a list may hold itself

    def inside(held: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
        if id(held) in seen:
            return
        seen.add(id(held))
        for key, child in held.items() if isinstance(held, dict) else enumerate(held):
            if isinstance(child, nn.Module):
                yield f"{prefix}{key}", held, key
            elif isinstance(child, (dict, list, tuple)):
                yield from inside(child, f"{prefix}{key}.")

    for attribute, held in vars(module).items():
        if isinstance(held, (dict, list, tuple)) and "_hooks" not in attribute:
            yield from inside(held, "" if attribute == "_modules" else f"{attribute}.")


def _package(kind: type) -> str:
    if kind.__name__ == "PolynomialLayer" and kind is not PolynomialLayer:
        return "polynomial_mlp"  # a notebook, whose class lives in the user's program
    return kind.__module__.partition(".")[0]


def _piecewise(cls: type[PiecewiseLayer]) -> Maker:
    return lambda m: cls(
        m._n, m.in_features, m.out_features, m._segments, m._length, periodicity=m.periodicity, device="meta"
    )


def _length(basis: Any) -> float:
    """Of a peer's Lagrange basis: its nodes are half of it at both ends."""
    nodes: Tensor = basis.X
    return 2 * float(nodes[-1]) if len(nodes) > 1 else 2.0


def _polynomial(m: Any) -> nn.Module:
    outputs, inputs, n = m.w.shape
    return Polynomial(n, inputs, outputs, _length(m.poly.basis), periodicity=m.periodicity, device="meta")


def _polynomial_nd(m: Any) -> nn.Module:
    outputs, inputs, _ = m.w.shape
    sizes = _length(m.poly.basis), m.poly.dimensions
    return PolynomialND(m.poly.n, inputs, outputs, *sizes, periodicity=m.periodicity, device="meta")


def _product(m: Any) -> nn.Module:
    return Product(m.in_features, m.out_features, m.bias is not None, m.alpha, m.periodicity)


def _convolution(kind: str) -> Maker:
    def make(m: Any) -> nn.Module | str:
        if m.conv._forward_pre_hooks or m.conv._forward_hooks:  # prune's, for example
            return "its conv has hooks, which ours would not call"
        expand = m.poly.basis
        if kind == "polynomial":
            numbers = expand.n, None, _length(expand.basis)
        elif kind == "fourier":
            numbers = expand.n, None, expand.basis.length
        else:
            numbers = expand._n, expand._segments, expand._length
        basis = peer_basis(kind, *numbers)
        return PeerConvolution(basis, m.conv, getattr(m, "periodicity", None), m._rescale)

    return make


def _powers(m: Any) -> nn.Module | str:
    """A class that is known by its name alone: its attributes, and what it does to some points, decide."""
    settings = ("in_features", "out_features", "polynomial_degree", "dense")
    lacking = [name for name in settings if not hasattr(m, name)]
    shape = None if lacking else (m.out_features if m.dense else 1, m.in_features, m.polynomial_degree + 1)
    if lacking or tuple(getattr(m, "weight", torch.empty(0)).shape) != shape:
        return "PolynomialLayer is not that of polynomial-mlp: its attributes differ"
    probe = copy.deepcopy(m)
    probe = (probe.to_empty(device="cpu") if m.weight.is_meta else probe.cpu()).double()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        ours = PolynomialLayer(m.in_features, m.out_features, m.polynomial_degree, m.dense)
        # coefficients of its own: with the module's, which may be zeros, others would do the same
        ours.weight = probe.weight = nn.Parameter(torch.randn(*shape, dtype=torch.float64))
        x = 3 * torch.rand(4, m.in_features, dtype=torch.float64) - 1.5
        theirs, y = probe.forward(x), ours(x)  # without the hooks
    if theirs.shape != y.shape or not torch.allclose(theirs, y):
        return "PolynomialLayer is not that of polynomial-mlp: its outputs differ"
    ours.weight = m.weight
    return ours


def _fourier(m: Any) -> nn.Module:
    outputs, inputs, n = m.w.shape
    return FourierSeries(n, inputs, outputs, m.poly.basis.length)


def _kan(m: Any) -> nn.Module:
    ours = KANLinear(
        m.in_features,
        m.out_features,
        m.grid_size,
        m.spline_order,
        m.scale_noise,
        m.scale_base,
        m.scale_spline,
        m.enable_standalone_scale_spline,
        grid_eps=m.grid_eps,
    )
    ours.base_activation = m.base_activation
    return ours


_MAKERS: dict[str, dict[str, Maker]] = {
    "high_order_layers_torch": {
        "PiecewisePolynomial": _piecewise(PiecewisePolynomial),
        "PiecewiseDiscontinuousPolynomial": _piecewise(PiecewiseDiscontinuousPolynomial),
        "Polynomial": _polynomial,
        "FourierSeries": _fourier,
        "PiecewisePolynomialProd": _piecewise(PiecewisePolynomialProd),
        "PiecewiseDiscontinuousPolynomialProd": _piecewise(PiecewiseDiscontinuousPolynomialProd),
        "Product": _product,
        **{f"Polynomial{dimensions}D": _polynomial_nd for dimensions in ("2", "3", "4", "5", "N")},
        **{
            f"{name}Convolution{axes}": _convolution(kind)
            for kind, name in {
                "polynomial": "Polynomial",
                "fourier": "Fourier",
                "continuous": "PiecewisePolynomial",
                "discontinuous": "PiecewiseDiscontinuousPolynomial",
            }.items()
            for axes in ("1d", "2d")
        },
        "PiecewisePolynomialConvolutionTranspose2d": _convolution("continuous"),
    },
    "efficient_kan": {"KANLinear": _kan},
    "polynomial_mlp": {"PolynomialLayer": _powers},
}
