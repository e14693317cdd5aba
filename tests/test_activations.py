"""CustomActivationLayer, as the notebook it comes from has it, in a network."""

import torch
from torch import nn

from high_order_fused.layers import CustomActivationLayer


def test_custom_activation_layer_begins_as_relu_with_a_scale_a_feature():
    layer = CustomActivationLayer(5)
    assert list(layer.state_dict()) == ["scale"] and torch.equal(layer.scale, torch.zeros(5))
    x = torch.randn(7, 2, 5)
    assert torch.equal(layer(x), x.relu())
    assert torch.equal(layer.power(), torch.ones(5))


def test_custom_activation_layers_train_without_nan_where_powers_fall_below_one():
    """A target of power 1/2: q falls below 1, and inputs at and below 0 have no part in it."""
    model = nn.Sequential(CustomActivationLayer(1))
    assert list(model.state_dict()) == ["0.scale"]
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    x = torch.linspace(-1, 1, 201)[:, None]
    for _ in range(200):
        optimizer.zero_grad()
        (model(x) - x.clamp_min(0).sqrt()).square().mean().backward()
        optimizer.step()
    assert abs(model[0].power().item() - 0.5) < 0.01
