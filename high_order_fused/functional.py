"""The form as functions of tensors: checked arguments, leading dimensions, groups, autocast."""

import math
from collections.abc import Sequence

from torch import Tensor

from .backends import get, resolve
from .basis import Basis, lookup_dtype
from .checks import autocast, lowered, needs_basis, tensors
from .convolution import conv as conv
from .convolution import conv_product as conv_product
from .convolution import conv_transpose as conv_transpose
from .eager import Link, evaluate
from .operands import Operands
from .ops import Plan, form
from .packing import contiguous
from .packing import pack as pack
from .products import product as _product


def link(
    x: Tensor,
    weight: Tensor,
    basis: Basis | Operands,
    scale: Tensor | None = None,
    gain: Tensor | None = None,
    base: Tensor | None = None,
    base_weight: Tensor | None = None,
) -> Tensor:
    """Sum of learned functions: y[..., o] = sum_i scale[..., i] f_oi(x[..., i]).

    f_oi(x) = gain[i, o] sum_k weight[i, k, o] phi_k(x). x [..., I]; weight [I, K, O]; scale of x's shape and
    gain [I, O], ones if not given; y [..., O], in weight's dtype. base_weight [O, I]: a branch beside the
    functions, as a KAN's, y[..., o] += sum_i base_weight[o, i] base[..., i], where base, of x's shape, is
    silu(x) if not given. Groups: x [E, ..., I], weight [E, I, K, O], gain [E, I, O], base_weight [E, O, I],
    y [E, ..., O]. All dtypes are equal, except that x may be float32 over a float16 or bfloat16 weight; under
    autocast all but x and scale are cast and x is looked up as it comes. TypeError and ValueError name a
    wrong argument. Differentiable to any order in every tensor.
    """
    tensors(x, weight=weight, scale=scale, gain=gain, base=base, base_weight=base_weight)
    _check_link(x, weight, scale, gain)
    if autocast(x):
        weight, gain = lowered(weight, x), None if gain is None else lowered(gain, x)
        base, base_weight = (None if t is None else t.to(weight.dtype) for t in (base, base_weight))
    if base is not None or base_weight is not None:
        _check_base(x, weight, base, base_weight)
    operands = _operands(x, basis)
    _check_basis(x, weight, operands, "weight")
    link_of = Link(x, weight, scale, gain, base, base_weight)
    return evaluate(Plan("g", resolve(x), operands.layout), link_of, operands.tensors)


def product(x: Tensor, weight: Tensor, basis: Basis | Operands, alpha: float | Tensor = 1.0) -> Tensor:
    """Product of learned functions: y[..., o] = prod_i (1 + f_oi(x[..., i])) - 1 + (1 - alpha) sum_i f_oi.

    f_oi(x) = sum_k weight[i, k, o] phi_k(x). Shapes, groups, dtypes, autocast and errors as `link`.
    Differentiable to any order; beyond the first it records numbers for every edge and row.
    Source: high-order-layers-torch, BasisFlatProd.
    """
    tensors(x, weight=weight)
    _check_link(x, weight, None, None)
    if autocast(x):
        weight = lowered(weight, x)
    operands = _operands(x, basis)
    _check_basis(x, weight, operands, "weight")
    rows, w, *_ = Link(x, weight).grouped()
    y = _product(Plan("g", resolve(x), operands.layout), rows, w, operands.tensors) - 1
    y = y.reshape(*x.shape[:-1], weight.shape[-1])
    plain_product = not isinstance(alpha, Tensor) and alpha == 1
    return y if plain_product else y + (1 - alpha) * link(x, weight, basis)


def link_nd(x: Tensor, weight: Tensor, bases: Sequence[Basis]) -> Tensor:
    """Sum of learned functions of several variables: y[..., o] = sum_i f_oi(x[..., i, 0], x[..., i, 1], ...).

    f_oi(x) = sum over k, l, ... of weight[i, (k, l, ...), o] phi_k(x_0) psi_l(x_1) ..., a basis a variable.
    x [..., I, d]; weight [I, K_0 K_1 ..., O], the last variable fastest; y [..., O]. The functions of all
    variables but the last multiply `link`'s functions of the last, as its scale. Errors as `link`.
    """
    tensors(x, weight=weight)
    if not isinstance(bases, Sequence):
        raise TypeError(f"bases: got {type(bases).__name__}, needs a sequence of Basis")
    sizes = [needs_basis(basis, "bases").size for basis in bases]
    if any(basis.inputs is not None for basis in bases):
        raise ValueError(
            "bases: got knots of their own for some features, needs bases that all features share"
        )
    if x.dim() < 2 or x.shape[-1] != len(bases) or not bases:
        raise ValueError(
            f"x: got shape {_shape(x)}, needs [..., in, {len(bases)}], a variable for each basis"
        )
    if weight.dim() != 3 or weight.shape[:2] != (x.shape[-2], math.prod(sizes)):
        raise ValueError(
            f"weight: got shape {_shape(weight)}, needs [{x.shape[-2]}, {math.prod(sizes)}, out]"
        )
    scale = x.new_ones(()).expand(*x.shape[:-1], 1)
    for basis, variable in zip(bases[:-1], x.unbind(-1), strict=False):
        values = basis.tabulate(variable).to(x.dtype)
        scale = (scale.unsqueeze(-1) * values.unsqueeze(-2)).flatten(-2)
    last = x[..., -1:].expand(scale.shape)
    return link(
        last.flatten(-2),
        weight.reshape(-1, sizes[-1], weight.shape[-1]),
        bases[-1],
        scale=scale.flatten(-2),
    )


