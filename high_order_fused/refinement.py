"""The same functions in another basis: refinement, conversion, straight lines, smoothing; all edges at once.

Coefficients of one basis become those of another by a matrix of their sizes: values at points of each segment
of the new basis, solved for its coefficients. Source for what a layer's methods do: high-order-layers-torch,
PolynomialLayers.
"""

import random
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from . import bases
from .basis import OUTSIDE, Basis, boundaries
from .basis_layer import BasisLayer
from .conv_layers import PeerConvolution
from .features import HARMONIC, HOST, NONE, features, lobatto
from .functional import link
from .kan import KANLinear
from .linear import HighOrderLinear
from .nd import HighOrderLinearND, VariablesLayer
from .polynomial_mlp import PolynomialLayer
from .sums import PeerLayer, PiecewiseLayer

_EXACT = 1e-9  # of a function's largest value; rounding of what is exact stays far below
_TINY = 1e-300


def conversion(source: Basis, target: Basis, exact: bool = True) -> Tensor:
    """The matrix [K_target, K_source] or [I, K_target, K_source], float64, from coefficients to coefficients.

    exact: ValueError where the target does not hold the functions of the source on its interval; otherwise
    the target's curve meets the source's at the Lobatto points of each of its segments, as far as it can.
    At a point where segments meet, each side has its own value.
    """
    matrix, error = _fitted(target, lambda x, near: _values(source, x, near), source.table.shape[-1] + 2)
    if exact and not error < _EXACT:
        raise ValueError(f"target: got {target!r}, needs a basis that holds the functions of {source!r}")
    return matrix


def line(basis: Basis, exact: bool = True) -> Tensor:
    """Coefficients [K] or [I, K], float64, of the function x; ValueError for a basis without it, if exact."""
    found, error = _fitted(basis, lambda x, near: x.unsqueeze(-1), 2)
    if exact and not error < _EXACT:
        raise ValueError(f"basis: got {basis!r}, needs one that holds straight lines")
    return found.squeeze(-1)


def refine(source: nn.Module, target: nn.Module, exact: bool = True) -> nn.Module:
    """Give the target the functions of the source: layers of one kind, or networks of such layers.

    Returns the target. More nodes, segments, frequencies or knots, or another basis; every other module's
    state is copied, into lazy modules too. Splines of `KANLinear` are equal inside the grid, and so is every
    function inside its interval where the two bases say different things of what is outside. exact as in
    `conversion`. TypeError for modules that do not match, ValueError where functions, sizes or settings do
    not fit; the target is changed only if all fits.
    """
    for name, module in {"source": source, "target": target}.items():
        if not isinstance(module, nn.Module):
            raise TypeError(f"{name}: got {type(module).__name__}, needs a module")
    with torch.no_grad():
        for into, values in list(_pairs(source, target, exact, "")):
            if isinstance(into, (nn.UninitializedParameter, nn.UninitializedBuffer)):
                into.materialize(values.shape)
            into.copy_(values)
    return target


def initialize_linear(
    model: nn.Module, max_slope: float = 1.0, max_offset: float = 0.0, exact: bool = True
) -> None:
    """Make every edge of a layer, or of a network's fully connected layers, a line a x + b.

    a from U(-max_slope, max_slope), b from U(-max_offset, max_offset) by Python's `random`, for each output
    and then each input. TypeError where there is no such layer, ValueError for a basis without lines; if not
    exact, its functions come near the line instead, in segments of one node by its value in the middle.
    Source: high-order-layers-torch, initialize_polynomial_layer.
    """
    found = [edges for edges in map(_linear, model.modules()) if edges is not None]
    if not found:
        raise TypeError(f"model: got {type(model).__name__}, needs fully connected layers of one variable")
    made = []  # before anything changes
    for coefficients, basis in found:
        if basis.one is None:
            raise ValueError(f"basis: got {basis!r}, needs one that knows the coefficients of the function 1")
        made.append((coefficients, line(basis, exact), basis.one))
    for coefficients, x, one in made:
        outputs, inputs = coefficients.shape[:2]
        drawn = torch.tensor([2 * random.random() - 1 for _ in range(outputs * inputs * 2)], **HOST)
        slope, offset = drawn.view(outputs, inputs, 2, 1).unbind(2)
        with torch.no_grad():
            coefficients.copy_(max_slope * slope * x + max_offset * offset * one)


def smooth(layer: PiecewiseLayer, factor: float) -> None:
    """Draw the values on both sides of every inner knot towards their middle: by 0 not at all, by 1 together.

    ValueError for segments of one node, which have no ends, TypeError for layers without jumps.
    Source: high-order-layers-torch, smooth_discontinuous_layer.
    """
    if not isinstance(layer, PiecewiseLayer) or layer.continuous:
        raise TypeError(f"layer: got {type(layer).__name__}, needs a discontinuous piecewise layer")
    if layer.n < 2:
        raise ValueError(f"layer: got n = {layer.n}, needs at least 2 nodes a segment")
    with torch.no_grad():
        w = layer.w.view(*layer.w.shape[:2], layer.segments, layer.n)
        half = 0.5 * factor * (w[:, :, :-1, -1] - w[:, :, 1:, 0])
        w[:, :, :-1, -1] -= half
        w[:, :, 1:, 0] += half


