"""Basis: a family of one-dimensional functions as data. Constructors are in bases.py."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from . import reference
from .features import FROZEN, HOST, LIVE, NONE, Matrix, constant, differentiation, features
from .operands import Layout, Operands, derivative_tables, differentiate, watched

OUTSIDE = {"extrapolate": NONE, "linear": LIVE, "clamp": FROZEN, "zero": FROZEN}


@dataclass(frozen=True, eq=False, repr=False)
class Basis:
    """K piecewise functions phi_k on an interval; in a segment, n adjacent ones are not zero.

    In segment t the functions start[t] .. start[t] + n - 1 have the values table[t] @ features(u), with the
    local coordinate u in [-1, 1]; table and knots have an axis of features (inputs) in front, of size 1 when
    all inputs share them. Build one with the constructors in `high_order_fused.bases`; it is immutable.

    spec: how it was built, shown by repr and stored with a layer's coefficients.
    kind: POLYNOMIAL or HARMONIC features.     outside: the policy beyond the interval.
    domain: float64 [I|1, 2], the interval.     knots: float64 [I|1, M+1], where u is -1 and 1.
    table: float64 [I|1, M|1, n, m].     start: int64 [M].
    size: K.     uniform: arithmetic lookup instead of a search.
    one: float64 [K], the coefficients of the function 1, where they are known.
    """

    spec: str
    kind: int
    outside: str
    domain: Tensor
    knots: Tensor
    table: Tensor
    start: Tensor
    size: int
    uniform: bool
    one: Tensor | None = None
    _cache: dict[tuple[torch.dtype, torch.device], Operands] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not self.uniform:  # derivatives depend on each segment's width
            table = self.table.expand(self.knots.shape[0], self.start.shape[0], -1, -1)
            object.__setattr__(self, "table", table)
        for dtype in (torch.float32, torch.float64):
            self.operands(dtype, torch.device("cpu"))

    @property
    def segments(self) -> int:
        """Number of segments inside the interval."""
        return self.knots.shape[1] - (1 if OUTSIDE[self.outside] == NONE else 3)

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the shared grid, or the smallest that holds every feature's."""
        return self.domain[:, 0].min().item(), self.domain[:, 1].max().item()

    @property
    def inputs(self) -> int | None:
        """Number of inputs that have knots of their own, None when the grid is shared."""
        inputs = max(self.knots.shape[0], self.table.shape[0])
        return None if inputs == 1 else inputs

    def operands(self, dtype: torch.dtype, device: torch.device) -> Operands:
        """What a kernel reads, for a lookup in dtype (float32, float64) on a device; made once."""
        found = self._cache.get((dtype, device))
        if found is None:
            with torch.inference_mode(False):
                found = self._build(dtype, device)
            if not watched(()):  # else the tensors belong to a transform, and end with it
                self._cache[dtype, device] = found
        return found

    def _build(self, dtype: torch.dtype, device: torch.device) -> Operands:
        knots = self.knots.to(dtype)
        if self.uniform:
            outer = OUTSIDE[self.outside] != NONE
            inner = self.knots[0, 1:-1] if outer else self.knots[0]
            knots = uniform_knots(inner[0].item(), inner[-1].item(), self.segments, dtype)
            knots = widened(knots) if outer else knots
        tables = derivative_tables(self.table, self.knots, self._differentiation).to(dtype)
        layout = Layout(self.kind, int(self.uniform), OUTSIDE[self.outside], self.size, 0)
        domain = self.domain.to(dtype)
        tensors = (domain, knots, tables, self.start)
        return Operands.of([t.to(device).contiguous() for t in tensors], layout)

    @property
    def _differentiation(self) -> Matrix:
        found: Matrix = differentiation(self.table.shape[-1], self.kind)
        return found

    def derivative(self) -> "Basis":
        """The basis of the derivatives phi_k', over the same coefficients."""
        table = differentiate(self.table, self.knots, self._differentiation)
        outside = "clamp" if self.outside == "linear" else self.outside  # slopes of lines are constants
        return replace(self, spec=f"{self.spec}.derivative()", outside=outside, table=table, one=None)

    def folded(self) -> "Basis":
        """The basis that `pack(..., fold=True)` packs for: each segment's window is its m features."""
        m, segments = self.table.shape[-1], self.start.shape[0]
        start = m * torch.arange(segments, device="cpu")
        table = torch.eye(m, **HOST)[None, None]
        spec = f"{self.spec}.folded()"
        return replace(self, spec=spec, table=table, start=start, size=m * segments, one=None)

    def tabulate(self, x: Tensor) -> Tensor:
        """phi_k(x), shape (*x.shape, K); with knots per feature the last axis of x counts the features.

        float64 for float64 x, otherwise float32. Differentiable in x. ValueError for a wrong last axis.
        """
        return self._reshaped(x, reference.expand)

    def locate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Segment (int64; -1 and `segments` are outside) and local coordinate u of x, each of x's shape.

        Where outside = "extrapolate" everything belongs to a segment; where it is "clamp" or "zero", u is 0
        outside. NaN is in segment 0.
        """
        segment = self._reshaped(x, lambda x, basis: reference.locate(x, basis)[0])
        u = self._reshaped(x, lambda x, basis: reference.locate(x, basis)[1])
        return segment - int(OUTSIDE[self.outside] != NONE), u

    def _reshaped(self, x: Tensor, function: Any) -> Tensor:
        inputs = self.inputs or 1
        if self.inputs is not None and (x.dim() == 0 or x.shape[-1] != inputs):
            raise ValueError(f"x: got shape {tuple(x.shape)}, needs a last axis of {inputs} features")
        basis = self.operands(lookup_dtype(x), x.device)
        result: Tensor = function(x.reshape(1, -1, inputs), basis)
        return result.reshape(*x.shape, *result.shape[3:])

    def __repr__(self) -> str:
        return self.spec

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Basis):
            return NotImplemented
        numbers = ("spec", "kind", "outside", "size", "uniform")
        tensors = ("domain", "knots", "table", "start")
        return all(getattr(self, name) == getattr(other, name) for name in numbers) and all(
            torch.equal(getattr(self, name), getattr(other, name)) for name in tensors
        )

    def __hash__(self) -> int:
        return hash((self.spec, self.outside, self.size))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Basis":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()


def lookup_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which x is looked up: float64 for float64, float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def boundaries(basis: Basis) -> Tensor:
    """The ends of a basis's segments inside its domain, float64 [features or 1, segments + 1]."""
    if basis.uniform:
        low, high = basis.domain.unbind(1)
        return low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, basis.segments + 1, **HOST)
    return basis.knots if OUTSIDE[basis.outside] == NONE else basis.knots[:, 1:-1]


