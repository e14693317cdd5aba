"""Multilayer perceptrons by the names of high-order-layers-torch: linear layers, or layers of functions."""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .checks import count
from .combined import SumLayer
from .embeddings import fixed_rotation_layer
from .layers import high_order_fc_layers

Normalization = Callable[[], nn.Module]


class LowOrderMLP(nn.Module):
    """nn.Linear layers of in_width, hidden_width (hidden_layers times more) and out_width: to compare with.

    Between two layers: normalization(), then non_linearity, the same module everywhere; each only if given.
    Source: high-order-layers-torch.
    """

    def __init__(
        self,
        in_width: int,
        out_width: int,
        hidden_layers: int,
        hidden_width: int,
        non_linearity: nn.Module | None = None,
        normalization: Normalization | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(in_width, hidden_width)]
        for _ in range(count("hidden_layers", hidden_layers, 0)):
            layers += [*_between(normalization, non_linearity), nn.Linear(hidden_width, hidden_width)]
        layers += [*_between(normalization, non_linearity), nn.Linear(hidden_width, out_width)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class HighOrderMLP(nn.Module):
    """Layers of `high_order_fc_layers` of in_width, hidden_width (hidden_layers times more) and out_width.

    n, and segments for piecewise kinds, may differ for the first layer (n_in, in_segments), the last (n_out,
    out_segments) and those between; the first may be of another kind, layer_type_in. Between two layers:
    normalization(), non_linearity, dropout; each only if given. resnet adds to a hidden layer's output, from
    the second on, what the module before that layer makes of the same input, as the peer does;
    corrected_resnet adds the input itself. State dicts name first and last layer twice, as the peer's.
    scale, rescale_output and initialization do nothing, as in the peer. Source: high-order-layers-torch.
    """

    def __init__(
        self,
        layer_type: str,
        n: int,
        in_width: int,
        out_width: int,
        hidden_layers: int,
        hidden_width: int,
        scale: float = 2.0,
        n_in: int | None = None,
        n_out: int | None = None,
        n_hidden: int | None = None,
        rescale_output: bool = False,
        periodicity: float | None = None,
        non_linearity: nn.Module | None = None,
        in_segments: int | None = None,
        out_segments: int | None = None,
        hidden_segments: int | None = None,
        normalization: Normalization | None = None,
        resnet: bool = False,
        device: torch.device | str | None = None,
        layer_type_in: str | None = None,
        initialization: str = "constant_random",
        dropout: float = 0.0,
        corrected_resnet: bool = False,
    ) -> None:
        super().__init__()
        self.dropout_layer = nn.Dropout(dropout)
        between = normalization, non_linearity, self.dropout_layer
        shared = {"periodicity": periodicity, "device": device}
        middle = {"n": n_hidden or n, "segments": hidden_segments, "out_features": hidden_width, **shared}
        self.input_layer = high_order_fc_layers(
            layer_type_in or layer_type,
            in_features=in_width,
            **middle | {"n": n_in or n, "segments": in_segments},
        )
        layers: list[nn.Module] = [self.input_layer]
        for i in range(count("hidden_layers", hidden_layers, 0)):
            layers += _between(*between)
            layer = high_order_fc_layers(layer_type, in_features=hidden_width, **middle)
            if i > 0 and (resnet or corrected_resnet):
                layer = SumLayer(layer_list=[layer, nn.Identity() if corrected_resnet else layers[-1]])
            layers.append(layer)
        layers += _between(*between)
        self.output_layer = high_order_fc_layers(
            layer_type,
            in_features=hidden_width,
            **middle | {"n": n_out or n, "segments": out_segments, "out_features": out_width},
        )
        self.model = nn.Sequential(*layers, self.output_layer)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class HighOrderMLPList(nn.Module):
    """Layers of `high_order_fc_layers`, each of its own kind, n and segments, from width[i] to width[i + 1].

    Before layer i, from the second on: normalization[i](), then non_linearity[i], where there is one.
    ValueError for lists of other lengths. scale and rescale_output do nothing, as in HighOrderMLP.
    Source: high-order-layers-torch, which builds the first layer alone.
    """

    def __init__(
        self,
        layer_type: Sequence[str],
        n: Sequence[int],
        width: Sequence[int],
        segments: Sequence[int | None],
        scale: float = 2.0,
        rescale_output: bool = False,
        periodicity: float | None = None,
        non_linearity: Sequence[nn.Module | None] | None = None,
        normalization: Sequence[Normalization | None] | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        number = len(layer_type)
        norms = normalization if normalization is not None else [None] * number
        activations = non_linearity if non_linearity is not None else [None] * number
        each: dict[str, Sequence[Any]] = {"n": n, "segments": segments}
        each |= {"non_linearity": activations, "normalization": norms, "width": width}
        for name, values in each.items():
            needed = number + (name == "width")
            if len(values) != needed:
                raise ValueError(f"{name}: got {len(values)} values, needs {needed}")
        for i, (inputs, outputs) in enumerate(pairwise(width)):
            if i > 0:
                layers += _between(norms[i], activations[i])
            sizes = {"n": n[i], "in_features": inputs, "out_features": outputs, "segments": segments[i]}
            layers.append(high_order_fc_layers(layer_type[i], periodicity=periodicity, **sizes))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class HighOrderMultiMLP(nn.Module):
    """An input layer, the sum of `replicas` HighOrderMLPs of hidden_width side by side, an output layer.

    The other arguments are those of `HighOrderMLP`, n_hidden and hidden_segments those of the replicas. What
    stands between layers stands before and after them, too. State dict: model_in, replica_list, model_out.
    Source: high-order-layers-torch, whose constructor never returns.
    """

    def __init__(
        self,
        layer_type: str,
        n: int,
        replicas: int,
        in_width: int,
        out_width: int,
        hidden_layers: int,
        hidden_width: int,
        scale: float = 2.0,
        n_in: int | None = None,
        n_out: int | None = None,
        n_hidden: int | None = None,
        rescale_output: bool = False,
        periodicity: float | None = None,
        non_linearity: nn.Module | None = None,
        in_segments: int | None = None,
        out_segments: int | None = None,
        hidden_segments: int | None = None,
        normalization: Normalization | None = None,
        resnet: bool = False,
        device: torch.device | str | None = None,
        layer_type_in: str | None = None,
        initialization: str = "constant_random",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        between = normalization, non_linearity, nn.Dropout(dropout)
        shared = {"periodicity": periodicity, "device": device}
        sizes = {"in_features": in_width, "out_features": hidden_width}
        first = {"n": n_in or n, "segments": in_segments, **sizes, **shared}
        self.model_in = nn.Sequential(
            high_order_fc_layers(layer_type_in or layer_type, **first), *_between(*between)
        )
        inner: dict[str, Any] = {"non_linearity": non_linearity, "normalization": normalization, **shared}
        for name in ("in_segments", "hidden_segments", "out_segments"):
            inner[name] = hidden_segments
        widths = hidden_width, hidden_width, hidden_layers, hidden_width
        self.replica_list = nn.ModuleList(
            HighOrderMLP(layer_type, n_hidden or n, *widths, resnet=resnet, dropout=dropout, **inner)
            for _ in range(count("replicas", replicas))
        )
        sizes = {"in_features": hidden_width, "out_features": out_width}
        last = {"n": n_out or n, "segments": out_segments, **sizes, **shared}
        self.model_out = nn.Sequential(*_between(*between), high_order_fc_layers(layer_type, **last))

    def forward(self, x: Tensor) -> Tensor:
        x = self.model_in(x)
        y: Tensor = self.model_out(reduce(torch.add, (replica(x) for replica in self.replica_list)))
        return y


def transform_mlp(
    layer_type: str,
    in_width: int,
    hidden_width: int,
    out_width: int,
    n: int,
    n_in: int,
    n_hidden: int,
    n_out: int,
    in_segments: int,
    hidden_segments: int,
    out_segments: int,
    hidden_layers: int,
    rotations: int,
    scale: float = 2.0,
    periodicity: float | None = 2.0,
    normalization: Normalization | None = None,
    resnet: bool = False,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """A `fixed_rotation_layer` of the inputs, then a `HighOrderMLP`. Source: high-order-layers-torch."""
    rotation, width = fixed_rotation_layer(in_width, rotations)
    mlp = HighOrderMLP(
        layer_type,
        n,
        width,
        out_width,
        hidden_layers,
        hidden_width,
        n_in=n_in,
        n_out=n_out,
        n_hidden=n_hidden,
        periodicity=periodicity,
        in_segments=in_segments,
        out_segments=out_segments,
        hidden_segments=hidden_segments,
        normalization=normalization,
        resnet=resnet,
        device=device,
    )
    return nn.Sequential(rotation, mlp)


def transform_low_mlp(
    in_width: int,
    hidden_width: int,
    out_width: int,
    hidden_layers: int,
    non_linearity: nn.Module | None,
    normalization: Normalization | None,
    rotations: int,
) -> nn.Sequential:
    """A `fixed_rotation_layer` of the inputs, then a `LowOrderMLP`. Source: high-order-layers-torch."""
    rotation, width = fixed_rotation_layer(in_width, rotations)
    mlp = LowOrderMLP(width, out_width, hidden_layers, hidden_width, non_linearity, normalization)
    return nn.Sequential(rotation, mlp)


def scalar_to_list(val: Any, size: int) -> Any:
    """A number, text or bool `size` times in a list; None and everything else as it is.

    Source: high-order-layers-torch.
    """
    return [val] * size if isinstance(val, (int, float, str, bool)) else val


def _between(
    normalization: Normalization | None, non_linearity: nn.Module | None, dropout: nn.Dropout | None = None
) -> list[nn.Module]:
    """What stands between two layers."""
    modules: list[nn.Module] = [] if normalization is None else [normalization()]
    if non_linearity is not None:
        modules.append(non_linearity)
    if dropout is not None and dropout.p > 0:
        modules.append(dropout)
    return modules
