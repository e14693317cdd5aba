"""The experiments with functions, in their tiny modes, and what all experiments share."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from examples import command, function, kan_equivalence, mlp2d, pictures, prepu, symbolic, training, xor
from high_order_fused.kan import KANLinear
from high_order_fused.optim import make_optimizer

for needed in ("hydra", "rich", "matplotlib"):
    pytest.importorskip(needed)


@pytest.fixture
def tiny(tmp_path):
    return {"tiny": True, "results": str(tmp_path)}


def shown(folder, *names):
    """Whether these pictures, and no others, were written, each with many colours."""
    from matplotlib.image import imread

    pixels = {path.stem: imread(path)[..., :3].reshape(-1, 3) for path in Path(folder).glob("*.png")}
    return sorted(pixels) == sorted(names) and all(len({*map(tuple, p[::7])}) > 20 for p in pixels.values())


def test_row_35_piecewise_edges_fit_a_function_better_than_relu_of_as_many_parameters(tiny):
    figures = function.run(function.Options(**tiny))
    assert figures["ReLU / piecewise, 31 parameters"] > 3
    assert shown(tiny["results"], "function_parameters")


def test_row_35_kinds_are_compared_at_equal_parameters():
    for budget in function.BUDGETS:
        sizes = {kind: function.within(kind, budget).parameters() for kind in function.KINDS}
        assert sizes["ReLU"] == sizes["continuous"] == budget
        assert all(0.85 * budget < size <= budget for size in sizes.values()), sizes


@pytest.mark.parametrize("name", ["lion", "sophia", "sparse_lion", "adahessian", "lbfgs"])
def test_row_34_the_option_optimizer_is_honoured(name, tiny, monkeypatch):
    """The peer's example always takes one and the same."""
    if name in ("lion", "adahessian"):
        pytest.importorskip("pytorch_optimizer")
    used = []
    monkeypatch.setattr(function.training, "fit", lambda *args, **kw: used.append(args[3]))
    options = function.Options(**tiny, optimizer=name)
    function._fitted(function.Case("continuous", 3, 2), 0, options)
    assert type(used[0]).__name__.lower().startswith({"sparse_lion": "sparselion"}.get(name, name))
    assert used[0].param_groups[0]["lr"] == function.LEARNING_RATE[name]


def test_rows_36_37_xor_is_exact_with_discontinuous_layers_alone(tiny):
    figures = xor.run(xor.Options(**tiny, epochs=8))
    assert min(figures["discontinuous n=3 mse"]) < 1e-3 < min(figures["continuous n=3 mse"])
    assert min(figures["discontinuous n=3 accuracy"]) == 1
    assert shown(tiny["results"], "xor")


def test_row_38_a_polynomial_of_two_variables_finds_the_sign_of_xor(tiny):
    options = xor.Options(**tiny, layer_type="polynomial_2d", optimizer="sophia", epochs=40)
    figures = xor.run(options)
    assert min(figures["polynomial_2d n=4 accuracy"]) > 0.9
    assert shown(tiny["results"], "xor_polynomial_2d")


def test_row_52_a_high_order_perceptron_fits_rings_better_than_relu(tiny):
    figures = mlp2d.run(mlp2d.Options(**tiny))
    assert figures["continuous"][0] < 0.5 * min(v[0] for k, v in figures.items() if "ReLU" in k)
    assert shown(tiny["results"], "mlp2d")


def test_row_54_a_trained_kan_becomes_piecewise_polynomials_with_equal_outputs(tiny):
    figures = kan_equivalence.run(kan_equivalence.Options(**tiny))
    assert figures["largest difference"][0] < 2e-5  # rounding of two float32 layers
    assert figures["mse"][0] < 0.1  # the target's variance is 2.5
    assert shown(tiny["results"], "kan_equivalence")


@pytest.mark.parametrize("order", [2, 3, 4])
def test_row_54_converted_layers_are_equal_inside_and_beyond_the_grid(order):
    torch.manual_seed(order)
    layer = KANLinear(3, 2, grid_size=4, spline_order=order, base_activation=nn.Identity).double()
    layer.update_grid(torch.randn(200, 3).double(), corrected=True)
    x = 4 * torch.randn(500, 3).double()
    torch.testing.assert_close(kan_equivalence.piecewise(layer).double()(x), layer(x), rtol=0, atol=1e-5)


def test_row_97_lbfgs_finds_the_sum_of_velocities(tiny):
    figures = symbolic.run(symbolic.Options(**tiny))
    assert max(figures["KAN"] + figures["continuous"]) < 1e-4
    assert shown(tiny["results"], "symbolic")


def test_rows_84_86_prepu_learns_powers_and_reports_them(tiny):
    figures = prepu.run(prepu.Options(**tiny, seeds=1, epochs=3))
    first, *_, last = (figures[f"{name} train"][0] for name in ("PRePU", "ReLU"))
    assert math.isfinite(first) and math.isfinite(last)
    powers = [q for layer in range(1, 5) for q in figures[f"powers of layer {layer}"]]
    assert len(powers) == 32 and all(0 < q < 2 for q in powers) and len(set(powers)) > 8
    assert shown(tiny["results"], "prepu")