def uniform_knots(low: float, high: float, segments: int, dtype: torch.dtype) -> Tensor:
    """M + 1 equidistant knots [1, M+1], computed in dtype, so that they are bit-equal on every backend.

    Source for the order of operations: high-order-layers-torch, eta.
    """
    k = torch.arange(segments + 1, dtype=dtype, device="cpu")
    knots = (high - low) * (k / segments) + low
    knots[-1] = high
    return knots[None]


def with_outer(
    knots: Tensor, table: Tensor, start: Tensor, kind: int, outside: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Add the two outer segments of a policy ("linear", "clamp", "zero") to knots, table and start."""
    if OUTSIDE[outside] == NONE:
        return knots, table, start
    m = table.shape[-1]
    table = table.expand(len(knots), len(start), -1, -1)
    ends = features(torch.tensor([-1.0, 1.0], **HOST), m, kind).T
    outer = _at_the_ends(table @ ends).unsqueeze(-1) * constant(m, kind)
    if outside == "zero":
        outer = torch.zeros_like(outer)
    elif outside == "linear" and m > 1:
        slope = _at_the_ends(differentiate(table, knots, differentiation(m, kind)) @ ends)
        rise = (
            slope * (knots[:, -1:] - knots[:, :1])[..., None]
        )  # the outer segments are as wide as the interval
        outer[:, 0, :, 0] -= rise[:, 0]
        outer[:, 1, :, 1] += rise[:, 1]
    table = torch.cat([outer[:, :1], table, outer[:, 1:]], 1)
    return widened(knots), table, torch.cat([start[:1], start, start[-1:]])


def _at_the_ends(values: Tensor) -> Tensor:
    """values [I|1, M, n, 2] at u = -1 and 1, at the two ends of the interval: [I|1, 2, n]."""
    return torch.stack([values[:, 0, :, 0], values[:, -1, :, 1]], 1)


def widened(knots: Tensor) -> Tensor:
    """Knots with an outer segment, as wide as the interval, on each side."""
    width = knots[..., -1:] - knots[..., :1]
    return torch.cat([knots[..., :1] - width, knots, knots[..., -1:] + width], -1)
