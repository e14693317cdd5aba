"""The package sparse_optimizers."""

from . import sparse_lion
from .sparse_lion import SparseLion

__all__ = ["SparseLion", "sparse_lion"]
