"""Layers whose edges are learned one-dimensional functions, without the big tensors in between."""

from . import gpu  # noqa: F401, I001  before cpu: of two backends that take a tensor the later is preferred
from . import (
    bases,
    compat,
    cpu,
    functional,
    init,
    kan,
    layers,
    networks,
    norm,
    optim,
    plot,
    refinement,
    resnets,
    transformer,
)
from .backends import backends, use_backend
from .basis import Basis
from .conv_layers import (
    HighOrderConv1d,
    HighOrderConv2d,
    HighOrderConv3d,
    HighOrderConvTranspose1d,
    HighOrderConvTranspose2d,
)
from .domain import domain_report
from .explain import explain
from .fuse import Fused, fuse, unfuse
from .linear import HighOrderLinear
from .multiplied import HighOrderProduct
from .nd import HighOrderLinearND

__version__ = "0.1.0"

__all__ = [
    "Basis",
    "Fused",
    "HighOrderConv1d",
    "HighOrderConv2d",
    "HighOrderConv3d",
    "HighOrderConvTranspose1d",
    "HighOrderConvTranspose2d",
    "HighOrderLinear",
    "HighOrderLinearND",
    "HighOrderProduct",
    "__version__",
    "backends",
    "bases",
    "compat",
    "cpu",
    "domain_report",
    "explain",
    "functional",
    "fuse",
    "init",
    "kan",
    "layers",
    "networks",
    "norm",
    "optim",
    "plot",
    "refinement",
    "resnets",
    "transformer",
    "unfuse",
    "use_backend",
]
