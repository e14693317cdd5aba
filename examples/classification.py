"""What the experiments with labelled images share: training, judging, comparing networks, the picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from high_order_fused.checks import choice

from . import optimizers
from .command import Figures, Options, mean, seeds, show
from .data import Images, Part, load
from .pictures import COLORS, MUTED, RED, panels, save, styled
from .training import Batches, epochs_of, evaluating, parameters, seeded

Accuracy = list[float]
FIGURES = "parameters", "train_acc", "val_acc", "test_acc", "test_loss"
SHOWN = (*FIGURES, "test_acc5", "refinement_gap")  # in tables, if a network has them


@dataclass
class ImageOptions(Options):
    """Images by the names of `data.load`, and how to train; noise and label_smoothing suit the few digits."""

    data: str = "digits"
    folder: str | None = None  # of the official files
    train_fraction: float = 1.0
    batch_size: int = 64
    max_epochs: int = 40
    gradient_clip_val: float = 0.0  # of the gradient's norm; 0: none
    noise: float = 0.15  # deviation of what is added to the pixels
    label_smoothing: float = 0.1

    @property
    def epochs(self) -> int:
        """max_epochs, or few where it is tiny."""
        return min(self.max_epochs, 4) if self.tiny else self.max_epochs

    def batches(self, *tensors: Tensor) -> Batches:
        """Batches of batch_size, or small ones where it is tiny."""
        return Batches(*tensors, size=min(self.batch_size, 16) if self.tiny else self.batch_size)


@dataclass
class ClassificationOptions(ImageOptions):
    """With an optimizer of the group `optimizer`: `optimizer=lion optimizer.lr=1e-4`."""

    defaults: list[Any] = field(default_factory=lambda: ["_self_", {"optimizer": "adamw"}])
    loss: str = "cross_entropy"  # or "mse" against the labels as unit vectors
    optimizer: optimizers.Settings = field(default_factory=lambda: optimizers.GROUP["adamw"])


@dataclass
class Trained:
    """A network, its accuracy on the validation images after each epoch, and its figures at the end."""

    model: nn.Module
    accuracy: Accuracy
    figures: dict[str, float]
    losses: list[float]


def images_of(options: ImageOptions, change: Callable[[Tensor], Tensor] = lambda x: x) -> Images:
    """The images that the options name, changed, on their device; few of them where it is tiny."""
    images = load(options.data, options.folder, options.train_fraction)
    if options.tiny:
        images = Images(images.train[:256], images.validation[:64], images.test[:128])
    return images.mapped(change).to(options.device)


def train(
    model: nn.Module,
    images: Images,
    options: ClassificationOptions,
    title: str,
    epochs: range | None = None,
    before_epoch: Callable[[int], None] = lambda epoch: None,
    change: Callable[[Tensor], Tensor] = lambda x: x,
) -> Trained:
    """Train on batches whose images are changed and given noise, and judge the network.

    epochs: those to train, if not all; those before it are taken for done.
    """
    epochs = range(options.epochs) if epochs is None else epochs
    model.to(options.device)
    with evaluating(model):
        model(images.train.x[:2])  # makes what is lazy, before the optimizer asks for it
    optimizer, advance = optimizers.build(options.optimizer, model, epochs)
    criterion = _criterion(options)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return criterion(model(change(x) + options.noise * torch.randn_like(x)), y)

    batches = options.batches(images.train.x, images.train.y)
    accuracy, losses = [], []
    clip = options.gradient_clip_val or None
    before_epoch(epochs.start)
    for value in epochs_of(model, loss, batches, optimizer, len(epochs), clip, title):
        losses.append(value)
        accuracy.append(judge(model, images.validation, "val")["val_acc"])
        advance(value)
        if len(losses) < len(epochs):
            before_epoch(epochs[len(losses)])
    found = {"parameters": float(parameters(model))}
    for name, part in (("train", images.train), ("val", images.validation), ("test", images.test)):
        found |= judge(model, part, name)
    return Trained(model, accuracy, found, losses)


def _criterion(options: ClassificationOptions) -> Callable[[Tensor, Tensor], Tensor]:
    if choice("loss", options.loss, ("cross_entropy", "mse")) == "mse":
        return lambda logits, y: functional.mse_loss(logits, functional.one_hot(y, logits.shape[1]).float())
    return lambda logits, y: functional.cross_entropy(logits, y, label_smoothing=options.label_smoothing)


def logits_of(model: nn.Module, x: Tensor, size: int = 512) -> Tensor:
    """The logits of images, in evaluation."""
    with evaluating(model):
        return torch.cat([model(part) for part in x.split(size)])


def judge(model: nn.Module, part: Part, name: str, top: tuple[int, ...] = (1, 5)) -> dict[str, float]:
    """NAME_loss, the cross entropy; NAME_acc; NAME_acc1 and NAME_acc5, the label among so many guesses."""
    logits = logits_of(model, part.x)
    guesses = logits.topk(min(max(top), logits.shape[1]), 1).indices == part.y.unsqueeze(1)
    found = {f"{name}_acc{k}": guesses[:, :k].any(1).double().mean().item() for k in top}
    loss = functional.cross_entropy(logits, part.y).item()
    return {f"{name}_loss": loss, f"{name}_acc": found[f"{name}_acc{top[0]}"], **found}


def compare(
    networks: dict[str, Callable[[str], Trained]],
    images: Images,
    options: Options,
    name: str,
    note: str = "",
    figures: Sequence[str] = FIGURES,
) -> Figures:
    """Train each network from each seed; returns these figures, prints a table, draws NAME.png.

    networks: by name, what trains one, given a title for its progress bar. The figures of all but the first
    have their network's name before them.
    """
    runs: dict[str, list[Trained]] = {}
    for network, trained in networks.items():
        for seed in seeds(options):
            seeded(seed)
            runs.setdefault(network, []).append(trained(f"{network}, seed {seed}"))
    rows, all_figures, shown = [], Figures(), [key for key in SHOWN if key in figures]
    for network, found in runs.items():
        lists = {key: [run.figures[key] for run in found] for key in figures if key in found[0].figures}
        means: dict[str, Any] = {key: mean(lists[key]) if key in lists else "" for key in shown}
        rows.append({"network": network, **means, "parameters": int(means["parameters"])})
        prefix = "" if network == next(iter(runs)) else f"{network} "
        all_figures |= {prefix + key: values for key, values in lists.items()}
    show(f"{name}: {options.seeds} seed{'s' * (options.seeds > 1)}", rows, note)
    picture(runs, images.test, options, name)
    return all_figures


@styled
def picture(runs: dict[str, list[Trained]], test: Part, options: Options, name: str) -> None:
    """The accuracies by epoch of all networks, and test images that the first one takes for others."""
    figure, axes = panels(1, 2, (4.6, 3.6), width_ratios=(1.5, 1))
    left, right = axes[0]
    for color, (network, found) in zip(COLORS, runs.items(), strict=False):
        curves = torch.tensor([run.accuracy for run in found])
        epochs = range(1, curves.shape[1] + 1)
        left.fill_between(epochs, curves.amin(0), curves.amax(0), color=color, alpha=0.15, lw=0)
        final = mean([run.figures["test_acc"] for run in found])
        left.plot(epochs, curves.mean(0), color=color, lw=1.8, label=f"{network}: {final:.1%} on test images")
    best = max(max(run.accuracy) for found in runs.values() for run in found)
    left.set(xlabel="epoch", ylabel="accuracy on validation images", title="While training")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylim(max(0, 1 - 2.2 * (1 - _low(runs))), min(1.0, best + 0.02) + 0.005)
    left.legend(frameon=False, fontsize=8, loc="lower right")
    network = next(iter(runs))
    _mistakes(right, runs[network][0].model, test, network)
    save(figure, options, name)


def _low(runs: dict[str, list[Trained]]) -> float:
    """The least accuracy of the second half of training, of those that learn."""
    return min(min(run.accuracy[len(run.accuracy) // 2 :]) for found in runs.values() for run in found)


def _mistakes(axes: Any, model: nn.Module, test: Part, network: str, rows: int = 3, columns: int = 4) -> None:
    """Test images taken for others: drawn side by side, label and guess below."""
    guesses = logits_of(model, test.x).argmax(1)
    wrong = (guesses != test.y).nonzero().flatten()
    axes.set_title(f"{len(wrong)} of {len(test)} mistaken by\n{network}")
    axes.axis("off")
    axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal")
    x = (test.x - test.x.amin()) / (test.x.amax() - test.x.amin())
    for place, row in enumerate(wrong[: rows * columns].tolist()):
        top, left = divmod(place, columns)
        image = x[row].movedim(0, -1).cpu().numpy()
        gray = {"cmap": "gray_r", "vmin": 0, "vmax": 1} if image.shape[-1] == 1 else {}
        axes.imshow(image, extent=(left + 0.14, left + 0.86, top + 0.76, top + 0.04), **gray)
        label, guess = test.y[row].item(), guesses[row].item()
        axes.text(left + 0.46, top + 0.9, f"{label} as ", ha="right", va="center", fontsize=8, color=MUTED)
        axes.text(left + 0.46, top + 0.9, f" {guess}", ha="left", va="center", fontsize=8, color=RED)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
