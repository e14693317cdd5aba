"""Digits by one function: a polynomial of a pixel's value and place, summed over all pixels of an image.

The network is a single edge of three variables for each label. high-order-layers-torch publishes 0.9289 for
MNIST with n = 20:

    python -m examples.block_mnist data=mnist folder=FOLDER n=20 label_smoothing=0
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from high_order_fused.layers import high_order_fc_layers

from .classification import ClassificationOptions, compare, images_of, train
from .command import Figures, command
from .optimizers import with_optimizers


@dataclass
class Options(ClassificationOptions):
    noise: float = 0.0  # polynomials soon explode outside their interval
    n: int = 8
    beside: list[int] = field(default_factory=lambda: [2, 4])  # other numbers of nodes


class Block(nn.Module):
    """Logits of images [batch, 1, height, width] from 0 to 1: sums of a function of (value, row, column)."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.layer = high_order_fc_layers("polynomial_3d", n=n, in_features=1, out_features=10)

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = (torch.linspace(-1, 1, size, device=images.device) for size in images.shape[-2:])
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)
        values = 2 * images[:, 0, ..., None] - 1
        points = torch.cat([values, places.expand(len(images), -1, -1, -1)], -1)
        y: Tensor = self.layer(points.reshape(-1, 1, 3))
        return y.view(len(images), -1, y.shape[-1]).sum(1)


def run(options: Options) -> Figures:
    images = images_of(options)
    return compare(
        {
            f"n = {n}": lambda title, n=n: train(Block(n), images, options, title)
            for n in (options.n, *options.beside)
        },
        images,
        options,
        "block_mnist",
    )


main = with_optimizers(command(Options, run))

if __name__ == "__main__":
    main()
