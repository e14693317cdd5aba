r"""Handwritten digits by perceptrons that know nothing of images, with and without p-refinement.

`mlp.p_refine=True` trains with n nodes, goes on from the very same functions with n + 1, and so on to
target_n, which is trained, too: a change of order leaves the loss as it is. high-order-layers-torch publishes
for MNIST, one hidden layer of 128, max_abs, sophia and n = 2 to 6: 0.950 to 0.979 (polynomial), 0.960 to
0.974 (continuous), 0.960 to 0.973 (discontinuous). Its whole sweep is

    python -m examples.invariant_mnist -m data=mnist folder=FOLDER max_epochs=100 batch_size=256 noise=0 \
        label_smoothing=0 periodicity=null mlp.hidden.width=128 mlp.n=2,3,4,5,6 \
        mlp.layer_type=polynomial,continuous,discontinuous,fourier optimizer=sophia,lion \
        mlp.normalize=max_abs,layer_norm relu=False

and its refinement, with `mlp.hidden.layers=4`, `mlp.layer_type=continuous mlp.n=2 mlp.target_n=5
mlp.p_refine=True max_epochs=100`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from high_order_fused.checks import choice
from high_order_fused.mlps import HighOrderMLP, LowOrderMLP
from high_order_fused.norm import normalization_layers
from high_order_fused.peer_refinement import interpolate_high_order_mlp

from .classification import FIGURES, ClassificationOptions, Trained, compare, images_of, judge, train
from .command import Figures, command
from .data import Images
from .optimizers import with_optimizers


@dataclass
class Hidden:
    width: int = 64
    layers: int = 0  # between the first layer and the last one


@dataclass
class Mlp:
    layer_type: str = "continuous"
    n: int = 3
    target_n: int = 5  # the last order of refinement
    segments: int = 2
    p_refine: bool = True  # compare refinement with target_n nodes from the beginning
    normalize: str | None = "max_abs"
    dropout: float = 0.0
    hidden: Hidden = field(default_factory=Hidden)


@dataclass
class Options(ClassificationOptions):
    mlp: Mlp = field(default_factory=Mlp)
    periodicity: float | None = None
    relu: bool = True  # a ReLU network of as many units beside it


def network(options: Options, n: int, pixels: int) -> nn.Sequential:
    """Logits of images of so many pixels, n nodes a segment."""
    mlp, s = options.mlp, options.mlp.segments
    normalize = choice("mlp.normalize", mlp.normalize, normalization_layers) if mlp.normalize else None
    perceptron = HighOrderMLP(
        mlp.layer_type,
        n,
        pixels,
        10,
        mlp.hidden.layers,
        mlp.hidden.width,
        in_segments=s,
        hidden_segments=s,
        out_segments=s,
        periodicity=options.periodicity,
        normalization=normalization_layers[normalize] if normalize else None,
        dropout=mlp.dropout,
    )
    return nn.Sequential(nn.Flatten(), perceptron)


def refined(options: Options, images: Images, title: str) -> Trained:
    """Train every order from n to target_n for its share of the epochs, each from the functions before it.

    The figure refinement_gap is the largest change of the training loss by a change of order, relative.
    """
    orders = range(options.mlp.n, options.mlp.target_n + 1)
    if not orders:
        raise ValueError(f"mlp.target_n: got {options.mlp.target_n}, needs at least n, {options.mlp.n}")
    runs: list[Trained] = []
    gaps = []
    for place, n in enumerate(orders):
        model = network(options, n, images.train.x[0].numel()).to(options.device)
        if runs:
            before = runs[-1].model
            interpolate_high_order_mlp(before[1], model[1])
            losses = [judge(m, images.train, "train")["train_loss"] for m in (before, model)]
            gaps.append(abs(losses[1] - losses[0]) / losses[0])
        first, end = (options.epochs * share // len(orders) for share in (place, place + 1))
        runs.append(train(model, images, options, f"{title}, n = {n}", range(first, end)))
    figures = runs[-1].figures | {"refinement_gap": max(gaps, default=0.0)}
    accuracy = [value for run in runs for value in run.accuracy]
    return Trained(runs[-1].model, accuracy, figures, [value for run in runs for value in run.losses])


def run(options: Options) -> Figures:
    images = images_of(options, lambda x: 2 * x - 1)
    mlp, pixels = options.mlp, images.train.x[0].numel()

    def whole(n: int, title: str) -> Trained:
        return train(network(options, n, pixels), images, options, title)

    def relu(title: str) -> Trained:
        perceptron = LowOrderMLP(pixels, 10, mlp.hidden.layers, mlp.hidden.width, nn.ReLU())
        return train(nn.Sequential(nn.Flatten(), perceptron), images, options, title)

    networks: dict[str, Callable[[str], Trained]] = {}
    last = mlp.n
    if mlp.p_refine:
        last = mlp.target_n
        networks[f"{mlp.layer_type}, n = {mlp.n} to {last}"] = lambda title: refined(options, images, title)
    networks[f"{mlp.layer_type}, n = {last}"] = lambda title: whole(last, title)
    if options.relu:
        networks["ReLU"] = relu
    note = "refinement_gap: how much of itself the training loss changes at a change of order, at most"
    figures = (*FIGURES, "refinement_gap")
    return compare(networks, images, options, "invariant_mnist", note * mlp.p_refine, figures)


main = with_optimizers(command(Options, run))

if __name__ == "__main__":
    main()
