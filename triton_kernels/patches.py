"""Convolutions: rows of the form that are places of images, and the places that taps reach from them."""

import math
from typing import NamedTuple

import triton
import triton.language as tl


class Axis(NamedTuple):
    """Tap t reaches from place a the place (up a + reach t + shift) / down, where that is whole and there."""

    taps: int
    up: int
    reach: int
    shift: int
    down: int

    def inverse(self) -> "Axis":
        """From there to here."""
        return Axis(self.taps, self.down, -self.reach, -self.shift, self.up)


class Patch(NamedTuple):
    """What the taps of a kernel reach, axis by axis; the last axis of taps is the fastest."""

    first: Axis
    second: Axis
    third: Axis

    def inverse(self) -> "Patch":
        """From there to here."""
        return Patch(*(axis.inverse() for axis in self))


@triton.constexpr_function
def taps(patch):
    """Of a kernel; rows that are no pixels have one."""
    return 1 if patch is None else math.prod(Axis(*axis).taps for axis in patch)


@triton.constexpr_function
def axis_of(patch, number):
    """First, second or third."""
    return Axis(*patch[number])


@triton.jit
def reached(place, tap, side, AXIS: tl.constexpr):
    """The place that a tap reaches along an axis, and whether there is one."""
    at = place * AXIS.up + tap * AXIS.reach + AXIS.shift
    if AXIS.down > 1:
        there = (at >= 0) & (at % AXIS.down == 0)
        at = at // AXIS.down
        return at, there & (at < side)
    else:
        return at, (at >= 0) & (at < side)


@triton.jit
def tapped(t, sizes, e, row, column, tap, PATCH: tl.constexpr):
    """Pointers to what a tap reaches of t from the places that are rows, and whether there is anything."""
    FIRST: tl.constexpr = axis_of(PATCH, 0)
    SECOND: tl.constexpr = axis_of(PATCH, 1)
    THIRD: tl.constexpr = axis_of(PATCH, 2)
    a = row % (sizes.own0 * sizes.own1 * sizes.own2)
    image = row // (sizes.own0 * sizes.own1 * sizes.own2)
    tap0, tap1, tap2 = tap // THIRD.taps // SECOND.taps, tap // THIRD.taps % SECOND.taps, tap % THIRD.taps
    at0, there0 = reached(a // (sizes.own2 * sizes.own1), tap0, sizes.other0, FIRST)
    at1, there1 = reached(a // sizes.own2 % sizes.own1, tap1, sizes.other1, SECOND)
    at2, there2 = reached(a % sizes.own2, tap2, sizes.other2, THIRD)
    place = (at0.to(tl.int64) * sizes.other1 + at1) * sizes.other2 + at2
    base = t.data + e.to(tl.int64) * t.group + image.to(tl.int64) * t.row
    return base + column.to(tl.int64) * t.column + place, there0 & there1 & there2
