r"""A variational autoencoder of high-order convolutions: images through latent variables, new ones of noise.

high-order-layers-torch has its own for CIFAR-10, as work in progress, and publishes no figures. Its settings:

    python -m examples.variational_autoencoder data=cifar10 folder=FOLDER max_epochs=300 batch_size=128 \
        encoder.channels=[3,32,64,128] decoder.channels=[128,64,32,16,3] latent_dim=128 M_N=2.56e-5 \
        periodicity=2 optimizer=adam optimizer.lr=5e-3 optimizer.scheduler=exponential

Of the settings that it tunes, a grid, with the figures of all in a table; with hydra's plugin for Optuna or
Nevergrad, `hydra/sweeper=optuna` or `hydra/sweeper=nevergrad` makes of it a search for the smallest val_loss:

    python -m examples.variational_autoencoder -m n=2,3,4 segments=2,4,10
"""

from dataclasses import dataclass

from torch import Tensor, nn

from high_order_fused.vae import VanillaVAE

from .classification import images_of
from .coding import CodingOptions, decoder, encoder, learn, picture
from .command import Figures, command, mean, seeds, show
from .optimizers import with_optimizers
from .training import evaluating, parameters, seeded

FIGURES = "val_loss", "test_loss", "test_Reconstruction_Loss", "test_KLD", "baseline_loss"


@dataclass
class Options(CodingOptions):
    latent_dim: int = 32
    M_N: float = 1e-4  # weight of the divergence from N(0, 1)


def run(options: Options) -> Figures:
    images = images_of(options, lambda x: 2 * x - 1)

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        assert isinstance(model, VanillaVAE)
        return model.loss_function(*model(x), M_N=options.M_N)

    runs = []
    for seed in seeds(options):
        seeded(seed)
        model = VanillaVAE(options.latent_dim, encoder(options), decoder(options))
        runs.append(learn(model, losses, images, options, f"autoencoder, seed {seed}"))
    figures: Figures = {key: [run.figures[key] for run in runs] for key in FIGURES}
    model, x = runs[0].model, images.test.x[:10]
    assert isinstance(model, VanillaVAE)
    with evaluating(model):
        rows = {
            "test images": x,
            f"through {options.latent_dim} latent variables": model.generate(x),
            "new, from noise": model.sample(10),
        }
    picture(runs[0], rows, options, "variational_autoencoder", "Images, what comes back, and new ones")
    shown = {key: mean(figures[key]) for key in FIGURES}
    note = "baseline_loss: the error of the mean image"
    show("variational autoencoder", [{"parameters": parameters(model)} | shown], note)
    return figures


main = with_optimizers(command(Options, run, objective="val_loss"))

if __name__ == "__main__":
    main()
