r"""An autoencoder of high-order convolutions: images through a few numbers and back.

high-order-layers-torch has not finished its own, for CIFAR-10, and publishes no figures. With its settings:

    python -m examples.autoencoder data=cifar10 folder=FOLDER max_epochs=300 batch_size=128 optimizer=lion \
        encoder.channels=[3,32,64,128] decoder.channels=[128,64,32,16,3] mlp.width=64 \
        periodicity=2
"""

from dataclasses import dataclass, field

from torch import Tensor, nn

from high_order_fused.mlps import HighOrderMLP
from high_order_fused.norm import LazyLayerNormLastDim

from .classification import images_of
from .coding import CodingOptions, decoder, encoder, learn, picture
from .command import Figures, command, mean, seeds, show
from .optimizers import with_optimizers
from .training import evaluating, parameters, seeded


@dataclass
class Mlp:
    """The perceptron between encoder and decoder; width is that of its hidden layers."""

    layer_type: str = "continuous"
    layers: int = 1
    width: int = 32
    n: int | None = None  # null: that of all layers; so segments
    segments: int | None = None


@dataclass
class Options(CodingOptions):
    mlp: Mlp = field(default_factory=Mlp)


def network(options: Options) -> nn.Sequential:
    """From images [batch, 3, 32, 32] to images."""
    mlp, segments = options.mlp, options.mlp.segments or options.segments
    narrow = HighOrderMLP(
        mlp.layer_type,
        mlp.n or options.n,
        options.encoder.channels[-1],
        options.decoder.channels[0],
        mlp.layers,
        mlp.width,
        in_segments=segments,
        hidden_segments=segments,
        out_segments=segments,
        periodicity=options.periodicity,
        normalization=LazyLayerNormLastDim,
    )
    return nn.Sequential(encoder(options), narrow, nn.Unflatten(1, (-1, 1, 1)), decoder(options))


def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The mean squared error of the images that come back."""
    return {"loss": nn.functional.mse_loss(model(x), x)}


def run(options: Options) -> Figures:
    images = images_of(options, lambda x: 2 * x - 1)
    runs = []
    for seed in seeds(options):
        seeded(seed)
        model = network(options)
        with evaluating(model):
            model(images.train.x[:2])  # makes what is lazy
        runs.append(learn(model, losses, images, options, f"autoencoder, seed {seed}"))
    figures: Figures = {key: [run.figures[key] for run in runs] for key in runs[0].figures}
    model, x = runs[0].model, images.test.x[:10]
    with evaluating(model):
        rows = {"test images": x, f"through {options.mlp.width} numbers": model(x)}
    picture(runs[0], rows, options, "autoencoder", "Images and what comes back")
    sizes = {"parameters": parameters(model), "numbers": f"{x[0].numel()} to {options.mlp.width}"}
    note = "baseline_loss: the error of the mean image"
    show("autoencoder", [sizes | {key: mean(value) for key, value in figures.items()}], note)
    return figures


main = with_optimizers(command(Options, run))

if __name__ == "__main__":
    main()
