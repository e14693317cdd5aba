"""Polynomials in powers of x, by polynomial-mlp's names."""

import torch
from torch import Tensor, nn

from . import bases
from .checks import count
from .functional import link, sum_outputs


def calculate_input_powers(input: Tensor, degree: int = 3) -> Tensor:
    """1, x, x^2, ..., x^degree on a new last axis, in the dtype of input. Source: polynomial-mlp."""
    count("degree", degree, 0)
    return torch.stack([input**power for power in range(degree + 1)], -1)


class PolynomialLayer(nn.Module):
    """A polynomial in powers of x an edge (dense), or an input: y [..., out_features], or [..., in_features].

    `weight` [out_features or 1, in_features, polynomial_degree + 1], the last axis by rising power, drawn
    degree by degree from U(-0.01 s, 0.01 s), s = 1 / degree^2 from degree 2 on. Not dense: y_i = f_i(x_i).
    Source: polynomial-mlp, PolynomialLayer.
    """

    def __init__(
        self, in_features: int, out_features: int, polynomial_degree: int, dense: bool = True
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = (
            count("in_features", in_features),
            count("out_features", out_features),
        )
        self.polynomial_degree, self.dense = count("polynomial_degree", polynomial_degree, 0), dense
        self.basis = bases.monomial(polynomial_degree)
        self.weight = nn.Parameter(
            torch.empty(out_features if dense else 1, in_features, polynomial_degree + 1)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the coefficients anew."""
        with torch.no_grad():
            for degree in range(self.polynomial_degree + 1):
                bound = 0.01 / max(degree, 1) ** 2
                self.weight[:, :, degree].uniform_(-bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight.permute(1, 2, 0)
        if self.dense:
            return link(x, w, self.basis)
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"x: got shape {tuple(x.shape)}, needs [..., {self.in_features}]")
        rows = x.reshape(1, -1, self.in_features)
        ones = w.new_ones(1, 1, 1).expand(1, rows.shape[1], 1)
        return sum_outputs(rows, w.unsqueeze(0), self.basis, ones).reshape(x.shape)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"polynomial_degree={self.polynomial_degree}, dense={self.dense}"
        )


class PolynomialMLP(nn.Module):
    """Images to logits by two layers of polynomials, normalised between: y [B, out_features] of x [B, ...].

    The defaults are the published network for 28 x 28 images, 63,560 parameters; `layers` is its only
    submodule. Source: polynomial-mlp, PolynomialMLP.
    """

    def __init__(
        self,
        in_features: int = 784,
        hidden_features: int = 20,
        out_features: int = 10,
        polynomial_degree: int = 3,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            PolynomialLayer(in_features, hidden_features, polynomial_degree),
            nn.LayerNorm(hidden_features),
            PolynomialLayer(hidden_features, out_features, polynomial_degree),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class SimpleMLP(nn.Module):
    """What `PolynomialMLP` is compared with: linear layers, ReLU and normalisation; 15,950 parameters.

    Source: polynomial-mlp, SimpleMLP.
    """

    def __init__(self, in_features: int = 784, hidden_features: int = 20, out_features: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_features, hidden_features),
            nn.ReLU(),
            nn.LayerNorm(hidden_features),
            nn.Linear(hidden_features, out_features),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y
