"""Constructors of bases. Each makes a table once, on the host, in float64; no kernel knows a family's name.

A new polynomial family is one more function, here or in a user's own code: the values of its functions at
the `lobatto` points of each segment, handed to `tabulated`.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from .basis import OUTSIDE, Basis, uniform_knots, with_outer
from .checks import choice, count, ends
from .features import HARMONIC, HOST, POLYNOMIAL, from_values, lobatto_points
from .features import lobatto as lobatto
from .operands import placed

Interval = tuple[float, float]


def tabulated(
    spec: str,
    values: Tensor,
    start: Tensor,
    *,
    interval: Interval = (-1.0, 1.0),
    knots: Tensor | None = None,
    outside: str = "linear",
    one: Tensor | None = None,
    span: Interval | None = None,
) -> Basis:
    """A piecewise polynomial basis from the values of its functions: the way to add a family.

    values: float64 [I|1, M|1, n, q], the n functions of each segment at its lobatto(q) points, of degree
    below q. start: int64 [M], the first function of each segment; K = max(start) + n. interval: M equal
    segments, or knots: [I|1, M+1], strictly increasing. one: coefficients [K] of the function 1, by default
    ones. span: where the segments' ends are put while the interval still says which segment x is in; only the
    peers' oddities, which extrapolate, need it. spec: the call as text up to its last bracket; the rest is
    added. It stands for the functions: repr, equality and checkpoints show and compare it.
    ValueError for an unknown policy, a bad interval or bad knots, and for values, start and one whose shapes
    do not go together or a start below 0.
    """
    _fitting(values, start)
    table = values @ torch.tensor(from_values(values.shape[-1]), **HOST)
    size = int(start.max()) + values.shape[-2]
    one = torch.ones(size, **HOST) if one is None else one
    if one.shape != (size,):
        raise ValueError(f"one: got shape {tuple(one.shape)}, needs [{size}], max(start) + n")
    return _basis(spec, POLYNOMIAL, table, start, interval, knots, outside, one, span)


def lagrange(n: int, interval: Interval = (-1.0, 1.0), outside: str = "linear") -> Basis:
    """One polynomial of degree n - 1 through n Chebyshev-Lobatto nodes; coefficients are its values there.

    ValueError for n < 1. Source: high-order-layers-torch, LagrangeBasis.
    """
    nodes = lobatto(count("n", n))
    values = lagrange_values(nodes, nodes)
    spec = f"lagrange(n={n}"
    return tabulated(spec, values[None, None], _starts(1, 0), interval=interval, outside=outside)


def piecewise_lagrange(
    n: int,
    segments: int,
    interval: Interval = (-1.0, 1.0),
    continuous: bool = True,
    outside: str = "linear",
    knots: Tensor | None = None,
) -> Basis:
    """A polynomial of degree n - 1 in each segment; coefficients are the values at its Lobatto nodes.

    Neighbours share the value at their common knot if continuous: K = (n - 1) segments + 1, otherwise
    K = n segments. knots [I|1, segments + 1] replace the equal segments of the interval. ValueError for
    n < 1, segments < 1.
    Source: high-order-layers-torch, PiecewisePolynomial, PiecewiseDiscontinuousPolynomial.
    """
    nodes = lobatto(count("n", n))
    start = _starts(count("segments", segments), n - 1 if continuous else n)
    values = lagrange_values(nodes, nodes)[None, None]
    spec = f"piecewise_lagrange(n={n}, segments={segments}, continuous={bool(continuous)}"
    return tabulated(spec, values, start, interval=interval, knots=knots, outside=outside)


def fourier(n: int, interval: Interval = (-1.0, 1.0), outside: str = "extrapolate") -> Basis:
    """The first n of 1/2, sin(v), cos(v), sin(2v), cos(2v), ..., with v = 2 pi (x - middle) / length.

    Periodic beyond the interval ("extrapolate"), or "clamp", "zero". ValueError for n < 1, and for "linear":
    harmonics hold no straight line. Source: high-order-layers-torch, FourierBasis.
    """
    table = torch.eye(count("n", n), n + (n + 1) % 2, **HOST)  # closed under d/du needs an odd number
    if outside == "linear":
        raise ValueError(
            "outside: got 'linear', needs 'extrapolate' (periodic), 'clamp' or 'zero' for harmonics"
        )
    table[0, 0] = 0.5
    one = 2 * _first(n)
    return _basis(f"fourier(n={n}", HARMONIC, table[None, None], _starts(1, 0), interval, None, outside, one)


def monomial(degree: int, interval: Interval = (-1.0, 1.0), outside: str = "extrapolate") -> Basis:
    """1, x, x^2, ..., x^degree, of x itself; the interval says where rounding is least, outside begins.

    ValueError for degree < 0. Source: polynomial-mlp, calculate_input_powers.
    """
    low, high = ends("interval", interval)
    u = lobatto(count("degree", degree, 0) + 1)
    x = (low * (1 - u) + high * (1 + u)) / 2
    return _recurrence(f"monomial(degree={degree}", x, lambda k, p, q: x * p, interval, outside)


def chebyshev(degree: int, interval: Interval = (-1.0, 1.0), outside: str = "linear") -> Basis:
    """The Chebyshev polynomials T_0 .. T_degree of the interval's coordinate u in [-1, 1].

    ValueError for degree < 0.
    """
    u = lobatto(count("degree", degree, 0) + 1)
    return _recurrence(f"chebyshev(degree={degree}", u, lambda k, p, q: 2 * u * p - q, interval, outside)


def legendre(degree: int, interval: Interval = (-1.0, 1.0), outside: str = "linear") -> Basis:
    """The Legendre polynomials P_0 .. P_degree of the interval's coordinate u in [-1, 1].

    ValueError for degree < 0.
    """
    u = lobatto(count("degree", degree, 0) + 1)
    return _recurrence(
        f"legendre(degree={degree}",
        u,
        lambda k, p, q: ((2 * k - 1) * u * p - (k - 1) * q) / k,
        interval,
        outside,
    )


def bspline(
    degree: int,
    segments: int = 1,
    interval: Interval = (-1.0, 1.0),
    outside: str = "linear",
    knots: Tensor | None = None,
) -> Basis:
    """B-splines of a degree: over equal segments of an interval, or over knot vectors for each feature.

    knots: whole knot vectors [I|1, segments + 2 degree + 1], strictly increasing, which say how many
    segments; the domain is between the knots number `degree` and `degree + segments`. K = segments + degree;
    inside the domain the splines sum to 1. ValueError for degree < 0, segments < 1, bad knots.
    Source: C. de Boor, A Practical Guide to Splines, chapter IX.
    """
    count("degree", degree, 0)
    inner = None
    if knots is None:
        low, high = ends("interval", interval)
        k = torch.arange(-degree, count("segments", segments) + degree + 1, **HOST)
        full = (low + (high - low) * (k / segments))[None]
    else:
        full = _increasing(knots)
        segments = full.shape[1] - 2 * degree - 1
        if segments < 1:
            raise ValueError(
                f"knots: got {full.shape[1]} of them, needs at least 2 degree + 2 = {2 * degree + 2}"
            )
        inner = full[:, degree : degree + segments + 1]
    values = bspline_values(full, degree)[:, degree : degree + segments]
    spec = f"bspline(degree={degree}, segments={segments}"
    return tabulated(spec, values, _starts(segments, 1), interval=interval, knots=inner, outside=outside)


def lagrange_values(nodes: Tensor, points: Tensor) -> Tensor:
    """The Lagrange polynomials of nodes [n] at points [..., q]: [..., n, q]."""
    rows = []
    for j, node in enumerate(nodes):
        others = torch.cat([nodes[:j], nodes[j + 1 :]])
        rows.append(((points[..., None] - others) / (node - others)).prod(-1))
    return torch.stack(rows, -2)


def bspline_values(knots: Tensor, degree: int) -> Tensor:
    """The splines over knots [I, T] that meet each interval, at its lobatto(degree + 1) points.

    Returns [I, T - 1, degree + 1, degree + 1]; the window of interval s begins with spline
    clamp(s - degree, 0, K - degree - 1), K = T - degree - 1; a spline of the window that does not reach the
    interval has zeros. Plain torch operations only: it also runs inside a compiled graph.
    Source: Cox-de Boor recurrence in triangular form (The NURBS Book, algorithm A2.2).
    """
    intervals, size = knots.shape[1] - 1, knots.shape[1] - degree - 1
    u = placed(lobatto_points(degree + 1), knots.dtype, knots.device)
    # any increasing padding does: it only reaches splines that do not exist, and those are dropped below
    step = torch.arange(1, degree + 1, dtype=knots.dtype, device=knots.device)
    padded = torch.cat([knots[:, :1] - step.flip(0), knots, knots[:, -1:] + step], 1)
    knot = [padded[:, j : j + intervals, None] for j in range(2 * degree + 2)]
    x = (knot[degree] * (1 - u) + knot[degree + 1] * (1 + u)) / 2
    splines = [torch.ones_like(x)]
    for d in range(1, degree + 1):
        raised = [torch.zeros_like(x)]
        for r in range(d):
            left, right = knot[degree + 1 + r - d], knot[degree + 1 + r]
            share = splines[r] / (right - left)
            raised[-1] = raised[-1] + (right - x) * share
            raised.append((x - left) * share)
        splines = raised
    values = torch.stack(splines, 2)
    s = torch.arange(intervals, device=knots.device)
    first = (s - degree).clamp(0, size - degree - 1)
    row = first[:, None] + torch.arange(degree + 1, device=knots.device) - (s[:, None] - degree)
    reaches = ((row >= 0) & (row <= degree))[None, :, :, None]
    values = values.gather(2, row.clamp(0, degree)[None, :, :, None].expand_as(values))
    return torch.where(reaches, values, 0.0)


def _recurrence(
    spec: str, first: Tensor, step: Callable[[int, Tensor, Tensor], Tensor], interval: Interval, outside: str
) -> Basis:
    """One segment with p_0 = 1, p_1 = first, p_k = step(k, p_(k-1), p_(k-2)); first at degree + 1 points."""
    p = [torch.ones_like(first), first]
    for k in range(2, first.shape[0]):
        p.append(step(k, p[-1], p[-2]))
    q = first.shape[0]
    values = torch.stack(p[:q])[None, None]
    return tabulated(spec, values, _starts(1, 0), interval=interval, outside=outside, one=_first(q))


def _basis(
    spec: str,
    kind: int,
    table: Tensor,
    start: Tensor,
    interval: Interval,
    knots: Tensor | None,
    outside: str,
    one: Tensor,
    span: Interval | None = None,
) -> Basis:
    choice("outside", outside, OUTSIDE)
    if span is not None and outside != "extrapolate":
        raise ValueError(f"span: got {span} where outside is {outside!r}, needs outside='extrapolate'")
    if knots is None:
        low, high = ends("interval", interval)
        domain = torch.tensor([[low, high]], **HOST)
        edges = uniform_knots(*(span or (low, high)), start.shape[0], torch.float64)
        place = f"interval=({low!r}, {high!r})"
    else:
        edges = _increasing(knots)
        if edges.shape[1] != start.shape[0] + 1:
            raise ValueError(
                f"knots: got {edges.shape[1]} of them, needs segments + 1 = {start.shape[0] + 1}"
            )
        domain = edges[:, [0, -1]]
        digest = hashlib.sha256(bytes(edges.flatten().view(torch.uint8).tolist())).hexdigest()[:12]
        place = f"knots=<{edges.shape[0]} x {edges.shape[1]}, {digest}>"
    edges, table, start = with_outer(edges, table, start, kind, outside)
    spec = f"{spec}, {place}, outside={outside!r})"
    return Basis(
        spec,
        kind,
        outside,
        domain,
        edges,
        table,
        start,
        int(start.max()) + table.shape[-2],
        knots is None,
        one,
    )


def _fitting(values: Tensor, start: Tensor) -> None:
    if start.dim() != 1 or len(start) == 0:
        raise ValueError(f"start: got shape {tuple(start.shape)}, needs [segments]")
    if int(start.min()) < 0:
        raise ValueError(f"start: got {int(start.min())}, needs none below 0")
    segments = len(start)
    if values.dim() != 4 or 0 in values.shape or values.shape[1] not in (1, segments):
        needed = f"[features or 1, {segments} or 1, n, points]"
        raise ValueError(f"values: got shape {tuple(values.shape)}, needs {needed} for start of {segments}")


def _starts(segments: int, stride: int) -> Tensor:
    return stride * torch.arange(segments, device="cpu")


def _first(size: int) -> Tensor:
    return torch.eye(1, size, **HOST)[0]


def _increasing(knots: Tensor) -> Tensor:
    knots = torch.as_tensor(knots).detach().to(**HOST)
    if knots.dim() == 1:
        knots = knots[None]
    if knots.dim() != 2 or knots.shape[1] < 2:
        raise ValueError(f"knots: got shape {tuple(knots.shape)}, needs [features or 1, at least 2]")
    if not bool((knots.diff(dim=1) > 0).all() and knots.isfinite().all()):
        raise ValueError("knots: got values that do not increase strictly, needs finite, increasing rows")
    return knots
