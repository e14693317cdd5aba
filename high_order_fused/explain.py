"""explain: which kernels a layer would run on some input, and why."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import reference
from .backends import PACKED, Backend, replaced
from .operands import Operands


class Call(NamedTuple):
    """A link, product or convolution of a module: its sizes, its backend, and how each step would run."""

    module: str
    backend: str
    sizes: str
    steps: dict[str, str]

    def __str__(self) -> str:
        width = max(map(len, self.steps))
        lines = [f"{self.module}: {self.sizes}, on {self.backend}"]
        return "\n".join([*lines, *(f"  {name:{width}}  {how}" for name, how in self.steps.items())])


class Explanation(tuple[Call, ...]):
    """The calls of a module in their order; printed, a paragraph each."""

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no call of our kernels"

    __repr__ = __str__


_STEPS = {"output": "sum_inputs", "gradient of x": "sum_outputs", "gradient of weight": "sum_batch"}


@torch.no_grad()
def explain(layer: nn.Module, x: Tensor) -> Explanation:
    """Which kernels `layer` would run on x, by which strategy, for the output and for both gradients.

    Any module: it runs once, in evaluation mode and without gradients, and each call of our kernels is
    explained in words; str() of the result is for reading. Nothing is said of what torch computes.
    """
    calls: list[Call] = []
    names: list[str] = []
    training = [module for module in layer.modules() if module.training]
    hooks = []
    for name, module in layer.named_modules():
        if type(module).__module__.startswith("torch.nn."):
            continue  # calls no kernel of ours, and may be left to one while nobody listens
        title = f"{name} ({type(module).__name__})" if name else type(module).__name__
        hooks.append(module.register_forward_pre_hook(lambda *_, title=title: names.append(title)))
        hooks.append(module.register_forward_hook(lambda *_: names.pop() and None, always_call=True))
    try:
        layer.eval()
        with replaced(_recorder(calls, names)):
            layer(x)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    return Explanation(calls)


def _recorder(calls: list[Call], names: list[str]) -> Callable[[Backend], Backend]:
    """Makes of a backend one that writes down its calls before they run."""

    def watched(backend: Backend) -> Backend:
        def note(x: Tensor, w: Tensor, basis: Operands, coefficients: str = "read as they lie") -> Call:
            calls.append(_described(names[-1] if names else "", backend, x, w, basis, coefficients))
            return calls[-1]

        def sum_inputs(x: Tensor, w: Tensor, s: Tensor | None, basis: Operands) -> Tensor:
            note(x, w, basis)
            return backend.sum_inputs(x, w, s, basis)

        def product(x: Tensor, w: Tensor, basis: Operands) -> Tensor:
            where = names[-1] if names else ""
            sizes = f"{_rows(x)}, {x.shape[2]} -> {w.shape[3]}, {_functions(w, basis)}"
            steps = {"output": "product", "both gradients": "product_gradients"}
            own = backend.product is not reference.product
            calls.append(_whole(where, backend, sizes, steps, own, x, w, basis))
            return backend.product(x, w, basis)

        recorder = replace(backend, sum_inputs=sum_inputs, product=product)
        of_images = backend.conv
        if of_images is not None:

            def conv(x: Tensor, w: Tensor, basis: Operands, geometry: tuple[int, ...]) -> Tensor:
                where = names[-1] if names else ""
                side = "x".join(map(str, x.shape[2:]))
                channels, outputs = w.shape[0] * w.shape[1], w.shape[0] * w.shape[4]
                sizes = f"{len(x)} images of {side}, {channels} -> {outputs} channels, {w.shape[3]} taps"
                steps = {"output": "conv", "both gradients": "conv_gradients"}
                sizes = f"{sizes}, {_functions(w, basis)}"
                calls.append(_whole(where, backend, sizes, steps, True, x, w, basis))
                assert of_images is not None
                return of_images(x, w, basis, geometry)

            recorder = replace(recorder, conv=conv)
        whole = backend.link
        if whole is None:
            return recorder

        def link(x: Tensor, weight: Tensor, gain: Tensor | None, *others: Any) -> tuple[Tensor, Tensor]:
            base, base_weight, basis = others
            rows, w = (x, weight) if x.dim() == 3 else (x.unsqueeze(0), weight.unsqueeze(0))
            why = "multiplied by the gain" if gain is not None else None
            why = why or (None if weight.is_contiguous() else "outputs do not lie last")
            size = weight.numel() * weight.element_size() / 2**20
            how = backend.choice("link", rows, w, basis) if backend.choice else PACKED
            packed = "read as they lie" if why is None else f"{why}: {size:.1f} MiB {how}"
            call = note(rows, w, basis, packed)
            if why is not None and how.startswith("read"):
                call.steps["output"] = f"link, coefficients {how}"
            if base_weight is not None:
                values = "silu(x), made of a tile at a time" if base is None else "values given"
                call.steps["base branch"] = f"matrix products of {values}, in the passes over the rows"
            return whole(x, weight, gain, *others)

        return replace(recorder, link=link)

    return watched


def _described(
    module: str, backend: Backend, x: Tensor, w: Tensor, basis: Operands, coefficients: str
) -> Call:
    sizes = f"{_rows(x)}, {x.shape[2]} -> {w.shape[3]}, {_functions(w, basis)}"
    steps = {"coefficients": coefficients}
    for name, contraction in _STEPS.items():
        how = backend.choice(contraction, x, w, basis) if backend.choice else "as written in reference.py"
        steps[name] = f"{contraction}, {how}"
    if backend.link and backend.choice:
        steps["both gradients"] = f"gradients, {backend.choice('gradients', x, w, basis)}"
    return Call(module, f"{backend.name} ({backend.detail})", sizes, steps)


def _whole(
    module: str,
    backend: Backend,
    sizes: str,
    steps: dict[str, str],
    own: bool,
    x: Tensor,
    w: Tensor,
    basis: Operands,
) -> Call:
    """A call that is one kernel; own: the backend has it."""
    hows = {}
    for name, function in steps.items():
        how = (
            backend.choice(function, x, w, basis) if own and backend.choice else "as written in reference.py"
        )
        hows[name] = f"{function}, {how}"
    return Call(module, f"{backend.name} ({backend.detail})", sizes, hows)


def _rows(x: Tensor) -> str:
    groups, batch, _ = x.shape
    return f"{f'{groups} groups of ' if groups > 1 else ''}{batch} rows"


def _functions(w: Tensor, basis: Operands) -> str:
    n = basis.tables.shape[-2]
    return f"{n} of {w.shape[2]} functions at a point, {str(w.dtype).removeprefix('torch.')}"
