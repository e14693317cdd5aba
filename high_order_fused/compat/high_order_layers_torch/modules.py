"""The module modules: networks and training steps from a configuration, for Lightning.

`select_network` and the mixins need torch alone; `ClassificationNet` and `RegressionNet` are LightningModules
and say so when Lightning is not installed. A configuration is anything with the attributes, as omegaconf's.
"""

from contextlib import suppress
from importlib import import_module

import torch
import torch.optim as optim
from torch import Tensor, nn

from ...optim import make_optimizer
from . import layers as _layers
from . import networks as _networks
from ._lightning import LightningModule
from .layers import *  # noqa: F403
from .layers import F, high_order_fc_layers
from .networks import *  # noqa: F403
from .networks import (
    Any,
    HighOrderFullyConvolutionalNetwork,
    HighOrderMLP,
    HighOrderTailFocusNetwork,
    LowOrderMLP,
    logging,
)

__all__ = [
    "ClassificationMixin",
    "ClassificationNet",
    "PredictionNetMixin",
    "RegressionMixin",
    "RegressionNet",
    "optim",
    "select_network",
]
__all__ += _layers.__all__
__all__ += _networks.__all__

# what star imports bring along where it is installed
_OTHERS = {"Accuracy": "torchmetrics", "DictConfig": "omegaconf", "Lion": "lion_pytorch"}
for _name, _package in _OTHERS.items():
    with suppress(ModuleNotFoundError):
        globals()[_name] = getattr(import_module(_package), _name)
        __all__ += [_name]

logger = logging.getLogger(__name__)


class ClassificationMixin:
    """eval_step: loss of (x, labels), logged with the accuracy as NAME_loss and NAME_acc."""

    def eval_step(self: Any, batch: tuple[Tensor, Tensor], name: str) -> Tensor:
        """The loss of a batch."""
        x, y = batch[0], batch[1].flatten()
        logits = self(x)
        loss: Tensor = self.loss(logits, y)
        self.log(f"{name}_loss", loss, prog_bar=True)
        self.log(f"{name}_acc", (logits.argmax(1) == y).float().mean(), prog_bar=True)
        return loss


class RegressionMixin:
    """eval_step: loss of (x, numbers), logged as NAME_loss."""

    def eval_step(self: Any, batch: tuple[Tensor, Tensor], name: str) -> Tensor:
        """The loss of a batch."""
        x, y = batch
        loss: Tensor = self.loss(self(x).flatten(), y.flatten())
        self.log(f"{name}_loss", loss, prog_bar=True)
        return loss


class PredictionNetMixin:
    """Lightning's steps by `eval_step`, forward by `model`, the optimizer by `cfg.optimizer`."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """What the model makes of x."""
        y: Tensor = self.model(x)
        return y

    def training_step(self: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch, logged as train_..."""
        loss: Tensor = self.eval_step(batch, "train")
        return loss

    def validation_step(self: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch, logged as val_..."""
        loss: Tensor = self.eval_step(batch, "val")
        return loss

    def test_step(self: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch, logged as test_..."""
        loss: Tensor = self.eval_step(batch, "test")
        return loss

    def configure_optimizers(self: Any) -> Any:
        """The optimizer cfg.optimizer.name ("adam", "lion", "adahessian"), with its scheduler if it has one.

        scheduler "plateau" takes patience and factor and watches train_loss, "exponential" takes gamma.
        ValueError for another optimizer.
        """
        cfg = self.cfg.optimizer
        if cfg.name not in _OPTIONS:
            raise ValueError(
                f"optimizer.name: got {cfg.name!r}, needs one of {', '.join(map(repr, _OPTIONS))}"
            )
        options = {option: getattr(cfg, option) for option in _OPTIONS[cfg.name]}
        optimizer = make_optimizer(cfg.name, self.parameters(), **options)
        kind = getattr(cfg, "scheduler", None)
        scheduler: Any
        if kind == "plateau":
            scheduler = optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, patience=cfg.patience, factor=cfg.factor
            )
        elif kind == "exponential":
            scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma=cfg.gamma)
        else:
            return optimizer
        watched = {"reduce_on_plateau": kind == "plateau", "monitor": "train_loss"}
        return [optimizer], [{"scheduler": scheduler, **watched}]


