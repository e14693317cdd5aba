"""An image as a function: networks that map the place of a pixel to its colour, as exactly as they can.

A network of piecewise polynomials stands beside a ReLU network of as many parameters, which blurs what it is
shown, and a ReLU network on random Fourier features of the place, the usual remedy (M. Tancik et al., Fourier
features let networks learn high frequency functions in low dimensional domains, 2020). Every network is
trained with each of the learning rates, and its best result counts. The image comes with scikit-learn; no
published figure belongs to it.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from high_order_fused.checks import choice
from high_order_fused.layers import high_order_fc_layers
from high_order_fused.norm import MaxAbsNormalizationLast
from high_order_fused.optim import make_optimizer

from . import command, pictures, training
from .command import Figures, mean, seeds, show

HIGH, RELU, FEATURES = "High order", "ReLU", "ReLU on Fourier features"


@dataclass
class Options(command.Options):
    image: str = "china.jpg"  # or flower.jpg
    size: int = 128  # pixels on a side
    layer_type: str = "continuous"
    n: int = 3
    segments: int = 64  # of the functions of the two coordinates
    hidden_segments: int = 8
    width: int = 24
    frequency: float = 6.0  # the deviation of the random Fourier features, in periods an image
    learning_rates: list[float] = field(default_factory=lambda: [1e-3, 3e-3, 1e-2])
    max_epochs: int = 150
    batch_size: int = 2048


def run(options: Options) -> Figures:
    if options.tiny:
        options.size, options.width, options.max_epochs, options.batch_size = 32, 12, 40, 256
        options.segments, options.learning_rates = 16, [1e-2]
    image = load(options.image, options.size).to(options.device)
    place = places(options.size).to(options.device)
    figures: Figures = {}
    shown, rows = {"The image": image}, []
    for kind in (HIGH, RELU, FEATURES):
        found = []
        for seed in seeds(options):
            tried = {}
            for rate in options.learning_rates:
                training.seeded(seed)
                model = network(kind, options).to(options.device)
                title = f"{kind}, {rate:g}, seed {seed}"
                train(model, place, image.flatten(0, 1), options, rate, title)
                with training.evaluating(model):
                    picture = model(place).clamp(0, 1).view_as(image)
                tried[psnr(picture, image)] = picture, rate
            found.append(max(tried))
            picture, rate = tried[max(tried)]
            shown.setdefault(kind, picture)
        figures |= {f"{kind} PSNR": found, f"{kind} parameters": training.parameters(model)}
        each = ", ".join(f"{decibels:.2f}" for decibels in found)
        sizes = {"network": kind, "parameters": training.parameters(model), "learning rate": rate}
        rows.append(sizes | {"each": each, "PSNR": mean(found)})
    show(f"{options.image}, {options.size} x {options.size}: PSNR in dB of each seed, and the mean", rows)
    draw(options, shown)
    return figures


def load(name: str, size: int) -> Tensor:
    """The middle of a sample image [size, size, 3], from 0 to 1; ValueError for an unknown name."""
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image(choice("image", name, ("china.jpg", "flower.jpg")))
    image = torch.tensor(pixels).permute(2, 0, 1) / 255
    side = min(image.shape[1:])
    top, left = ((length - side) // 2 for length in image.shape[1:])
    square = image[None, :, top : top + side, left : left + side]
    return nn.functional.interpolate(square, size=(size, size), mode="area")[0].permute(1, 2, 0)


def places(size: int) -> Tensor:
    """The middles of the pixels [size * size, 2], from -1 to 1."""
    middle = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.cartesian_prod(middle, middle)


class FourierFeatures(nn.Module):
    """sin and cos of 64 random directions of the place, fixed."""

    def __init__(self, frequency: float) -> None:
        super().__init__()
        self.register_buffer("directions", math.pi * frequency * torch.randn(2, 64))

    def forward(self, x: Tensor) -> Tensor:
        angles = x @ self.directions
        return torch.cat([angles.sin(), angles.cos()], -1)


def network(kind: str, options: Options) -> nn.Sequential:
    """A high-order network of three layers, or a ReLU network of five and about as many parameters."""

    def edges(inputs: int, outputs: int, segments: int) -> nn.Module:
        sizes = {"in_features": inputs, "out_features": outputs, "n": options.n, "segments": segments}
        return high_order_fc_layers(options.layer_type, **sizes)

    w = options.width
    high = nn.Sequential(
        edges(2, w, options.segments),
        MaxAbsNormalizationLast(),
        edges(w, w, options.hidden_segments),
        MaxAbsNormalizationLast(),
        edges(w, 3, options.hidden_segments),
    )
    if kind == HIGH:
        return high
    number, inputs = training.parameters(high), 128 if kind == FEATURES else 2
    # 3 w^2 + (inputs + 7) w + 3 parameters, as many as `number`
    linear = inputs + 7
    w = round((math.sqrt(linear**2 + 12 * (number - 3)) - linear) / 6)
    layers: list[nn.Module] = [FourierFeatures(options.frequency)] if kind == FEATURES else []
    for before in (inputs, w, w, w):
        layers += [nn.Linear(before, w), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(w, 3))


def train(model: nn.Module, x: Tensor, y: Tensor, options: Options, rate: float, title: str) -> None:
    batches = training.Batches(x, y, size=options.batch_size)
    optimizer = make_optimizer("adam", model, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.max_epochs, rate / 50)
    for _ in training.epochs_of(model, training.mse, batches, optimizer, options.max_epochs, title=title):
        schedule.step()


def psnr(found: Tensor, image: Tensor) -> float:
    """In decibels, of values from 0 to 1."""
    return -10 * math.log10(nn.functional.mse_loss(found, image).item())


@pictures.styled
def draw(options: Options, shown: dict[str, Tensor]) -> None:
    """Whole images, and a quarter of each side below, where the differences are seen."""
    from matplotlib.patches import Rectangle

    figure, grid = pictures.panels(2, len(shown), (2.3, 2.4))
    image, quarter = shown["The image"], options.size // 4
    for (whole, part), (title, picture) in zip(grid.T, shown.items(), strict=True):
        whole.imshow(picture.cpu().numpy(), interpolation="nearest")
        found = "" if picture is image else f"{psnr(picture, image):.1f} dB"
        whole.set_title(f"{title}\n{found}", fontsize=10)
        part.imshow(
            picture[2 * quarter : 3 * quarter, quarter : 2 * quarter].cpu().numpy(), interpolation="nearest"
        )
        frame: dict[str, Any] = {"fill": False, "ec": "white", "lw": 1.2}
        whole.add_patch(Rectangle((quarter - 0.5, 2 * quarter - 0.5), quarter, quarter, **frame))
        for axes in (whole, part):
            axes.set_axis_off()
    pictures.save(figure, options, "implicit_image")


main = command.command(Options, run)

if __name__ == "__main__":
    main()
