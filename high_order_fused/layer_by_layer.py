"""Networks of stages that can be trained one after the other, each with a head of its own."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checks import count


class StagedNetwork(nn.Module):
    """A classifier of images: stages `layer0`, `layer1`, ..., and, as the last layer, a head.

    x [batch, channels, height, width], y the logits [batch, num_classes]. channels: those that each stage
    gives. Heads average over the pixels, then nn.Linear.

    layer_by_layer: every stage but the last has a head, too, `layer0_intermediate`, ..., and while stage t
    trains, the network ends there, in training and evaluation alike:

        y = head_t(stage_t(x_t)) + softmax(head_t-1(x_t)),   x_t = what the stages before t make of x

    without the softmax for t = 0. Only stage t and head t get gradients: the stages before, their head and,
    for t > 0, the input get none. Batch norms before t go on as their training flag says. t is 0 until
    `set_training_layer` moves it; the state dict holds it. `network.layer_by_layer = False` makes one network
    of all stages. Source: high-order-networks-pytorch, whose checkpoints do not tell t and leave it as
    it is.
    """

    def __init__(
        self, stages: Sequence[nn.Module], channels: Sequence[int], num_classes: int, layer_by_layer: bool
    ) -> None:
        super().__init__()
        count("num_classes", num_classes)
        self.layer_by_layer, self.training_layer, self.stages = layer_by_layer, 0, len(stages)
        for number, stage in enumerate(stages):
            self.add_module(f"layer{number}", stage)
        self.add_module(f"layer{len(stages)}", _head(channels[-1], num_classes))
        for number, inputs in enumerate(channels[:-1] if layer_by_layer else ()):
            self.add_module(f"layer{number}_intermediate", _head(inputs, num_classes))
        self.register_load_state_dict_pre_hook(_keep_stage)  # type: ignore[no-untyped-call]

    def stage(self, number: int) -> nn.Module:
        """Stage 0, 1, ..."""
        return self.get_submodule(f"layer{number}")

    def head(self, number: int) -> nn.Module:
        """What makes logits of that stage's output; AttributeError if it has none."""
        last = number == self.stages - 1
        return self.get_submodule(f"layer{self.stages}" if last else f"layer{number}_intermediate")

    def set_training_layer(self, layer: int) -> None:
        """Train this stage, or the last one if there are fewer; another one than before drops all gradients.

        ValueError if the network has not been made for training layer by layer.
        """
        if not self.layer_by_layer:
            raise ValueError("layer_by_layer: got False, needs True for one stage to train")
        layer = min(count("layer", layer, 0), self.stages - 1)
        if layer != self.training_layer:
            self.zero_grad(set_to_none=True)  # or an optimizer would move the stage that is left
        self.training_layer = layer

    def begin_epoch(self, epoch: int, epochs_per_layer: int) -> None:
        """Train the stage whose turn it is in this epoch, counted from 0: each has epochs_per_layer."""
        self.set_training_layer(count("epoch", epoch, 0) // count("epochs_per_layer", epochs_per_layer))

    def training_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that get gradients: all, or those of the stage that trains and of its head."""
        if not self.layer_by_layer:
            return self.parameters()
        trained = self.stage(self.training_layer), self.head(self.training_layer)
        return nn.ModuleList(trained).parameters()

    def forward(self, x: Tensor) -> Tensor:
        last = self.training_layer if self.layer_by_layer else self.stages - 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.layer_by_layer):
            for number in range(last):
                x = self.stage(number)(x)
            before = self.head(last - 1)(x).softmax(1) if self.layer_by_layer and last else None
        y: Tensor = self.head(last)(self.stage(last)(x))
        return y if before is None else y + before

    def get_extra_state(self) -> Tensor:
        """The stage that trains."""
        return torch.tensor(self.training_layer, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Go on with the stage of a checkpoint."""
        self.training_layer = int(state)


def _keep_stage(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    state.setdefault(f"{prefix}_extra_state", module.get_extra_state())


def _head(channels: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
