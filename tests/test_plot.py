"""Pictures: the functions drawn are the layer's, boundaries and shares are where they belong, errors."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

import high_order_fused as hof
from high_order_fused import plot
from high_order_fused.edge_functions import edge_functions
from high_order_fused.kan import KAN, KANLinear
from high_order_fused.layers import (
    PolynomialLayer,
    Product,
    high_order_convolution_layers,
    high_order_convolution_transpose_layers,
    high_order_fc_layers,
)
from tests.support import difference

matplotlib = pytest.importorskip("matplotlib")


def fc(kind, inputs=4, outputs=3, **arguments):
    layer = high_order_fc_layers(
        kind, **({"n": 3, "segments": 4} | arguments), in_features=inputs, out_features=outputs
    )
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def drawn(model):
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


basis = hof.bases.piecewise_lagrange
KNOTS = torch.tensor([-1.0, -0.2, 1.0]) + torch.arange(4)[:, None] / 8
SUMS = {
    "ours": lambda: hof.HighOrderLinear(4, 3, basis(3, 5, (-2, 1))),
    "own knots": lambda: hof.HighOrderLinear(4, 3, basis(3, 2, knots=KNOTS)),
    "continuous": lambda: fc("continuous", periodicity=2.0),
    "discontinuous": lambda: fc("discontinuous", length=4.0),
    "fourier": lambda: fc("fourier"),
    "KAN": lambda: KANLinear(4, 3),
    "KAN without scaler": lambda: KANLinear(4, 3, enable_standalone_scale_spline=False),
    "powers": lambda: PolynomialLayer(4, 3, 3),
    "lines": lambda: nn.Linear(4, 3, bias=False),
}
PRODUCTS = {
    "ours": lambda: hof.HighOrderProduct(4, 3, hof.bases.lagrange(3)),
    "discontinuous_prod": lambda: fc("discontinuous_prod"),
    "product": lambda: Product(4, 3, bias=False),
}


@pytest.mark.parametrize("kind", SUMS)
def test_edges_sum_to_the_layer(kind):
    layer, x = drawn(SUMS[kind]()), torch.rand(30, 4) * 3 - 1.5
    if kind == "KAN":
        layer.update_grid(torch.randn(100, 4))
    functions = edge_functions(layer)
    values = functions.values(x, range(4), range(3))
    assert difference(values.sum(-1), layer(x)) < 1e-5 and not functions.multiplied
    assert difference(functions.strength(x), values.std(0)) < 1e-10
    some = functions.values(x[:, [2, 0]], [2, 0], [1])
    torch.testing.assert_close(some, values[:, [1]][:, :, [2, 0]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", PRODUCTS)
def test_edges_multiply_to_the_layer(kind):
    layer, x = drawn(PRODUCTS[kind]()), torch.rand(30, 4) * 3 - 1.5
    functions = edge_functions(layer)
    values = functions.values(x, range(4), range(3))
    assert difference((1 + values).prod(-1) - 1, layer(x)) < 1e-5 and functions.multiplied


@pytest.mark.parametrize("kind", ["ours", "continuous2d", "product2d", "ours transposed", "transposed"])
def test_the_edges_of_a_tap(kind):
    """An image of one pixel, padded: each place of the output has met the pixel by one tap alone."""
    sizes = {"n": 3, "segments": 2, "in_channels": 4, "out_channels": 3, "kernel_size": 3}
    layer = {
        "ours": lambda: hof.HighOrderConv2d(4, 3, 3, basis(3, 2), padding=2),
        "continuous2d": lambda: high_order_convolution_layers("continuous2d", **sizes, padding=2),
        "product2d": lambda: high_order_convolution_layers("product2d", **sizes, padding=2, bias=False),
        "ours transposed": lambda: hof.HighOrderConvTranspose2d(4, 3, 3, basis(3, 2)),
        "transposed": lambda: high_order_convolution_transpose_layers("continuous2d", **sizes),
    }[kind]()
    x = torch.rand(10, 4) * 2 - 1
    y = drawn(layer)(x[:, :, None, None])
    for tap in ((0, 2), (1, 1), (2, 1)):
        place = tap if "transposed" in kind else (2 - tap[0], 2 - tap[1])
        functions = edge_functions(layer, tap)
        values = functions.values(x, range(4), range(3))
        made = (1 + values).prod(-1) - 1 if functions.multiplied else values.sum(-1)
        assert difference(made, y[:, :, place[0], place[1]]) < 1e-5
    assert torch.equal(edge_functions(layer).weight, edge_functions(layer, (1, 1)).weight)
    with pytest.raises(ValueError, match=r"tap: got \(1, 3\), needs 2 indices into the kernel \(3, 3\)"):
        edge_functions(layer, (1, 3))


def lines(axes, width):
    """The (x, y) of the lines of a width."""
    return [np.array(line.get_data(), float) for line in axes.lines if line.get_linewidth() == width]


def test_edges_are_drawn_by_input_and_output():
    """Each curve is what the layer's output does when that input alone moves, but for a constant."""
    layer, x = fc("discontinuous"), torch.rand(50, 4) * 2 - 1
    figure = plot.edges(layer, inputs=[3, 1], outputs=[2, 0], x=x)
    grid = np.array([axes for axes in figure.axes if axes.axison]).reshape(2, 2)
    assert [axes.get_title(loc="center") for axes in grid[0]] == ["input 3", "input 1"]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["output 2", "output 0"]
    assert figure.get_supxlabel() and figure.get_supylabel()
    for row, output in enumerate((2, 0)):
        for column, feature in enumerate((3, 1)):
            (at, drawn_y) = lines(grid[row, column], 1.6)[0]
            there = ~np.isnan(at)
            assert (~there).sum() == 4, "segments are drawn one by one"
            rows = torch.zeros(int(there.sum()), 4)
            rows[:, feature] = torch.tensor(at[there]).float()
            expected = layer(rows)[:, output].detach().numpy()
            apart = expected - drawn_y[there]
            assert np.ptp(apart) < 1e-3 * np.ptp(expected)  # a millionth off a segment's end, in float32
            dotted = [line.get_xdata()[0] for line in grid[row, column].lines if line.get_linestyle() == ":"]
            assert dotted == [-0.5, 0.0, 0.5]
    bars = next(axes for axes in figure.axes if not axes.axison).patches
    assert sum(bar.get_height() for bar in bars) == 50


