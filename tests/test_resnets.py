"""Residual networks and the network "simple": sizes, options, training layer by layer, second derivatives."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from high_order_fused.combined import peer_state_dict
from high_order_fused.norm import max_abs_normalization_nd
from high_order_fused.optim import make_optimizer
from high_order_fused.resnets import BasicBlock, Bottleneck, ResNet, resnet_model
from high_order_fused.simple_conv import SimpleConv
from tests.support import difference

HIGH_ORDER = ("continuous2d", "discontinuous2d", "polynomial2d", "fourier2d")
# at 1000 classes; torchvision's documentation of its models
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
}


def numbers(model):
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(name, **options):
    with torch.device("meta"):
        return resnet_model(name, **options)


def tiny(layer_type="continuous2d", block=BasicBlock, layers=(1, 1, 1, 1), **options):
    """Channels 4, 8, 16, 32 and three classes."""
    options = {"num_classes": 3, "rescale_planes": 16, "segments": 2, **options}
    return ResNet(block, layers, layer_type=layer_type, **options)


def images(batch=4, size=32):
    return torch.rand(batch, 3, size, size) * 2 - 1


def trained(model):
    """The names of the children with a gradient; every parameter of these has one."""
    found = set()
    for name, child in model.named_children():
        have = {parameter.grad is not None for parameter in child.parameters()}
        assert len(have) == 1, f"some parameters of {name} have gradients and some have none"
        if have.pop():
            found.add(name)
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_standard_networks_have_as_many_parameters_as_published(name):
    assert numbers(on_meta(name, layer_type="standard")) == PUBLISHED[name]


def test_resnet10_has_one_block_a_stage():
    taps = 3 * 64 * 49 + 2 * 64 * 64 * 9
    taps += sum(9 * (c // 2 * c + c * c) + c // 2 * c for c in (128, 256, 512))
    norms = 2 * (64 + 2 * 64 + 3 * (128 + 256 + 512))
    assert numbers(on_meta("resnet10", layer_type="standard")) == taps + norms + 513 * 1000


@pytest.mark.parametrize(
    "layer_type, size", list(zip(HIGH_ORDER, (5, 6, 3, 3), strict=True))
)  # n = 3, two segments: coefficients an edge
@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_high_order_convolutions_have_a_coefficient_for_each_basis_function(name, layer_type, size):
    def taps(model):
        return sum(p.numel() for p in model.parameters() if p.dim() == 4)

    assert taps(on_meta(name, layer_type=layer_type, segments=2)) == size * taps(
        on_meta(name, layer_type="standard")
    )


@pytest.mark.parametrize("rescale_planes", [1, 3, 16])
def test_rescale_planes_divides_the_channels(rescale_planes):
    model = on_meta("resnet50", layer_type="polynomial2d", rescale_planes=rescale_planes)
    found = [model.layer0[0].conv.out_channels]
    found += [model.get_submodule(f"layer{stage}")[0].conv2.conv.out_channels for stage in range(1, 5)]
    assert found == [channels // rescale_planes for channels in (64, 64, 128, 256, 512)]
    assert model.layer5[2].in_features == 4 * (512 // rescale_planes)


@pytest.mark.parametrize("layer_type", [*HIGH_ORDER, "standard"])
@pytest.mark.parametrize("layer_by_layer", [False, True])
def test_logits_of_every_kind(layer_type, layer_by_layer):
    model = tiny(layer_type, layer_by_layer=layer_by_layer)
    assert model(images()).shape == (4, 3)
    simple = SimpleConv(7, layer_type, segments=2, layer_by_layer=layer_by_layer)
    assert simple(images(2, 16)).shape == (2, 7)


@pytest.mark.parametrize("sizes", [{"groups": 8, "width_per_group": 16}, {"width_per_group": 128}])
def test_grouped_and_wide_bottlenecks(sizes):
    model = tiny("polynomial2d", Bottleneck, num_classes=5, **sizes)
    model(images(2)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("layer_type", ["polynomial2d", "fourier2d", "continuous2d"])
def test_scale_is_the_length_of_the_interval(layer_type):
    """Functions on [-2, 2] of 2 x are those on [-1, 1] of x, except that the peer's pieces are not."""
    wide, narrow = (tiny(layer_type, scale=scale, segments=1).layer0[0] for scale in (4.0, 2.0))
    nn.init.normal_(wide.conv.weight)
    narrow.load_state_dict(wide.state_dict())
    x = images(2)
    assert tuple(wide.basis.interval) == (-2.0, 2.0) and tuple(narrow.basis.interval) == (-1.0, 1.0)
    if layer_type != "continuous2d":
        assert difference(wide(2 * x), narrow(x)) < 1e-5


