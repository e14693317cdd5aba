"""The module attentions, which nothing else uses: attention from content, from location and by heads.

Shapes: query [B, Q, D], key and value [B, V, D], masks True where nothing is to be seen. Parameters have the
peer's names, shapes and, from the same seed, values. Source: high-order-layers-torch, attentions.
"""

import math
from typing import Optional, Tuple  # noqa: UP035

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "AdditiveAttention",
    "CustomizingAttention",
    "DotProductAttention",
    "F",
    "LocationAwareAttention",
    "MultiHeadAttention",
    "MultiHeadLocationAwareAttention",
    "Optional",
    "RelativeMultiHeadAttention",
    "ScaledDotProductAttention",
    "Tensor",
    "Tuple",
    "math",
    "nn",
    "torch",
]

try:  # only so that star imports bring it along
    import numpy as np
except ModuleNotFoundError:
    pass
else:
    __all__ += ["np"]

Pair = tuple[Tensor, Tensor]  # context and attention


class ScaledDotProductAttention(nn.Module):
    """softmax(q k / sqrt(dim)) v; returns it [B, Q, D] and the softmax [B, Q, V]. mask: as many numbers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.sqrt_dim = math.sqrt(dim)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Pair:
        score = query @ key.mT / self.sqrt_dim
        if mask is not None:
            score = score.masked_fill(mask.view(score.shape), -math.inf)
        attn = score.softmax(-1)
        return attn @ value, attn


class DotProductAttention(nn.Module):
    """softmax(q v) v; returns it [B, Q, D] and the softmax [B, Q, V]. hidden_dim is not needed."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()

    def forward(self, query: Tensor, value: Tensor) -> Pair:
        attn = (query @ value.mT).softmax(-1)
        return attn @ value, attn


