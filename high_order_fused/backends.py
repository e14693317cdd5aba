"""What computes the form: the registry of backends, what is available, what is chosen.

A backend is three functions with the names and the contract of reference.py. It enters by `register`; nothing
else in the package changes. The choice is made once for a call, before the operators, and backward keeps it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from . import native, reference
from .operands import Operands

Product = Callable[[Tensor, Tensor, Operands], Tensor]
ProductGradients = Callable[[Tensor, Tensor, Tensor, Operands], tuple[Tensor, Tensor]]
PACKED = "packed at every call"  # what `choice` says of coefficients that a link has to pack

Maybe = Tensor | None
Link = Callable[[Tensor, Tensor, Maybe, Maybe, Maybe, Operands], tuple[Tensor, Tensor]]
Conv = Callable[[Tensor, Tensor, Operands, tuple[int, ...]], Tensor]
ConvGradients = Callable[
    [Tensor, Tensor, Tensor, Operands, tuple[int, ...], bool, bool], tuple[Tensor | None, Tensor | None]
]
LinkGradients = Callable[
    [Tensor, Tensor, Tensor, Tensor, Maybe, Maybe, Maybe, Operands, bool, bool, bool],
    tuple[Maybe, Maybe, Maybe, Maybe, Maybe],
]


@dataclass(frozen=True)
class Backend:
    """The three contractions of the form on some devices.

    sum_inputs(x, w, s, basis), sum_outputs(x, w, g, basis), sum_batch(x, g, s, basis): as in reference.py.
    refuses(x): why it cannot take tensors like x (device, dtype), or None.
    detail: instruction set or device, for `backends()`.
    transpose(matrix): [..., r, c] to [..., c, r], contiguous, by which coefficients are packed; None for a
    backend that reads them with any strides.
    link(x, weight, gain, base, base_weight, basis): sum_inputs of weight times gain, both with any strides,
    plus base base_weight^T where this is given, base being silu(x) if it is not, and what link_gradients
    takes as w, the same weight packed or as it lies; groups are an axis of all tensors or of none. None for a
    backend with nothing better than one after the other.
    link_gradients(g, x, w, weight, gain, base, base_weight, basis, of_x, of_weight, of_base): the gradients
    of x and of weight and gain that are wanted, from that of link's output; where base_weight is given, with
    of_weight alone, its own, and that of base if it is wanted.
    product(x, w, basis), product_gradients(g, x, w, basis): as in reference.py, which is
    what runs if they are not given.
    conv(x, w, basis, geometry), conv_gradients(g, x, w, basis, geometry, of_x, of_w): as in convolved.py, the
    geometry by its integers. None for a backend that makes convolutions of links.
    choice(contraction, x, w, basis): in words, how one of the functions above, given by its name, would run.
    """

    name: str
    sum_inputs: Callable[[Tensor, Tensor, Tensor | None, Operands], Tensor]
    sum_outputs: Callable[[Tensor, Tensor, Tensor, Operands], Tensor]
    sum_batch: Callable[[Tensor, Tensor, Tensor | None, Operands], Tensor]
    refuses: Callable[[Tensor], str | None]
    detail: str
    transpose: Callable[[Tensor], Tensor] | None = None
    link: Link | None = None
    link_gradients: LinkGradients | None = None
    product: Product = reference.product
    product_gradients: ProductGradients = reference.product_gradients
    conv: Conv | None = None
    conv_gradients: ConvGradients | None = None
    choice: Callable[[str, Tensor, Tensor, Operands], str] | None = None


class Status(NamedTuple):
    """Whether a backend is available, and on what, or why not."""

    available: bool
    detail: str


_registered: dict[str, Backend] = {}
_missing = {
    "cpu": f"the compiled library is missing: {native.native_missing()}",
    "triton": "not looked for",
    "cuda": "not looked for",
}
_chosen = "auto"


def register(backend: Backend) -> None:
    """Add a backend, or replace the one of the same name; a later one is preferred to an earlier one."""
    _registered.pop(backend.name, None)
    _registered[backend.name] = backend


def missing(name: str, why: str) -> None:
    """Note why there is no backend of that name."""
    _missing[name] = why


def backends() -> dict[str, Status]:
    """Every backend by name: available with its instruction set or device, or the reason why not."""
    found = {name: Status(True, backend.detail) for name, backend in reversed(_registered.items())}
    absent = {name: Status(False, why) for name, why in _missing.items() if name not in found}
    return {**found, **absent}


def use_backend(name: str) -> AbstractContextManager[None]:
    """A context: within the block, layers run on this backend ("reference", ...) or on the best one ("auto").

    ValueError for a backend that is not available. A call that the backend cannot take raises RuntimeError;
    there is no fallback, with these exceptions, which run the reference: forward mode inside forward mode;
    products under `create_graph`, `jvp` and `vmap`; products where the backend has none ("cuda").
    """
    if name != "auto" and name not in _registered:
        why = f" ({_missing[name]})" if name in _missing else ""
        raise ValueError(
            f"name: got {name!r}{why}, needs one of {', '.join(map(repr, ('auto', *_registered)))}"
        )
    return _choosing(name)


@contextmanager
def _choosing(name: str) -> Iterator[None]:
    global _chosen
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before


@contextmanager
def replaced(change: Callable[[Backend], Backend]) -> Iterator[None]:
    """Within the block every backend is what change makes of it; the choice among them stays the same."""
    before = dict(_registered)
    _registered.update({name: change(backend) for name, backend in before.items()})
    try:
        yield
    finally:
        _registered.update(before)


def resolve(x: Tensor) -> str:
    """The name of the backend for tensors like x (device, dtype)."""
    if _chosen != "auto":
        why = _registered[_chosen].refuses(x)
        if why is not None:
            raise RuntimeError(f"backend {_chosen!r} cannot take {x.dtype} on {x.device.type}: {why}")
        return _chosen
    for name in reversed(_registered):
        if _registered[name].refuses(x) is None:
            return name
    raise RuntimeError(f"no backend can take {x.dtype} on {x.device.type}")


def get(name: str) -> Backend:
    """The registered backend of that name."""
    return _registered[name]


register(
    Backend(
        "reference",
        reference.sum_inputs,
        reference.sum_outputs,
        reference.sum_batch,
        lambda x: None,
        f"torch {torch.__version__}, every device",
    )
)
