"""Optimizers against their formulas in float64, SparseLion against the peer's, and the factory."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from high_order_fused.layers import high_order_fc_layers
from high_order_fused.optim import SophiaG, SparseLion, make_optimizer

STEPS = 50


def gradients(sparse=False):
    """Of a vector, a step at a time; where sparse, most entries are not touched, some never."""
    draws = np.random.default_rng(0)
    g = draws.normal(size=(STEPS, 40))
    return np.where(draws.random((STEPS, 40)) < np.linspace(0, 0.5, 40), g, 0.0) if sparse else g


def trajectory(make, gradients, each=lambda optimizer, step: None):
    """What an optimizer makes of a float64 vector of ones to which each of the gradients is given."""
    p = nn.Parameter(torch.linspace(-1, 1, gradients.shape[1], dtype=torch.float64))
    optimizer, path = make([p]), []
    for step, g in enumerate(gradients):
        p.grad = torch.from_numpy(g)
        each(optimizer, step)
        optimizer.step()
        path.append(p.detach().numpy().copy())
    return np.array(path)


def lion(gradients, lr, betas, decay):
    p, m, path = np.linspace(-1, 1, gradients.shape[1]), 0.0, []
    for g in gradients:
        p = p * (1 - lr * decay) - lr * np.sign(betas[0] * m + (1 - betas[0]) * g)
        m = betas[1] * m + (1 - betas[1]) * g
        path.append(p)
    return np.array(path)


def test_lion_follows_its_formula():
    pytest.importorskip("pytorch_optimizer")
    g = gradients()
    for options in ({}, {"lr": 0.01, "betas": (0.95, 0.98), "weight_decay": 0.3}):
        settings = {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0} | options
        actual = trajectory(lambda p: make_optimizer("lion", p, **options), g)  # noqa: B023
        np.testing.assert_allclose(actual, lion(g, *settings.values()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_sparse_lion_follows_the_formula_at_touched_entries(decay):
    g = gradients(sparse=True)
    actual = trajectory(lambda p: SparseLion(p, 0.01, (0.8, 0.95), decay), g)
    for entry, path in enumerate(actual.T):
        start = np.linspace(-1, 1, 40)[entry]
        p, m = start, 0.0
        for value, found in zip(g[:, entry], path, strict=True):
            if value != 0:
                p = p * (1 - 0.01 * decay) - 0.01 * np.sign(0.8 * m + 0.2 * value)
                m = 0.95 * m + 0.05 * value
            assert abs(found - p) < 1e-12
    assert np.all(actual[:, 0] == -1), "an entry that is never touched moved"


def test_sparse_lion_leaves_untouched_entries_bit_equal():
    """A point touches two of a layer's segments; decay, averages and signs of zero elsewhere stay."""
    layer = high_order_fc_layers("discontinuous", n=2, in_features=2, out_features=3, segments=10)
    nn.init.normal_(layer.w)
    layer.w.data[:, :, 5] = -0.0
    optimizer = make_optimizer("sparse_lion", layer, weight_decay=0.5)
    for x in (torch.tensor([[0.5, -0.7]]), torch.tensor([[0.9, -0.7]])):
        before = layer.w.detach().clone()
        average = optimizer.state[layer.w]["exp_avg"].clone() if optimizer.state else torch.zeros_like(before)
        optimizer.zero_grad()
        (layer(x) - 3).square().sum().backward()
        optimizer.step()
        touched = layer.w.grad != 0
        assert touched.sum() == 2 * 2 * 3
        assert (layer.w != before)[touched].all()
        same = layer.w.view(torch.int32) == before.view(torch.int32)
        assert same[~touched].all()
        assert torch.equal(optimizer.state[layer.w]["exp_avg"][~touched], average[~touched])


def test_sparse_lion_is_bit_equal_to_the_peer():
    peer = pytest.importorskip("high_order_layers_torch.sparse_optimizers")
    paths, g = [], torch.from_numpy(gradients(sparse=True)).float()
    for kind in (SparseLion, peer.SparseLion):
        p = nn.Parameter(torch.linspace(-1, 1, 40))
        optimizer = kind([p], lr=1e-3, betas=(0.9, 0.97), use_triton=False)
        for each in g:
            p.grad = each.clone()
            optimizer.step()
        paths.append((p.detach(), optimizer.state_dict()))
    (ours, state), (theirs, expected) = paths
    assert torch.equal(ours, theirs)
    assert list(state["state"][0]) == list(expected["state"][0]) == ["exp_avg"]
    assert torch.equal(state["state"][0]["exp_avg"], expected["state"][0]["exp_avg"])


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("every", [None, 10])
def test_sophia_follows_its_formula(every, maximize):
    """With the Hessian updated every ten steps, and never, as in the peer's examples."""
    g, sign = gradients(), -1 if maximize else 1
    settings = {"lr": 0.01, "betas": (0.9, 0.98), "rho": 0.03, "weight_decay": 0.2}
    p, m, h, expected = np.linspace(-1, 1, 40), 0.0, 0.0, []
    for step, each in enumerate(g):
        h = 0.98 * h + 0.02 * each**2 if every and step % every == 0 else h
        m = 0.9 * m + 0.1 * sign * each
        ratio = np.minimum(np.abs(m) / (0.03 * 60 * h + 1e-15), 1)
        p = (1 - 0.01 * 0.2) * p - 0.01 * np.sign(m) * ratio
        expected.append(p)

    class Batches(SophiaG):
        def step(self, closure=None):
            return super().step(closure, bs=60)

    def update(optimizer, step):
        if every and step % every == 0:
            optimizer.update_hessian()

    actual = trajectory(lambda params: Batches(params, **settings, maximize=maximize), g, update)
    np.testing.assert_allclose(actual, np.array(expected), rtol=0, atol=1e-12)
    moves = np.diff(actual, axis=0) + 0.01 * 0.2 * actual[:-1]
    assert (np.abs(moves) < 0.0099).any() == bool(every), "clipped everywhere without the Hessian alone"


