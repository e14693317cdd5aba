"""The C++ backend: the three contractions on a CPU, computing in float32 or float64 over any storage."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from . import native
from .backends import PACKED, Backend, register
from .checks import choice as one_of
from .geometry import Geometry
from .operands import Operands

ISAS = ("baseline", "avx2", "avx512")
_SUM_INPUTS, _SUM_OUTPUTS, _SUM_BATCH = range(3)
_NATIVE = (torch.float32, torch.float64)
_STRATEGIES = (
    "product (every window is all coefficients): a matrix product whose factor is made on the fly",
    "grouped (several rows a segment): sorted rows pass by a window of coefficients in registers",
    "rows (about a row a segment or less): windows in the order they lie in, each asked for before its use",
)
_COEFFICIENTS = (
    PACKED,
    "read as they lie, of four outputs at a time",
    "packed for 16 inputs at a time, as rows meet them",
)

_WHOLE = {
    "product": "row by row, the product of a block of outputs in registers",
    "product_gradients": "row by row, inputs forth for the products before each, and back for those behind",
    "conv": "pixels sorted by segment pass by a window of neighbouring taps in registers",
    "conv_gradients": "the same pixels for both, parts of the channels and of the images",
}


def sum_inputs(x: Tensor, w: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_inputs."""
    return _contract(_SUM_INPUTS, x, w, None, s, basis)


def sum_outputs(x: Tensor, w: Tensor, g: Tensor, basis: Operands) -> Tensor:
    """As reference.sum_outputs."""
    return _contract(_SUM_OUTPUTS, x, w, g, None, basis)


