"""The experiments beyond classification: Burgers' equation, an image, a language model, several processes."""

import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("hydra")
pytest.importorskip("matplotlib")

from examples import burgers, distributed, implicit_image, text, transformer, transformer_predict
from tests.support import difference

ROOT = Path(__file__).parent.parent


def test_the_reference_solves_burgers_equation():
    x, t, viscosity = np.linspace(-1, 1, 201), np.linspace(0, 1, 201), 0.1
    u = burgers.reference(x, t, viscosity)
    np.testing.assert_allclose(u[0], -np.sin(np.pi * x), atol=1e-12)
    np.testing.assert_allclose(u[:, [0, -1]], 0, atol=1e-12)
    inner = u[1:-1, 1:-1]
    u_t = (u[2:, 1:-1] - u[:-2, 1:-1]) / (2 * (t[1] - t[0]))
    u_x = (u[1:-1, 2:] - u[1:-1, :-2]) / (2 * (x[1] - x[0]))
    u_xx = (u[1:-1, 2:] - 2 * inner + u[1:-1, :-2]) / (x[1] - x[0]) ** 2
    error = np.abs(u_t + inner * u_x - viscosity * u_xx).max()
    assert error < 3e-3 * np.abs(u_t).max()  # the steps' squares times third derivatives


@pytest.mark.parametrize("kind", burgers.KINDS)
def test_the_residual_is_that_of_finite_differences(kind):
    torch.set_default_dtype(torch.float64)
    model = burgers.Solution(burgers.network(kind, burgers.Options(width=4, tanh_width=4)).double())
    x, t = (0.1 + 0.8 * torch.rand(2, 20, 1)).unbind()
    step, viscosity = 1e-4, 0.3
    with torch.no_grad():
        u, after, before = model(x, t), model(x + step, t), model(x - step, t)
        u_t = (model(x, t + step) - model(x, t - step)) / (2 * step)
    u_x, u_xx = (after - before) / (2 * step), (after - 2 * u + before) / step**2
    expected = (u_t + u * u_x - viscosity * u_xx) / (1 + 0.1 * u_x.abs())
    assert difference(burgers.residual(model, x, t, viscosity), expected) < 1e-4


def test_burgers_equation_is_solved(tmp_path):
    figures = burgers.run(burgers.Options(tiny=True, results=str(tmp_path)))
    x, t = np.linspace(-1, 1, 257), np.linspace(0, 1, 101)
    exact = burgers.reference(x, t, 0.1)
    baseline = np.linalg.norm(exact + np.sin(np.pi * x)) / np.linalg.norm(exact)  # the first values, kept
    for kind in burgers.KINDS:
        assert figures[f"{kind} error"][0] < baseline / 3
    assert (tmp_path / "burgers.png").stat().st_size > 10_000


def test_an_image_is_shown_more_exactly_than_by_relu_of_as_many_parameters(tmp_path):
    figures = implicit_image.run(implicit_image.Options(tiny=True, results=str(tmp_path)))
    assert figures["High order PSNR"][0] > figures["ReLU PSNR"][0] + 3
    for kind in (implicit_image.RELU, implicit_image.FEATURES):
        assert abs(figures[f"{kind} parameters"] / figures["High order parameters"] - 1) < 0.05
    assert (tmp_path / "implicit_image.png").stat().st_size > 10_000


def test_psnr_is_in_decibels():
    image = torch.rand(4, 4, 3, dtype=torch.float64)
    assert implicit_image.psnr(image + 0.1, image) == pytest.approx(20)


def test_an_image_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="image: got 'cat'"):
        implicit_image.load("cat", 16)