_OPTIONS = {
    "adam": ("lr",),
    "lion": ("lr",),
    "adahessian": ("lr", "betas", "eps", "weight_decay", "hessian_power"),
}


def select_network(cfg: Any, device: str | None = None) -> nn.Module:
    """The network cfg.net.model_type: "high_order", "high_order_input", "..._conv" or "..._tail_focus".

    "high_order": `HighOrderMLP`, n_in serving hidden layers too, as by the peer; "high_order_input": one
    high-order layer before a `LowOrderMLP` of cfg.output.width (or cfg.net.output.width) outputs; the others:
    convolutions in one dimension before a linear layer. ValueError for other types. device is ignored, as by
    the peer.
    """
    net = cfg.net
    normalization = torch.nn.LazyBatchNorm1d if net.normalize is True else None
    if net.model_type == "high_order_input":
        first = high_order_fc_layers(
            net.layer_type,
            n=net.n,
            in_features=net.input.width,
            out_features=net.hidden.width,
            segments=net.input.segments,
        )
        rest = LowOrderMLP(
            in_width=net.hidden.width,
            out_width=(getattr(cfg, "output", None) or net.output).width,
            hidden_width=net.hidden.width,
            hidden_layers=net.hidden.layers - 1,
            non_linearity=torch.nn.ReLU(),
            normalization=normalization,
        )
        return nn.Sequential(first, *([normalization()] if normalization else []), rest)
    if net.model_type == "high_order":
        return HighOrderMLP(
            layer_type=net.layer_type,
            n=net.n,
            n_in=net.n_in,
            n_hidden=net.n_in,
            n_out=net.n_out,
            in_width=net.input.width,
            in_segments=net.input.segments,
            out_width=net.output.width,
            out_segments=net.output.segments,
            hidden_width=net.hidden.width,
            hidden_layers=net.hidden.layers,
            hidden_segments=net.hidden.segments,
            normalization=normalization,
        )
    sizes: dict[str, Any] = {
        name: getattr(net, name, None)
        for name in ("layer_type", "n", "channels", "segments", "kernel_size", "periodicity", "stride")
    }
    body: nn.Module
    if net.model_type == "high_order_conv":
        body = HighOrderFullyConvolutionalNetwork(
            **sizes, normalization=torch.nn.LazyBatchNorm1d, pooling=None
        )
    elif net.model_type == "high_order_tail_focus":
        body = HighOrderTailFocusNetwork(**sizes, normalization=torch.nn.LazyBatchNorm1d, focus=net.focus)
    else:
        raise ValueError(
            f"net.model_type: got {net.model_type!r}, needs one of 'high_order', 'high_order_input', "
            "'high_order_conv', 'high_order_tail_focus'"
        )
    return nn.Sequential(body, torch.nn.LazyLinear(net.out_features))


class _Net(PredictionNetMixin, LightningModule):  # type: ignore[misc, unused-ignore]
    """`model`, the network of cfg."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.save_hyperparameters(cfg)
        self.cfg, self.model = cfg, select_network(cfg)


class ClassificationNet(ClassificationMixin, _Net):
    """A network of cfg trained by cross-entropy; `accuracy` is torchmetrics' of cfg.data.classes classes."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        from torchmetrics import Accuracy  # type: ignore[import-not-found, unused-ignore]

        self.loss = torch.nn.CrossEntropyLoss()
        self.accuracy = Accuracy(task="multiclass", top_k=1, num_classes=cfg.data.classes)


class RegressionNet(RegressionMixin, _Net):
    """A network of cfg trained by mean squares."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.loss = F.mse_loss