def _fitted(basis: Basis, functions: Callable[[Tensor, Tensor], Tensor], more: int) -> tuple[Tensor, float]:
    """Coefficients [(I,) K, C] of functions(x, near) [I|1, P, C]; their relative error at `more` points."""
    number = 4 * basis.size if basis.kind == HARMONIC else basis.table.shape[-1]
    points = _points(basis, number)
    values = _values(basis, *points)
    size = values.abs().amax(-2, keepdim=True).clamp_min(_TINY)  # powers of x may be of very different sizes
    found: Tensor = torch.linalg.pinv(values / size) @ functions(*points) / size.mT
    points = _points(basis, number + more)
    wanted = functions(*points)
    apart = (_values(basis, *points) @ found - wanted).abs().amax((0, 1))
    error = (apart / wanted.abs().amax((0, 1)).clamp_min(_TINY)).max()
    return found[0] if len(found) == 1 else found, error.item()


def _points(basis: Basis, number: int) -> tuple[Tensor, Tensor]:
    """Lobatto points of each segment [I|1, P], and points beside them that say which segment is meant."""
    edges, u = boundaries(basis), lobatto(number)
    middle, half = (edges[:, 1:] + edges[:, :-1]) / 2, (edges[:, 1:] - edges[:, :-1]) / 2
    x, near = (middle[..., None] + half[..., None] * v for v in (u, u * (1 - 1e-7)))
    return x.flatten(1), near.flatten(1)


def _values(basis: Basis, x: Tensor, near: Tensor) -> Tensor:
    """All functions at x [I|1, P], by the segments of the points near them: [I|1, P, K], float64."""
    inputs = max(len(x), basis.inputs or 1)
    x, near = x.expand(inputs, -1), near.expand(inputs, -1)
    points = near.mT if basis.inputs else near
    segment = basis.locate(points)[0].clamp(0, basis.segments - 1)
    segment = segment.mT if basis.inputs else segment
    segment = segment + int(OUTSIDE[basis.outside] != NONE)
    knots = basis.knots.expand(inputs, -1)
    left, right = knots.gather(1, segment), knots.gather(1, segment + 1)
    phi = features(2 * (x - left) / (right - left) - 1, basis.table.shape[-1], basis.kind)
    table = basis.table.expand(inputs, basis.start.shape[0], -1, -1)
    values = (table[torch.arange(inputs, device="cpu")[:, None], segment] @ phi.unsqueeze(-1)).squeeze(-1)
    columns = basis.start[segment].unsqueeze(-1) + torch.arange(values.shape[-1], device="cpu")
    return values.new_zeros(*x.shape, basis.size).scatter(-1, columns, values)


def _linear(layer: nn.Module) -> tuple[Tensor, Basis] | None:
    """A view [out, in, K] of a fully connected layer's coefficients, and their basis."""
    coefficients, (basis, *others) = edge_coefficients(layer) or (torch.empty(0), (None,))
    return None if basis is None or others or coefficients.dim() != 3 else (coefficients, basis)


def edge_coefficients(layer: nn.Module) -> tuple[Tensor, tuple[Basis, ...]] | None:
    """A view [..., in, K] of a layer's coefficients, and a basis for each variable."""
    if isinstance(layer, (HighOrderLinearND, VariablesLayer)):
        held = layer.weight.movedim(1, -1).movedim(0, -2) if isinstance(layer, BasisLayer) else layer.w
        return held, layer.bases
    if isinstance(layer, PeerLayer):
        return layer.w, (layer.basis,)
    if isinstance(layer, PolynomialLayer):
        return layer.weight, (layer.basis,)
    if isinstance(layer, BasisLayer):  # [in, K, ...]
        return layer.weight.movedim(1, -1).movedim(0, -2), (layer.basis,)
    if isinstance(layer, PeerConvolution):
        axis = 0 if layer.conv.transposed else 1
        split = layer.conv.weight.unflatten(axis, (-1, layer.basis.size))
        return split.movedim((axis, axis + 1), (-2, -1)), (layer.basis,)
    return None


# what may differ: modes, sizes that lazy modules find or parameters show, and the knots of a KAN
_FREE = {"training", "p", "num_features", "in_features", "in_channels", "grid_size", "spline_order"}