def test_the_strongest_edges_are_chosen():
    layer = fc("polynomial", 12, 9)
    nn.init.zeros_(layer.w)
    for output, feature in ((7, 11), (5, 8), (1, 8)):
        nn.init.normal_(layer.w[output, feature].data)
    x = torch.rand(40, 12) * 2 - 1
    figure = plot.edges(layer, x=x)
    titles = [axes.get_title(loc="center") for axes in figure.axes]
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert {"input 8", "input 11"} <= set(titles) and {"output 1", "output 5", "output 7"} <= set(labels)
    assert len(plot.edges(layer).axes) == 6 * 4
    with pytest.raises(IndexError, match=r"inputs: got \[12\], needs some of 0 to 11"):
        plot.edges(layer, inputs=[12])
    with pytest.raises(ValueError, match=r"x: got shape \(40, 3\), needs \[..., 12\]"):
        plot.edges(layer, x=x[:, :3])
    for wrong in (nn.ReLU(), high_order_fc_layers("polynomial_2d", n=2, in_features=1, out_features=1)):
        with pytest.raises(TypeError, match="needs a layer whose edges are functions of one variable"):
            plot.edges(wrong)


def bars(axes):
    return np.array([bar.get_height() for bar in axes.patches])


def test_density_is_the_share_of_each_segment():
    x = torch.randn(500, 4)
    x[:3, 0] = torch.nan
    model = nn.Sequential(fc("continuous"), KANLinear(3, 2))
    model[1].update_grid(torch.randn(200, 3))
    figure = plot.density(model, x)
    above, shades = figure.axes[:2]
    edges = [-np.inf, -1, -0.5, 0, 0.5, np.nextafter(np.float32(1), np.float32(2)), np.inf]
    for k, column in enumerate(x.numpy().T):
        counts = np.histogram(column[~np.isnan(column)], edges)[0]
        np.testing.assert_allclose(shades.images[0].get_array()[k], counts / counts.sum(), atol=1e-12)
    counts = np.histogram(x.numpy()[~np.isnan(x.numpy())], edges)[0]
    np.testing.assert_allclose(bars(above), counts / counts.sum(), atol=1e-12)
    assert [label.get_text() for label in shades.get_xticklabels()] == ["-1", "-0.5", "0", "0.5", "1"]
    outside = (x.abs() > 1).sum().item() / x.isfinite().sum().item()
    assert above.get_title(loc="left") == f"0 PiecewisePolynomial: {outside:.1%} outside the domain"
    own = next(axes for axes in figure.axes if axes.get_xlabel() == "segment of the input's own grid")
    hidden = model[0](x[3:]).detach().double()
    found = hof_segments(hidden, model[1].grid[:, 3:-3].double())
    np.testing.assert_allclose(own.images[0].get_array(), found, atol=0.01)


def hof_segments(x, grid):
    """The share of each input's values below, in each interval of its row of the grid, and above."""
    shares = [
        np.histogram(column, [-np.inf, *row, np.inf])[0] / len(column)
        for column, row in zip(x.numpy().T, grid.numpy(), strict=True)
    ]
    return np.array(shares)


def test_density_of_images_and_of_several_variables():
    conv = high_order_convolution_layers(
        "polynomial2d", n=3, in_channels=2, out_channels=1, kernel_size=2, periodicity=2.0
    )
    figure = plot.density(conv, torch.randn(5, 2, 6, 6))
    np.testing.assert_allclose(bars(figure.axes[0]), [0, 1, 0])
    figure = plot.density(fc("polynomial_2d", 3, 1), torch.full((5, 3, 2), 2.0))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [t.split(":")[0] for t in titles if t] == ["Polynomial2D, variable 0", "Polynomial2D, variable 1"]
    with pytest.raises(ValueError, match="needs at least one"):
        plot.density(nn.Linear(2, 2), torch.rand(3, 2))