def test_rescale_output_divides_by_channels_and_taps():
    plain, rescaled = tiny(), tiny(rescale_output=True)
    plain.load_state_dict(rescaled.state_dict())
    x = images(2)
    assert difference(rescaled.layer0[0](x) * (3 * 49), plain.layer0[0](x)) < 1e-6
    hidden = torch.rand(2, 4, 8, 8)
    ours, theirs = rescaled.layer2[0].conv1, plain.layer2[0].conv1
    assert difference(ours(hidden) * (4 * 9), theirs(hidden)) < 1e-6


def test_periodicity_mirrors_the_inputs():
    model = tiny(periodicity=2.0)
    nn.init.normal_(model.layer0[0].conv.weight)
    x = images(2)
    assert difference(model.layer0[0](2 - x), model.layer0[0](x)) < 1e-5


def test_weight_magnitude_scales_the_first_constants():
    layers = []
    for magnitude in (1.0, 5.0):
        torch.manual_seed(3)
        layers.append(tiny(weight_magnitude=magnitude).layer1[0].conv1.conv.weight)
    assert difference(layers[1], 5 * layers[0]) < 1e-6


def test_a_block_is_the_sum_of_its_convolutions_and_its_shortcut():
    x = torch.randn(2, 4, 9, 9)
    block = tiny("polynomial2d", norm_layer="none").layer2[0]
    assert difference(block(x), block.conv2(block.conv1(x)) + block.downsample(x)) < 1e-6
    block = tiny("polynomial2d").layer2[0]
    norm = max_abs_normalization_nd
    shortcut = norm(block.downsample[0](x))
    assert difference(block(x), norm(block.conv2(norm(block.conv1(x)))) + shortcut) < 1e-6
    block = tiny("standard", norm_layer="none").layer1[0]
    z = functional.conv2d(x, block.conv1.weight, padding=1).relu()
    assert difference(block(x), (functional.conv2d(z, block.conv2.weight, padding=1) + x).relu()) < 1e-6


@pytest.mark.parametrize("layer_type", HIGH_ORDER)
def test_the_peers_convolutions_give_the_same_logits(layer_type, monkeypatch):
    peer = pytest.importorskip("high_order_layers_torch.layers", reason="the peer is not installed")
    options = {"scale": 3.0, "rescale_output": True, "periodicity": 2.5, "initialization": "kaiming"}
    ours = tiny(layer_type, **options)
    monkeypatch.setattr(
        "high_order_fused.resnets.high_order_convolution_layers", peer.high_order_convolution_layers
    )
    theirs = tiny(layer_type, **options)
    theirs.load_state_dict(ours.state_dict())
    x = images(2)
    assert difference(ours(x), theirs(x)) < 1e-4  # five stages of float32


def test_dilation_in_place_of_strides_keeps_the_size():
    model = tiny(
        "standard", Bottleneck, layers=(1, 1, 1, 2), replace_stride_with_dilation=(False, True, True)
    )
    x = images(1)
    for stage in range(5):
        x = model.stage(stage)(x)
    assert x.shape[2:] == (4, 4)  # of 32 by the stem, its pool and layer2
    assert [block.conv2.dilation for block in model.layer4] == [(2, 2), (4, 4)]


def test_zero_init_residual_makes_a_block_its_shortcut():
    block = tiny("polynomial2d", block_norm="batch", zero_init_residual=True).layer1[0]
    x = torch.randn(2, 4, 6, 6)
    assert difference(block(x), x) == 0


