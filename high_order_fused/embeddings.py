"""Positions and directions as features: rotations, meshes, sinusoids, learned functions of one number."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .checks import count
from .sums import FourierSeries, PiecewiseDiscontinuousPolynomial, PiecewisePolynomial


def fixed_rotation_layer(n: int, rotations: int = 2, normalize: bool = True) -> tuple[nn.Linear, int]:
    """A frozen linear layer from n inputs to them and rotations of each pair of them, and how many these are.

    n + n (n - 1) (rotations - 1) outputs: x_i, and for each j > i at angles theta between 0 and 90 degrees
    (cos x_i + sin x_j) / q and (sin x_i - cos x_j) / q, q = |cos| + |sin| if normalize, else 1. ValueError
    for rotations below 1. Source: high-order-layers-torch.
    """
    count("n", n), count("rotations", rotations)
    rows = []
    for i in range(n):
        rows.append(torch.zeros(n))
        rows[-1][i] = 1
        for j in range(i + 1, n):
            for r in range(1, rotations):
                theta = (math.pi / 2) * (r / rotations)
                cosine, sine = math.cos(theta), math.sin(theta)
                q = abs(cosine) + abs(sine) if normalize else 1.0
                for at_i, at_j in ((cosine, sine), (sine, -cosine)):
                    row = torch.zeros(n)
                    row[i], row[j] = at_i / q, at_j / q
                    rows.append(row)
    layer = nn.Linear(n, len(rows), bias=False)
    layer.weight = nn.Parameter(torch.stack(rows), requires_grad=False)
    return layer, len(rows)


def positions_from_mesh(
    width: int,
    height: int,
    rotations: int = 1,
    device: torch.device | str = "cpu",
    normalize: bool = False,
) -> list[Tensor]:
    """Coordinates of a mesh along rotated axes: 2 rotations tensors [width, height].

    Each spans [-m / 2, m / 2], m the larger of the sizes, or [-1, 1] if normalize.
    Source: high-order-layers-torch, whose default device is "cuda".
    """
    largest = max(count("width", width), count("height", height))
    x, y = torch.meshgrid(
        torch.arange(width, device=device), torch.arange(height, device=device), indexing="ij"
    )
    x, y = (t * (largest / (largest - 1)) for t in (x, y))
    found = []
    for r in range(count("rotations", rotations)):
        theta = (math.pi / 2) * (r / rotations)
        for line in (
            math.cos(theta) * x + math.sin(theta) * y,
            math.cos(theta) * x - math.sin(theta) * y,
        ):
            share = (line - line.min()) / (line.max() - line.min())
            found.append(2 * share - 1 if normalize else (share - 0.5) * largest)
    return found


class ClassicSinusoidalEmbedding(nn.Module):
    """Sines, then cosines, of x times dim / 2 frequencies from 1 down to 1 / 10000: [..., dim] of x [...].

    ValueError for an odd dim. Source: high-order-layers-torch; for dim 2, where it divides by 0, frequency 1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if count("dim", dim) % 2:
            raise ValueError(f"dim: got {dim}, needs an even number")
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        half = self.dim // 2
        steps = torch.arange(half, device=x.device) * -(math.log(10000) / max(half - 1, 1))
        angles = x[..., None] * steps.exp()
        return torch.cat((angles.sin(), angles.cos()), -1)


def PiecewisePolynomialEmbedding(*args: Any, **kwargs: Any) -> PiecewisePolynomial:
    """`PiecewisePolynomial`, for positions. Source: high-order-layers-torch."""
    return PiecewisePolynomial(*args, **kwargs)


def PiecewiseDiscontinuousPolynomialEmbedding(*args: Any, **kwargs: Any) -> PiecewiseDiscontinuousPolynomial:
    """`PiecewiseDiscontinuousPolynomial`, for positions. Source: high-order-layers-torch."""
    return PiecewiseDiscontinuousPolynomial(*args, **kwargs)


def FourierSeriesEmbedding(*args: Any, **kwargs: Any) -> FourierSeries:
    """`FourierSeries`, for positions; the peer's returns nothing. Source: high-order-layers-torch."""
    return FourierSeries(*args, **kwargs)