def sum_inputs(x: Tensor, w: Tensor, basis: Basis | Operands, s: Tensor | None = None) -> Tensor:
    """y[e,b,o] = sum_i s[e,b,i] f_oi(x[e,b,i]); x, s [E, B, I], w [E, I, K, O]. Errors as `link`."""
    tensors(x, w=w, s=s)
    return _contract("g", None, s, x, w, basis)


def sum_outputs(x: Tensor, w: Tensor, basis: Basis | Operands, g: Tensor) -> Tensor:
    """r[e,b,i] = sum_o g[e,b,o] f_oi(x[e,b,i]); x [E,B,I], w [E,I,K,O], g [E,B,O]. Errors as `link`."""
    tensors(x, w=w, g=g)
    return _contract("s", g, None, x, w, basis)


def sum_batch(x: Tensor, g: Tensor, basis: Basis | Operands, s: Tensor | None = None) -> Tensor:
    """v[e,i,k,o] = sum_b g[e,b,o] s[e,b,i] phi_k(x[e,b,i]); x, s [E, B, I], g [E, B, O]. Errors as `link`."""
    tensors(x, g=g, s=s)
    return _contract("w", g, s, x, None, basis)


def _contract(
    missing: str, g: Tensor | None, s: Tensor | None, x: Tensor, w: Tensor | None, basis: Basis | Operands
) -> Tensor:
    if autocast(x):
        w, g = (None if t is None else lowered(t, x) for t in (w, g))
    operands = _operands(x, basis)
    _check_shapes(g, s, x, w, operands)
    backend = resolve(x)
    if w is not None:
        w = contiguous(w, get(backend).transpose)
    return form(Plan(missing, backend, operands.layout), {"g": g, "s": s, "w": w}, x, operands.tensors)


def _operands(x: Tensor, basis: Basis | Operands) -> Operands:
    if isinstance(basis, Operands):
        return basis
    return needs_basis(basis).operands(lookup_dtype(x), x.device)


def _check_link(x: Tensor, weight: Tensor, scale: Tensor | None, gain: Tensor | None) -> None:
    if weight.dim() not in (3, 4):
        raise ValueError(f"weight: got shape {_shape(weight)}, needs [in, K, out] or [groups, in, K, out]")
    grouped = weight.dim() == 4
    if x.dim() <= grouped:
        raise ValueError(f"x: got shape {_shape(x)}, needs [{'groups, ' * grouped}..., in]")
    if scale is not None and scale.shape != x.shape:
        raise ValueError(f"scale: got shape {_shape(scale)}, needs that of x, {_shape(x)}")
    if gain is not None and gain.shape != (*weight.shape[:-2], weight.shape[-1]):
        needed = f"[{'groups, ' * grouped}in, out]"
        raise ValueError(f"gain: got shape {_shape(gain)}, needs {needed} of weight {_shape(weight)}")
    if gain is not None and gain.dtype != weight.dtype:
        raise TypeError(f"gain: got {gain.dtype}, needs that of weight, {weight.dtype}")


def _check_base(x: Tensor, weight: Tensor, base: Tensor | None, base_weight: Tensor | None) -> None:
    if base_weight is None:
        raise ValueError("base_weight: got None with base, needs a tensor [out, in]")
    if base is not None and base.shape != x.shape:
        raise ValueError(f"base: got shape {_shape(base)}, needs that of x, {_shape(x)}")
    needed = (*weight.shape[:-3], weight.shape[-1], weight.shape[-3])
    if base_weight.shape != needed:
        raise ValueError(
            f"base_weight: got shape {_shape(base_weight)}, needs {needed} for weight {_shape(weight)}"
        )
    for name, t in (("base", base), ("base_weight", base_weight)):
        if t is not None and t.dtype != weight.dtype:
            raise TypeError(f"{name}: got {t.dtype}, needs that of weight, {weight.dtype}")


def _check_shapes(g: Tensor | None, s: Tensor | None, x: Tensor, w: Tensor | None, basis: Operands) -> None:
    if x.dim() != 3:
        raise ValueError(f"x: got shape {_shape(x)}, needs [groups, batch, in]")
    groups, batch, _ = x.shape
    if s is not None and s.shape != x.shape:
        raise ValueError(f"s: got shape {_shape(s)}, needs that of x, {_shape(x)}")
    if g is not None and (g.dim() != 3 or g.shape[:2] != x.shape[:2]):
        raise ValueError(f"g: got shape {_shape(g)}, needs [{groups}, {batch}, out]")
    if w is not None and w.dim() != 4:
        raise ValueError(f"w: got shape {_shape(w)}, needs [groups, in, K, out]")
    _check_basis(x, w, basis, "w")
    if w is not None and g is not None and g.shape[2] != w.shape[3]:
        raise ValueError(f"g: got shape {_shape(g)}, needs [{groups}, {batch}, {w.shape[3]}]")


def _check_basis(x: Tensor, w: Tensor | None, basis: Operands, name: str) -> None:
    inputs = x.shape[-1]
    if w is not None:
        if w.shape[-2] != basis.layout.size:
            raise ValueError(
                f"{name}: got shape {_shape(w)}, needs K = {basis.layout.size} in [..., in, K, out]"
            )
        if w.shape[-3] != inputs or (w.dim() == 4 and w.shape[0] != x.shape[0]):
            groups = f"{w.shape[0]}, " if w.dim() == 4 else ""
            raise ValueError(
                f"x: got shape {_shape(x)}, needs [{groups}..., {w.shape[-3]}] for {name} {_shape(w)}"
            )
    own = max(basis.knots.shape[0], basis.tables.shape[1])
    if own not in (1, inputs):
        raise ValueError(f"basis: got knots for {own} features, needs one row or {inputs} for x {_shape(x)}")


def _shape(t: Tensor) -> tuple[int, ...]:
    return tuple(t.shape)
