"""What people do with layers: optimisers, checkpoints, copies, other dtypes, several processes."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import high_order_fused as hof
from high_order_fused.kan import KAN
from tests.support import difference


def network():
    return nn.Sequential(
        hof.HighOrderLinear(2, 5, hof.bases.piecewise_lagrange(3, 4)),
        hof.norm.MaxAbsNormalization(),
        hof.HighOrderLinear(5, 1, hof.bases.bspline(3, 4)),
    )


def peer_network():
    fc = hof.layers.high_order_fc_layers
    return nn.Sequential(
        fc("continuous", n=3, in_features=2, out_features=5, segments=4),
        hof.norm.MaxAbsNormalization(),
        fc("polynomial", n=4, in_features=5, out_features=1),
    )


NETWORKS = {"ours": network, "peer": peer_network, "kan": lambda: KAN([2, 5, 1], grid_size=4)}


def data(rows=64):
    x = torch.rand(rows, 2) * 2 - 1
    return x, (x[:, :1] * x[:, 1:]).sin()


def fit(model, optimizer, steps):
    x, y = data()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_lbfgs(make):
    model = make()
    x, y = data()
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    before = closure().item()
    for _ in range(15):
        optimizer.step(closure)
    assert closure().item() < 1e-2 * before


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_fused_adam_resumed_from_a_checkpoint(make, tmp_path):
    """Ten steps are ten steps, also when a file lies in between."""
    torch.manual_seed(0)
    straight, x = make(), None
    resumed = copy.deepcopy(straight)
    adam = lambda model: torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)  # noqa: E731

    def steps(model, optimizer, count):
        torch.manual_seed(1)
        fit(model, optimizer, count)

    optimizer = adam(straight)
    steps(straight, optimizer, 5)
    steps(straight, optimizer, 5)
    first = adam(resumed)
    steps(resumed, first, 5)
    torch.save({"model": resumed.state_dict(), "optimizer": first.state_dict()}, tmp_path / "checkpoint.pt")
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    again = make()
    again.load_state_dict(checkpoint["model"])
    second = adam(again)
    second.load_state_dict(checkpoint["optimizer"])
    steps(again, second, 5)
    x = data()[0]
    assert torch.equal(again(x), straight(x))


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_parameters_are_contiguous_and_safetensors_keeps_them(make, tmp_path):
    model = make()
    assert all(p.is_contiguous() for p in model.parameters())
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = make()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    x = data()[0]
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_deepcopy_is_independent(make):
    model = make()
    twin, x = copy.deepcopy(model), data()[0]
    assert torch.equal(twin(x), model(x))
    fit(twin, torch.optim.SGD(twin.parameters(), lr=0.1), 3)
    assert not torch.equal(twin(x), model(x))


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_double_and_half(make):
    model, x = make(), data()[0]
    y = model(x)
    double = copy.deepcopy(model).double()(x.double())
    assert double.dtype == torch.float64 and difference(y, double) < 1e-5
    for dtype, tolerance in ((torch.float16, 2e-2), (torch.bfloat16, 2e-1)):
        low = copy.deepcopy(model).to(dtype)
        result = low(x.to(dtype))
        assert result.dtype == dtype and difference(result, y) < tolerance
        result.float().square().sum().backward()
        grads = [p.grad for p in low.parameters() if p.grad is not None]
        assert grads and all(g.dtype == dtype and g.isfinite().all() for g in grads)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_training_is_deterministic(make):
    def trained():
        torch.manual_seed(3)
        model = make()
        fit(model, torch.optim.AdamW(model.parameters()), 5)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(trained(), trained())
