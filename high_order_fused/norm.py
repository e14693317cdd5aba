"""Normalisations that keep a layer's inputs in its interval, by the names of high-order-layers-torch.

Where several numbers are largest the first takes the gradient, as by the peer. x 0 everywhere gives 0 and a
slope of 1 / eps.
"""

import torch
from torch import Tensor, nn


def max_abs(x: Tensor, dim: int = 1) -> Tensor:
    """The largest |x| along dim, which stays with size 1."""
    return x.abs().max(dim=dim, keepdim=True).values


def max_abs_normalization(x: Tensor, eps: float = 1e-6, dim: int = 1) -> Tensor:
    """x / (max |x| + eps) along dim."""
    return x / (max_abs(x, dim) + eps)


def max_abs_normalization_last(x: Tensor, eps: float = 1e-6) -> Tensor:
    """`max_abs_normalization` along the last axis."""
    return max_abs_normalization(x, eps, -1)


def max_abs_normalization_nd(x: Tensor, eps: float = 1e-6) -> Tensor:
    """`max_abs_normalization` of each sample, over all axes but the first."""
    return max_abs_normalization(x.flatten(1), eps).view_as(x)


def max_center_normalization(x: Tensor, eps: float = 1e-6, dim: int = 1) -> Tensor:
    """(x - middle) / (max - middle + eps) along dim, with the middle between the least and the largest."""
    largest, least = x.max(dim=dim, keepdim=True).values, x.min(dim=dim, keepdim=True).values
    middle = 0.5 * (largest + least)
    return (x - middle) / ((largest - middle) + eps)


def max_center_normalization_last(x: Tensor, eps: float = 1e-6) -> Tensor:
    """`max_center_normalization` along the last axis."""
    return max_center_normalization(x, eps, -1)


def max_center_normalization_nd(x: Tensor, eps: float = 1e-6) -> Tensor:
    """`max_center_normalization` of each sample, over all axes but the first."""
    return max_center_normalization(x.flatten(1), eps).view_as(x)


def l2_normalization(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / (its Euclidean norm along axis 1 + eps)."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / (length + eps)


class _Normalization(nn.Module):
    """A function above as a module; no parameters."""

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


class MaxAbsNormalization(_Normalization):
    """`max_abs_normalization` as a module; no parameters."""

    def __init__(self, eps: float = 1e-6, dim: int = 1) -> None:
        super().__init__(eps)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return max_abs_normalization(x, self.eps, self.dim)


class MaxAbsNormalizationLast(_Normalization):
    """`max_abs_normalization_last` as a module; no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return max_abs_normalization_last(x, self.eps)


class MaxAbsNormalizationND(_Normalization):
    """`max_abs_normalization_nd` as a module; no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return max_abs_normalization_nd(x, self.eps)


class MaxCenterNormalization(_Normalization):
    """`max_center_normalization` as a module; no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return max_center_normalization(x, self.eps)


class MaxCenterNormalizationLast(_Normalization):
    """`max_center_normalization_last` as a module; no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return max_center_normalization_last(x, self.eps)


class MaxCenterNormalizationND(_Normalization):
    """`max_center_normalization_nd` as a module; no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return max_center_normalization_nd(x, self.eps)


class L2Normalization(_Normalization):
    """`l2_normalization` as a module; no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return l2_normalization(x, self.eps)


class LazyLayerNormLastDim(nn.modules.lazy.LazyModuleMixin, nn.Module):
    """Layer norm over the last axis, of a size that the first input tells; `weight` and `bias` [size].

    Unlike the peer's, its parameters are there, uninitialised, from the beginning, so that an optimiser and
    `.to()` find them. Source: high-order-layers-torch, LazyLayerNormLastDim.
    """

    cls_to_become = None
    weight: nn.UninitializedParameter | nn.Parameter
    bias: nn.UninitializedParameter | nn.Parameter | None

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.UninitializedParameter()
        self.bias = nn.UninitializedParameter() if bias else None

    def initialize_parameters(self, x: Tensor) -> None:
        """Give the parameters the size of x's last axis: ones and zeros."""
        if not self.has_uninitialized_params():
            return
        with torch.no_grad():
            for parameter, value in ((self.weight, 1.0), (self.bias, 0.0)):
                if isinstance(parameter, nn.UninitializedParameter):
                    parameter.materialize((x.shape[-1],))
                    parameter.fill_(value)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (x.shape[-1],), self.weight, self.bias)


norm_type = {"max_abs": max_abs_normalization, "l2": l2_normalization}
normalization_layers: dict[str, type[nn.Module]] = {
    "max_abs": MaxAbsNormalization,
    "max_center": MaxCenterNormalization,
    "l2": L2Normalization,
    "layer_norm": LazyLayerNormLastDim,
}
