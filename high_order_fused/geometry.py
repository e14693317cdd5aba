"""Which pixel meets which tap: convolutions as links of pixels with every tap's outputs, placed and summed.

A pixel's channels are one row of a link whose outputs are those of all taps, so that the basis is evaluated
once a pixel. `place` adds each tap's outputs where they belong, `take` is its adjoint; what would lie outside
the image is absent. With a stride the pixels fall into phases that meet different taps. Images have three
axes, those that are not there last and of size 1.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

Index = tuple[int | slice, ...]


@dataclass(frozen=True)  # a named tuple is a tree to torch.func, whose rules expect a leaf
class Placement:
    """Tap t of pixel j belongs to output step * j + offsets[t], axis by axis, of an image of `size`."""

    step: tuple[int, ...]
    offsets: tuple[tuple[int, ...], ...]
    size: tuple[int, ...]


class Phase(NamedTuple):
    """The pixels first, first + every, ... of each axis, the taps that they meet by number, and where to."""

    first: tuple[int, ...]
    every: tuple[int, ...]
    taps: tuple[int, ...]
    placement: Placement


def phases(
    kernel: Sequence[int],
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    size: Sequence[int],
) -> list[Phase]:
    """Of a convolution into an image of `size` with so many pixels of padding before each axis."""
    found: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
    for number, tap in enumerate(itertools.product(*map(range, kernel))):
        reach = [t * d - b for t, d, b in zip(tap, dilation, before, strict=True)]  # pixel - stride * output
        first = tuple(r % s for r, s in zip(reach, stride, strict=True))
        offset = tuple((f - r) // s for f, r, s in zip(first, reach, stride, strict=True))
        found.setdefault(first, []).append((number, offset))
    ones = (1,) * len(kernel)
    return [
        Phase(
            first,
            tuple(stride),
            tuple(number for number, _ in taps),
            Placement(ones, tuple(offset for _, offset in taps), tuple(size)),
        )
        for first, taps in sorted(found.items())
    ]


def transposed_phases(
    kernel: Sequence[int],
    stride: Sequence[int],
    before: Sequence[int],
    dilation: Sequence[int],
    size: Sequence[int],
) -> list[Phase]:
    """Of a transposed convolution: one, every pixel meets every tap."""
    taps = list(itertools.product(*map(range, kernel)))
    offsets = (tuple(t * d - b for t, d, b in zip(tap, dilation, before, strict=True)) for tap in taps)
    zeros, ones = (0,) * len(kernel), (1,) * len(kernel)
    return [
        Phase(zeros, ones, tuple(range(len(taps))), Placement(tuple(stride), tuple(offsets), tuple(size)))
    ]


class Geometry(NamedTuple):
    """A convolution, or a transposed one, into an image of `size`; before: the padding before each axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    dilation: tuple[int, ...]
    size: tuple[int, ...]
    transposed: bool = False

    @property
    def taps(self) -> int:
        """Their number."""
        return math.prod(self.kernel)

    @property
    def phases(self) -> list[Phase]:
        """The pixels by the taps that they meet."""
        return (transposed_phases if self.transposed else phases)(*self[:5])

    def integers(self) -> tuple[int, ...]:
        """As operators take it: `of` makes it of them again."""
        return *itertools.chain.from_iterable(self[:5]), int(self.transposed)

    @classmethod
    def of(cls, integers: Sequence[int]) -> "Geometry":
        """From the integers, of three axes."""
        kernel, stride, before, dilation, size = (tuple(integers[k : k + 3]) for k in range(0, 15, 3))
        return cls(kernel, stride, before, dilation, size, bool(integers[15]))


def place(y: Tensor, placement: Placement) -> Tensor:
    """The image [images, *size, O] of the taps' outputs y [images, *pixels, T, O]."""
    if torch.compiler.is_compiling():  # a compiler takes the plain operations apart better
        return _placed(y, placement)
    result: Tensor = _Place.apply(y, placement)  # type: ignore[no-untyped-call]
    return result


def take(image: Tensor, pixels: tuple[int, ...], placement: Placement) -> Tensor:
    """[images, *pixels, T, O] of an image [images, *size, O], 0 beyond it: the adjoint of `place`."""
    if torch.compiler.is_compiling():
        return _taken(image, pixels, placement)
    result: Tensor = _Take.apply(image, placement, *pixels)  # type: ignore[no-untyped-call]
    return result


def _regions(pixels: Sequence[int], placement: Placement) -> Iterator[tuple[Index, Index]]:
    """For each tap that meets the image: the index of what its pixels give, and of their outputs."""
    for tap, offset in enumerate(placement.offsets):
        inside, outside = [], []
        for count, step, shift, size in zip(pixels, placement.step, offset, placement.size, strict=True):
            begin = max(0, -(shift // step))
            end = min(count, (size - 1 - shift) // step + 1)
            if begin >= end:
                break
            inside.append(slice(begin, end))
            outside.append(slice(step * begin + shift, step * (end - 1) + shift + 1, step))
        else:
            yield (slice(None), *inside, tap), (slice(None), *outside)


def _placed(y: Tensor, placement: Placement) -> Tensor:
    image = y.new_zeros(y.shape[0], *placement.size, y.shape[-1])
    for given, placed in _regions(y.shape[1:-2], placement):
        image[placed] += y[given]
    return image


def _taken(image: Tensor, pixels: tuple[int, ...], placement: Placement) -> Tensor:
    y = image.new_zeros(image.shape[0], *pixels, len(placement.offsets), image.shape[-1])
    for given, placed in _regions(pixels, placement):
        y[given] = image[placed]
    return y


class _Place(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, placement: Placement) -> Tensor:
        return _placed(y, placement)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        y, ctx.placement = inputs
        ctx.pixels = tuple(y.shape[1:-2])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return take(g, ctx.pixels, ctx.placement), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return place(tangent, ctx.placement)


class _Take(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(image: Tensor, placement: Placement, *pixels: int) -> Tensor:
        return _taken(image, pixels, placement)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.placement, *pixels = inputs
        ctx.pixels = tuple(pixels)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return place(g, ctx.placement), None, *(None for _ in ctx.pixels)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return take(tangent, ctx.pixels, ctx.placement)
