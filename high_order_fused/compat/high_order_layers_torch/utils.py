"""The module utils: normalisations, mirrored periods, meshes."""

import math
from typing import List  # noqa: UP035

import torch
from torch import Tensor

from ...embeddings import positions_from_mesh
from ...norm import (
    l2_normalization,
    max_abs,
    max_abs_normalization,
    max_abs_normalization_last,
    max_abs_normalization_nd,
    max_center_normalization,
    max_center_normalization_last,
    max_center_normalization_nd,
    norm_type,
)
from ...sums import make_periodic

__all__ = [
    "List",
    "Tensor",
    "l2_normalization",
    "make_periodic",
    "math",
    "max_abs",
    "max_abs_normalization",
    "max_abs_normalization_last",
    "max_abs_normalization_nd",
    "max_center_normalization",
    "max_center_normalization_last",
    "max_center_normalization_nd",
    "norm_type",
    "positions_from_mesh",
    "torch",
]
