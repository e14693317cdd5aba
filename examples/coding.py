"""What both autoencoders share: encoder and decoder of high-order convolutions, training, the picture."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from high_order_fused.conv_networks import (
    HighOrderFullyConvolutionalNetwork,
    HighOrderFullyDeconvolutionalNetwork,
)

from . import optimizers
from .classification import ImageOptions
from .data import Images
from .pictures import BLUE, MUTED, ORANGE, panels, save, styled
from .training import Loss, epochs_of, evaluating


@dataclass
class Coder:
    """Convolutions from channels to channels; null stands for the value of all coders."""

    channels: list[int]
    kernel_size: list[int]
    padding: int
    stride: int = 2
    n: int | None = None
    segments: int | None = None
    periodicity: float | None = None


@dataclass
class CodingOptions(ImageOptions):
    """Images of 32 x 32 pixels and three colours become features and images again, by batch-normed layers."""

    defaults: list[Any] = field(default_factory=lambda: ["_self_", {"optimizer": "adamw"}])
    optimizer: optimizers.Settings = field(default_factory=lambda: optimizers.GROUP["adamw"])
    data: str = "digits_rgb"
    batch_size: int = 32
    max_epochs: int = 40
    noise: float = 0.0
    layer_type: str = "continuous2d"
    n: int = 2
    segments: int = 2
    periodicity: float | None = None
    encoder: Coder = field(default_factory=lambda: Coder([3, 16, 32, 64], [3, 3, 3], 1))
    decoder: Coder = field(default_factory=lambda: Coder([64, 32, 16, 8, 3], [3, 3, 3, 4], 0))


@dataclass
class Coded:
    """A trained network, its losses by epoch on the images to train on and to validate, and its figures."""

    model: nn.Module
    training: list[float]
    validation: list[float]
    figures: dict[str, float]


def encoder(options: CodingOptions) -> HighOrderFullyConvolutionalNetwork:
    """From images [batch, 3, 32, 32] to the means [batch, channels] of what the last convolution gives."""
    return HighOrderFullyConvolutionalNetwork(**_settings(options, options.encoder))


def decoder(options: CodingOptions) -> HighOrderFullyDeconvolutionalNetwork:
    """From [batch, channels, 1, 1] to images."""
    return HighOrderFullyDeconvolutionalNetwork(**_settings(options, options.decoder))


def _settings(options: CodingOptions, coder: Coder) -> dict[str, Any]:
    return {
        "layer_type": options.layer_type,
        "n": coder.n or options.n,
        "segments": coder.segments or options.segments,
        "channels": list(coder.channels),
        "kernel_size": list(coder.kernel_size),
        "periodicity": options.periodicity if coder.periodicity is None else coder.periodicity,
        "normalization": nn.BatchNorm2d,
        "stride": coder.stride,
        "padding": coder.padding,
    }


def learn(
    model: nn.Module,
    losses: Callable[[nn.Module, Tensor], dict[str, Tensor]],
    images: Images,
    options: CodingOptions,
    title: str,
) -> Coded:
    """Train until losses(model, images)["loss"] is small; figures NAME_loss and so on of each part.

    The figure baseline_loss is the mean squared error of the mean image, on the test images.
    """
    epochs = range(options.epochs)
    optimizer, advance = optimizers.build(options.optimizer, model.to(options.device), epochs)
    loss: Loss = lambda model, x: losses(model, x + options.noise * torch.randn_like(x))["loss"]  # noqa: E731
    batches = options.batches(images.train.x)
    training, validation = [], []
    clip = options.gradient_clip_val or None
    for value in epochs_of(model, loss, batches, optimizer, len(epochs), clip, title):
        training.append(value)
        with evaluating(model):
            validation.append(losses(model, images.validation.x)["loss"].item())
        advance(value)
    found = {}
    with evaluating(model):
        for name, part in (("train", images.train), ("val", images.validation), ("test", images.test)):
            found |= {f"{name}_{kind}": value.item() for kind, value in losses(model, part.x).items()}
    difference = images.test.x - images.train.x.mean(0)
    return Coded(model, training, validation, found | {"baseline_loss": difference.square().mean().item()})


@styled
def picture(
    coded: Coded, rows: dict[str, Tensor], options: CodingOptions, name: str, title: str, share: float = 1.6
) -> None:
    """The losses by epoch, and rows of images [N, 3, height, width] from -1 to 1, each with its caption."""
    figure, axes = panels(1, 2, (4.4, 3.2), width_ratios=(1, share))
    left, right = axes[0]
    epochs = range(1, 1 + len(coded.training))
    left.plot(epochs, coded.training, color=BLUE, label="training images")
    left.plot(epochs, coded.validation, color=ORANGE, label="validation images")
    left.set(xlabel="epoch", ylabel="loss", title="While training")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylim(0, 2.5 * coded.training[len(coded.training) // 4])
    left.legend(frameon=False, fontsize=8)
    strips = [images.mul(0.5).add(0.5).clamp(0, 1).movedim(1, -1).cpu() for images in rows.values()]
    columns = len(strips[0])
    for row, (caption, strip) in enumerate(zip(rows, strips, strict=True)):
        for column, image in enumerate(strip):
            top = 1.3 * row + 0.3
            right.imshow(
                image, extent=(column + 0.03, column + 0.97, top + 0.94, top), interpolation="nearest"
            )
        right.text(0.03, 1.3 * row + 0.24, caption, fontsize=8, color=MUTED)
    right.set(xlim=(0, columns), ylim=(1.3 * len(rows), 0), aspect="equal", title=title)
    right.axis("off")
    save(figure, options, name)