def _settings(layer: nn.Module) -> dict[str, object]:
    """What a module does beside its parameters, as far as these names tell."""
    names = "alpha periodicity rescale stride padding output_padding dilation groups padding_mode transposed"
    names += " sizes dense normalization"
    held = layer.conv if isinstance(layer, PeerConvolution) else layer
    kind: object = _kind(layer)
    if isinstance(layer, (PeerLayer, PeerConvolution)):
        kind = layer.combine
    elif type(layer) in (HighOrderLinear, HighOrderLinearND):
        kind = link  # as the peer's sums, whose coefficients lie otherwise
    found: dict[str, object] = {"kind": kind}
    for name in names.split():
        value = getattr(layer, name, getattr(held, name, None))
        if isinstance(value, tuple) and len(set(value)) == 1:  # as one number for all axes
            value = value[0]
        if not isinstance(value, (nn.Module, Tensor)):  # which are compared, and copied, by themselves
            found[name] = value
    if edge_coefficients(layer) is None:  # a module of any kind: what it keeps that is plain
        for name, value in vars(layer).items():
            if name[0] != "_" and name not in _FREE and isinstance(value, (int, float, str, tuple)):
                found.setdefault(name, value)
    return found


def _compare(source: nn.Module, target: nn.Module, where: str) -> None:
    """ValueError that shows the settings which differ."""
    ours, theirs = _settings(source), _settings(target)
    differ = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    if differ:
        got, needed = ({name: each.get(name) for name in differ} for each in (theirs, ours))
        raise ValueError(f"{where}: got {got}, needs {needed}")


def _kind(module: nn.Module) -> type:
    """Its class; of a lazy module the one it will have."""
    return getattr(module, "cls_to_become", None) or type(module)


def _pairs(source: nn.Module, target: nn.Module, exact: bool, name: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Tensors of the target, and what is to be copied into them."""
    where = f"target{name and f' at {name}'}"
    if isinstance(source, KANLinear) and isinstance(target, KANLinear):
        yield from _splines(source, target, exact, where)
        branch = f"{name}.base_activation" if name else "base_activation"
        yield from _pairs(source.base_activation, target.base_activation, exact, branch)
        return
    ours, theirs = edge_coefficients(source), edge_coefficients(target)
    if ours is not None and theirs is not None:
        _compare(source, target, where)
        yield theirs[0], _converted(ours, theirs, exact, where)
        return
    children = list(source.named_children()), list(target.named_children())
    if _kind(source) is not _kind(target) or len(children[0]) != len(children[1]):
        raise TypeError(
            f"{where}: got {type(target).__name__}, needs a layer or network like {type(source).__name__}"
        )
    _compare(source, target, where)
    own, others = (
        dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        for module in (source, target)
    )
    if own.keys() != others.keys():
        raise ValueError(f"{where}: got tensors {sorted(others)}, needs {sorted(own)}")
    for key, into in others.items():
        if not (is_lazy(into) or (not is_lazy(own[key]) and own[key].shape == into.shape)):
            raise ValueError(f"{where}: got {key} of another shape than the source's, needs the same")
        if not is_lazy(own[key]):
            yield into, own[key]
    for (_, inner), (key, outer) in zip(*children, strict=True):
        yield from _pairs(inner, outer, exact, f"{name}.{key}" if name else key)


def _splines(
    source: KANLinear, target: KANLinear, exact: bool, where: str
) -> Iterator[tuple[Tensor, Tensor]]:
    ours, theirs = (
        (layer.scaled_spline_weight, (bases.bspline(layer.spline_order, knots=layer.grid.cpu()),))
        for layer in (source, target)
    )
    yield target.spline_weight, _converted(ours, theirs, exact, where)
    if target.enable_standalone_scale_spline:
        yield target.spline_scaler, torch.ones_like(target.spline_scaler)
    yield target.base_weight, source.base_weight


def _converted(
    ours: tuple[Tensor, tuple[Basis, ...]], theirs: tuple[Tensor, tuple[Basis, ...]], exact: bool, where: str
) -> Tensor:
    """The coefficients of the target [..., in, K]."""
    (w, sources), (into, targets) = ours, theirs
    if w.shape[:-1] != into.shape[:-1] or len(sources) != len(targets):
        raise ValueError(f"{where}: got edges {tuple(into.shape[:-1])}, needs {tuple(w.shape[:-1])}")
    matrix = torch.ones(1, 1, **HOST)
    for source, target in zip(sources, targets, strict=True):
        near = 1e-5 * float(source.domain.diff(dim=1).min())  # beside the rounding of grids in float32
        if not torch.allclose(source.domain, target.domain, rtol=2.5e-7, atol=near):
            raise ValueError(
                f"{where}: got interval {target.interval}, needs that of the source, {source.interval}"
            )
        next_one = conversion(source, target, exact)
        matrix = torch.kron(matrix, next_one) if len(sources) > 1 else next_one
    moved: Tensor = (matrix.to(w.device) @ w.detach().double().unsqueeze(-1)).squeeze(-1)
    return moved
