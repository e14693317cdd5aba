"""The module positional_embeddings."""

import math

import torch
from torch import nn

from ...embeddings import (
    ClassicSinusoidalEmbedding,
    FourierSeriesEmbedding,
    PiecewiseDiscontinuousPolynomialEmbedding,
    PiecewisePolynomialEmbedding,
)
from ...sums import FourierSeries, PiecewiseDiscontinuousPolynomial, PiecewisePolynomial

__all__ = [
    "ClassicSinusoidalEmbedding",
    "FourierSeries",
    "FourierSeriesEmbedding",
    "PiecewiseDiscontinuousPolynomial",
    "PiecewiseDiscontinuousPolynomialEmbedding",
    "PiecewisePolynomial",
    "PiecewisePolynomialEmbedding",
    "math",
    "nn",
    "torch",
]