def test_network_is_a_graph_with_a_function_on_each_edge():
    model = nn.Sequential(fc("continuous", 2, 3), hof.norm.MaxAbsNormalization(), fc("continuous_prod", 3, 2))
    x = torch.rand(60, 2) * 2 - 1
    axes = plot.network(model, x).axes[0]
    assert len(axes.patches) == 2 * 3 + 3 * 2
    nodes = [line for line in axes.lines if line.get_marker() == "o"]
    assert len(nodes) == 2 + 3 + 2
    texts = [text.get_text() for text in axes.texts]
    assert {"$x_{0}$", "$x_{1}$", "$y_{0}$", "$y_{1}$", "MaxAbsNormalization"} <= set(texts)
    assert texts.count("$+$") == 3 and texts.count(r"$\times$") == 2
    assert "0\nPiecewisePolynomial" in texts and "2\nPiecewisePolynomialProd" in texts
    curves = [line for line in axes.lines if line.get_linewidth() == 1.5]
    shades = np.array([curve.get_alpha() for curve in curves[:6]]).reshape(2, 3).T
    contributions = [
        [model[0](torch.eye(2)[i] * x[:, [i]])[:, o].std().item() for i in range(2)] for o in range(3)
    ]
    expected = 0.1 + 0.9 * np.array(contributions) / np.max(contributions)
    np.testing.assert_allclose(shades, expected, rtol=1e-4)
    fans = [line for line in axes.lines if line.get_linewidth() == 1][:12]  # to the boxes and on, by edge
    np.testing.assert_allclose([line.get_alpha() for line in fans[::2]], shades.T.flatten())
    starts = [node.get_xdata()[0] for node in nodes[:2]]
    assert [line.get_xdata()[0] for line in fans[::2]] == [starts[0]] * 3 + [starts[1]] * 3


def test_network_without_data_and_peers_networks():
    """A network that registers its ends first is drawn in the order of its calls."""

    class Ends(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last, self.middle = KANLinear(2, 4), KANLinear(3, 1), KANLinear(4, 3)

        def forward(self, x):
            return self.last(self.middle(self.first(x)))

    for model, edges in ((Ends(), 8 + 12 + 3), (KAN([2, 3, 1]), 9)):
        assert len(plot.network(model).axes[0].patches) == edges
    constant = high_order_fc_layers("continuous", n=3, in_features=2, out_features=2, segments=3)
    axes = plot.network(constant, torch.randn(50, 2)).axes[0]
    curves = [line for line in axes.lines if line.get_linewidth() == 1.5][:4]
    assert all(line.get_alpha() < 0.11 for line in curves), "rounding is drawn as variation"
    assert all(np.nanstd(line.get_ydata()) < 1e-4 for line in curves)
    axes = plot.network(KANLinear(2, 1)).axes[0]
    assert "SiLU" not in [text.get_text() for text in axes.texts]


def test_networks_that_cannot_be_drawn_say_why():
    with pytest.raises(ValueError, match=r"got 12 x 9 edges in 'Polynomial', needs at most 100 in a"):
        plot.network(fc("polynomial", 12, 9))
    plot.network(fc("polynomial", 12, 9), most=108)
    for model, why in (
        (nn.Sequential(nn.ReLU()), "got Sequential, needs fully connected layers of ours"),
        (fc("switch_continuous", 2, 2), "beside another layer, needs layers in a row"),
        (hof.HighOrderConv2d(1, 1, 1, hof.bases.lagrange(2)), "an input of 4 axes, needs rows"),
        (nn.Sequential(fc("fourier", 2, 4), nn.GLU(), fc("fourier", 2, 1)), "of 2 inputs after 4 features"),
    ):
        x = torch.rand(3, 1, 2, 2) if "axes" in why else torch.rand(3, 2)
        with pytest.raises(TypeError, match=why):
            plot.network(model, x)


def test_pictures_are_written_and_not_blank(tmp_path):
    model, x = KAN([3, 2, 1]), torch.rand(40, 3) * 2 - 1
    figures = {"edges": plot.edges(model.layers[0], x=x), "density": plot.density(model, x)}
    for name, figure in (figures | {"network": plot.network(model, x)}).items():
        figure.savefig(tmp_path / f"{name}.png", dpi=60)
        pixels = matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3].reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) > 50, name


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (plot.edges, plot.network):
        with pytest.raises(ImportError, match=r"pip install 'high_order_fused\[demo\]'"):
            draw(KANLinear(2, 1))


def test_rows_that_are_not_numbers_hide_no_function():
    layer, x = fc("continuous"), 2 * torch.rand(20, 4) - 1
    known = edge_functions(layer).strength(x)
    x = torch.cat([x, torch.full((1, 4), float("nan"))])
    assert difference(edge_functions(layer).strength(x), known) < 1e-12
