"""The Triton backend: contractions, products, convolutions on a GPU, or in Triton's interpreter on a CPU."""

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from . import cuda  # noqa: F401  before Triton: of two backends that take a tensor the later is preferred
from .backends import Backend, missing, register
from .operands import Operands

_WHOLE = {
    "product": "coefficients met, by index, the product in registers",
    "product_gradients": "products of some inputs at a time, of all others, of each without itself",
    "conv": "dense tiles over places of the output, the taps as inputs",
    "conv_gradients": "dense tiles over pixels, the taps as outputs, and over places of the output",
}


def _found() -> str | None:
    """Why there is no Triton backend, or None."""
    if find_spec("triton") is None:
        return "triton is not installed"
    interpreted = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
    return None if interpreted or torch.cuda.is_available() else "no GPU was found"


def _refuses(x: Tensor) -> str | None:
    if x.device.type == "cuda" or (x.device.type == "cpu" and _interpreted):
        return None
    return "the Triton kernels run on a GPU, or under TRITON_INTERPRET=1 on a CPU"


def transpose(matrix: Tensor) -> Tensor:
    """[..., r, c] to [..., c, r], contiguous."""
    return matrix.mT.contiguous()


def choice(contraction: str, x: Tensor, w: Tensor, basis: Operands) -> str:
    """Kernel and tile of a contraction of x and w, in words; the cost model is triton_kernels/choice.py."""
    if contraction in _WHOLE:
        return _WHOLE[contraction]
    how = launch.choice(contraction, x, w.shape[-1], w.dtype, basis)
    if how.library:
        return "the library's product, of functions written out for some rows at a time"
    tile = how.tile
    kind = "gather (the coefficients met, by index)"
    if how.kernel.endswith("dense"):
        kind = "dense tiles (functions as a factor of a matrix product, in registers)"
    split = f", the sum in {how.parts} parts" if how.parts > 1 else ""
    return f"{kind} of {tile.rows} rows, {tile.inputs} inputs, {tile.outputs} outputs{split}"


_why = _found()
if _why is not None:
    missing("triton", _why)
else:
    import triton

    from .triton_kernels import launch, launcher

    _interpreted = launcher.INTERPRETED
    detail = f"triton {triton.__version__}" + (", interpreted" if _interpreted else "")
    contractions = (launch.sum_inputs, launch.sum_outputs, launch.sum_batch)
    wholes = {name: getattr(launch, name) for name in _WHOLE}
    register(Backend("triton", *contractions, _refuses, detail, transpose, choice=choice, **wholes))