def test_the_standard_librarys_documentation_is_a_text():
    train, held_out = text.load(None, "characters", 1.0)
    assert len(train) > 5 * len(held_out) > 100_000
    assert "heap" in "".join(train) and set(train) | set(held_out) <= set(map(chr, range(128)))
    assert text.load(None, "characters", 0.25)[0] == train[: len(train) // 4]


def test_wikitext_is_read_in_words(tmp_path):
    (tmp_path / "wiki.train.tokens").write_text(" = Bees = \n the bees <unk> the flowers \n")
    (tmp_path / "wiki.valid.tokens").write_text(" the wasps \n")
    train, held_out = text.load(str(tmp_path), "words", 1.0)
    assert train == ["=", "Bees", "=", "<eos>", "the", "bees", "<unk>", "the", "flowers", "<eos>"]
    vocabulary = text.known(train, 5)
    assert vocabulary == ["<unk>", "<eos>", "=", "the", "Bees"]
    assert text.encoded(held_out, vocabulary).tolist() == [3, 0, 1]


def test_what_is_wrong_with_a_text_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data: .* needs wiki\.train\.tokens"):
        text.load(str(tmp_path), "words", 1.0)
    with pytest.raises(ValueError, match="fraction: got 0"):
        text.load(None, "words", 0)
    with pytest.raises(ValueError, match="unit: got 'letters'"):
        text.load(None, "letters", 1.0)
    with pytest.raises(ValueError, match="fraction: got 5 tokens"):
        transformer.rows(torch.arange(5), 5)


def test_unigram_perplexity_is_that_of_the_frequencies():
    train, held_out = "abacabaa" * 200, "aabc"
    share = {unit: (number + 1) / (len(train) + 3) for unit, number in Counter(train).items()}
    expected = math.exp(-sum(math.log(share[unit]) for unit in held_out) / len(held_out))
    vocabulary = sorted(share)
    first = [0]  # of a row, which nothing predicts
    rows = [torch.tensor([first + text.encoded(part, vocabulary).tolist()]) for part in (train, held_out)]
    assert transformer.unigram_perplexity(*rows, len(vocabulary)) == pytest.approx(expected, rel=1e-5)


def test_each_token_but_the_first_is_predicted_once():
    rows = transformer.rows(torch.arange(14), 4)
    assert rows[:, 1:].flatten().tolist() == list(range(1, 13))
    assert torch.equal(rows[:, 1:] - 1, rows[:, :-1])


def test_language_models_know_more_than_frequencies_and_predict_from_a_checkpoint(tmp_path, capsys):
    figures = transformer.run(transformer.Options(tiny=True, results=str(tmp_path)))
    for kind in ("continuous", "relu"):
        assert figures[f"{kind} perplexity"][0] < 0.9 * figures["unigram perplexity"]
    assert (tmp_path / "transformer.png").stat().st_size > 10_000
    capsys.readouterr()
    options = transformer_predict.Options(path=str(tmp_path / "transformer.pt"), text="Return th", length=7)
    found = transformer_predict.run(options)
    assert 1 < found["perplexity"] < figures["vocabulary"]
    shown = capsys.readouterr().out
    assert re.search(r"^Return th\|.{7}$", shown, re.MULTILINE)
    with pytest.raises(ValueError, match="text: got 33 characters, needs 2 to 32"):
        transformer_predict.run(transformer_predict.Options(path=options.path, text=33 * "a"))
    with pytest.raises(FileNotFoundError, match=r"path: .* is not there"):
        transformer_predict.run(transformer_predict.Options(path=str(tmp_path / "none.pt")))


def test_engines_train_as_an_ordinary_network(tmp_path):
    figures = distributed.run(distributed.Options(tiny=True, results=str(tmp_path)))
    assert figures["alone loss"] < 2.2  # that of chance is log 10 = 2.3
    for engine in distributed.ENGINES:
        assert figures[f"{engine} gradient difference"] < 1e-5
        assert figures[f"{engine} loss"] == pytest.approx(figures["alone loss"], rel=1e-5)
        assert figures[f"{engine} accuracy"] == figures["alone accuracy"]
    assert (tmp_path / "distributed.png").stat().st_size > 10_000


@pytest.mark.slow
def test_two_processes_of_torchrun_have_the_gradients_of_one(tmp_path):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    told = ["tiny=true", "layer_type=polynomial", f"results={tmp_path}"]
    subprocess.run([*start, "-m", "examples.distributed", *told], cwd=ROOT, check=True, capture_output=True)
    figures = json.loads((tmp_path / "distributed.json").read_text())["figures"]
    assert figures["processes"] == 2
    for engine in distributed.ENGINES:
        assert figures[f"{engine} gradient difference"] < 1e-5
        assert figures[f"{engine} loss"] < math.log(10)  # not alone's: Adam makes whole steps of rounding


def test_the_code_of_the_page_on_several_processes_runs():
    names = {}
    for block in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "distributed.md").read_text(), re.DOTALL
    ):
        exec(block, names)
    assert [p.requires_grad for p in names["model"].parameters()] == [True, False]
    with distributed.processes("cpu") as (mesh, _):
        layers = nn.Sequential(distributed.network(distributed.Options(width=3))[0], nn.ReLU())
        assert type(names["sharded"](layers, mesh)[0]).__name__.startswith("FSDP")


def test_shares_of_a_batch_are_all_of_it():
    x = torch.arange(12)
    batches = distributed.training.Batches(x, size=6, shuffle=False)
    shares = [[part.tolist() for (part,) in distributed.Shares(batches, rank, 3)] for rank in range(3)]
    assert shares == [[[0, 3], [6, 9]], [[1, 4], [7, 10]], [[2, 5], [8, 11]]]


def test_parameters_that_compute_nothing_want_no_gradient():
    for layer_type in ("polynomial", "fourier", "continuous"):
        model = distributed.network(distributed.Options(layer_type=layer_type, width=3))
        nn.functional.mse_loss(model(torch.rand(2, 64)), torch.rand(2, 10)).backward()
        assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
