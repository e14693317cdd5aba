"""The module ProductLayer."""

from torch.nn import Module, init
from torch.nn.parameter import Parameter

from ...multiplied import Product
from . import utils
from .utils import *  # noqa: F403

__all__ = ["Module", "Parameter", "Product", "init"]
__all__ += utils.__all__
