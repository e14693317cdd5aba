"""The form as functions of tensors: checked arguments, leading dimensions, groups, autocast."""

import math

import torch
from torch import Tensor

from . import ops
from .backends import get, resolve
from .basis import Basis, lookup_dtype
from .operands import Operands
from .packing import contiguous
from .packing import pack as pack

_HALF = (torch.float16, torch.bfloat16)
_DTYPES = (torch.float32, torch.float64, *_HALF)


def link(x: Tensor, weight: Tensor, basis: Basis | Operands, scale: Tensor | None = None) -> Tensor:
    """Sum of learned functions: y[..., o] = sum_i scale[..., i] sum_k weight[i, k, o] phi_k(x[..., i]).

    x [..., I]; weight [I, K, O]; scale of x's shape, ones if not given; y [..., O], in weight's dtype.
    Groups: x [E, ..., I], weight [E, I, K, O], y [E, ..., O]. All dtypes are equal, except that x may be
    float32 over a float16 or bfloat16 weight; under autocast weight is cast and x is looked up as it comes.
    TypeError and ValueError name a wrong argument. Differentiable to any order in x, weight and scale.
    """
    _check_tensors(x, weight=weight, scale=scale)
    if weight.dim() not in (3, 4):
        raise ValueError(f"weight: got shape {_shape(weight)}, needs [in, K, out] or [groups, in, K, out]")
    grouped = weight.dim() == 4
    if x.dim() <= grouped:
        raise ValueError(f"x: got shape {_shape(x)}, needs [{'groups, ' * grouped}..., in]")
    if scale is not None and scale.shape != x.shape:
        raise ValueError(f"scale: got shape {_shape(scale)}, needs that of x, {_shape(x)}")
    rows = (x.shape[0] if grouped else 1, math.prod(x.shape[grouped:-1]), x.shape[-1])
    w = weight if grouped else weight.unsqueeze(0)
    y = _contract(
        "g", None, None if scale is None else scale.reshape(rows), x.reshape(rows), w, basis, "weight"
    )
    return y.reshape(*x.shape[:-1], weight.shape[-1])


def sum_inputs(x: Tensor, w: Tensor, basis: Basis | Operands, s: Tensor | None = None) -> Tensor:
    """y[e,b,o] = sum_i s[e,b,i] f_oi(x[e,b,i]); x, s [E, B, I], w [E, I, K, O]. Errors as `link`."""
    _check_tensors(x, w=w, s=s)
    return _contract("g", None, s, x, w, basis)


def sum_outputs(x: Tensor, w: Tensor, basis: Basis | Operands, g: Tensor) -> Tensor:
    """r[e,b,i] = sum_o g[e,b,o] f_oi(x[e,b,i]); x [E,B,I], w [E,I,K,O], g [E,B,O]. Errors as `link`."""
    _check_tensors(x, w=w, g=g)
    return _contract("s", g, None, x, w, basis)


def sum_batch(x: Tensor, g: Tensor, basis: Basis | Operands, s: Tensor | None = None) -> Tensor:
    """v[e,i,k,o] = sum_b g[e,b,o] s[e,b,i] phi_k(x[e,b,i]); x, s [E, B, I], g [E, B, O]. Errors as `link`."""
    _check_tensors(x, g=g, s=s)
    return _contract("w", g, s, x, None, basis)


def _contract(
    missing: str,
    g: Tensor | None,
    s: Tensor | None,
    x: Tensor,
    w: Tensor | None,
    basis: Basis | Operands,
    weight: str = "w",
) -> Tensor:
    if torch.is_autocast_enabled(x.device.type):
        low = torch.get_autocast_dtype(x.device.type)
        w, g = (t.to(low) if t is not None and t.dtype == torch.float32 else t for t in (w, g))
    if isinstance(basis, Basis):
        basis = basis.operands(lookup_dtype(x), x.device)
    _check_shapes(g, s, x, w, basis, weight)
    backend = resolve(x)
    packing = get(backend).packing
    if w is not None and packing is not None:
        w = contiguous(w, packing)
    plan = ops.Plan(missing, backend, basis.layout)
    return ops.form(plan, {"g": g, "s": s, "w": w}, x, basis.tensors)


def _check_tensors(x: Tensor, **others: Tensor | None) -> None:
    for name, t in {"x": x, **others}.items():
        if t is None and name in ("s", "scale"):
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
    return x.dtype in _HALF and t.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type)


def _check_shapes(
    g: Tensor | None, s: Tensor | None, x: Tensor, w: Tensor | None, basis: Operands, weight: str
) -> None:
    if x.dim() != 3:
        raise ValueError(f"x: got shape {_shape(x)}, needs [groups, batch, in]")
    groups, batch, inputs = x.shape
    if s is not None and s.shape != x.shape:
        raise ValueError(f"s: got shape {_shape(s)}, needs that of x, {_shape(x)}")
    if g is not None and (g.dim() != 3 or g.shape[:2] != x.shape[:2]):
        raise ValueError(f"g: got shape {_shape(g)}, needs [{groups}, {batch}, out]")
    if w is not None:
        if w.dim() != 4 or w.shape[2] != basis.layout.size:
            raise ValueError(
                f"{weight}: got shape {_shape(w)}, needs K = {basis.layout.size} in [..., in, K, out]"
            )
        if w.shape[:2] != (groups, inputs):
            raise ValueError(
                f"x: got shape {_shape(x)}, needs [{w.shape[0]}, ..., {w.shape[1]}] for {weight} {_shape(w)}"
            )
        if g is not None and g.shape[2] != w.shape[3]:
            raise ValueError(f"g: got shape {_shape(g)}, needs [{groups}, {batch}, {w.shape[3]}]")
    own = max(basis.knots.shape[0], basis.tables.shape[1])
    if own not in (1, inputs):
        raise ValueError(f"basis: got knots for {own} features, needs one row or {inputs} for x {_shape(x)}")


def _shape(t: Tensor) -> tuple[int, ...]:
    return tuple(t.shape)
