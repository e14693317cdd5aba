"""fuse: the layers of other packages in a model replaced by ours, over the very same Parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .kan import KANLinear
from .layers import FourierSeries, PiecewiseDiscontinuousPolynomial, PiecewisePolynomial, Polynomial


class Fused(NamedTuple):
    """A fused model, the names of what was swapped with its class, and of what was left with the reason."""

    model: nn.Module
    swapped: dict[str, str]
    left: dict[str, str]


def fuse(model: nn.Module) -> Fused:
    """Swap a model's fully connected layers of high-order-layers-torch and efficient-kan for ours, in place.

    Parameters and buffers stay the same objects, so optimizers and state dicts go on working; hooks, the
    training flag and shared modules are kept. A model that is itself such a layer comes back as `model` of
    the result. Subclasses, and layers of those packages that we do not have, are left and reported.
    """
    return _walk(model, _fused)


def unfuse(model: nn.Module) -> Fused:
    """Put back what `fuse` replaced, with the Parameters as they now are."""
    return _walk(model, _restored)


def _walk(model: nn.Module, replacement: Callable[[nn.Module], "nn.Module | str | None"]) -> Fused:
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
        for key, child in module._modules.items():
            if child is not None:
                module._modules[key] = visit(child, f"{name}.{key}" if name else key)
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
        leaf = next(module.children(), None) is None
        return f"{kind.__name__} has no fused layer yet" if makers and leaf else None
    with torch.random.fork_rng(
        devices=[]
    ):  # our first, unused, coefficients must not change the user's draws
        ours = makers[kind.__name__](module)
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


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _piecewise(cls: type[PiecewisePolynomial] | type[PiecewiseDiscontinuousPolynomial]) -> "Maker":
    return lambda m: cls(
        m._n, m.in_features, m.out_features, m._segments, m._length, periodicity=m.periodicity, device="meta"
    )


def _polynomial(m: Any) -> nn.Module:
    outputs, inputs, n = m.w.shape
    nodes: Tensor = m.poly.basis.X  # half the length at both ends
    length = 2 * float(nodes[-1]) if n > 1 else 2.0
    return Polynomial(n, inputs, outputs, length, periodicity=m.periodicity, device="meta")


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


Maker = Callable[..., nn.Module]
_MAKERS: dict[str, dict[str, Maker]] = {
    "high_order_layers_torch": {
        "PiecewisePolynomial": _piecewise(PiecewisePolynomial),
        "PiecewiseDiscontinuousPolynomial": _piecewise(PiecewiseDiscontinuousPolynomial),
        "Polynomial": _polynomial,
        "FourierSeries": _fourier,
    },
    "efficient_kan": {"KANLinear": _kan},
}
