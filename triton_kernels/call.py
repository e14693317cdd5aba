"""A contraction of given tensors: how it runs, its result, the launch."""

import math
from contextlib import nullcontext
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from high_order_fused import gpu_cost
from high_order_fused.operands import Operands

from . import library
from .basis import Basis, Shape
from .choice import Choice, chosen, function
from .launcher import INTERPRETED, launch
from .patches import Patch
from .tiles import Rows, Sizes

FEW_SPILLS = 8  # numbers that a thread puts aside, in kernels that were the fastest nevertheless


class Call(NamedTuple):
    """A contraction with factors stored in `factor`; x: of its dtype and device; scaled: with s."""

    contraction: str
    groups: int
    sizes: Sizes
    x: Tensor
    factor: torch.dtype
    basis: Operands
    shape: Shape
    scaled: bool = False
    patch: Patch | None = None

    def how(self) -> Choice:
        """What the cost model says, given what was seen of the compiled code."""
        globally = torch.get_float32_matmul_precision(), gpu_cost.preferred(), library.allowed()
        return _remembered(
            globally,
            self.contraction,
            self.groups,
            self.sizes,
            self.shape,
            computable(self.factor),
            _processors(self.x.device),
            frozenset(_spilled.get(self._kind(), ())),
            self.patch is not None,
            _cores(self.x.device),
        )

    def result(self, name: str, like: Tensor, shape: tuple[int, ...], **others: Any) -> Tensor:
        """The result of this shape in the dtype of `like`, which the kernel calls by this name."""
        return whole(self.parts(name, like.dtype, shape, **others), like.dtype)

    def parts(
        self, name: str, dtype: torch.dtype, shape: tuple[int, ...], count: int | None = None, **others: Any
    ) -> Tensor:
        """[parts, *shape] of the result, `count` of them or as many as the cost model says.

        Of more than one in the dtype of the knots. Where the code of a tile turns out to spill, a smaller one
        takes its place, from this call on.
        """
        while True:
            how = self.how()
            how = how if count is None else how._replace(parts=count)
            stored = computable(dtype if how.parts == 1 else self.basis.knots.dtype)
            parts = torch.empty(how.parts, *shape, dtype=stored, device=self.x.device)
            room: Any = parts
            if how.kernel in ("sum_inputs_dense", "sum_outputs_dense", "product_of_x"):
                room = rows_of(parts[0]) if self.patch is None else images_of(parts[0], self.groups)
            compiled = self._launch(how, **{name: room}, **others)
            if getattr(compiled, "n_spills", 0) <= FEW_SPILLS:
                return parts
            _spilled.setdefault(self._kind(), set()).add(how._replace(parts=1))
            if self.how()._replace(parts=1) == how._replace(parts=1):  # there is no smaller one
                return parts

    def expand(self, how: Choice, x: Tensor, s: Tensor | None, phi: Tensor) -> None:
        """As library.Expand."""
        room, points = read(phi), points_of(x)
        self._some(phi)._launch(how, x=points, s=points if s is None else rows_of(s), phi=room)
        if room is not phi:
            phi.copy_(room)

    def contract(self, how: Choice, x: Tensor, t: Tensor, r: Tensor) -> None:
        """As library.Contract."""
        room = read(r)
        self._some(t)._launch(how, x=points_of(x), t=read(t), r=points_of(room))
        if room is not r:
            r.copy_(room)

    def _some(self, rows: Tensor) -> "Call":
        return self._replace(groups=1, sizes=self.sizes._replace(batch=rows.shape[0]))

    def _kind(self) -> tuple[Any, ...]:
        """What code is compiled for, besides a choice."""
        return self.shape, self.x.dtype, self.factor, self.scaled, self.patch, self.x.device

    def _launch(self, how: Choice, **others: Any) -> Any:
        basis, kernel, shape = self.basis, function(how.kernel), self.shape
        for name, constant in (("parts", how.parts), ("SCALED", self.scaled), ("PATCH", self.patch)):
            if name in kernel.arg_names:
                others[name] = constant
        pointers = Basis(basis.domain, basis.knots, basis.tables[basis.layout.order], basis.start)
        others |= {"basis": pointers, "sizes": self.sizes, "SHAPE": shape, "TILE": how.tile}
        count, device = programs(how, self.groups, self.sizes, shape.size), self.x.device
        with on(device):
            return launch(kernel, count, device, how.warps, how.stages, **others)


