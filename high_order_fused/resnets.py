"""The residual networks of high-order-networks-pytorch, and their standard, ReLU, forms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from .checks import choice, count
from .conv_layers import convolutions, high_order_convolution_layers
from .layer_by_layer import StagedNetwork
from .norm import MaxAbsNormalizationND

STANDARD = "standard"
LAYER_TYPES = (STANDARD, *(kind for kind in convolutions if kind.endswith("2d")))
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "max_abs": lambda channels: MaxAbsNormalizationND(),
    "none": lambda channels: nn.Identity(),
}
INITIALIZATIONS = ("constant_random", "kaiming")
Norm = str | Callable[[int], nn.Module] | None


@dataclass(frozen=True)
class Recipe:
    """What residual blocks are made of: convolutions by nn.Conv2d's keywords, norms for so many channels.

    norm follows the convolutions of shortcuts and block_norm those of blocks. groups and width_per_group
    are those of the 3 x 3 convolutions in `Bottleneck`.
    """

    convolution: Callable[..., nn.Module]
    activation: Callable[[], nn.Module]
    norm: Callable[[int], nn.Module]
    block_norm: Callable[[int], nn.Module]
    groups: int = 1
    width_per_group: int = 64


class _Residual(nn.Module):
    """Convolutions `conv1`, `conv2`, ..., with norms `bn1`, `bn2`, ..., added to x or `downsample` of it."""

    expansion: int

    def __init__(self, recipe: Recipe, body: Sequence[dict[str, int]], stride: int) -> None:
        super().__init__()
        for number, sizes in enumerate(body, 1):
            self.add_module(f"conv{number}", recipe.convolution(**sizes))
            self.add_module(f"bn{number}", recipe.block_norm(sizes["out_channels"]))
        self.convolutions = len(body)
        self.activation = recipe.activation()
        inputs, outputs = body[0]["in_channels"], body[-1]["out_channels"]
        self.downsample = None
        if stride != 1 or inputs != outputs:
            shortcut = recipe.convolution(
                in_channels=inputs, out_channels=outputs, kernel_size=1, stride=stride
            )
            self.downsample = nn.Sequential(shortcut, recipe.norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.convolutions + 1):
            y = self.activation(y) if number > 1 else y
            y = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(y))
        z: Tensor = self.activation(y + (x if self.downsample is None else self.downsample(x)))
        return z


class BasicBlock(_Residual):
    """Two 3 x 3 convolutions. Source: He et al., Deep residual learning for image recognition, 2015."""

    expansion = 1

    def __init__(
        self, recipe: Recipe, in_channels: int, planes: int, stride: int = 1, dilation: int = 1
    ) -> None:
        if (recipe.groups, recipe.width_per_group) != (1, 64):
            raise ValueError(
                f"groups, width_per_group: got {recipe.groups}, {recipe.width_per_group}, "
                "needs 1, 64 for BasicBlock"
            )
        wide = {"out_channels": planes, "kernel_size": 3, "padding": dilation, "dilation": dilation}
        first = {"in_channels": in_channels, "stride": stride, **wide}
        super().__init__(recipe, (first, {"in_channels": planes, **wide}), stride)


class Bottleneck(_Residual):
    """A 1 x 1, a 3 x 3 that strides, and a 1 x 1 convolution to four times the planes.

    Source: as BasicBlock, with the stride of torchvision; grouped: Xie et al., Aggregated residual
    transformations, 2016; wide: Zagoruyko and Komodakis, Wide residual networks, 2016.
    """

    expansion = 4

    def __init__(
        self, recipe: Recipe, in_channels: int, planes: int, stride: int = 1, dilation: int = 1
    ) -> None:
        width = planes * recipe.width_per_group // 64 * recipe.groups
        if width < 1:
            raise ValueError(f"width_per_group: got {recipe.width_per_group}, needs 64 / {planes} or more")
        inside = {"kernel_size": 3, "padding": dilation, "dilation": dilation, "groups": recipe.groups}
        first = {"in_channels": in_channels, "out_channels": width, "kernel_size": 1}
        second = {"in_channels": width, "out_channels": width, "stride": stride, **inside}
        third = {"in_channels": width, "out_channels": planes * self.expansion, "kernel_size": 1}
        super().__init__(recipe, (first, second, third), stride)


class ResNet(StagedNetwork):
    """A residual network: stem `layer0`, four stages of blocks `layer1` ... `layer4`, and head `layer5`.

    x [batch, 3, height, width], y the logits [batch, num_classes].

    layer_type: a name of `high_order_convolution_layers` that ends in 2d, or "standard": nn.Conv2d and ReLU,
    which the others have not, and to which n, segments, scale, rescale_output, periodicity and
    weight_magnitude mean nothing.
    scale: the `length` of the convolutions, their interval being [-scale / 2, scale / 2].
    rescale_planes: an integer that divides the channels 64, 128, 256, 512.
    norm_layer: after the stem and in shortcuts "batch", "max_abs" (the infinity norm of a sample; scale 2
    fits it), "none" or what makes a module for so many channels; None: "batch" if standard, else "max_abs".
    block_norm: the same for the convolutions of blocks; None: norm_layer.
    initialization: "constant_random", constant functions, or "kaiming", coefficients from N(0, 2 / fan out);
    None: "kaiming" if standard, which has no other, else "constant_random".
    layer_by_layer: see `StagedNetwork`. replace_stride_with_dilation: for each of the last three stages.

    ValueError names a wrong argument. Source: high-order-networks-pytorch, whose keys the state dict has. Its
    older networks are norm_layer="batch", block_norm="none", initialization="kaiming", and overflow easily;
    its layer_by_layer is True if nothing else is said.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] | None = None,
        norm_layer: Norm = None,
        layer_type: str = "polynomial2d",
        n: int = 3,
        segments: int = 1,
        scale: float = 4.0,
        rescale_planes: int = 1,
        rescale_output: bool = False,
        layer_by_layer: bool = False,
        periodicity: float | None = None,
        weight_magnitude: float = 1.0,
        block_norm: Norm = None,
        initialization: str | None = None,
    ) -> None:
        standard = layer_type == STANDARD
        if len(layers) != 4:
            raise ValueError(f"layers: got {layers!r}, needs four numbers of blocks")
        dilate = (False, *(replace_stride_with_dilation or (False,) * 3))
        if len(dilate) != 4:
            raise ValueError(
                f"replace_stride_with_dilation: got {replace_stride_with_dilation!r}, needs three"
            )
        if count("rescale_planes", rescale_planes) > 64:
            raise ValueError(f"rescale_planes: got {rescale_planes}, needs at most 64")
        convolution, activation = convolution_of(
            layer_type,
            n=n,
            segments=segments,
            length=scale,
            rescale_output=rescale_output,
            periodicity=periodicity,
            weight_magnitude=weight_magnitude,
        )
        norm = _norm("norm_layer", norm_layer or ("batch" if standard else "max_abs"))
        inner = _norm("block_norm", block_norm or norm)
        recipe = Recipe(
            convolution,
            activation,
            norm,
            inner,
            count("groups", groups),
            count("width_per_group", width_per_group),
        )

        channels = 64 // rescale_planes
        stem = convolution(in_channels=3, out_channels=channels, kernel_size=7, stride=2, padding=3)
        stages = [nn.Sequential(stem, norm(channels), activation(), nn.MaxPool2d(3, stride=2, padding=1))]
        outputs, dilation = [channels], 1
        for number, blocks in enumerate(layers):
            planes, stride, before = (64 << number) // rescale_planes, 1 if number == 0 else 2, dilation
            if dilate[number]:
                stride, dilation = 1, dilation * stride
            first = block(recipe, outputs[-1], planes, stride, before)
            channels = planes * block.expansion
            more = (
                block(recipe, channels, planes, dilation=dilation) for _ in range(1, count("layers", blocks))
            )
            stages.append(nn.Sequential(first, *more))
            outputs.append(channels)
        super().__init__(stages, outputs, num_classes, layer_by_layer)
        initialize_(self, layer_type, initialization)
        if zero_init_residual:
            self._zero_residuals()

    def _zero_residuals(self) -> None:
        """Every block begins as its shortcut."""
        for module in self.modules():
            if isinstance(module, _Residual):
                last = module.get_submodule(f"bn{module.convolutions}")
                if not isinstance(getattr(last, "weight", None), nn.Parameter):
                    raise ValueError(f"zero_init_residual: got block_norm {last}, needs one with a weight")
                nn.init.zeros_(last.weight)  # type: ignore[arg-type]


