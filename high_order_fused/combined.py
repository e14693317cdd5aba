"""Layers made of layers: products and sums of several, trained, saved and moved with them."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from .checks import count

Build = Callable[..., nn.Module]


class _Several(nn.Module):
    """Holds `layers`. The peer does not save them; where its state dict loads, they keep their values."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self._lacking: str | None = None
        self.register_load_state_dict_pre_hook(_note_lack)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_forgive_lack)  # type: ignore[no-untyped-call]


def _note_lack(module: nn.Module, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
    own = f"{prefix}layers."
    assert isinstance(module, _Several)
    module._lacking = None if any(key.startswith(own) for key in state) else own


def _forgive_lack(module: nn.Module, keys: Any) -> None:
    assert isinstance(module, _Several)
    own = module._lacking
    if own is not None:
        keys.missing_keys[:] = [key for key in keys.missing_keys if not key.startswith(own)]


def peer_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the peer's own model of this kind loads strictly: without what it does not save.

    These are the layers in a `SwitchLayer` or `SumLayer`, so also hidden ones of HighOrderMLP(resnet=True),
    and the stage that a `StagedNetwork` trains.
    """
    modules = model.named_modules(remove_duplicate=False)
    several = [name for name, module in modules if isinstance(module, _Several)]
    hidden = tuple(f"{name}.layers." if name else "layers." for name in several)
    state = model.state_dict().items()
    return {key: value for key, value in state if not key.startswith(hidden) and "_extra_state" not in key}


class SwitchLayer(_Several):
    """Layers "switch_...": the product of num_input_layers layers of one kind, then `normalization`, if any.

    Their parameters are `layers.0.w` and so on; the peer's are neither trained nor saved. scale and other
    keywords, periodicity among them, are ignored, as by the peer.
    Source: high-order-layers-torch, SwitchLayer.
    """

    def __init__(
        self,
        layer_type: str,
        n: int,
        in_features: int,
        out_features: int,
        scale: float = 2.0,
        segments: int | None = None,
        normalization: Callable[[Tensor], Tensor] | None = None,
        num_input_layers: int = 2,
        device: torch.device | str | None = None,
        **ignored: Any,
    ) -> None:
        from .layers import high_order_fc_layers

        arguments = {"n": n, "in_features": in_features, "out_features": out_features, "segments": segments}
        super().__init__(
            [
                high_order_fc_layers(layer_type, device=device, **arguments)
                for _ in range(count("num_input_layers", num_input_layers))
            ]
        )
        self.in_features, self.out_features, self.normalization = in_features, out_features, normalization

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = reduce(torch.mul, (layer(x) for layer in self.layers))
        return y if self.normalization is None else self.normalization(y)

    def initialize(self, max_slope: float, max_offset: float) -> None:
        """Make every edge of the layers a line; as `peer_refinement.initialize_polynomial_layer`."""
        from .peer_refinement import initialize_polynomial_layer

        initialize_polynomial_layer(self, max_slope, max_offset)

    def interpolate(self, layer_out: nn.Module) -> None:
        """Give layer_out's layers the functions of these; as the layers' `interpolate`."""
        from .peer_refinement import interpolate_polynomial_layer

        interpolate_polynomial_layer(self, layer_out)

    def refine(self, layer_out: nn.Module) -> None:
        """Give layer_out's layers the functions of these; as the layers' `refine`."""
        from .peer_refinement import refine_polynomial_layer

        refine_polynomial_layer(self, layer_out)


class SumLayer(_Several):
    """The sum of what the layers of layer_list make of x; the peer takes two and does not train them.

    Source: high-order-layers-torch, SumLayer.
    """

    def __init__(self, *args: Any, layer_list: Sequence[nn.Module], **ignored: Any) -> None:
        count("layer_list", len(layer_list))
        super().__init__(layer_list)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = reduce(torch.add, (layer(x) for layer in self.layers))
        return y


def switch_continuous(**kwargs: Any) -> SwitchLayer:
    """Layer "switch_continuous": a `SwitchLayer` of "continuous" layers."""
    return SwitchLayer(layer_type="continuous", **kwargs)


def switch_discontinuous(**kwargs: Any) -> SwitchLayer:
    """Layer "switch_discontinuous": a `SwitchLayer` of "discontinuous" layers."""
    return SwitchLayer(layer_type="discontinuous", **kwargs)