_spilled: dict[tuple[Any, ...], set[Choice]] = {}


@lru_cache(4096)
def _remembered(globally: tuple[Any, ...], *arguments: Any) -> Choice:
    """`chosen`, which also depends on what is set globally."""
    return chosen(*arguments)


def call_of(
    contraction: str, x: Tensor, outputs: int, factor: torch.dtype, basis: Operands, scaled: bool = False
) -> Call:
    """Of x [E, B, I]."""
    groups, *rows = x.shape
    return Call(contraction, groups, Sizes(*rows, outputs), x, factor, basis, shape_of(basis), scaled)


@lru_cache(4096)
def programs(how: Choice, groups: int, sizes: Sizes, size: int) -> int:
    """How many programs a launch has, for so many functions of an input."""
    tile = how.tile
    rows, inputs, outputs, functions = (
        -(-axis // of) for axis, of in zip((*sizes[:3], size), tile[:4], strict=True)
    )
    each = {
        "sum_inputs_dense": rows * outputs,
        "sum_outputs_dense": rows * inputs,
        "sum_batch_dense": how.parts * inputs * outputs * functions,
        "sum_inputs_gather": how.parts * sizes.batch * outputs,
        "sum_outputs_gather": sizes.batch * inputs,
        "expand": rows * inputs,
        "contract": rows * inputs,
        "product": how.parts * rows * outputs,
        "product_of_x": rows * inputs,
        "product_of_w": how.parts * inputs * outputs * functions,
    }
    return groups * each[how.kernel]


def on(device: torch.device) -> Any:
    """Launches go to the current device."""
    here = device.type == "cpu" or device.index == torch.cuda.current_device()
    return nullcontext() if here else torch.cuda.device(device)


def computable(dtype: torch.dtype) -> torch.dtype:
    """The interpreter knows no bfloat16."""
    return torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype


def read(t: Tensor) -> Tensor:
    return t.to(computable(t.dtype))


def rows_of(t: Tensor) -> Rows:
    t = read(t)
    return Rows(t, *t.stride())


def points_of(t: Tensor) -> Rows:
    """Of a group, or of images that have none."""
    return rows_of(t) if t.dim() == 3 else images_of(t, 1)


def images_of(t: Tensor, groups: int) -> Rows:
    """[N, groups * columns, *image], the places of an image adjacent."""
    t = read(t.contiguous())
    plane = math.prod(t.shape[2:])
    return Rows(t, t.shape[1] // groups * plane, t.shape[1] * plane, plane, plane)


def whole(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of the parts, always in their order."""
    return (parts[0] if parts.shape[0] == 1 else parts.sum(0)).to(dtype)


def shape_of(basis: Operands) -> Shape:
    domain, knots, tables, start, layout = basis
    _, own, segments, n, m = tables.shape
    owns = domain.shape[0] > 1, knots.shape[0] > 1, own > 1
    return Shape(
        layout.kind, layout.uniform, layout.outer, start.shape[0], layout.size, n, m, *owns, segments
    )


@cache
def _cores(device: torch.device) -> bool:
    """Whether there are tensor cores for float32; the interpreter has what tests want."""
    return device.type == "cpu" or (
        not torch.version.hip and torch.cuda.get_device_capability(device) >= (8, 0)
    )


@cache
def _processors(device: torch.device) -> int:
    """Multiprocessors of a device; the interpreter has few, so that small sums are split there, too."""
    if device.type == "cpu":
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
