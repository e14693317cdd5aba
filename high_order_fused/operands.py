"""A basis as a kernel sees it: four tensors and five integers."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from .features import FROZEN, LIVE, Matrix, differentiation


def watched(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a function transform, a dispatch mode or a tensor subclass owns what is computed."""
    return (
        torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or not all(t is None or type(t) in (Tensor, Parameter) for t in tensors)
    )


class Layout(NamedTuple):
    """The integers of a basis: features (POLYNOMIAL, HARMONIC), uniform lookup (0, 1), outer segments (NONE,
    LIVE, FROZEN), number of coefficients K, derivative order."""

    kind: int
    uniform: int
    outer: int
    size: int
    order: int


class Operands(NamedTuple):
    """The tensors of a basis on one device, in the dtype of the lookup (float32 or float64).

    domain [I|1, 2], low and high: the uniform lookup divides it, the outer segments begin at its ends.
    knots [I|1, M+1]; tables [R, I|1, M|1, n, m], one for each derivative order below R; start [M], int64.
    Size-1 axes are shared by all features or segments. M counts the two outer segments, if any.
    """

    domain: Tensor
    knots: Tensor
    tables: Tensor
    start: Tensor
    layout: Layout

    @classmethod
    def of(cls, tensors: Sequence[Tensor], layout: Layout) -> "Operands":
        """From the four tensors in order."""
        domain, knots, tables, start = tensors
        return cls(domain, knots, tables, start, layout)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four tensors in order."""
        return self.domain, self.knots, self.tables, self.start

    def derivative(self) -> "Operands":
        """The operands of the derivative with respect to x."""
        domain, knots, tables, start, layout = self
        order = layout.order + 1
        if order == tables.shape[0]:
            d = differentiation(tables.shape[-1], layout.kind)
            tables = torch.cat([tables, differentiate(tables[-1:], knots, d)])
        outer = FROZEN if layout.outer == LIVE else layout.outer  # slopes of lines are constants
        steeper = Layout(layout.kind, layout.uniform, outer, layout.size, order)
        return Operands(domain, knots, tables, start, steeper)


def differentiate(table: Tensor, knots: Tensor, d: Matrix) -> Tensor:
    """The table of d/dx: table [..., I|1, M|1, n, m] over knots [I|1, M+1], same shape and dtype back.

    d: the differentiation matrix of the features, as numbers, so that a compiler can trace this function.
    A table that all inputs or segments share needs knots that are shared or equidistant.
    """
    matrix = placed(d, table.dtype, table.device)
    width = knots[:, 1:] - knots[:, :-1]
    slope = torch.where(width > 0, 2 / width, 0.0)
    if table.shape[-3] == 1:
        slope = slope[:, :1]
    return table @ matrix * slope[..., None, None]


def placed(numbers: Sequence[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers, or rows of them, as a tensor; on a GPU made once, since each copy to there waits for it."""
    if device.type == "cpu" or torch.compiler.is_compiling() or watched(()):
        return torch.tensor(numbers, dtype=dtype, device=device)
    return _kept(numbers, dtype, device)


@lru_cache(256)
def _kept(numbers: Sequence[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(numbers, dtype=dtype, device=device)


def derivative_tables(table: Tensor, knots: Tensor, d: Matrix, orders: int = 4) -> Tensor:
    """Stack the tables of derivative orders 0 .. orders - 1: [orders, *table.shape]."""
    tables = [table]
    for _ in range(orders - 1):
        tables.append(differentiate(tables[-1], knots, d))
    return torch.stack(tables)
