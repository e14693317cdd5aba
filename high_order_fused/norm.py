"""Normalisations that keep a layer's inputs in its interval."""

from torch import Tensor, nn


def max_abs_normalization(x: Tensor, eps: float = 1e-6, dim: int = 1) -> Tensor:
    """x / (max |x| + eps) along dim; where several are largest the first takes the gradient.

    Source: high-order-layers-torch, max_abs_normalization.
    """
    largest = x.abs().max(dim=dim, keepdim=True).values
    return x / (largest + eps)


class MaxAbsNormalization(nn.Module):
    """`max_abs_normalization` as a module; no parameters."""

    def __init__(self, eps: float = 1e-6, dim: int = 1) -> None:
        super().__init__()
        self.eps, self.dim = eps, dim

    def forward(self, x: Tensor) -> Tensor:
        return max_abs_normalization(x, self.eps, self.dim)