def test_sophia_keeps_its_state_across_checkpoints():
    p = nn.Parameter(torch.ones(3))
    optimizer = make_optimizer("sophia", [p])
    assert optimizer.defaults["lr"] == 1e-3 and optimizer.defaults["rho"] == 0.035
    p.grad = torch.tensor([1.0, 2.0, 0.0])
    optimizer.step()
    optimizer.update_hessian()
    again = SophiaG([p])
    again.load_state_dict(optimizer.state_dict())
    state = again.state[p]
    assert list(state) == ["step", "exp_avg", "hessian"] and state["step"] == 1
    torch.testing.assert_close(state["hessian"], 0.01 * torch.tensor([1.0, 4.0, 0.0]))


@pytest.mark.filterwarnings("ignore:Using backward")
def test_adahessian_differentiates_twice_and_follows_its_formula():
    """On a polynomial layer, whose loss is a square: the Hessian is known."""
    pytest.importorskip("pytorch_optimizer")
    layer = high_order_fc_layers("polynomial", n=3, in_features=1, out_features=1).double()
    w = layer.w.detach().clone().flatten().numpy()
    x = torch.tensor([[-1.0], [0.0], [1.0], [1.0]], dtype=torch.float64)  # the nodes: the Hessian is diagonal
    target = torch.tensor([[1.0], [-2.0], [3.0], [3.0]], dtype=torch.float64)
    optimizer = make_optimizer("adahessian", layer, lr=0.1)
    m, v, h = np.zeros(3), np.zeros(3), 2 * np.array([1.0, 1.0, 2.0])
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        (layer(x) - target).square().sum().backward(create_graph=True)
        optimizer.step()
        m = 0.9 * m + 0.1 * h * (w - [1, -2, 3])
        v = 0.999 * v + 0.001 * h**2
        w = w - 0.1 * m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-4)
        np.testing.assert_allclose(layer.w.detach().numpy().flatten(), w, rtol=0, atol=1e-9)
    layer.w.grad = layer.result.grad = None  # a graph and its leaves hold each other


def test_lbfgs_solves_a_least_squares_problem():
    layer = high_order_fc_layers("continuous", n=4, in_features=1, out_features=1, segments=2)
    optimizer = make_optimizer("lbfgs", layer, line_search_fn="strong_wolfe")
    assert optimizer.defaults["max_iter"] == 20 and optimizer.defaults["history_size"] == 100
    x = torch.linspace(-1, 1, 60)[:, None]

    def closure():
        optimizer.zero_grad()
        loss = (layer(x) - x**3).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    assert closure() < 1e-7


@pytest.mark.parametrize("name", ["sparse_lion", "sophia", "lion", "adam"])
def test_every_step_takes_a_closure(name):
    if name == "lion":
        pytest.importorskip("pytorch_optimizer")
    p = nn.Parameter(torch.ones(2))
    optimizer = make_optimizer(name, [{"params": [p], "lr": 0.1}])

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2 and p.square().sum() < 2


def test_errors_name_what_is_wrong(monkeypatch):
    p = [nn.Parameter(torch.ones(2))]
    with pytest.raises(ValueError, match=r"name: got 'sgd', needs one of 'adam', 'lion', 'sparse_lion'"):
        make_optimizer("sgd", p)
    with pytest.raises(
        TypeError, match=r"options: got 'weight_decy', 'sparse_lion' needs some of 'lr', 'bet"
    ):
        make_optimizer("sparse_lion", p, weight_decy=0.1)
    for wrong, message in (
        ({"lr": 0.0}, "lr: got 0.0, needs a number above 0"),
        ({"betas": (0.9, 1.5)}, r"betas: got \(0.9, 1.5\)"),
        ({"weight_decay": -1.0}, "weight_decay: got -1.0, needs"),
    ):
        for kind in (SparseLion, SophiaG):
            with pytest.raises(ValueError, match=message):
                kind(p, **wrong)
    with pytest.raises(ValueError, match="rho: got -1, needs a number above 0"):
        SophiaG(p, rho=-1)
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    for name in ("lion", "adahessian"):
        with pytest.raises(ImportError, match=r"pip install 'high_order_fused\[optim\]'"):
            make_optimizer(name, p)


def test_misspelt_options_of_the_library_are_refused():
    pytest.importorskip("pytorch_optimizer")
    with pytest.raises(TypeError, match="options: got 'weight_decy', 'lion' needs some of 'lr'"):
        make_optimizer("lion", [nn.Parameter(torch.ones(2))], weight_decy=0.1)


def test_a_gradient_that_is_not_a_number_is_seen():
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.tensor([1.0, float("nan"), 0.0])
    SparseLion([p], lr=0.1).step()
    assert p[1].isnan() and p[[0, 2]].isfinite().all()


def test_sophia_in_float16_divides_by_no_zero():
    p = nn.Parameter(torch.ones(3, dtype=torch.float16))
    p.grad = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float16)
    SophiaG([p], lr=0.1, weight_decay=0.0).step()
    assert torch.allclose(p.detach().float(), torch.tensor([0.9, 1.0, 0.9]), atol=1e-3)
