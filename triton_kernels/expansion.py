"""Around products that the library makes: the functions of some rows written out, or met by a result."""

import triton
import triton.language as tl

from .basis import ends_of, rows_held, value
from .dense import functions, levels
from .tiles import at, met


@triton.jit
def interleaved(parts):
    """Tiles [R, C], a power of two of them, as [R, C, len(parts)]."""
    COUNT: tl.constexpr = len(parts)
    LEVELS: tl.constexpr = levels(COUNT)
    for level in tl.static_range(LEVELS):
        pairs = ()
        for k in tl.static_range(COUNT // 2 ** (level + 1)):
            pairs = pairs + (tl.join(parts[k], parts[k + COUNT // 2 ** (level + 1)]),)
        parts = pairs
    return tl.reshape(parts[0], (parts[0].shape[0], parts[0].shape[1], COUNT))


@triton.jit
def points_of(sizes, TILE: tl.constexpr):
    """The only group, the rows and inputs of a tile, and which of them there are."""
    pid = tl.program_id(0)
    in_tiles = tl.cdiv(sizes.inputs, TILE.inputs)
    i = pid % in_tiles * TILE.inputs + tl.arange(0, TILE.inputs)[None, :]
    row = pid // in_tiles * TILE.rows + tl.arange(0, TILE.rows)[:, None]
    return pid * 0, row, i, (row < sizes.batch) & (i < sizes.inputs)


@triton.jit
def expand(x, s, phi, basis, sizes, SHAPE: tl.constexpr, TILE: tl.constexpr, SCALED: tl.constexpr):
    """phi [B, I, K]: every function at a tile of x [1, B, I], times s."""
    COUNT: tl.constexpr = TILE.functions
    K: tl.constexpr = SHAPE.size
    e, row, i, there = points_of(sizes, TILE)
    first, table, features = met(x, s, basis, ends_of(basis, SHAPE), sizes, e, row, i, SHAPE, SCALED)
    place = phi + (row.to(tl.int64) * sizes.inputs + i) * K
    c = tl.arange(0, COUNT)[None, None, :]
    for block in range((K + COUNT - 1) // COUNT):
        k0 = block * COUNT
        numbers = rows_held(basis, k0, COUNT, SHAPE)
        tile = interleaved(functions(first, table, features, numbers, k0, COUNT, SHAPE))
        tl.store(
            place[:, :, None] + (k0 + c), tile.to(phi.dtype.element_ty), mask=there[:, :, None] & (k0 + c < K)
        )


@triton.jit
def contract(x, t, r, basis, sizes, SHAPE: tl.constexpr, TILE: tl.constexpr):
    """r [1, B, I]: t [B, I, K] times the functions at x, summed over them."""
    N: tl.constexpr = SHAPE.n
    e, row, i, there = points_of(sizes, TILE)
    first, table, features = met(x, x, basis, ends_of(basis, SHAPE), sizes, e, row, i, SHAPE)
    place = t + (row.to(tl.int64) * sizes.inputs + i) * SHAPE.size + first
    total = tl.zeros_like(features[0])
    for j in range(N):
        reached = tl.load(place + j, mask=there, other=0.0).to(total.dtype)
        total += value(features, table, (), 0, j, SHAPE) * reached
    tl.store(at(r, e, row, i), total.to(r.data.dtype.element_ty), mask=there)
