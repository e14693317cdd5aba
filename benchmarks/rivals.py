"""Who is measured: our public layers, and what they are compared with."""

import importlib
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

import high_order_fused as hof
from high_order_fused.backends import resolve

from .cases import CONVOLUTIONS, FAMILIES, KINDS, ND, PRODUCTS, SUMS, TRANSPOSED, Case
from .expansions import CoxDeBoorKAN, ExpandedConv, ExpandedLinear

OURS = "ours"


class NotMeasured(Exception):
    """A rival that cannot take part; the message is the reason."""


@dataclass(frozen=True)
class Rival:
    """A constructor: build(case, ours) makes the module, or raises NotMeasured.

    kinds: the layers it has. same: it computes the same function, from copies of our weights. devices: where
    it takes part. useful: the arithmetic of a forward pass that counts.
    """

    name: str
    build: Callable[[Case, nn.Module], nn.Module]
    kinds: tuple[str, ...] = KINDS
    same: bool = True
    devices: tuple[str, ...] = ("cpu", "cuda")
    useful: Callable[[Case], int] = attrgetter("flop")


def ours(case: Case, device: torch.device) -> nn.Module:
    """The public layer of a case with normally distributed coefficients, the same at every call."""
    sizes = case.in_features, case.out_features
    layer: nn.Module
    if case.kind == "kan":
        with _one_thread():
            layer = hof.kan.KANLinear(*sizes, grid_size=case.segments, spline_order=case.n - 1)
    elif case.kind not in SUMS:
        layer = _named(hof.layers, case)
    else:
        layer = hof.HighOrderLinear(*sizes, _basis(case))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=1 / math.sqrt(case.in_features), generator=generator)
    return layer.to(device, case.torch_dtype)


def backend(case: Case, device: torch.device) -> str:
    """The backend that our layer runs on."""
    return resolve(torch.empty(0, dtype=case.torch_dtype, device=device))


