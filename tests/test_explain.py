"""explain: says what runs, changes nothing."""

import pytest
import torch
from torch import nn

import high_order_fused as hof
from high_order_fused import native
from high_order_fused.backends import resolve

needs_native = pytest.mark.skipif(native.native_missing() is not None, reason="no compiled library")


def words(layer, x, step):
    (call,) = hof.explain(layer, x)
    return call.steps[step]


@needs_native
@pytest.mark.parametrize(
    ("basis", "rows", "step", "strategy"),
    [
        (hof.bases.lagrange(4), 100, "output", "sum_inputs, product"),
        (hof.bases.piecewise_lagrange(4, 5), 100, "output", "sum_inputs, grouped"),
        (hof.bases.piecewise_lagrange(4, 5), 8, "output", "sum_inputs, rows"),
        (hof.bases.piecewise_lagrange(4, 50), 50, "output", "sum_inputs, rows"),
        (hof.bases.piecewise_lagrange(4, 5), 100, "gradient of x", "sum_outputs, grouped"),
        (hof.bases.fourier(5), 1, "gradient of weight", "sum_batch, product"),
    ],
)
def test_strategies(basis, rows, step, strategy):
    with hof.use_backend("cpu"):
        assert words(hof.HighOrderLinear(6, 20, basis), torch.rand(rows, 6), step).startswith(strategy)


@needs_native
def test_many_rows_are_cut_for_all_threads():
    layer, before = hof.HighOrderLinear(4, 8, hof.bases.lagrange(3)), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            said = words(layer, torch.rand(5000, 4), "output")
            assert f"on {threads} thread{'s' * (threads > 1)}," in said
    finally:
        torch.set_num_threads(before)


@needs_native
def test_both_gradients_are_explained_together():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for inputs, said in ((2, "gradients, in one pass"), (1, "gradients, one after the other")):
            layer = hof.HighOrderLinear(inputs, 8, hof.bases.lagrange(3))
            assert words(layer, torch.rand(9, inputs), "both gradients").startswith(said)
    finally:
        torch.set_num_threads(before)


def test_every_call_of_a_network_by_name():
    model = nn.Sequential(nn.Linear(5, 4), hof.kan.KAN([4, 3, 2]), nn.ReLU())
    with hof.use_backend("reference"):
        calls = hof.explain(model, torch.rand(7, 5))
    assert [call.module for call in calls] == ["1.layers.0 (KANLinear)", "1.layers.1 (KANLinear)"]
    assert all("as written in reference.py" in call.steps["output"] for call in calls)
    assert "7 rows, 3 -> 2, 4 of 8 functions at a point, float32, on reference" in str(calls)


@needs_native
def test_coefficients_that_lie_with_outputs_first():
    layer = hof.layers.high_order_fc_layers("continuous", n=3, in_features=64, out_features=128, segments=10)
    assert "outputs do not lie last: 0.7 MiB packed at every call" in words(
        layer, torch.rand(600, 64), "coefficients"
    )
    some = torch.rand(13, 64)  # few for their segments, so that all are in one tile
    assert "0.7 MiB packed for 16 inputs at a time" in words(layer, some, "coefficients")
    assert words(layer, some, "output").startswith("sum_inputs, grouped")
    few = torch.rand(10, 64)  # as many rows as segments
    assert "0.7 MiB read as they lie, of four outputs at a time" in words(layer, few, "coefficients")
    assert words(layer, few, "output").startswith("link, coefficients read as they lie")
    ours = hof.HighOrderLinear(64, 128, hof.bases.lagrange(3))
    assert words(ours, torch.rand(9, 64), "coefficients") == "read as they lie"


@needs_native
def test_base_branches_are_explained_as_they_would_run_unwatched():
    x = torch.rand(9, 64)
    assert "silu(x), made of a tile" in words(hof.kan.KANLinear(64, 8), x, "base branch")
    assert "values given" in words(hof.kan.KANLinear(64, 8, base_activation=nn.Tanh), x, "base branch")
    (call,) = hof.explain(hof.HighOrderLinear(64, 8, hof.bases.lagrange(3)), x)
    assert "base branch" not in call.steps


def test_it_leaves_no_trace():
    layer, x = hof.HighOrderLinear(3, 2, hof.bases.lagrange(3)), torch.rand(4, 3)
    before, backends = layer(x), dict(hof.backends())
    hof.explain(layer, x)
    with pytest.raises(ValueError, match="x: got shape"):
        hof.explain(layer, x[:, :2])
    assert torch.equal(layer(x), before) and hof.backends() == backends
    assert not layer._forward_pre_hooks and not layer._forward_hooks
    assert str(hof.explain(nn.Linear(3, 2), x)) == "no call of our kernels"
    network = nn.Sequential(layer, nn.BatchNorm1d(2), nn.Dropout(0.5).eval())
    modes, drawn = [module.training for module in network.modules()], torch.get_rng_state()
    hof.explain(network, x[:1])
    assert not network[1].running_mean.any() and torch.equal(torch.get_rng_state(), drawn)
    assert [module.training for module in network.modules()] == modes


def test_products_and_convolutions():
    basis = hof.bases.piecewise_lagrange(3, 4)
    for backend, how in (("auto", "registers"), ("reference", "as written in reference.py")):
        with hof.use_backend(backend):
            if backend == "auto" and resolve(torch.rand(1)) != "cpu":
                continue
            (call,) = hof.explain(hof.HighOrderProduct(3, 5, basis), torch.rand(7, 3))
            assert call.sizes.startswith("7 rows, 3 -> 5, 3 of 9 functions") and how in call.steps["output"]
            net = torch.nn.Sequential(hof.HighOrderConv2d(3, 5, 3, basis), torch.nn.Flatten())
            (call,) = hof.explain(net, torch.rand(2, 3, 6, 6))
            assert call.module == "0 (HighOrderConv2d)" and how in call.steps["output"]
            if backend == "auto":
                assert call.sizes.startswith("2 images of 6x6x1, 3 -> 5 channels, 9 taps")
