"""The module efficient_kan.kan."""

import math

import torch
import torch.nn.functional as F

from ...kan import KAN, KANLinear

__all__ = ["KAN", "F", "KANLinear", "math", "torch"]
