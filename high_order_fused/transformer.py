"""A language model whose feed-forward networks are high-order layers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .checks import choice, count
from .layers import high_order_fc_layers
from .norm import MaxAbsNormalizationLast

RELU = "relu"
KEYWORDS = ("consistent_length", "initialize", "length", "periodicity", "weight_magnitude")
LAYER_TYPES = (RELU, "continuous", "discontinuous", "polynomial", "fourier")


class TransformerModel(nn.Module):
    """Logits of the token that follows each token, from it and those before it.

    tokens [batch, length], integers below `vocabulary`, length from 1 to `context`; y [batch, length,
    vocabulary]. An embedding of tokens and one of positions, blocks of attention with so many heads and a
    `feed_forward`, each added to its input, layer norm, nn.Linear. dropout: of embeddings and of what is
    added, in training mode alone. layer_type and layer: see `feed_forward`. `options` holds all arguments, so
    that a checkpoint can be {"options": model.options, "state": model.state_dict()}.
    Attention is torch's scaled_dot_product_attention; for second derivatives ask for its MATH backend.

    ValueError names a wrong argument. Source: the transformer of high-order-networks-pytorch.
    """

    def __init__(
        self,
        vocabulary: int,
        context: int,
        width: int = 64,
        heads: int = 4,
        blocks: int = 2,
        dropout: float = 0.0,
        layer_type: str = "continuous",
        **layer: Any,
    ) -> None:
        super().__init__()
        if count("width", width) % count("heads", heads):
            raise ValueError(f"heads: got {heads}, needs to divide the width, {width}")
        self.options = dict(
            vocabulary=vocabulary,
            context=context,
            width=width,
            heads=heads,
            blocks=blocks,
            dropout=dropout,
            layer_type=layer_type,
            **layer,
        )
        self.context = count("context", context)
        self.tokens = nn.Embedding(count("vocabulary", vocabulary), width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    _Added(nn.Sequential(nn.LayerNorm(width), Attention(width, heads)), dropout),
                    _Added(feed_forward(width, layer_type, **layer), dropout),
                )
                for _ in range(count("blocks", blocks))
            )
        )
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.dim() != 2 or not 1 <= tokens.shape[1] <= self.context:
            raise ValueError(
                f"tokens: got shape {tuple(tokens.shape)}, "
                f"needs [batch, length] with a length from 1 to {self.context}"
            )
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(positions))
        y: Tensor = self.logits(self.norm(self.blocks(x)))
        return y

    @torch.no_grad()
    def predict(self, tokens: Tensor) -> Tensor:
        """The most likely token after each of tokens [batch, length]; RuntimeError in training mode."""
        self._certain()
        found: Tensor = self(tokens).argmax(-1)
        return found

    @torch.no_grad()
    def generate(self, tokens: Tensor, length: int, temperature: float = 0.0) -> Tensor:
        """tokens [batch, length before] and as many more as `length` says, each from the `context` before it.

        temperature 0 takes the most likely one; otherwise they are drawn, with probabilities proportional to
        exp(logits / temperature). RuntimeError in training mode.
        """
        self._certain()
        if not temperature >= 0:
            raise ValueError(f"temperature: got {temperature}, needs 0 or more")
        for _ in range(count("length", length, 0)):
            logits = self(tokens[:, -self.context :])[:, -1]
            if temperature == 0:
                following = logits.argmax(-1, keepdim=True)
            else:
                following = (logits / temperature).softmax(-1).multinomial(1)
            tokens = torch.cat([tokens, following], 1)
        return tokens

    def _certain(self) -> None:
        if self.training:
            raise RuntimeError("the model is in training mode: eval() turns dropout off")


class Attention(nn.Module):
    """Causal attention of several heads. x and y [batch, length, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        split = self.queries_keys_values(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.movedim(2, 0).transpose(2, 3)  # [batch, heads, length, width / heads]
        met = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        y: Tensor = self.out(met.transpose(1, 2).flatten(2))
        return y


class _Added(nn.Module):
    """x + dropout(inner(x))."""

    def __init__(self, inner: nn.Module, dropout: float) -> None:
        super().__init__()
        self.inner, self.dropout = inner, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.dropout(self.inner(x))
        return y


def feed_forward(
    width: int, layer_type: str, hidden: int | None = None, n: int = 3, segments: int = 4, **layer: Any
) -> nn.Sequential:
    """Two layers, to `hidden` features and back to width. x [..., width].

    Layers of `high_order_fc_layers`, by a layer_type that sums functions and its keywords; before each, the
    largest |x| of a token becomes 1, so that inputs are in [-1, 1]. Or "relu": layer norm, and nn.Linear with
    ReLU between, to which the other keywords mean nothing. hidden: 4 width for "relu", otherwise fewer, by
    the coefficients that a function has, so that the number of parameters is about the same.
    """
    for name in layer:  # `high_order_fc_layers` takes any
        choice("layer", name, KEYWORDS)
    if choice("layer_type", layer_type, LAYER_TYPES) == RELU:
        hidden = count("hidden", 4 * width if hidden is None else hidden)
        return nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )

    def edges(in_features: int, out_features: int) -> nn.Module:
        sizes = {"in_features": in_features, "out_features": out_features, "n": n, "segments": segments}
        return high_order_fc_layers(layer_type, **sizes, **layer)

    if hidden is None:
        hidden = max(1, 4 * width // next(edges(1, 1).parameters()).numel())
    return nn.Sequential(
        MaxAbsNormalizationLast(),
        edges(width, count("hidden", hidden)),
        MaxAbsNormalizationLast(),
        edges(hidden, width),
    )
