"""The CUDA backend: the three contractions on a GPU by C++ kernels, for installations without Triton."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import native
from .backends import Backend, missing, register
from .gpu_cost import gathers, parts
from .operands import Operands

_SUM_INPUTS, _SUM_OUTPUTS, _SUM_BATCH = range(3)
_NAMES = ("sum_inputs", "sum_outputs", "sum_batch")
# as in csrc/cuda: a side of a tile, threads of a block, what a block sorts, terms of a sum at a time
_TILE, _THREADS, _SORTED, _DEPTH = 64, 128, 1024, 64


class Choice(NamedTuple):
    """The kernel, dense tiles or a gather, and the parts its sum is cut into."""

    gather: bool
    parts: int


def sum_inputs(x: Tensor, w: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_inputs."""
    return _contract(_SUM_INPUTS, x, w, None, s, basis)


def sum_outputs(x: Tensor, w: Tensor, g: Tensor, basis: Operands) -> Tensor:
    """As reference.sum_outputs."""
    return _contract(_SUM_OUTPUTS, x, w, g, None, basis)


def sum_batch(x: Tensor, g: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_batch."""
    return _contract(_SUM_BATCH, x, None, g, s, basis)


def _contract(
    missing: int, x: Tensor, w: Tensor | None, g: Tensor | None, s: Tensor | None, basis: Operands
) -> Tensor:
    if w is not None:
        w = w.contiguous()
    if g is not None and g.stride(-1) != 1:
        g = g.contiguous()
    outputs = g.shape[-1] if w is None and g is not None else w.shape[-1] if w is not None else 0
    how = chosen(missing, x, outputs, basis)
    result: Tensor = _operator()(
        missing, x, w, g, s, *basis.tensors, [*basis.layout], int(how.gather), how.parts, _stream(x.device)
    )
    return result


def chosen(contraction: int, x: Tensor, outputs: int, basis: Operands) -> Choice:
    """How a contraction of x [E, B, I] with so many outputs runs: Triton's rules, csrc/cuda's tiles."""
    groups, batch, inputs = x.shape
    n, size = basis.tables.shape[-2], basis.layout.size
    lanes = _lanes(outputs)
    team = 4 * lanes
    rows = batch if contraction == _SUM_BATCH else _up(batch, _TILE)
    gather = gathers(batch * _up(outputs, team) * n, rows * _up(outputs, _TILE) * size, "ieee")
    if contraction != _SUM_BATCH:  # such a gather has blocks for each row, a launch less than 2^31 of them
        gather = gather and groups * batch * max(-(-outputs // team), -(-inputs // _THREADS)) < 2**31
    processors = _processors(x.device)
    if contraction == _SUM_OUTPUTS:
        return Choice(gather, 1)
    wide = -(-outputs // (team if gather else _TILE)) * groups
    if contraction == _SUM_BATCH:
        inputs_at_once = _THREADS // lanes if gather else max(1, _TILE // size)
        blocks = wide * -(-inputs // inputs_at_once) * (1 if gather else -(-size // _TILE))
        tile = _SORTED * lanes // _THREADS if gather else 4 * _DEPTH
        return Choice(gather, parts(blocks, 2 * processors, -(-batch // tile)))
    if gather:
        return Choice(gather, parts(wide * batch, 4 * processors, -(-inputs // 16)))
    return Choice(gather, parts(wide * -(-batch // _TILE), 2 * processors, -(-inputs * size // (4 * _DEPTH))))


def choice(contraction: str, x: Tensor, w: Tensor, basis: Operands) -> str:
    """Kernel and parts of a contraction of x and w, in words."""
    how = chosen(_NAMES.index(contraction), x, w.shape[-1], basis)
    kind = "dense tiles (functions as a factor of a matrix product, in shared memory)"
    if how.gather:
        kind = "gather (the coefficients met, by index)"
        if contraction == "sum_batch":
            kind = "gather (rows sorted by the coefficients that they meet)"
    return kind + (f", the sum in {how.parts} parts" if how.parts > 1 else "")


def _up(count: int, by: int) -> int:
    """The next multiple."""
    return -(-count // by) * by


def _lanes(outputs: int) -> int:
    """Threads of a team that gathers, as csrc/cuda/gather.h has them."""
    lanes = 1
    while lanes < 32 and 4 * lanes < outputs:
        lanes *= 2
    return lanes


@cache
def _processors(device: torch.device) -> int:
    """Multiprocessors of a device; few on a CPU, where tests run the kernels and small sums are cut, too."""
    if device.type == "cpu":
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _operator() -> torch._ops.OpOverload:
    return torch.ops.high_order_fused.cuda_contract.default


def _stream(device: torch.device) -> int:
    return int(torch.cuda.current_stream(device).cuda_stream)


def _refuses(x: Tensor) -> str | None:
    return None if x.device.type == "cuda" else "the CUDA kernels run on a GPU"


def _found() -> str | None:
    """Why there is no CUDA backend, or None."""
    why = native.load("_cuda")
    if why is not None:
        return f"the compiled library is missing: {why}"
    why = torch.ops.high_order_fused.cuda_no_device()  # its runtime may want a newer driver than torch's
    if why:
        return f"no device ({why})"
    return None if torch.cuda.is_available() and torch.version.cuda else "this torch was built without CUDA"


_why = _found()
if _why is not None:
    missing("cuda", _why)
else:
    library = torch.library.Library("high_order_fused", "IMPL")
    # it runs below our own autograd, as the operators of the CPU do
    library.impl("cuda_contract", torch.library.fallthrough_kernel, "Autograd")
    contractions = (sum_inputs, sum_outputs, sum_batch)
    register(Backend("cuda", *contractions, _refuses, "CUDA C++", lambda m: m.mT.contiguous(), choice=choice))
