// The base branch of a link in the pass over its rows: y += values weight^T for a tile, and its gradients from the tile's
// g, all as blocked matrix products. Values that are silu(x) are made for a tile at a time.
#pragma once

#include "cut.h"
#include "silu.h"
#include "transpose.h"

namespace hof {
namespace HOF_VARIANT {

constexpr int64_t BRANCH_INPUTS = 64;     // whose values are taken at a time
constexpr int64_t BRANCH_OUTPUTS = 1024;  // whose weights of these are packed at a time, at most

// Rows [row, row + rows) of group e.
struct SomeRows {
  int64_t e, row;
  int rows;
};

// Numbers of scratch for a tile.
template <class T>
inline int64_t branch_numbers(const Problem<T>& p, int rows) { return p.branch ? rows * BRANCH_INPUTS : 0; }

template <class T>
inline int64_t branch_weights(const Problem<T>& p, int64_t outputs) {
  return p.branch ? BRANCH_INPUTS * std::min(BRANCH_OUTPUTS, outputs) : 0;
}

// Numbers of some rows as they are stored, `step` from one input to the next.
template <class S>
struct Stored {
  const S* first;
  int64_t row, step;

  // A vector of row r from input k on, of which `valid` exist.
  template <class T>
  Vector<T> at(int r, int64_t k, int64_t valid) const {
    const S* from = first + r * row + k * step;
    if (step == 1) return load_some_as<T>(from, valid);
    T numbers[Simd<T>::lanes] = {};
    for (int64_t l = 0; l < std::min<int64_t>(valid, Simd<T>::lanes); ++l) numbers[l] = value_as<T>(from[l * step]);
    return load(numbers);
  }
};

// use(x of a tile from an input on)
template <class T, class Use>
inline void with_x(const Problem<T>& p, const SomeRows& tile, int64_t input, Use&& use) {
  with_storage<T>(p.x, p.x_storage, [&]<class X>(const X* x) {
    use(Stored<X>{x + tile.e * p.x_group + tile.row * p.x_row + input * p.x_input, p.x_row, p.x_input});
  });
}

// to[row][BRANCH_INPUTS]: as they lie, rows a power of two apart would have to share a few places of the caches.
template <class T, class S>
inline void take_values(const Problem<T>& p, const SomeRows& tile, int64_t input, int64_t inputs, T* to) {
  const Branch<T>& branch = *p.branch;
  auto take = [&](const auto& from, auto&& change) INLINED {
    for (int r = 0; r < tile.rows; ++r)
      for (int64_t k = 0; k < inputs; k += Simd<T>::lanes)
        store(to + r * BRANCH_INPUTS + k, change(from.template at<T>(r, k, inputs - k)));
  };
  if (branch.values) {
    const S* values = static_cast<const S*>(branch.values) + tile.e * branch.group + tile.row * branch.row + input;
    take(Stored<S>{values, branch.row, 1}, [](Vector<T> v) INLINED { return v; });
  } else {
    with_x(p, tile, input, [&](const auto& x) { take(x, [](Vector<T> v) INLINED { return silu<T>(v); }); });
  }
}

// y[row, o] += what inputs [input, end) give to the outputs from `first` on, whose weights are packed into `packed`.
template <class S, class T>
inline void add_branch(const Problem<T>& p, const SomeRows& tile, int64_t input, int64_t end, int64_t first, int64_t outputs,
                       const Blocks<T>& y, T* room, T* packed) {
  const S* weight = static_cast<const S*>(p.branch->weight) + (tile.e * p.outputs + first) * p.inputs;
  S* w = reinterpret_cast<S*>(packed);
  for (int64_t i = input; i < end; i += BRANCH_INPUTS) {
    const int inputs = int(std::min(BRANCH_INPUTS, end - i));
    take_values<T, S>(p, tile, i, inputs, room);
    for (int64_t o = 0; o < outputs; o += BRANCH_OUTPUTS) {
      const int64_t some = std::min(BRANCH_OUTPUTS, outputs - o);
      const Stack stack{1, some, p.inputs, weight + o * p.inputs, nullptr, 1, p.branch->storage, false};
      transpose_some<T>(stack, 0, i, i + inputs, w);
      multiply_tile(w, some, some, Rows<BRANCH_INPUTS, T>{room}, inputs, tile.rows, Blocks<T>{y.at(o), y.rows});
    }
  }
}

template <class T>
inline void clear_branch(const Problem<T>& p, int64_t e, int64_t input, int64_t end) {
  for (int64_t o = 0; o < p.outputs; ++o)
    std::fill_n(p.branch->of_weight + (e * p.outputs + o) * p.inputs + input, end - input, T(0));
}

// The gradients of a tile's values, from inputs `input` on, to where they are wanted: of x, if these are silu(x).
template <class T, class S>
inline void give_values(const Problem<T>& p, const SomeRows& tile, int64_t input, int64_t inputs, const Blocks<T>& sums) {
  const int64_t place = (tile.e * p.batch + tile.row) * p.inputs + input;
  if (p.branch->values) {
    store_rows(sums, tile.rows, inputs, static_cast<S*>(p.branch->of_values) + place, p.inputs);
    return;
  }
  with_x(p, tile, input, [&]<class X>(const Stored<X>& x) {
    store_rows(sums, tile.rows, inputs, static_cast<X*>(p.branch->of_values) + place, p.inputs,
               [&](Vector<T> v, int r, int64_t k) INLINED { return v * silu_slope<T>(x.template at<T>(r, k, inputs - k)); });
  });
}

// of_weight += the sums over a tile's rows, of_values, if wanted, = those over outputs, of inputs [input, end).
template <class S, class T>
inline void add_branch_gradients(const Problem<T>& p, const SomeRows& tile, int64_t input, int64_t end, const Blocks<T>& g,
                                 T* room) {
  const Branch<T>& branch = *p.branch;
  const int64_t group = tile.e * p.outputs * p.inputs;
  for (int64_t i = input; i < end; i += BRANCH_INPUTS) {
    const int64_t inputs = std::min(BRANCH_INPUTS, end - i);
    T* of_weight = branch.of_weight + group + i;
    take_values<T, S>(p, tile, i, inputs, room);
    over_blocks<T>(1, p.outputs, [&]<int, int P>(int, int64_t o) {
      using Phi = Rows<row_stride<T, P>(), T>;
      const int outputs = int(std::min(row_stride<T, P>(), p.outputs - o));
      over_blocks<T>(1, inputs, [&]<int, int Q>(int, int64_t k) {
        over_rows<T, Q>(outputs, [&]<int R, int>(int f) {
          const bool whole = inputs - k >= row_stride<T, Q>();
          auto multiply = whole ? multiply_batch<T, R, Q, true, Phi> : multiply_batch<T, R, Q, false, Phi>;
          multiply(room + k, BRANCH_INPUTS, Phi{g.at(o) + f}, tile.rows, of_weight + (o + f) * p.inputs + k, p.inputs, inputs - k);
        });
      });
    });
    if (!branch.of_values) continue;
    const Blocks<T> sums{room, tile.rows};
    std::fill_n(room, tile.rows * BRANCH_INPUTS, T(0));
    const S* w = static_cast<const S*>(branch.weight) + group + i;
    over_blocks<T>(1, p.outputs, [&]<int, int P>(int, int64_t o) {
      constexpr int64_t width = row_stride<T, P>();
      const int outputs = int(std::min(width, p.outputs - o));
      multiply_tile(w + o * p.inputs, p.inputs, inputs, Rows<width, T>{g.at(o)}, outputs, tile.rows, sums);
    });
    give_values<T, S>(p, tile, i, inputs, sums);
  }
}

}  // namespace HOF_VARIANT
}  // namespace hof