def sum_batch(x: Tensor, g: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
    """As reference.sum_batch."""
    return _contract(_SUM_BATCH, x, None, g, s, basis)


def link(
    x: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    base: Tensor | None,
    base_weight: Tensor | None,
    basis: Operands,
) -> tuple[Tensor, Tensor]:
    """As backends.Backend says: the output, and the coefficients as they were packed."""
    # torch resolves negative views for an operator, except where results may be views of arguments, as here
    x, weight, gain = x.resolve_neg(), weight.resolve_neg(), None if gain is None else gain.resolve_neg()
    base = None if base is None else _in_rows(base.resolve_neg())
    base_weight = None if base_weight is None else base_weight.resolve_neg().contiguous()
    y, w = torch.ops.high_order_fused.cpu_link.default(
        x, weight, gain, base, base_weight, *basis.tensors, [*basis.layout], _isa
    )
    return y, w


def _in_rows(t: Tensor) -> Tensor:
    """t with adjacent numbers in each row."""
    return t if t.stride(-1) == 1 else t.contiguous()


def link_gradients(
    g: Tensor,
    x: Tensor,
    w: Tensor,
    weight: Tensor,
    gain: Tensor | None,
    base: Tensor | None,
    base_weight: Tensor | None,
    basis: Operands,
    of_x: bool,
    of_weight: bool,
    of_base: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """As backends.Backend says; all in one pass over the rows, to the bit as one after the other."""
    g = _in_rows(g)
    tensors = basis.derivative().tensors if of_x else basis.tensors  # with a table of one order more
    base = None if base is None else _in_rows(base)
    base_weight = None if base_weight is None else base_weight.contiguous()
    slope, v, scales, of_values, of_branch = torch.ops.high_order_fused.cpu_link_gradients.default(
        g,
        x,
        w,
        weight,
        gain,
        base,
        base_weight,
        *tensors,
        [*basis.layout],
        _isa,
        of_x,
        of_weight,
        of_base,
    )
    return (
        slope if of_x else None,
        v if of_weight else None,
        scales if of_weight and gain is not None else None,
        of_values if of_base else None,
        None if base_weight is None else of_branch,
    )


def product(x: Tensor, w: Tensor, basis: Operands) -> Tensor:
    """As reference.product."""
    y: Tensor = torch.ops.high_order_fused.cpu_product.default(x, w, *basis.tensors, [*basis.layout], _isa)
    return y


def product_gradients(g: Tensor, x: Tensor, w: Tensor, basis: Operands) -> tuple[Tensor, Tensor]:
    """As reference.product_gradients."""
    of_x, of_w = torch.ops.high_order_fused.cpu_product_gradients.default(
        g.to(basis.knots.dtype).contiguous(),
        x,
        w,
        *basis.derivative().tensors,  # with a table of one order more
        [*basis.layout],
        _isa,
    )
    return of_x.to(x.dtype), of_w.to(w.dtype)


def conv(x: Tensor, w: Tensor, basis: Operands, geometry: tuple[int, ...]) -> Tensor:
    """As backends.Backend says."""
    y: Tensor = torch.ops.high_order_fused.cpu_conv.default(
        x.contiguous(), w.contiguous(), *basis.tensors, [*basis.layout], _phases(geometry), _isa
    )
    return y


def conv_gradients(
    g: Tensor,
    x: Tensor,
    w: Tensor,
    basis: Operands,
    geometry: tuple[int, ...],
    of_x: bool,
    of_w: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """As backends.Backend says."""
    tensors = basis.derivative().tensors if of_x else basis.tensors  # with a table of one order more
    slope, v = torch.ops.high_order_fused.cpu_conv_gradients.default(
        g.contiguous(),
        x.contiguous(),
        w.contiguous(),
        *tensors,
        [*basis.layout],
        _phases(geometry),
        _isa,
        of_x,
        of_w,
    )
    return slope if of_x else None, v if of_w else None


@cache
def _phases(integers: tuple[int, ...]) -> list[int]:
    """A geometry for C++: size, taps, phases; of each phase its numbers, its taps and their offsets."""
    geometry = Geometry.of(integers)
    phases = geometry.phases
    found = [*geometry.size, geometry.taps, len(phases)]
    for first, every, taps, placement in phases:
        found += [*first, *every, *placement.step, len(taps), *taps]
        found += itertools.chain.from_iterable(placement.offsets)
    return found


def _contract(
    missing: int, x: Tensor, w: Tensor | None, g: Tensor | None, s: Tensor | None, basis: Operands
) -> Tensor:
    if w is not None:
        w = w.contiguous()
    if g is not None:
        g = _in_rows(g)
    result: Tensor = torch.ops.high_order_fused.cpu_contract.default(
        missing, x, w, g, s, *basis.tensors, [*basis.layout], _isa
    )
    return result


def choice(contraction: str, x: Tensor, w: Tensor, basis: Operands) -> str:
    """Strategy and tiles of a contraction of x and w, in words; the cost model is csrc/cpu/choice.h.

    Of "link": what becomes of coefficients that are not as the contractions read them.
    """
    if contraction in _WHOLE:
        return _WHOLE[contraction]
    packs = contraction == "link"
    contraction = "sum_inputs" if packs else contraction
    together = contraction == "gradients"  # cut as sum_batch is
    number = ("sum_inputs", "sum_outputs", "sum_batch").index("sum_batch" if together else contraction)
    narrow = w.dtype not in _NATIVE
    chosen = torch.ops.high_order_fused.cpu_choice.default(
        number, x, w.shape[-1], narrow, *basis.tensors, [*basis.layout], _isa
    )
    strategy, rows, units, scratch, how = chosen.tolist()
    if packs:
        outputs_first = not w.is_contiguous() and w.movedim(-1, 1).is_contiguous()
        return _COEFFICIENTS[how] if outputs_first else PACKED
    if together:
        enough = units >= torch.get_num_threads()
        return (
            "in one pass, cut as sum_batch"
            if enough
            else "one after the other: too few inputs for all threads"
        )
    threads = min(units, torch.get_num_threads())
    return (
        f"{_STRATEGIES[strategy]}; tiles of {rows} rows, {units} {'unit' if units == 1 else 'units'} on "
        f"{threads} {'thread' if threads == 1 else 'threads'}, {scratch // 1024} KiB of scratch each"
    )


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Within the block kernels use these instructions ("baseline", "avx2", "avx512"), for tests and timing.

    ValueError for one that the processor does not have.
    """
    global _isa
    available = ISAS[: torch.ops.high_order_fused.cpu_isa() + 1]
    before, _isa = _isa, ISAS.index(one_of("isa", name, available))
    try:
        yield
    finally:
        _isa = before


def transpose(matrix: Tensor) -> Tensor:
    """[..., r, c] to [..., c, r], contiguous."""
    result: Tensor = torch.ops.high_order_fused.cpu_transpose.default(matrix.contiguous(), _isa)
    return result


def _refuses(x: Tensor) -> str | None:
    return None if x.device.type == "cpu" else "the C++ kernels run on a CPU"


_isa = 0
if native.native_missing() is None:
    _isa = torch.ops.high_order_fused.cpu_isa()
    library = torch.library.Library("high_order_fused", "IMPL")
    library.impl("transpose", transpose, "CPU")
    for name in (
        "cpu_contract",
        "cpu_link",
        "cpu_link_gradients",
        "cpu_transpose",
        "cpu_product",
        "cpu_product_gradients",
        "cpu_conv",
        "cpu_conv_gradients",
    ):
        # they run below our own autograd; torch's default for operators without a rule costs 15 us a call
        library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    detail = f"C++, {ISAS[_isa]}"
    contractions = (sum_inputs, sum_outputs, sum_batch)
    register(
        Backend(
            "cpu",
            *contractions,
            _refuses,
            detail,
            transpose,
            link,
            link_gradients,
            product,
            product_gradients,
            conv,
            conv_gradients,
            choice,
        )
    )
