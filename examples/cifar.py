r"""Colour images by residual networks of high-order convolutions, whole or layer by layer.

By default digits of 32 x 32 pixels, and an eighth of the published channels, which runs
anywhere. high-order-networks-pytorch publishes for CIFAR-100, accuracy and top 5: resnet18 0.468 and 0.740
(standard), 0.446 and 0.732 (polynomial2d, n = 2); resnet10 0.282 and 0.497 (polynomial2d, n = 3), 0.377 and
0.663 (continuous2d, n = 3), 0.359 and 0.641 (discontinuous2d, rescale_planes = 3). With its settings:

    python -m examples.cifar data=cifar100 folder=FOLDER model_name=resnet10 layer_type=continuous2d n=3 \
        segments=2 rescale_planes=1 rescale_output=True gradient_clip_val=1 batch_size=128 max_epochs=100 \
        initialization=constant_random optimizer=lion learning_rate=1e-4 label_smoothing=0 beside=[]

`model_name=simple layer_by_layer=True epochs_per_layer=20 max_epochs=60 n=6` trains stage after stage.
Unlike there, logits that are not numbers are not taken for 0: the loss then says so.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from high_order_fused.resnets import STANDARD, resnet_model
from high_order_fused.simple_conv import SimpleConv

from .classification import ClassificationOptions, Trained, compare, images_of, train
from .command import Figures, command
from .optimizers import with_optimizers

MEAN, DEVIATION = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)  # of CIFAR-100
FIGURES = (
    "parameters",
    *(f"{part}_{figure}" for part in ("train", "val", "test") for figure in ("loss", "acc", "acc1", "acc5")),
)


@dataclass
class Options(ClassificationOptions):
    data: str = "digits_rgb"
    max_epochs: int = 20
    noise: float = 0.0
    model_name: str = "resnet10"  # one of resnets.MODELS, or "simple"
    layer_type: str = "continuous2d"
    beside: list[str] = field(default_factory=lambda: ["polynomial2d", STANDARD])
    n: int = 3
    segments: int = 2
    scale: float = 2.0  # the length of the interval; 2 is what the norm leaves
    rescale_planes: int = 8  # divides the channels
    rescale_output: bool = False
    periodicity: float | None = None
    initialization: str = "kaiming"  # or "constant_random"
    layer_by_layer: bool = False
    epochs_per_layer: int = 20
    learning_rate: float = 0.005  # these three, by the peer's names, in place of the optimizer's own
    scheduler_patience: int = 5
    scheduler_factor: float = 0.1
    augment: bool = True  # shift by up to 4 pixels, rotate by up to 15 degrees, and mirror, but not digits


def augmented(x: Tensor, mirror: bool) -> Tensor:
    """Images [batch, channels, height, width], each shifted, rotated and perhaps mirrored at random."""
    angle = (2 * torch.rand(len(x)) - 1) * torch.pi / 12
    shift = (2 * torch.rand(len(x), 2) - 1) * 8 / torch.tensor([x.shape[-1], x.shape[-2]])
    sign = torch.where(torch.rand(len(x)) < 0.5, -1.0, 1.0) if mirror else torch.ones(len(x))
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack(row, 1) for row in ([sign * cos, -sin, shift[:, 0]], [sign * sin, cos, shift[:, 1]])]
    grid = functional.affine_grid(torch.stack(rows, 1).to(x.device), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False)


def normalised(x: Tensor) -> Tensor:
    """The images with mean 0 and, as by the peer, half of the deviation 1."""
    mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, DEVIATION))
    return (x - mean) / (2 * deviation)


def network(options: Options, layer_type: str, classes: int) -> torch.nn.Module:
    """The network that the options name."""
    settings = {
        "num_classes": classes,
        "layer_type": layer_type,
        "n": options.n,
        "segments": options.segments,
        "scale": options.scale,
        "rescale_output": options.rescale_output,
        "periodicity": options.periodicity,
        "initialization": None if layer_type == STANDARD else options.initialization,
        "layer_by_layer": options.layer_by_layer,
    }
    if options.model_name == "simple":
        return SimpleConv(**settings)
    return resnet_model(options.model_name, rescale_planes=options.rescale_planes, **settings)


def run(options: Options) -> Figures:
    changes = {
        "lr": options.learning_rate,
        "patience": options.scheduler_patience,
        "factor": options.scheduler_factor,
    }
    options = replace(options, optimizer=replace(options.optimizer, **changes))
    images = images_of(options, normalised)
    mirror = options.data.startswith("cifar")

    def trained(layer_type: str, title: str) -> Trained:
        model = network(options, layer_type, images.classes)

        def begin(epoch: int) -> None:
            if options.layer_by_layer:
                model.begin_epoch(epoch, options.epochs_per_layer)

        def change(x: Tensor) -> Tensor:
            return augmented(x, mirror) if options.augment else x

        return train(model, images, options, title, before_epoch=begin, change=change)

    kinds = [options.layer_type, *options.beside]
    networks = {kind: (lambda title, kind=kind: trained(kind, title)) for kind in kinds}
    return compare(networks, images, options, "cifar", figures=FIGURES)


main = with_optimizers(command(Options, run))

if __name__ == "__main__":
    main()
