"""The networks of polynomial-mlp: sizes, keys and outputs."""

import math

import pytest
import torch

import high_order_fused as hof
from high_order_fused.polynomial_mlp import PolynomialLayer, PolynomialMLP, SimpleMLP, calculate_input_powers
from tests.support import difference


@pytest.mark.parametrize(
    ("network", "parameters", "keys"),
    [
        (PolynomialMLP, 63_560, ["layers.1.weight", "layers.2.weight", "layers.2.bias", "layers.3.weight"]),
        (
            SimpleMLP,
            15_950,
            [f"layers.{number}.{name}" for number in (1, 3, 4) for name in ("weight", "bias")],
        ),
    ],
)
def test_networks_have_the_published_sizes_and_keys(network, parameters, keys):
    model = network()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert list(model.state_dict()) == keys
    assert model(torch.rand(5, 1, 28, 28)).shape == (5, 10)


def by_powers(x, weight):
    """The layer written out: all powers of all inputs times the coefficients of an output."""
    powers = torch.cat([x.unsqueeze(-1) ** k for k in range(weight.shape[2])], -1)
    return powers.flatten(1) @ weight.flatten(1).T


def test_polynomial_mlp_is_powers_norm_powers():
    model = PolynomialMLP(16, 5, 3, 2).double()
    first, norm, last = list(model.layers)[1:]
    torch.nn.init.normal_(last.weight)
    x = torch.rand(7, 4, 4, dtype=torch.float64)
    hidden = by_powers(x.flatten(1), first.weight)
    spread = hidden.var(1, unbiased=False, keepdim=True)
    hidden = (hidden - hidden.mean(1, keepdim=True)) / (spread + norm.eps).sqrt()
    assert difference(model(x), by_powers(hidden, last.weight)) < 1e-10


def test_degree_one_is_a_linear_layer_with_a_bias_an_edge():
    layer, linear = PolynomialLayer(4, 3, 1), torch.nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[:, :, 1] = linear.weight
        layer.weight[:, :, 0] = torch.rand(3, 4)
        linear.bias.copy_(layer.weight[:, :, 0].sum(1))
    x = torch.randn(6, 4)
    assert difference(layer(x), linear(x)) < 1e-6
    assert calculate_input_powers(x, 1).shape == (6, 4, 2)


@pytest.mark.parametrize("make", [hof.bases.chebyshev, hof.bases.monomial])
def test_row_65_degree_eight_trains_on_normalised_inputs(make):
    layers = [hof.HighOrderLinear(inputs, outputs, make(8)) for inputs, outputs in ((4, 8), (8, 8), (8, 1))]
    norms = [hof.norm.MaxAbsNormalization() for _ in layers]
    model = torch.nn.Sequential(*(module for pair in zip(norms, layers, strict=True) for module in pair))
    optimizer, losses = torch.optim.Adam(model.parameters(), 0.01), []
    x = 5 * torch.randn(64, 4)
    target = x[:, :1].sign() * x[:, 1:2].sign()
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(math.isfinite(loss) for loss in losses) and losses[-1] < 0.6 * losses[0]