def test_row_84_what_was_published_for_relu_is_what_a_network_has_that_is_constant_for_positive_x():
    """By the moments of |x|, x normal of deviation 2, for y = 1 + x/4 + 2 x^2 - 3 x^3."""
    coefficients = {1: 0.25, 2: 2.0, 3: -3.0}
    moment = {k: 2**k * 2 ** (k / 2) * math.gamma((k + 1) / 2) / math.sqrt(math.pi) for k in range(7)}
    first = sum(c * moment[k] for k, c in coefficients.items())
    second = sum(a * b * moment[j + k] for j, a in coefficients.items() for k, b in coefficients.items())
    least, joined = (
        (second - first**2) / 2,
        second / 2,
    )  # the best constant; that of x = 0, where both sides meet
    assert prepu.constant_half() == pytest.approx(least, rel=1e-2)
    assert least < prepu.PUBLISHED["ReLU"] < joined


def test_row_85_prepu_trains_without_clipping_too(tiny):
    figures = prepu.run(prepu.Options(**tiny, seeds=1, gradient_clip_val=None))
    assert all(math.isfinite(loss) for loss in figures["PRePU train"])


def test_row_83_the_networks_of_the_prepu_experiment_have_241_and_273_parameters():
    assert [training.parameters(prepu.network(name)) for name in ("ReLU", "PRePU")] == [241, 273]


def test_row_51_options_sweep_and_leave_results_alone(tmp_path, monkeypatch, capsys):
    given = f"-m results={tmp_path} tiny=true layer_type=polynomial_2d epochs=1,2"
    monkeypatch.setattr(sys, "argv", ["xor.py", *given.split()])
    xor.main()
    folder = "xor-epochs={},layer_type=polynomial_2d,tiny=True"
    expected = {
        f"{folder.format(e)}/{file}" for e in (1, 2) for file in ("xor.json", "xor_polynomial_2d.png")
    }
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == expected and "the sweep" in capsys.readouterr().out
    written = json.loads((tmp_path / folder.format(2) / "xor.json").read_text())
    assert written["options"]["epochs"] == 2 and written["versions"]["torch"] == torch.__version__
    assert str(tmp_path) not in json.dumps(written)


@pytest.mark.parametrize(
    ("argument", "message"),
    [("layer_type=linear", "layer_type: got 'linear'"), ("seeds=0", "seeds: got 0"), ("epochs=x", "'x'")],
)
def test_row_51_a_wrong_option_ends_with_one_message_and_no_traceback(argument, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["xor.py", "tiny=true", argument])
    with pytest.raises(SystemExit) as ended:
        xor.main()
    said = str(ended.value) + capsys.readouterr().err
    assert ended.value.code and message in said and "Traceback" not in said


def test_the_loop_steps_as_torch_does_by_hand():
    x, y = torch.randn(12, 3), torch.randn(12, 2)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    batches = training.Batches(x, y, size=5, shuffle=False)
    found = training.fit(ours, training.mse, batches, make_optimizer("adam", ours), 2, clip=0.1)
    optimizer, losses = torch.optim.Adam(theirs.parameters(), 1e-3), []
    for _ in range(2):
        for rows in (slice(0, 5), slice(5, 10), slice(10, 12)):
            optimizer.zero_grad()
            loss = (theirs(x[rows]) - y[rows]).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
            optimizer.step()
            losses.append(loss.item())
    assert torch.equal(ours.weight, theirs.weight)
    assert found == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3], rel=1e-6)


def test_adahessian_gets_gradients_that_can_be_differentiated():
    pytest.importorskip("pytorch_optimizer")
    model = nn.Linear(1, 1, bias=False)
    x = torch.linspace(-1, 1, 20)[:, None]
    optimizer = make_optimizer("adahessian", model, lr=0.5)
    losses = training.fit(model, training.mse, [(x, 3 * x)], optimizer, 40)
    assert losses[-1] < 1e-2 * losses[0] and model.weight.grad is None


def test_evaluating_gives_every_module_its_mode_back():
    model = nn.Sequential(nn.Dropout(), nn.Linear(1, 1))
    model[1].eval()
    with pytest.raises(KeyError), training.evaluating(model):
        assert not model.training and not torch.is_grad_enabled()
        raise KeyError
    assert model.training and model[0].training and not model[1].training and torch.is_grad_enabled()


@pytest.mark.parametrize("fault", ["is blank", "needs names of both axes"])
def test_a_picture_that_tells_nothing_is_refused(fault, tmp_path):
    figure, (panels,) = pictures.panels(1, 2)
    panels[0].plot([0, 1])
    panels[0].set(xlabel="x", ylabel="y")
    if fault == "is blank":
        panels[1].set_axis_off()
    else:
        panels[1].plot([0, 1])  # has the name of y from its row, none of x
    with pytest.raises(ValueError, match=f"panel 1, 'untitled', {fault}"):
        pictures.save(figure, command.Options(results=str(tmp_path)), "picture")
    assert not list(tmp_path.iterdir())
