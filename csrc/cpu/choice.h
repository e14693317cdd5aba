// The cost model: by which strategy a contraction runs, and in tiles of how many rows. docs/performance.md has the
// measurements behind the numbers; `cpu_choice` shows what was chosen.
#pragma once

#include <algorithm>
#include <cstdint>

#include "problem.h"

// Always: of a function outside the variants' namespaces the linker keeps one copy, compiled for any of them.
#define INLINED __attribute__((always_inline))

namespace hof {

enum Strategy {
  PRODUCT = 0,  // every window is all coefficients: a blocked matrix product with a factor made on the fly
  GROUPED = 1,  // rows sorted by segment: a window of coefficients stays in registers while its rows go by
  ROWS = 2,     // about a row for each segment or less: coefficients in the order they lie in
};

// What rows of a product meet is kept for so many numbers at a time, within the second-level cache.
constexpr int64_t PRODUCT_NUMBERS = 65536;

// Sums over the batch that are kept beside a result which cannot hold them, and coefficients of a tile's inputs.
constexpr int64_t SUMS_NUMBERS = 1048576;

// Sums over rows are written past the caches from so many bytes on, gathered for at most so many numbers at a time.
constexpr int64_t STREAMED_BYTES = 8 << 20, STRIP_NUMBERS = 65536;

constexpr int SLOTS = 16;  // inputs of a tile at most

// With so many segments that have rows it is faster to pick each one's rows by vectors than to count them.
constexpr int FEW_SEGMENTS = 10;

// Sorting pays from about one row a segment; up to 8 rows nothing is worth preparing.
template <class T>
INLINED inline bool few_rows(const Problem<T>& p) {
  return p.batch <= std::max<int64_t>(8, p.basis.product() ? 1 : p.basis.segments);
}

template <class T>
INLINED inline Strategy strategy(const Problem<T>& p, Contraction contraction) {
  if (p.basis.product()) return PRODUCT;
  return contraction == SUM_INPUTS && few_rows(p) ? ROWS : GROUPED;
}

constexpr int64_t PART_INPUTS = 32;  // of a part, at least

// Whether the output is cut by inputs, each part with sums of its own: by sizes alone, so that bits do not depend on
// threads. A few rows, where a look-up counts as much as 64 multiplications; or rows that meet more coefficients than they
// give sums, and would be too few for a segment if they were cut.
template <class T>
INLINED inline bool by_inputs(const Problem<T>& p) {
  const Strategy chosen = strategy(p, SUM_INPUTS);
  if (chosen == GROUPED)
    return p.inputs >= 2 * PART_INPUTS && p.batch < 48 * p.basis.segments && 2 * p.batch <= p.inputs * p.basis.size;
  return chosen == ROWS && p.inputs > PART_INPUTS && p.batch * p.inputs * (p.basis.n * p.outputs + 64) >= 65536;
}

// Such parts at most. Two keep each of two processors to coefficients that it packed, and will need again for gradients:
// lines of another one's cache take several times as long, most of all where the two share no cache.
template <class T>
INLINED inline int64_t most_parts(const Problem<T>& p) { return few_rows(p) ? 64 : 2; }

// Whether coefficients that lie outputs first are packed for a tile's inputs when these are met, in scratch: where they are
// met once, by the rows of a tile that are all there are.
template <class T>
INLINED inline bool packs_tiles(const Problem<T>& p, const Cut& cut) {
  return cut.tiles == 1 && SLOTS * p.basis.size * p.outputs <= SUMS_NUMBERS;
}

// About 64 rows for each segment and 512 in all, so that a window is worth loading, within what the second-level cache holds
// of a block of y or g and of the window values of a tile's inputs.
template <class T>
INLINED inline int tile_rows(const Problem<T>& p, int64_t limit = 2048) {
  const int64_t segments = p.basis.product() ? 1 : p.basis.segments;
  const int64_t most = std::clamp<int64_t>(32768 / std::max(p.basis.n, 1), 256, limit), least = std::min<int64_t>(512, most);
  return int(std::min(std::max<int64_t>(p.batch, 1), std::clamp(64 * segments, least, most)));
}

// Twice as many float32 rows of very many segments: each tile passes over the sums of all coefficients, which no cache holds.
// Not beside a branch, whose values need the room.
template <class T>
INLINED inline int tile_rows_of_sums(const Problem<T>& p) { return tile_rows(p, p.branch || sizeof(T) > 4 ? 2048 : 4096); }

// How many windows ahead one is asked for, at most as many as there are: a few rows do not take as long as it does to come
// from memory.
template <class T>
INLINED inline int windows_ahead(const Problem<T>& p, int rows) { return rows < 48 * p.basis.segments && p.basis.segments > 1 ? 2 : 1; }

// Whether sums over rows are written past the caches: those of one tile are final, and so many would only drive out
// coefficients. (They are gathered for one input and block of outputs at a time.)
template <class T>
INLINED inline bool streams_sums(const Problem<T>& p, const Cut& cut) {
  constexpr int64_t L = 64 / int64_t(sizeof(T));  // numbers of a line
  return cut.tiles == 1 && !p.basis.product() && p.outputs % L == 0 && 4 * L * p.basis.size <= STRIP_NUMBERS &&
         p.groups * p.inputs * p.basis.size * p.outputs * int64_t(sizeof(T)) >= STREAMED_BYTES;
}

}  // namespace hof