def test_constants_begin_smoother_than_kaiming():
    """Constant functions: logits do not depend on the image. Kaiming's do."""

    def spread(initialization):
        model = tiny("polynomial2d", initialization=initialization, norm_layer="none")
        return model(images(8)).std(0).max().item()

    assert spread("constant_random") < 1e-5
    assert spread("kaiming") > 1e-2
    weight = tiny(initialization="kaiming", rescale_planes=4).layer4[0].conv2.conv.weight
    assert abs(weight.std().item() / math.sqrt(2 / (128 * 9)) - 1) < 0.02


# ---- layer by layer

STAGED = {
    "resnet": (lambda **options: tiny(layer_by_layer=True, **options), 5),
    "bottleneck": (lambda **options: tiny("polynomial2d", Bottleneck, layer_by_layer=True, **options), 5),
    "standard": (lambda **options: tiny("standard", layer_by_layer=True, **options), 5),
    "simple": (lambda **options: SimpleConv(3, segments=2, layer_by_layer=True, **options), 2),
}


@pytest.mark.parametrize("make, stages", STAGED.values(), ids=STAGED)
def test_the_stage_that_trains_and_its_head_alone_get_gradients(make, stages):
    model, x = make(initialization="kaiming"), images(2)
    for stage in range(stages):
        model.set_training_layer(stage)
        assert all(parameter.grad is None for parameter in model.parameters()), "of the stage before"
        model(x).square().sum().backward()
        head = f"layer{stages}" if stage == stages - 1 else f"layer{stage}_intermediate"
        assert trained(model) == {f"layer{stage}", head}
        own = {id(parameter) for parameter in model.training_parameters()}
        assert own == {id(parameter) for parameter in model.parameters() if parameter.grad is not None}


@pytest.mark.parametrize("make, stages", STAGED.values(), ids=STAGED)
def test_logits_add_the_softmax_of_the_head_before(make, stages):
    model, x = make(initialization="kaiming").eval(), images(2)
    heads = [model.get_submodule(f"layer{stage}_intermediate") for stage in range(stages - 1)]
    heads.append(model.get_submodule(f"layer{stages}"))
    hidden, before = x, 0.0
    for stage, head in enumerate(heads):
        model.set_training_layer(stage)
        hidden = model.get_submodule(f"layer{stage}")(hidden)
        pooled = head[2](hidden.mean((2, 3)))
        assert difference(model(x), pooled + before) < 1e-6
        before = pooled.exp() / pooled.exp().sum(1, keepdim=True)
    model.layer_by_layer = False
    assert difference(model(x), pooled) < 1e-6


def test_the_next_stage_trains_after_epochs_per_layer():
    model, stages = tiny(layer_by_layer=True), []
    for epoch in range(12):
        model.begin_epoch(epoch, 2)
        stages.append(model.training_layer)
    assert stages == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4]


def test_the_stage_is_part_of_the_state_dict():
    model, other = tiny(layer_by_layer=True).eval(), tiny(layer_by_layer=True).eval()
    model.set_training_layer(3)
    other.load_state_dict(model.state_dict())
    assert other.training_layer == 3
    x = images(2)
    assert torch.equal(other(x), model(x))


def test_state_dicts_without_a_stage_load_and_leave_it():
    model = tiny(layer_by_layer=True)
    model.set_training_layer(2)
    state = peer_state_dict(model)
    assert not [key for key in state if "extra_state" in key]
    model.load_state_dict(state, strict=True)
    assert model.training_layer == 2


def test_stages_that_have_had_their_turn_keep_their_parameters():
    model = SimpleConv(3, "continuous2d", segments=2, layer_by_layer=True)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    before = None
    for epoch in range(4):
        model.begin_epoch(epoch, 2)
        if epoch == 2:
            before = {name: p.clone() for name, p in model.layer0.named_parameters()}
        functional.cross_entropy(model(images(3, 16)), torch.arange(3)).backward()
        optimizer.step()
    assert all(torch.equal(p, before[name]) for name, p in model.layer0.named_parameters())


# ---- training


