"""Lookup and features of a basis inside a kernel: what reference.py does, for a tile. The only copy."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

POLYNOMIAL = tl.constexpr(0)
HARMONIC = tl.constexpr(1)
NONE = tl.constexpr(0)
LIVE = tl.constexpr(1)
FROZEN = tl.constexpr(2)
MOST_HELD = 64  # numbers of a table


class Basis(NamedTuple):
    """The tensors of `Operands` (pointers in a kernel), table being that of one derivative order."""

    domain: Any
    knots: Any
    table: Any
    start: Any


class Shape(NamedTuple):
    """What a kernel is compiled for: the integers of a basis. segments count the outer ones.

    own_domain, own_knots, own_table: whether each input has its own. tables: of an input, 1 or segments.
    """

    kind: int
    uniform: int
    outer: int
    segments: int
    size: int
    n: int
    m: int
    own_domain: bool
    own_knots: bool
    own_table: bool
    tables: int


@triton.jit
def divided(a, b):
    """a / b rounded to the nearest, as every backend rounds it; in float32 `/` is not."""
    if a.dtype == tl.float32:
        return tl.div_rn(a, tl.zeros_like(a) + b)
    else:
        return a / b


@triton.jit
def ends_of(basis, SHAPE: tl.constexpr):
    """What all inputs share of the interval and the knots of a single segment, a tuple of tensors [1, 1].

    Loaded before loops that feed `tl.dot`, as `rows_held` are: each load inside them would be copied ahead
    into shared memory, and a scalar between x and a factor would send that factor through shared memory.
    """
    ends = ()
    if not SHAPE.own_domain:
        ends = (one(basis.domain, 0), one(basis.domain, 1))
    if SHAPE.segments == 1 and not SHAPE.own_knots:
        ends = ends + (one(basis.knots, 0), one(basis.knots, 1))
    return ends


@triton.constexpr_function
def holds(shape, count):
    """Whether every thread holds the table of `count` functions in registers."""
    shape = Shape(*shape)  # Triton 3.6 hands a plain tuple
    rows = count if shape.n == shape.size else shape.n
    return shape.tables == 1 and not shape.own_table and rows * shape.m <= MOST_HELD


@triton.jit
def rows_held(basis, k0, COUNT: tl.constexpr, SHAPE: tl.constexpr):
    """The numbers of a table that all inputs and segments share, a tuple of tensors [1, 1].

    Where every window is all of the coefficients, rows k0 .. k0 + COUNT - 1 alone. None where they are many.
    """
    WHOLE: tl.constexpr = SHAPE.n == SHAPE.size
    ROWS: tl.constexpr = COUNT if WHOLE else SHAPE.n
    M: tl.constexpr = SHAPE.m
    numbers = ()
    if holds(SHAPE, COUNT):
        for j in tl.static_range(ROWS):
            row = tl.minimum((k0 if WHOLE else 0) + j, SHAPE.n - 1) * M
            for f in tl.static_range(M):
                numbers = numbers + (one(basis.table, row + f),)
    return numbers


@triton.jit
def one(pointer, index):
    """The number there, a tensor [1, 1]."""
    return tl.load(pointer + tl.full([1, 1], index, tl.int32))


@triton.jit
def locate(x, feature, basis, ends, SHAPE: tl.constexpr):
    """Segment (int32) and local coordinate of x, of x's shape; NaN is in the first segment inside."""
    OUTER: tl.constexpr = SHAPE.outer
    INNER: tl.constexpr = SHAPE.segments if OUTER == NONE else SHAPE.segments - 2
    if SHAPE.own_domain:
        low, high = tl.load(basis.domain + feature * 2), tl.load(basis.domain + feature * 2 + 1)
    else:
        low, high = ends[0], ends[1]
    knots = basis.knots
    if SHAPE.own_knots:
        knots = basis.knots + feature * (SHAPE.segments + 1)
    segment = tl.zeros_like(x).to(tl.int32)
    if SHAPE.uniform:
        position = divided(x - low, high - low) * INNER
        position = tl.where(position > 0, position, 0.0)  # NaN becomes 0
        segment = tl.where(position < INNER - 1, position, INNER - 1.0).to(tl.int32)
    else:
        between = knots + (1 if OUTER == NONE else 2)  # the knots between the segments inside
        for step in tl.static_range(steps(INNER)):
            segment = half_way(x, between, segment, 2 ** (steps(INNER) - 1 - step), INNER)
    if OUTER != NONE:
        segment = tl.where(x < low, 0, tl.where(x > high, INNER + 1, segment + 1))
    if SHAPE.segments == 1 and not SHAPE.own_knots:
        left, right = ends[-2], ends[-1]
    else:
        left, right = tl.load(knots + segment), tl.load(knots + segment + 1)
    u = 2 * divided(x - left, right - left) - 1
    if OUTER == FROZEN:
        u = tl.where((segment == 0) | (segment == INNER + 1), 0.0, u)
    return segment, u


