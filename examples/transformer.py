"""A language model with high-order feed-forward networks, beside the same with ReLU and plain frequencies.

It learns the docstrings of Python's standard library, a tenth of which is kept to judge by; or WikiText:

    python -m examples.transformer data=FOLDER unit=words fraction=0.1

The folder has WikiText's files as they are published: wiki.train.tokens and wiki.valid.tokens, or those with
.raw. The first seed's high-order model is written to transformer.pt, for examples.transformer_predict.
Perplexity is the exponential of a token's mean negative log likelihood. high-order-networks-pytorch, which
has such an example, reports no figure.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from high_order_fused.optim import make_optimizer
from high_order_fused.transformer import RELU, TransformerModel

from . import command, pictures, text, training
from .command import Figures, mean, seeds, show


@dataclass
class Options(command.Options):
    data: str | None = None  # a folder with the files of WikiText
    unit: str = "characters"  # or words
    fraction: float = 1.0  # of the text to train on
    vocabulary: int = 10_000  # so many different units at most
    layer_type: str = "continuous"
    n: int = 3
    segments: int = 4
    width: int = 64
    heads: int = 4
    blocks: int = 2
    context: int = 96
    max_epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 5e-3
    gradient_clip_val: float = 1.0


@dataclass
class Learned:
    """The perplexity after each epoch, and in the end the mean loss at each place of the context."""

    perplexity: list[float]
    losses: Tensor


def run(options: Options) -> Figures:
    if options.tiny:
        options.fraction, options.width, options.blocks, options.context = 0.05, 32, 1, 32
        options.max_epochs, options.batch_size = 2, 16
    train, held_out = text.load(options.data, options.unit, options.fraction)
    if options.tiny:
        del held_out[20_000:]
    vocabulary = text.known(train, options.vocabulary)
    train_rows, held_out_rows = (
        rows(text.encoded(units, vocabulary), options.context).to(options.device)
        for units in (train, held_out)
    )
    unigram = unigram_perplexity(train_rows, held_out_rows, len(vocabulary))
    figures: Figures = {
        "unigram perplexity": unigram,
        "vocabulary": len(vocabulary),
        "trained on": len(train),
    }
    shown: dict[str, Learned] = {}
    table: list[dict[str, Any]] = [
        {"model": "unigram", "parameters": len(vocabulary), "each": "", "mean": unigram}
    ]
    for kind in (options.layer_type, RELU):
        found = []
        for seed in seeds(options):
            training.seeded(seed)
            model = network(kind, len(vocabulary), options).to(options.device)
            learned = learn(model, train_rows, held_out_rows, options, f"{kind}, seed {seed}")
            found.append(learned.perplexity[-1])
            if kind != RELU and seed == options.seed:
                write(model, vocabulary, options)
            shown.setdefault(kind, learned)
        figures |= {f"{kind} perplexity": found, f"{kind} parameters": training.parameters(model)}
        each = ", ".join(f"{perplexity:.3f}" for perplexity in found)
        table.append(
            {"model": kind, "parameters": training.parameters(model), "each": each, "mean": mean(found)}
        )
    show(
        f"Perplexity of {held_out_rows.numel():,} {options.unit} that no model has seen, for each seed", table
    )
    draw(options, unigram, shown)
    return figures


def network(kind: str, vocabulary: int, options: Options) -> TransformerModel:
    sizes = {"width": options.width, "heads": options.heads, "blocks": options.blocks}
    layer = {} if kind == RELU else {"n": options.n, "segments": options.segments}
    return TransformerModel(vocabulary, options.context, layer_type=kind, **sizes, **layer)


def rows(tokens: Tensor, context: int) -> Tensor:
    """Tokens [N, context + 1]: from each token of a row the next is predicted."""
    if len(tokens) <= context:
        raise ValueError(f"fraction: got {len(tokens)} tokens, needs more than the context, {context}")
    return tokens.unfold(0, context + 1, context)


def loss(model: nn.Module, tokens: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def learn(model: nn.Module, train: Tensor, held_out: Tensor, options: Options, title: str) -> Learned:
    batches = training.Batches(train, size=options.batch_size)
    optimizer = make_optimizer("adam", model, lr=options.learning_rate)
    epochs, perplexity = options.max_epochs, []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, options.learning_rate / 10)
    for _ in training.epochs_of(model, loss, batches, optimizer, epochs, options.gradient_clip_val, title):
        schedule.step()
        losses = losses_by_place(model, held_out)
        perplexity.append(losses.mean().exp().item())
    return Learned(perplexity, losses)


def losses_by_place(model: nn.Module, tokens: Tensor) -> Tensor:
    """The mean loss at each place of the context, for rows of tokens [N, context + 1]."""
    total = torch.zeros(tokens.shape[1] - 1)
    with training.evaluating(model):
        for part in tokens.split(256):
            found = nn.functional.cross_entropy(
                model(part[:, :-1]).movedim(2, 1), part[:, 1:], reduction="none"
            )
            total += found.sum(0).cpu()
    return total / len(tokens)


def unigram_perplexity(train: Tensor, held_out: Tensor, vocabulary: int) -> float:
    """That of a model which knows how often each token is there; every token counts once more."""
    share = 1.0 + torch.bincount(train[:, 1:].flatten(), minlength=vocabulary)
    return (share / share.sum()).log()[held_out[:, 1:]].mean().neg().exp().item()


def write(model: TransformerModel, vocabulary: list[str], options: Options) -> None:
    path = Path(options.results) / "transformer.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    found = {"options": model.options, "vocabulary": vocabulary, "unit": options.unit, "state": state}
    torch.save(found, path)
    print(f"Wrote {path}")


def widths(length: int) -> list[int]:
    """1, 2, 4, ... and what is left, together length."""
    found: list[int] = []
    while sum(found) < length:
        found.append(min(2 ** len(found), length - sum(found)))
    return found


@pictures.styled
def draw(options: Options, unigram: float, shown: dict[str, Learned]) -> None:
    """Perplexity by epoch, and by how much of the text a model sees."""
    from matplotlib.ticker import FuncFormatter

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    figure, ((epochs, places),) = pictures.panels(1, 2, (4.4, 3.3))
    for (kind, learned), color in zip(shown.items(), pictures.COLORS, strict=False):
        number = range(1, len(learned.perplexity) + 1)
        epochs.plot(
            number, learned.perplexity, "o-", color=color, label=f"{kind}: {learned.perplexity[-1]:.2f}"
        )
        ranges = learned.losses.split(widths(len(learned.losses)))  # noisy one by one
        middle = [1 + sum(map(len, ranges[:i])) + (len(part) - 1) / 2 for i, part in enumerate(ranges)]
        seen = [part.mean().exp().item() for part in ranges]
        places.plot(middle, seen, "o-", color=color, label=kind)
    unit = options.unit.removesuffix("s")
    for axes in (epochs, places):
        axes.axhline(unigram, color=pictures.MUTED, ls=":", label=f"frequencies alone: {unigram:.1f}")
        axes.set(yscale="log", ylabel=f"perplexity of a {unit}")
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(plain)
    epochs.set(title="Text that was kept back", xlabel="epoch", xticks=list(number))
    places.set(
        title="The more is seen, the surer", xlabel=f"{options.unit} that the model sees", xscale="log"
    )
    places.xaxis.set_major_formatter(plain)
    epochs.legend(frameon=False)
    pictures.save(figure, options, "transformer")


main = command.command(Options, run)

if __name__ == "__main__":
    main()
