"""The network "simple" of high-order-networks-pytorch."""

from itertools import pairwise

from torch import nn

from .layer_by_layer import StagedNetwork
from .resnets import convolution_of, initialize_


class SimpleConv(StagedNetwork):
    """Two 5 x 5 convolutions, to 16 and 32 channels, each with a batch norm and a 2 x 2 max pool; a head.

    x [batch, in_channels, height, width] of at least 16 x 16 pixels, y the logits [batch, num_classes].
    Arguments as of `resnets.ResNet`, layer_by_layer as of `StagedNetwork`, with two stages.
    Source: high-order-networks-pytorch, SimpleConv, whose own is unfinished.
    """

    def __init__(
        self,
        num_classes: int = 100,
        layer_type: str = "polynomial2d",
        n: int = 3,
        segments: int = 1,
        scale: float = 4.0,
        rescale_output: bool = False,
        periodicity: float | None = None,
        weight_magnitude: float = 1.0,
        layer_by_layer: bool = False,
        initialization: str | None = None,
        in_channels: int = 3,
    ) -> None:
        convolution, activation = convolution_of(
            layer_type,
            n=n,
            segments=segments,
            length=scale,
            rescale_output=rescale_output,
            periodicity=periodicity,
            weight_magnitude=weight_magnitude,
        )
        channels = (in_channels, 16, 32)
        stages = [
            nn.Sequential(
                convolution(in_channels=inputs, out_channels=outputs, kernel_size=5),
                nn.BatchNorm2d(outputs),
                activation(),
                nn.MaxPool2d(2),
            )
            for inputs, outputs in pairwise(channels)
        ]
        super().__init__(stages, channels[1:], num_classes, layer_by_layer)
        initialize_(self, layer_type, initialization)