class AdditiveAttention(nn.Module):
    """Scores of tanh(key + query + bias), each projected; query [B, 1 or V, D].

    Returns the context [B, 1, D] and the attention [B, V].
    Source: Bahdanau, Cho, Bengio, Neural Machine Translation by Jointly Learning to Align and Translate.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.query_proj = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.key_proj = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.bias = _bias(hidden_dim)
        self.score_proj = nn.Linear(hidden_dim, 1)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Pair:
        score = self.score_proj(torch.tanh(self.key_proj(key) + self.query_proj(query) + self.bias))
        attn = score.squeeze(-1).softmax(-1)
        return attn.unsqueeze(1) @ value, attn


class LocationAwareAttention(nn.Module):
    """`AdditiveAttention` that also sees where attention was, last_attn [B, V] or None; context [B, D].

    smoothing: scores are sigmoids divided by their sum, otherwise a softmax.
    Source: Chorowski et al., Attention-Based Models for Speech Recognition.
    """

    def __init__(self, hidden_dim: int, smoothing: bool = True) -> None:
        super().__init__()
        self.hidden_dim, self.smoothing = hidden_dim, smoothing
        self.conv1d = nn.Conv1d(1, hidden_dim, 3, padding=1)
        self.query_proj = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.value_proj = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.score_proj = nn.Linear(hidden_dim, 1)
        self.bias = _bias(hidden_dim)

    def forward(self, query: Tensor, value: Tensor, last_attn: Tensor | None) -> Pair:
        if last_attn is None:
            last_attn = value.new_zeros(value.shape[:2])
        location = self.conv1d(last_attn.unsqueeze(1)).mT
        seen = self.query_proj(query) + self.value_proj(value) + location + self.bias
        score = self.score_proj(torch.tanh(seen)).squeeze(-1)
        if self.smoothing:
            score = score.sigmoid()
            attn = score / score.sum(-1, keepdim=True)
        else:
            attn = score.softmax(-1)
        return (attn.unsqueeze(1) @ value).squeeze(1), attn


class MultiHeadLocationAwareAttention(nn.Module):
    """`LocationAwareAttention` by heads: query [B, 1, D], last_attn [B, heads, V] or None.

    Returns the context [B, 1, D] and the attention [B, heads, V]. Scores see the values head by head, but the
    context takes them in another order, as by the peer, which reads heads as positions there.
    """

    def __init__(self, hidden_dim: int, num_heads: int = 8, conv_out_channel: int = 10) -> None:
        super().__init__()
        self.hidden_dim, self.num_heads, self.dim = hidden_dim, num_heads, hidden_dim // num_heads
        self.conv1d = nn.Conv1d(num_heads, conv_out_channel, 3, padding=1)
        self.loc_proj = nn.Linear(conv_out_channel, self.dim, bias=False)
        self.query_proj = nn.Linear(hidden_dim, self.dim * num_heads, bias=False)
        self.value_proj = nn.Linear(hidden_dim, self.dim * num_heads, bias=False)
        self.score_proj = nn.Linear(self.dim, 1)
        self.bias = _bias(self.dim)

    def forward(self, query: Tensor, value: Tensor, last_attn: Tensor | None) -> Pair:
        if last_attn is None:
            last_attn = value.new_zeros(len(value), self.num_heads, value.shape[1])
        location = torch.tanh(self.loc_proj(self.conv1d(last_attn).mT)).unsqueeze(1)  # one for all heads
        query, value = (
            _heads(projected, self.num_heads)
            for projected in (self.query_proj(query), self.value_proj(value))
        )
        attn = self.score_proj(torch.tanh(value + query + location + self.bias)).squeeze(-1).softmax(-1)
        mixed = value.reshape(len(value), -1, self.num_heads, self.dim).transpose(1, 2)
        return _joined(attn.unsqueeze(2) @ mixed), attn


class MultiHeadAttention(nn.Module):
    """`ScaledDotProductAttention` by heads, without a last projection; mask [B, Q, V].

    Returns the context [B, Q, D] and the attention [heads B, Q, V]. There heads come first, while masks are
    laid out as if samples did: where samples differ in theirs, they meet others' scores, as by the peer.
    Source: Vaswani et al., Attention Is All You Need.
    """

    def __init__(self, d_model: int = 512, num_heads: int = 8) -> None:
        super().__init__()
        self.num_heads, self.d_head = num_heads, _split(d_model, num_heads)
        self.scaled_dot_attn = ScaledDotProductAttention(self.d_head)
        self.query_proj = nn.Linear(d_model, d_model)
        self.key_proj = nn.Linear(d_model, d_model)
        self.value_proj = nn.Linear(d_model, d_model)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Pair:
        query, key, value = (
            _heads(projected, self.num_heads).transpose(0, 1).flatten(0, 1)
            for projected in (self.query_proj(query), self.key_proj(key), self.value_proj(value))
        )
        if mask is not None:
            mask = mask.repeat_interleave(self.num_heads, 0)
        context, attn = self.scaled_dot_attn(query, key, value, mask)
        return _joined(context.unflatten(0, (self.num_heads, -1)).transpose(0, 1)), attn


class RelativeMultiHeadAttention(nn.Module):
    """Attention by heads with relative positions pos_embedding [B, V, D]; mask [B, 1 or Q, V]; y [B, Q, D].

    Scores are divided by sqrt(d_model), not by that of a head's size, as by the peer.
    Source: Dai et al., Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context.
    """

    def __init__(self, d_model: int = 512, num_heads: int = 16, dropout_p: float = 0.1) -> None:
        super().__init__()
        self.d_model, self.num_heads, self.d_head = d_model, num_heads, _split(d_model, num_heads)
        self.sqrt_dim = math.sqrt(d_model)
        self.query_proj = nn.Linear(d_model, d_model)
        self.key_proj = nn.Linear(d_model, d_model)
        self.value_proj = nn.Linear(d_model, d_model)
        self.pos_proj = nn.Linear(d_model, d_model, bias=False)
        self.dropout = nn.Dropout(dropout_p)
        self.u_bias = nn.Parameter(torch.empty(num_heads, self.d_head))
        self.v_bias = nn.Parameter(torch.empty(num_heads, self.d_head))
        nn.init.xavier_uniform_(self.u_bias)
        nn.init.xavier_uniform_(self.v_bias)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, pos_embedding: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        query, key, value, position = (
            _heads(projected, self.num_heads)
            for projected in (
                self.query_proj(query),
                self.key_proj(key),
                self.value_proj(value),
                self.pos_proj(pos_embedding),
            )
        )
        content = (query + self.u_bias.unsqueeze(1)) @ key.mT
        score = (content + _shifted((query + self.v_bias.unsqueeze(1)) @ position.mT)) / self.sqrt_dim
        if mask is not None:
            score = score.masked_fill(mask.unsqueeze(1), -1e9)
        y: Tensor = self.out_proj(_joined(self.dropout(score.softmax(-1)) @ value))
        return y


class CustomizingAttention(nn.Module):
    """`ScaledDotProductAttention` by heads over values that know where attention was.

    last_attn [B heads, V] or None. Returns the context [B, Q, D] and the attention, [B heads, V] for one
    query, so that it can be handed on, else [B heads, Q, V]. The peer's forward raises.
    """

    def __init__(self, hidden_dim: int, num_heads: int = 4, conv_out_channel: int = 10) -> None:
        super().__init__()
        self.hidden_dim, self.num_heads, self.dim = hidden_dim, num_heads, hidden_dim // num_heads
        self.scaled_dot_attn = ScaledDotProductAttention(self.dim)
        self.conv1d = nn.Conv1d(1, conv_out_channel, 3, padding=1)
        self.query_proj = nn.Linear(hidden_dim, self.dim * num_heads)
        self.value_proj = nn.Linear(hidden_dim, self.dim * num_heads, bias=False)
        self.loc_proj = nn.Linear(conv_out_channel, self.dim, bias=False)
        self.bias = _bias(self.dim * num_heads)

    def forward(self, query: Tensor, value: Tensor, last_attn: Tensor | None) -> Pair:
        batch, length = value.shape[:2]
        if last_attn is None:
            last_attn = value.new_zeros(batch * self.num_heads, length)
        value = self.value_proj(value) + self.get_loc_energy(last_attn, batch, length) + self.bias
        query, value = (
            _heads(projected, self.num_heads).flatten(0, 1) for projected in (self.query_proj(query), value)
        )
        context, attn = self.scaled_dot_attn(query, value, value)
        return _joined(context.unflatten(0, (batch, -1))), attn.squeeze(1)

    def get_loc_energy(self, last_attn: Tensor, batch_size: int, v_len: int) -> Tensor:
        """What the values get from where attention was: [B, V, D]."""
        features = self.conv1d(last_attn.unsqueeze(1)).mT
        return _joined(self.loc_proj(features).view(batch_size, self.num_heads, v_len, self.dim))


def _bias(size: int) -> nn.Parameter:
    """Drawn twice, as by the peer, so that what is drawn next is the same."""
    return nn.Parameter(torch.rand(size).uniform_(-0.1, 0.1))


def _split(d_model: int, num_heads: int) -> int:
    """The size of a head."""
    if d_model % num_heads:
        raise ValueError(f"num_heads: got {num_heads}, needs to divide d_model = {d_model}")
    return d_model // num_heads


def _heads(x: Tensor, heads: int) -> Tensor:
    """[B, N, D] as [B, heads, N, D / heads]."""
    split: Tensor = x.unflatten(-1, (heads, -1))
    return split.transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    """[B, heads, N, D / heads] as [B, N, D]."""
    return x.transpose(1, 2).flatten(2)


def _shifted(score: Tensor) -> Tensor:
    """[B, heads, Q, V] with row q moved by Q - 1 - q to the left: what was by distance is by position."""
    batch, heads, queries, values = score.shape
    padded = F.pad(score, (1, 0)).view(batch, heads, values + 1, queries)
    return padded[:, :, 1:].reshape(score.shape)