def convolution_of(
    layer_type: str, **options: Any
) -> tuple[Callable[..., nn.Module], Callable[[], nn.Module]]:
    """What makes convolutions of this type by nn.Conv2d's keywords, and the activations behind them."""
    if choice("layer_type", layer_type, LAYER_TYPES) == STANDARD:
        return partial(nn.Conv2d, bias=False), nn.ReLU
    return partial(high_order_convolution_layers, layer_type, bias=False, **options), nn.Identity


def initialize_(network: nn.Module, layer_type: str, initialization: str | None) -> None:
    """Leave the convolutions as they were made, or draw their coefficients as Kaiming says; see `ResNet`."""
    standard = layer_type == STANDARD
    chosen = initialization or ("kaiming" if standard else "constant_random")
    if choice("initialization", chosen, INITIALIZATIONS) == "constant_random":
        if standard:
            raise ValueError(
                "initialization: got 'constant_random', needs 'kaiming' for the standard network"
            )
        return
    for parameter in network.parameters():
        if parameter.dim() == 4:
            nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")


def _norm(name: str, norm: str | Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
    return norm if callable(norm) else NORMS[choice(name, norm, NORMS)]


_Model = tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int], dict[str, Any]]
MODELS: dict[str, _Model] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1), {}),
    "resnet18": (BasicBlock, (2, 2, 2, 2), {}),
    "resnet34": (BasicBlock, (3, 4, 6, 3), {}),
    "resnet50": (Bottleneck, (3, 4, 6, 3), {}),
    "resnet101": (Bottleneck, (3, 4, 23, 3), {}),
    "resnet152": (Bottleneck, (3, 8, 36, 3), {}),
    "resnext50_32x4d": (Bottleneck, (3, 4, 6, 3), {"groups": 32, "width_per_group": 4}),
    "resnext101_32x8d": (Bottleneck, (3, 4, 23, 3), {"groups": 32, "width_per_group": 8}),
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3), {"width_per_group": 128}),
    "wide_resnet101_2": (Bottleneck, (3, 4, 23, 3), {"width_per_group": 128}),
}


def resnet_model(model_name: str, pretrained: bool = False, progress: bool = True, **options: Any) -> ResNet:
    """The network of that name, with the keywords of `ResNet`; ValueError lists the names.

    pretrained: ValueError if True, as nobody has published coefficients; the peer ignores it. progress,
    that of a download, is ignored. Source: high-order-networks-pytorch, resnet_model.
    """
    if pretrained:
        raise ValueError("pretrained: got True, needs False: there are no coefficients to load")
    block, layers, sizes = MODELS[choice("model_name", model_name, MODELS)]
    return ResNet(block, layers, **sizes, **options)
