"""The transformer: causal, learns a text, as many parameters with either feed-forward, checkpoints, modes."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from high_order_fused.transformer import LAYER_TYPES, TransformerModel, feed_forward
from tests.support import difference

TEXT = "aabacd"  # repeated; what follows an a depends on the two tokens before
ENTROPY = sum(share * math.log(1 / share) for share in (3 / 6, 1 / 6, 1 / 6, 1 / 6))


def tiny(layer_type="continuous", **options):
    return TransformerModel(
        **{"vocabulary": 5, "context": 16, "width": 16, "layer_type": layer_type, **options}
    )


def text(length, first=0):
    return torch.tensor([["abcde".index(TEXT[(first + k) % len(TEXT)]) for k in range(length)]])


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_later_tokens_do_not_change_earlier_logits(layer_type):
    model = tiny(layer_type)
    for module in model.modules():
        if hasattr(module, "w"):
            nn.init.normal_(module.w, std=0.3)  # first functions are constants, which nothing could change
    tokens = torch.randint(5, (3, 12))
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 5
    before, after = model(tokens), model(changed)
    assert before.shape == (3, 12, 5)
    assert difference(after[:, :7], before[:, :7]) < 1e-6
    assert ((after - before)[:, 7:].abs().amax(-1) > 1e-4).all()
    assert difference(model(tokens[:, :4]), before[:, :4]) < 1e-5


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_a_periodic_text_is_learned_far_below_its_unigram_entropy(layer_type):
    model = tiny(layer_type)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(120):
        tokens = torch.cat([text(17, 3 * step + k) for k in range(8)])
        loss = functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < ENTROPY / 2
    model.eval()
    assert torch.equal(model.generate(text(16), 20), text(36))
    assert torch.equal(model.predict(text(16))[:, 7:], text(9, 8))


def test_either_feed_forward_has_about_as_many_parameters():
    sizes = {
        layer_type: sum(p.numel() for p in feed_forward(64, layer_type, n=3, segments=4).parameters())
        for layer_type in LAYER_TYPES
    }
    for layer_type, size in sizes.items():
        assert abs(size / sizes["relu"] - 1) < 0.1, layer_type


@pytest.mark.parametrize("layer_type", LAYER_TYPES[1:])
def test_high_order_layers_see_inputs_within_their_interval(layer_type):
    network, seen = feed_forward(8, layer_type), []
    for layer in (network[1], network[3]):
        nn.init.normal_(layer.w)
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().amax(-1)))
    network(100 * torch.randn(4, 6, 8))
    assert len(seen) == 2
    for largest in seen:
        assert largest.max() <= 1 and largest.min() > 0.99


def test_a_checkpoint_is_the_options_and_the_state_dict(tmp_path):
    model = tiny("discontinuous", n=2, segments=3, hidden=5, dropout=0.2, heads=2, blocks=1).eval()
    torch.save({"options": model.options, "state": model.state_dict()}, tmp_path / "model.pt")
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    other = TransformerModel(**saved["options"]).eval()
    other.load_state_dict(saved["state"])
    tokens = torch.randint(5, (2, 9))
    assert torch.equal(other(tokens), model(tokens))
    pointers = [tensor.data_ptr() for tensor in saved["state"].values()]
    assert len(set(pointers)) == len(pointers), "tensors that share memory"


def test_dropout_is_for_training_alone():
    model, tokens = tiny(dropout=0.5), text(9)
    assert difference(model(tokens), model(tokens)) > 0.1
    for act in (model.predict, lambda tokens: model.generate(tokens, 2)):
        with pytest.raises(RuntimeError, match="training mode"):
            act(tokens)
    plain = tiny()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(tokens), plain(tokens))


def test_tokens_are_drawn_in_proportion_at_a_temperature():
    model = tiny().eval()
    nn.init.zeros_(model.logits.weight)
    with torch.no_grad():
        model.logits.bias.copy_(torch.tensor([0.5, 0.3, 0.2, 1e-9, 1e-9]).log() / 2)
    drawn = model.generate(torch.zeros(4000, 1, dtype=torch.int64), 1, temperature=0.5)[:, 1]
    shares = torch.bincount(drawn, minlength=5) / 4000
    assert (shares - torch.tensor([0.5, 0.3, 0.2, 0.0, 0.0])).abs().max() < 0.04  # five deviations of 0.008


def test_second_derivatives_through_attention():
    torch.set_default_dtype(torch.float64)
    model, tokens = tiny(blocks=1), text(6)
    for module in model.modules():
        if hasattr(module, "w"):
            nn.init.normal_(module.w, std=0.3)
    embedding = model.tokens(tokens).detach()
    direction = torch.randn_like(embedding)

    def slope(step):
        x = (embedding + step * direction).requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):
            loss = model.blocks(x).square().sum()
            (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
            return x, (gradient * direction).sum()

    x, first = slope(0.0)
    with sdpa_kernel(SDPBackend.MATH):
        (second,) = torch.autograd.grad(first, x)
    step = 1e-6
    expected = (slope(step)[1] - slope(-step)[1]) / (2 * step)
    assert difference((second * direction).sum(), expected) < 1e-5


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("vocabulary", {"vocabulary": 0}),
        ("context", {"context": 0}),
        ("heads", {"heads": 3}),
        ("blocks", {"blocks": 0}),
        ("layer_type", {"layer_type": "baseline"}),
        ("hidden", {"hidden": 0}),
        ("hidden", {"hidden": 0, "layer_type": "relu"}),
        ("n", {"n": 0}),
        ("segments", {"segments": 0}),
    ],
)
def test_a_wrong_argument_is_named(name, wrong):
    with pytest.raises(ValueError, match=f"^{name}: got"):
        tiny(**wrong)


def test_wrong_tokens_and_temperatures_are_named():
    model = tiny().eval()
    for wrong in (text(17), text(4)[0], text(0)):
        with pytest.raises(ValueError, match="tokens: got shape"):
            model(wrong)
    with pytest.raises(ValueError, match="temperature: got -1"):
        model.generate(text(3), 1, temperature=-1)
    with pytest.raises(ValueError, match="length: got -1"):
        model.generate(text(3), -1)


def test_a_keyword_that_means_nothing_raises():
    with pytest.raises(ValueError, match="layer: got 'segmants'"):
        TransformerModel(10, 8, 2, 1, 4, layer_type="continuous", segmants=64)
