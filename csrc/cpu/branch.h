// The base branch of a link in the pass over its rows: y += values weight^T for a tile, and its gradients from the tile's
// g, all as blocked matrix products.
#pragma once

#include "cut.h"

namespace hof {
namespace HOF_VARIANT {

constexpr int64_t BASE_INPUTS = 64;  // whose values are taken at a time

// Rows [row, row + rows) of group e.
struct SomeRows {
  int64_t e, row;
  int rows;
};

// Numbers of scratch for a tile.
template <class T>
inline int64_t base_numbers(const Problem<T>& p, int rows) { return p.base ? rows * BASE_INPUTS : 0; }

// to[row][BASE_INPUTS]: as they lie, rows a power of two apart would have to share a few places of the caches.
template <class T, class S>
inline void take_values(const Base<T>& base, const SomeRows& tile, int64_t input, int64_t inputs, T* to) {
  constexpr int L = Simd<T>::lanes;
  const S* from = static_cast<const S*>(base.values) + tile.e * base.group + tile.row * base.row + input;
  for (int r = 0; r < tile.rows; ++r)
    for (int64_t k = 0; k < inputs; k += L) store(to + r * BASE_INPUTS + k, load_some_as<T>(from + r * base.row + k, inputs - k));
}

// y[row, o] += what inputs [input, end) give to some outputs, from the first of them on in weight.
template <class T, class S>
inline void add_base(const Problem<T>& p, const SomeRows& tile, int64_t input, int64_t end, const S* weight, int64_t outputs,
                     const Blocks<T>& y, T* room) {
  for (int64_t i = input; i < end; i += BASE_INPUTS) {
    const int inputs = int(std::min(BASE_INPUTS, end - i));
    take_values<T, S>(*p.base, tile, i, inputs, room);
    const S* w = weight + (tile.e * p.inputs + i) * p.outputs;
    multiply_tile(w, p.outputs, outputs, Rows<BASE_INPUTS, T>{room}, inputs, tile.rows, y);
  }
}

template <class T>
inline void clear_base(const Problem<T>& p, int64_t e, int64_t input, int64_t end) {
  for (int64_t o = 0; o < p.outputs; ++o) std::fill_n(p.base->of_weight + (e * p.outputs + o) * p.inputs + input, end - input, T(0));
}

// of_weight += the sums over a tile's rows, of_values, if wanted, = those over outputs, of inputs [input, end).
template <class S, class T>
inline void add_base_gradients(const Problem<T>& p, const SomeRows& tile, int64_t input, int64_t end, const Blocks<T>& g, T* room) {
  const Base<T>& base = *p.base;
  const int64_t group = tile.e * p.outputs * p.inputs;
  for (int64_t i = input; i < end; i += BASE_INPUTS) {
    const int64_t inputs = std::min(BASE_INPUTS, end - i);
    T* of_weight = base.of_weight + group + i;
    take_values<T, S>(base, tile, i, inputs, room);
    over_blocks<T>(1, p.outputs, [&]<int, int P>(int, int64_t o) {
      using Phi = Rows<row_stride<T, P>(), T>;
      const int outputs = int(std::min(row_stride<T, P>(), p.outputs - o));
      over_blocks<T>(1, inputs, [&]<int, int Q>(int, int64_t k) {
        over_rows<T, Q>(outputs, [&]<int R, int>(int f) {
          const bool whole = inputs - k >= row_stride<T, Q>();
          auto multiply = whole ? multiply_batch<T, R, Q, true, Phi> : multiply_batch<T, R, Q, false, Phi>;
          multiply(room + k, BASE_INPUTS, Phi{g.at(o) + f}, tile.rows, of_weight + (o + f) * p.inputs + k, p.inputs, inputs - k);
        });
      });
    });
    if (!base.of_values) continue;
    const Blocks<T> sums{room, tile.rows};
    std::fill_n(room, tile.rows * BASE_INPUTS, T(0));
    const S* w = static_cast<const S*>(base.weight) + group + i;
    over_blocks<T>(1, p.outputs, [&]<int, int P>(int, int64_t o) {
      constexpr int64_t width = row_stride<T, P>();
      const int outputs = int(std::min(width, p.outputs - o));
      multiply_tile(w + o * p.inputs, p.inputs, inputs, Rows<width, T>{g.at(o)}, outputs, tile.rows, sums);
    });
    S* of_values = static_cast<S*>(base.of_values) + (tile.e * p.batch + tile.row) * p.inputs + i;
    store_rows(sums, tile.rows, inputs, of_values, p.inputs);
  }
}

}  // namespace HOF_VARIANT
}  // namespace hof
