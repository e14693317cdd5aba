"""Networks of convolutions by the names of high-order-layers-torch.

channels has one number more than there are layers. layer_type, n, segments, kernel_size and stride hold a
value for each layer, or are one for all; what a list has beyond that is ignored, as by the peer.
normalization is called with a layer's channels; a lazy class takes them for its first argument, eps.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .checks import choice, count
from .conv_layers import high_order_convolution_layers, high_order_convolution_transpose_layers
from .mlps import scalar_to_list

Texts = Sequence[str] | str
Numbers = Sequence[int] | int
Normalization = Callable[[int], nn.Module]

_POOLING: dict[str, Callable[[int], nn.Module]] = {
    "1d": nn.AdaptiveAvgPool1d,
    "2d": nn.AdaptiveAvgPool2d,
    "3d": nn.AdaptiveAvgPool3d,
}


class HighOrderFullyConvolutionalNetwork(nn.Module):
    """Convolutions, each with its normalization, and the mean over all positions: [B, channels[-1]].

    layer_type: names of `high_order_convolution_layers`. pooling: "1d", "2d" or "3d", or None to flatten the
    positions instead. Source: high-order-layers-torch.
    """

    def __init__(
        self,
        layer_type: Texts,
        n: Numbers,
        channels: Sequence[int],
        segments: Numbers | None,
        kernel_size: Numbers,
        rescale_output: bool = False,
        periodicity: float | None = None,
        normalization: Normalization | None = None,
        pooling: str | None = "2d",
        stride: Numbers | None = None,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.channels = channels
        each = _each(channels, layer_type=layer_type, n=n, segments=segments, kernel_size=kernel_size)
        shared = {"rescale_output": rescale_output, "periodicity": periodicity, "padding": padding}
        each |= _each(channels, stride=1 if stride is None else stride)
        layers = dict(_layers(high_order_convolution_layers, channels, normalization, each, shared)).values()
        pool = [] if pooling is None else [_POOLING[choice("pooling", pooling, _POOLING)](1)]
        axes = {kind[-2:] for kind in each["layer_type"]}
        if pool and axes != {pooling}:  # torch would take the channels for an axis
            raise ValueError(f"pooling: got {pooling!r}, needs {min(axes)!r}, the axes of the layers")
        self.model = nn.Sequential(*layers, *pool, nn.Flatten())

    @property
    def output_size(self) -> int:
        """Features of the output, if there is pooling."""
        return self.channels[-1]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class HighOrderFullyDeconvolutionalNetwork(nn.Module):
    """Transposed convolutions, each with its normalization; `in_channels` is channels[0].

    layer_type: names of `high_order_convolution_transpose_layers`; the peer has continuous2d alone.
    Source: high-order-layers-torch.
    """

    def __init__(
        self,
        layer_type: Texts,
        n: Numbers,
        channels: Sequence[int],
        segments: Numbers | None,
        kernel_size: Numbers,
        rescale_output: bool = False,
        periodicity: float | None = None,
        normalization: Normalization | None = None,
        stride: Numbers | None = None,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.channels = channels
        each = _each(channels, layer_type=layer_type, n=n, segments=segments, kernel_size=kernel_size)
        each |= _each(channels, stride=1 if stride is None else stride)
        shared = {"rescale_output": rescale_output, "periodicity": periodicity, "padding": padding}
        make = high_order_convolution_transpose_layers
        self.model = nn.Sequential(*dict(_layers(make, channels, normalization, each, shared)).values())

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.channels[0]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class HighOrderTailFocusNetwork(nn.Module):
    """Convolutions along time; the output holds the end of each level, and of the last level everything.

    x [B, C, W]. Side by side: the last focus[0] positions of x, the last focus[i + 1] after normalization i,
    and the last layer's whole output. Without normalization the levels between are missing, as with the peer.
    Submodules conv_i and normal_i. Source: high-order-layers-torch.
    """

    def __init__(
        self,
        layer_type: Texts,
        n: Numbers,
        channels: Sequence[int],
        segments: Numbers | None,
        kernel_size: Numbers,
        rescale_output: bool = False,
        periodicity: float | None = None,
        normalization: Normalization | None = None,
        stride: Numbers | None = None,
        padding: int = 0,
        focus: Numbers | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.padding = channels, padding
        each = _each(channels, layer_type=layer_type, n=n, segments=segments, kernel_size=kernel_size)
        each |= _each(channels, stride=1 if stride is None else stride)
        self.kernel_size, self.stride = each["kernel_size"], each["stride"]
        shared = {"rescale_output": rescale_output, "periodicity": periodicity, "padding": padding}
        for name, layer in _layers(high_order_convolution_layers, channels, normalization, each, shared):
            self.add_module(name, layer)
        ends = scalar_to_list(focus, len(channels) - 1)
        if not ends:
            raise ValueError(f"focus: got {focus!r}, needs at least one number")
        self.focus = [count("focus", end) for end in ends]
        self.levels = 1 if normalization is None else min(len(self.focus), len(channels))

    def compute_sizes(self, input_size: int) -> tuple[list[int], list[int]]:
        """Positions of each level, and features of each part of the output, for inputs of so many positions.

        The peer counts the levels between even where they are missing, and leaves out the padding.
        """
        widths = [input_size]
        for kernel, stride in zip(self.kernel_size, self.stride, strict=True):
            widths.append((widths[-1] + 2 * self.padding - kernel) // stride + 1)
        taken = [*map(min, self.focus[: self.levels], widths), widths[-1]]
        channels = [*self.channels[: self.levels], self.channels[-1]]
        return widths, [c * w for c, w in zip(channels, taken, strict=True)]

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, :, -self.focus[0] :]]
        for i in range(len(self.channels) - 1):
            x = self.get_submodule(f"conv_{i}")(x)
            if hasattr(self, f"normal_{i}"):
                x = self.get_submodule(f"normal_{i}")(x)
            if i + 1 < self.levels:
                parts.append(x[:, :, -self.focus[i + 1] :])
        return torch.cat([part.flatten(1) for part in (*parts, x)], 1)


def _each(channels: Sequence[int], **values: Any) -> dict[str, list[Any]]:
    """Each argument as a list with a value for each layer; ValueError where there are too few."""
    layers = len(channels) - 1
    if layers < 1:
        raise ValueError(f"channels: got {channels!r}, needs at least two numbers")
    found = {}
    for name, value in values.items():
        found[name] = [None] * layers if value is None else list(scalar_to_list(value, layers))[:layers]
        if len(found[name]) < layers:
            raise ValueError(f"{name}: got {value!r}, needs {layers} values, one for each layer")
    return found


def _layers(
    make: Callable[..., nn.Module],
    channels: Sequence[int],
    normalization: Normalization | None,
    each: dict[str, list[Any]],
    shared: dict[str, Any],
) -> Iterator[tuple[str, nn.Module]]:
    """Layers conv_i with their normalizations normal_i, of arguments for each of them and for all."""
    for i, (inputs, outputs) in enumerate(pairwise(channels)):
        own = {name: values[i] for name, values in each.items()}
        yield f"conv_{i}", make(in_channels=inputs, out_channels=outputs, **own, **shared)
        if normalization is not None:
            yield f"normal_{i}", normalization(outputs)