def data(case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
    """Input, uniform in [-1, 1), and cotangent of the output, normal; the same at every call."""
    generator = torch.Generator().manual_seed(1)
    x = 2 * torch.rand(case.x_shape, generator=generator) - 1
    cotangent = torch.randn(case.y_shape, generator=generator)
    return x.to(device, case.torch_dtype).requires_grad_(), cotangent.to(device, case.torch_dtype)


def build(case: Case, name: str, device: torch.device) -> nn.Module:
    """The module of a contender; NotMeasured says why there is none."""
    layer = ours(case, device)
    if name == OURS:
        return layer
    rival = next(rival for rival in RIVALS if rival.name == name)
    return rival.build(case, layer)


def rivals(case: Case, device: torch.device | None = None) -> tuple[Rival, ...]:
    """The rivals on a device (the CPU) that have a layer of the case's kind."""
    where = device.type if device else "cpu"
    return tuple(rival for rival in RIVALS if case.kind in rival.kinds and where in rival.devices)


def _basis(case: Case) -> hof.Basis:
    if case.kind == "polynomial":
        return hof.bases.lagrange(case.n)
    if case.kind == "fourier":
        return hof.bases.fourier(case.n)
    if case.kind == "chebyshev":
        return hof.bases.chebyshev(case.n - 1, outside="extrapolate")
    if case.kind == "monomial":
        return hof.bases.monomial(case.n - 1)
    return hof.bases.piecewise_lagrange(case.n, case.segments, continuous=case.kind == "continuous")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Many small least-squares problems: threads only wait for each other, for seconds on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _On(nn.Module):
    """A layer on a backend."""

    def __init__(self, layer: nn.Module, name: str) -> None:
        super().__init__()
        self.layer, self.name = layer, name

    def forward(self, x: Tensor) -> Tensor:
        with hof.use_backend(self.name):
            y: Tensor = self.layer(x)
        return y


def _reference(case: Case, layer: nn.Module) -> nn.Module:
    if backend(case, next(layer.parameters()).device) == "reference":
        raise NotMeasured("it is what ours runs on here")
    return _On(layer, "reference")


def _compiled(case: Case, layer: nn.Module) -> nn.Module:
    compiled = _On(layer, "reference")
    compiled.compile()
    return compiled


def _cuda(case: Case, layer: nn.Module) -> nn.Module:
    status = hof.backends()["cuda"]
    if not status.available:
        raise NotMeasured(status.detail)
    if backend(case, next(layer.parameters()).device) == "cuda":
        raise NotMeasured("it is what ours runs on here")
    return _On(layer, "cuda")


class _Product(nn.Module):
    """The product of expand + GEMM alone, at n functions: [batch, in * n] times [in * n, out], both given."""

    def __init__(self, case: Case, like: Tensor) -> None:
        super().__init__()
        length = case.in_features * case.n
        self.left = nn.Parameter(torch.randn(case.batch, length).to(like))
        self.right = nn.Parameter(torch.randn(length, case.out_features).to(like))

    def forward(self, x: Tensor) -> Tensor:
        return self.left @ self.right


def _product(case: Case, layer: nn.Module) -> nn.Module:
    return _Product(case, next(layer.parameters()))


class _Copy(nn.Module):
    """Moves as many bytes as a row meets of the coefficients: a copy of half of them."""

    def __init__(self, case: Case, like: Tensor) -> None:
        super().__init__()
        self.source = torch.randn(case.in_features * case.n * case.out_features // 2).to(like)

    def forward(self, x: Tensor) -> Tensor:
        return self.source.clone()


def _copy(case: Case, layer: nn.Module) -> nn.Module:
    if case.batch > 1:
        raise NotMeasured("for one row only")
    return _Copy(case, next(layer.parameters()))


def _expanded(case: Case, layer: nn.Module) -> nn.Module:
    return ExpandedLinear(case, _copies(layer)["weight"])


def _expanded_conv(case: Case, layer: nn.Module) -> nn.Module:
    return ExpandedConv(case, _copies(layer)["conv.weight"])


def _cox_de_boor(case: Case, layer: nn.Module) -> nn.Module:
    return CoxDeBoorKAN(**_copies(layer))


def _installed(name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        raise NotMeasured(f"{missing.name} is not installed") from None
    if module.__name__.partition(".")[0] == hof.__name__:
        raise NotMeasured(f"{name} stands for our layers here")
    return module


def _efficient_kan(case: Case, layer: nn.Module) -> nn.Module:
    theirs = _installed("efficient_kan")
    sizes = case.in_features, case.out_features
    with _one_thread():
        peer: nn.Module = theirs.KANLinear(*sizes, grid_size=case.segments, spline_order=case.n - 1)
    peer.load_state_dict(layer.state_dict())
    return peer.to(next(layer.parameters()))


def _high_order_layers(case: Case, layer: nn.Module) -> nn.Module:
    theirs = _installed("high_order_layers_torch.layers")
    like = next(layer.parameters())
    with torch.device(like.device):
        peer = _named(theirs, case).to(like)
    if case.kind in SUMS:
        with torch.no_grad():
            peer.get_parameter("w").copy_(_copies(layer)["weight"].permute(2, 0, 1))
    else:
        peer.load_state_dict(layer.state_dict())
    return peer


def _named(package: Any, case: Case) -> nn.Module:
    """The layer of that name in high-order-layers-torch, or in a package that has the same."""
    arguments: dict[str, Any] = {"n": case.n, "segments": case.segments}
    make, kind = package.high_order_fc_layers, case.kind
    if case.image:
        arguments |= {"in_channels": case.in_features, "out_channels": case.out_features}
        arguments |= {"kernel_size": case.kernel, "stride": case.stride, "padding": case.padding}
        make = package.high_order_convolution_layers
        if case.kind in TRANSPOSED:
            make = package.high_order_convolution_transpose_layers
            kind = case.kind.removesuffix("_transpose")
    else:
        arguments |= {"in_features": case.in_features, "out_features": case.out_features}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer's, of what torch no longer likes
        layer: nn.Module = make(kind, **arguments)
    return layer


def _linear(case: Case, layer: nn.Module) -> nn.Module:
    like = next(layer.parameters())
    return nn.Linear(case.in_features, case.out_features, device=like.device, dtype=like.dtype)


def _conv(case: Case, layer: nn.Module) -> nn.Module:
    like = next(layer.parameters())
    make = nn.ConvTranspose2d if case.kind in TRANSPOSED else nn.Conv2d
    sizes = case.in_features, case.out_features, case.kernel, case.stride, case.padding
    return make(*sizes, device=like.device, dtype=like.dtype)


def _copies(layer: nn.Module) -> dict[str, Tensor]:
    tensors = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


CONV = (*CONVOLUTIONS, *TRANSPOSED)
RIVALS = (
    Rival("torch reference", _reference),
    Rival("ours, CUDA C++", _cuda, SUMS, devices=("cuda",)),
    Rival("compiled reference", _compiled, devices=("cuda",)),
    Rival("expand + GEMM", _expanded, (*FAMILIES, "monomial", "chebyshev")),
    Rival("expand + convolution", _expanded_conv, CONV),
    Rival("Cox-de Boor + GEMM", _cox_de_boor, ("kan",)),
    Rival("efficient-kan", _efficient_kan, ("kan",)),
    Rival("high-order-layers-torch", _high_order_layers, (*FAMILIES, *PRODUCTS, *CONV, *ND)),
    Rival("nn.Linear", _linear, (*SUMS, *PRODUCTS), same=False, useful=attrgetter("linear_flop")),
    Rival("nn.Conv2d", _conv, CONV, same=False, useful=attrgetter("linear_flop")),
    Rival("GEMM of the same size", _product, SUMS, same=False, devices=("cuda",)),
    Rival("copy of what is read", _copy, SUMS, same=False, devices=("cuda",)),
)