@triton.jit
def half_way(x, knots, segment, HALF: tl.constexpr, SEGMENTS: tl.constexpr):
    """A step of the search: HALF segments further, if x is there."""
    there = segment + HALF < SEGMENTS
    right = x >= tl.load(knots + segment + (HALF - 1), mask=there, other=0.0)
    return tl.where(there & right, segment + HALF, segment)


@triton.constexpr_function
def steps(segments):
    """Halvings that find one of so many segments."""
    return (segments - 1).bit_length()


@triton.jit
def nearest(t):
    """The nearest integer, ties to even."""
    WHOLE: tl.constexpr = (
        8388608.0 if t.dtype == tl.float32 else 4503599627370496.0
    )  # no fractions from here on
    shift = tl.where(t < 0, -WHOLE, WHOLE).to(t.dtype)
    return tl.where((t < WHOLE) & (t > -WHOLE), (t + shift) - shift, t)


@triton.jit
def sincospi(t):
    """sin(pi t) and cos(pi t): exact reduction to |t| <= 1/4, then Taylor series. Infinite t gives NaN."""
    turn = t - 2 * nearest(t / 2)
    quarter = nearest(2 * turn)
    a = 3.14159265358979323846 * (turn - quarter / 2)
    q = a * a
    # the terms that are below the last bit of float32 are kept: they cost little beside a product's column
    s = q * (1.0 / 355687428096000) - 1.0 / 1307674368000
    s = ((s * q + 1.0 / 6227020800) * q - 1.0 / 39916800) * q + 1.0 / 362880
    s = ((s * q - 1.0 / 5040) * q + 1.0 / 120) * q - 1.0 / 6
    c = q * (-1.0 / 6402373705728000) + 1.0 / 20922789888000
    c = ((c * q - 1.0 / 87178291200) * q + 1.0 / 479001600) * q - 1.0 / 3628800
    c = ((c * q + 1.0 / 40320) * q - 1.0 / 720) * q + 1.0 / 24
    c = c * q - 0.5
    s = a + a * q * s
    c = 1 + q * c
    swapped = (quarter == 1) | (quarter == -1)
    negative, half = quarter < 0, (quarter == 2) | (quarter == -2)
    sine = tl.where(swapped, tl.where(negative, -c, c), tl.where(half, -s, s))
    cosine = tl.where(swapped, tl.where(negative, s, -s), tl.where(half, -c, c))
    return sine, cosine


@triton.jit
def features(u, SHAPE: tl.constexpr):
    """The features at local coordinate u, a tuple; beside outer segments bubbles end with theirs."""
    M: tl.constexpr = SHAPE.m
    one = tl.where(u == u, 1.0, u).to(u.dtype)
    if SHAPE.kind == HARMONIC:
        phi = (one,)
        if M > 1:
            s1, c1 = sincospi(u)
            sine, cosine = s1, c1
            for _ in tl.static_range(1, M, 2):
                phi = phi + (sine, cosine)
                sine, cosine = sine * c1 + cosine * s1, cosine * c1 - sine * s1
    elif M == 1:
        phi = (one,)
    else:
        within = u
        if SHAPE.outer != NONE:
            within = tl.where(u > 1, 1.0, tl.where(u < -1, -1.0, u)).to(u.dtype)
        along = u if SHAPE.outer == LIVE else within
        phi = ((1 - along) / 2, (1 + along) / 2)
        older = (1 - within) * (1 + within)
        old = older * within
        for _ in tl.static_range(2, M):
            phi = phi + (older,)
            older, old = old, 2 * within * old - older
    return phi


@triton.jit
def meet(x, feature, basis, ends, SHAPE: tl.constexpr):
    """Where x falls: its segment's first coefficient (int32), its table's place, and the features there."""
    segment, u = locate(x, feature, basis, ends, SHAPE)
    table = basis.table
    if SHAPE.own_table:
        table = table + feature * (SHAPE.tables * SHAPE.n * SHAPE.m)
    if SHAPE.tables > 1:
        table = table + segment * (SHAPE.n * SHAPE.m)
    first = tl.zeros_like(segment)
    if SHAPE.n < SHAPE.size:
        first = tl.load(basis.start + segment).to(tl.int32)
    return first, table, features(u, SHAPE)


@triton.jit
def value(phi, table, numbers, j0, j, SHAPE: tl.constexpr):
    """Function j0 + j of a window: a row of its table, or of the rows held from j0 on, times the features."""
    M: tl.constexpr = SHAPE.m
    IN_HAND: tl.constexpr = len(numbers) > 0
    row = table
    if not IN_HAND:
        row = table + tl.minimum(j0 + j, SHAPE.n - 1) * M
    total = (numbers[j * M] if IN_HAND else tl.load(row)) * phi[0]
    for f in tl.static_range(1, M):
        total += (numbers[j * M + f] if IN_HAND else tl.load(row + f)) * phi[f]
    return total
