r"""A network of cubic polynomials against linear layers with ReLU: the comparison of polynomial-mlp.

With 28 x 28 images the networks have 63,560 and 15,950 parameters. Published means of four runs, accuracy and
loss: MNIST 0.9561 and 0.1628 (polynomial), 0.9527 and 0.1863 (linear); Fashion-MNIST 0.8521 and 0.4294,
0.8537 and 0.4253. They are trained on all images, while here a sixth is kept for validation.

    python -m examples.polynomial_mlp data=mnist folder=FOLDER seeds=4 max_epochs=50 batch_size=2048 \
        optimizer=adam optimizer.lr=0.1 optimizer.scheduler=none noise=0 label_smoothing=0
"""

from dataclasses import dataclass

from high_order_fused.polynomial_mlp import PolynomialMLP, SimpleMLP

from .classification import ClassificationOptions, compare, images_of, train
from .command import Figures, command
from .optimizers import with_optimizers


@dataclass
class Options(ClassificationOptions):
    polynomial_degree: int = 3
    hidden: int = 20


def run(options: Options) -> Figures:
    images = images_of(options)
    sizes = {"in_features": images.train.x[0].numel(), "hidden_features": options.hidden}
    networks = {
        "polynomial": lambda: PolynomialMLP(**sizes, polynomial_degree=options.polynomial_degree),
        "linear": lambda: SimpleMLP(**sizes),
    }
    return compare(
        {
            name: lambda title, make=make: train(make(), images, options, title)
            for name, make in networks.items()
        },
        images,
        options,
        "polynomial_mlp",
    )


main = with_optimizers(command(Options, run))

if __name__ == "__main__":
    main()
