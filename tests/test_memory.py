"""No layer makes a tensor of all rows, inputs and outputs, nor of all rows, inputs and coefficients."""

import pytest
import torch

import high_order_fused as hof
from high_order_fused.demo_training import peak_memory
from high_order_fused.kan import KANLinear

ROWS, SIZE = 2048, 64


@pytest.mark.skipif(not hof.backends()["cpu"].available, reason="the reference expands its input")
@pytest.mark.parametrize("kind", ["KAN", "piecewise"])
def test_a_step_holds_no_expansion(kind):
    make = {
        "KAN": lambda: KANLinear(SIZE, SIZE, grid_size=5),
        "piecewise": lambda: hof.HighOrderLinear(SIZE, SIZE, hof.bases.piecewise_lagrange(4, 5)),
    }[kind]
    layer, x = make(), torch.randn(ROWS, SIZE, requires_grad=True)

    def step():
        with hof.use_backend("cpu"):
            return torch.autograd.grad(layer(x).square().sum(), (x, *layer.parameters()))

    step()
    row_wise = ROWS * SIZE * 4  # bytes of an input, an output or a gradient of one; an expansion has 8 such
    assert peak_memory(step) < 5 * row_wise  # nor of silu(x), which would be one more


@pytest.mark.skipif(not hof.backends()["cpu"].available, reason="the reference packs its coefficients")
@pytest.mark.parametrize("kind", ["KAN", "continuous"])
def test_a_step_of_few_rows_holds_nothing_packed(kind):
    """Of coefficients that lie outputs first, their gradient as it lies is all that is as large."""
    make = {
        "KAN": lambda: KANLinear(SIZE, SIZE, grid_size=200),
        "continuous": lambda: hof.layers.high_order_fc_layers(
            "continuous", n=4, segments=64, in_features=SIZE, out_features=SIZE
        ),
    }[kind]
    layer, x = make(), torch.randn(8, SIZE)
    coefficients = max(p.numel() * p.element_size() for p in layer.parameters())

    def step():
        with hof.use_backend("cpu"):
            return torch.autograd.grad(layer(x).square().sum(), layer.parameters(), allow_unused=True)

    step()
    assert 0.9 * coefficients < peak_memory(step) < 1.3 * coefficients