@pytest.mark.parametrize(
    "options",
    [
        {"layer_type": "continuous2d"},
        {"layer_type": "discontinuous2d"},
        {"layer_type": "polynomial2d", "initialization": "kaiming"},
        {"layer_type": "fourier2d"},
        {"layer_type": "standard"},
    ],
    ids=lambda options: options["layer_type"],
)
def test_steps_of_training_tell_dark_images_from_bright_ones(options):
    model, target = tiny(rescale_planes=8, scale=2.0, **options), torch.arange(9) % 3
    x = 0.4 * images(9) + (target[:, None, None, None] - 1) / 2
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
    assert loss.item() < math.log(3) / 2, "log 3 is the loss of knowing nothing"


def test_row_75_infinity_norms_and_lion_put_every_image_among_the_first_five():
    """Ten random images of ten classes; half of them are there by chance, as at the beginning."""
    pytest.importorskip("pytorch_optimizer", reason="the extra optim is not installed")
    model, x, target = tiny(num_classes=10, rescale_planes=8, scale=2.0), images(10), torch.arange(10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    optimizer, found = make_optimizer("lion", model, lr=1e-3), []
    for _ in range(60):
        optimizer.zero_grad()
        logits = model(x)
        functional.cross_entropy(logits, target).backward()
        optimizer.step()
        found.append((logits.topk(5).indices == target[:, None]).sum())
    assert found[0] <= 5 and found[-1] == 10


def test_second_derivatives_for_adahessian():
    """The Hessian times random signs, as AdaHessian takes it, against differences of gradients."""
    torch.set_default_dtype(torch.float64)
    model = tiny("continuous2d", n=2, scale=2.0, initialization="kaiming")
    x, target = images(2, 16), torch.tensor([0, 2])
    parameters = list(model.parameters())
    signs = [torch.randint(2, p.shape).to(p.dtype) * 2 - 1 for p in parameters]

    def gradients(**options):
        return torch.autograd.grad(functional.cross_entropy(model(x), target), parameters, **options)

    product = torch.autograd.grad(gradients(create_graph=True), parameters, signs)
    step = 1e-7
    sides = []
    for side in (step, -2 * step):
        with torch.no_grad():
            for parameter, sign in zip(parameters, signs, strict=True):
                parameter += side * sign
        sides.append(gradients())
    flat = [torch.cat([part.flatten() for part in parts]) for parts in (product, *sides)]
    assert difference(flat[0], (flat[1] - flat[2]) / (2 * step)) < 1e-4


# ---- wrong arguments


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("layer_type", {"layer_type": "continuous"}),
        ("norm_layer", {"norm_layer": "layer"}),
        ("block_norm", {"block_norm": "layer"}),
        ("initialization", {"initialization": "zeros"}),
        ("initialization", {"initialization": "constant_random", "layer_type": "standard"}),
        ("rescale_planes", {"rescale_planes": 65}),
        ("groups", {"groups": 2}),
        ("layers", {"layers": (1, 1, 1)}),
        ("zero_init_residual", {"zero_init_residual": True}),
        ("replace_stride_with_dilation", {"replace_stride_with_dilation": (True,)}),
        ("num_classes", {"num_classes": 0}),
    ],
)
def test_a_wrong_argument_is_named(name, wrong):
    with pytest.raises(ValueError, match=f"{name}.*: got"):
        tiny(**wrong)


def test_wrong_names_and_stages():
    with pytest.raises(ValueError, match="model_name: got 'resnet7'"):
        resnet_model("resnet7")
    with pytest.raises(ValueError, match="pretrained"):
        resnet_model("resnet18", pretrained=True)
    with pytest.raises(ValueError, match="layer_by_layer: got False"):
        tiny().set_training_layer(1)
    for wrong in (-1, 1.5):
        with pytest.raises((ValueError, TypeError), match="layer: got"):
            tiny(layer_by_layer=True).set_training_layer(wrong)


def test_bottlenecks_of_no_channels_raise():
    with pytest.raises(ValueError, match="width_per_group: got 4, needs"):
        resnet_model("resnext50_32x4d", layer_type="standard", rescale_planes=16)
