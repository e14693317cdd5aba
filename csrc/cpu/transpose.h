// Rows become columns, as coefficients are packed: from [rows, inputs, K] to [inputs, K, rows], where each `rows` is
// an output of a peer's layer; with a factor for each (row, input), and its gradients.
#pragma once

#include <algorithm>

#include "tile.h"

namespace hof {
namespace HOF_VARIANT {

constexpr int64_t BAND = 512;  // columns of a band with factors, at most, or those of one input

// The rows and columns of a square that exist, at most as many as there are lanes.
struct Extent {
  int64_t rows, columns;
};

// The rows of a square as vectors, zeros where there are none.
template <class T, bool Whole, class S>
INLINED inline void load_square(Vector<T> (&v)[Simd<T>::lanes], const S* from, int64_t row, const Extent& extent) {
  UNROLLED for (int k = 0; k < Simd<T>::lanes; ++k)
    v[k] = Whole ? load_as<T>(from + k * row) : load_some_as<T>(from + k * row, k < extent.rows ? extent.columns : 0);
}

template <class T, bool Whole, class S>
INLINED inline void store_square(S* to, int64_t row, const Vector<T> (&v)[Simd<T>::lanes], const Extent& extent) {
  UNROLLED for (int k = 0; k < Simd<T>::lanes; ++k)
    if (Whole)
      store_as<T>(to + k * row, v[k]);
    else
      store_some_as<T>(to + k * row, v[k], k < extent.rows ? extent.columns : 0);
}

// Calls use(row, first, stop) for bands that cover all rows of columns [begin, end): as many rows as there are lanes, and a
// few neighbouring lines of each, or inputs of which a square has all factors.
template <class T, class Use>
INLINED inline void over_bands(const Stack& stack, int64_t begin, int64_t end, Use&& use) {
  constexpr int64_t L = Simd<T>::lanes, lines = 256 / int64_t(sizeof(T));
  const int64_t width = stack.factor ? std::clamp<int64_t>(BAND / stack.size, 1, L) * stack.size : lines;
  for (int64_t first = begin; first < end; first += width)
    for (int64_t r = 0; r < stack.rows; r += L) use(r, first, std::min(first + width, end));
}

// Calls f.operator()<Whole>(column, extent) for the squares of lanes x lanes of a band.
template <class T, class F>
INLINED inline void over_squares(const Stack& stack, int64_t r, int64_t first, int64_t stop, F&& f) {
  constexpr int64_t L = Simd<T>::lanes;
  for (int64_t c = first; c < stop; c += L) {
    const Extent extent{std::min(L, stack.rows - r), std::min(L, stop - c)};
    if (extent.rows == L && extent.columns == L)
      f.template operator()<true>(c, extent);
    else
      f.template operator()<false>(c, extent);
  }
}

// What the inputs of a band have for its rows, one vector each: factors, or the sums that are their gradients.
template <class T>
struct OfInputs {
  static constexpr int L = Simd<T>::lanes;
  T numbers[L * L];
  uint8_t input[BAND];  // of each column

  explicit OfInputs(int64_t size) {
    if (size <= BAND)
      for (int64_t k = 0, i = 0; i < L && k + size <= BAND; ++i)
        for (int64_t end = k + size; k < end; ++k) input[k] = uint8_t(i);
  }

  // Of a band's column; one input alone has more than BAND.
  int64_t of(const Stack& stack, int64_t column) const { return stack.size > BAND ? 0 : input[column]; }
  T* at(int64_t i) { return numbers + i * L; }

  template <class S>
  void load_factors(const Stack& stack, const S* factor, int64_t r, int64_t i, int64_t count) {
    const int64_t rows = std::min<int64_t>(L, stack.rows - r), inputs = stack.columns / stack.size;
    if (stack.rows_first) {
      Vector<T> v[L];
      load_square<T, false>(v, factor + r * inputs + i, inputs, {rows, count});
      transpose<T>(v);
      for (int k = 0; k < L; ++k) store(at(k), v[k]);
    } else {
      for (int64_t k = 0; k < count; ++k) store(at(k), load_some_as<T>(factor + (i + k) * stack.rows + r, rows));
    }
  }

  template <class S>
  void store_sums(const Stack& stack, S* factor, int64_t r, int64_t i, int64_t count) {
    const int64_t rows = std::min<int64_t>(L, stack.rows - r), inputs = stack.columns / stack.size;
    if (stack.rows_first) {
      Vector<T> v[L];
      for (int k = 0; k < L; ++k) v[k] = load(at(k));
      transpose<T>(v);
      store_square<T, false>(factor + r * inputs + i, inputs, v, {rows, count});
    } else {
      for (int64_t k = 0; k < count; ++k) store_some_as<T>(factor + (i + k) * stack.rows + r, load(at(k)), rows);
    }
  }
};

// to: of column `begin` on.
template <class T, bool Scaled, class S>
inline void transpose_matrix(const Stack& stack, const S* from, const S* factor, int64_t begin, int64_t end, S* to) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = stack.rows, columns = stack.columns;
  OfInputs<T> factors(Scaled ? stack.size : 1);
  over_bands<T>(stack, begin, end, [&](int64_t r, int64_t first, int64_t stop) INLINED {
    if (Scaled) factors.load_factors(stack, factor, r, first / stack.size, (stop - first) / stack.size);
    over_squares<T>(stack, r, first, stop, [&]<bool Whole>(int64_t c, Extent extent) INLINED {
      Vector<T> v[L];
      load_square<T, Whole>(v, from + r * columns + c, columns, extent);
      transpose<T>(v);
      if constexpr (Scaled)
        UNROLLED for (int k = 0; k < L; ++k)
          if (Whole || k < extent.columns) v[k] *= load(factors.at(factors.of(stack, c - first + k)));
      store_square<T, Whole>(to + (c - begin) * rows + r, rows, v, {extent.columns, extent.rows});
    });
  });
}

// What becomes of columns [begin, end) of a matrix of a stack, all of an input if there are factors.
template <class T, class S>
inline void transpose_some(const Stack& stack, int64_t copy, int64_t begin, int64_t end, S* to) {
  const int64_t all = copy * stack.rows * stack.columns;
  const S* from = static_cast<const S*>(stack.from) + all;
  if (const S* factor = static_cast<const S*>(stack.factor))
    transpose_matrix<T, true>(stack, from, factor + all / stack.size, begin, end, to);
  else
    transpose_matrix<T, false, S>(stack, from, nullptr, begin, end, to);
}

// The same within all that becomes of the stack.
template <class T>
void transpose_columns(const Stack& stack, int64_t copy, int64_t begin, int64_t end, void* to) {
  with_storage<T>(to, stack.storage, [&](auto* all) {
    transpose_some<T>(stack, copy, begin, end, all + (copy * stack.columns + begin) * stack.rows);
  });
}

// Numbers of scratch for the coefficients of a tile's inputs, if they are to be packed.
template <class T>
inline int64_t packed_numbers(const Problem<T>& p) { return p.stack ? tile_inputs(p.basis) * p.basis.size * p.outputs : 0; }

// The coefficients of inputs [input, input + slots) of group e; `room` has room for them.
template <class T, class S>
inline const S* coefficients_of(const Problem<T>& p, const S* w, int64_t e, int64_t input, int slots, T* room) {
  const int64_t size = p.basis.size;
  if (!p.stack) return w + (e * p.inputs + input) * size * p.outputs;
  S* packed = reinterpret_cast<S*>(room);
  transpose_some<T>(*p.stack, e, input * size, (input + slots) * size, packed);
  return packed;
}

// The gradient of a factor is summed column after column, so that its bits do not depend on where parts begin.
template <class T, bool Scaled, class S>
inline void matrix_gradients(const Stack& stack, const T* cotangent, const S* from, const S* factor, int64_t begin, int64_t end,
                             S* of_from, S* of_factor) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = stack.rows, columns = stack.columns;
  OfInputs<T> factors(Scaled ? stack.size : 1), totals(1);
  over_bands<T>(stack, begin, end, [&](int64_t r, int64_t first, int64_t stop) INLINED {
    const int64_t input = first / stack.size, inputs = (stop - first) / stack.size;
    if (Scaled) factors.load_factors(stack, factor, r, input, inputs);
    Vector<T> sum{};
    int64_t last = 0;
    over_squares<T>(stack, r, first, stop, [&]<bool Whole>(int64_t c, Extent extent) INLINED {
      Vector<T> g[L];
      load_square<T, Whole>(g, cotangent + (c - begin) * rows + r, rows, {extent.columns, extent.rows});
      if constexpr (Scaled) {
        Vector<T> v[L];
        load_square<T, Whole>(v, from + r * columns + c, columns, extent);
        transpose<T>(v);
        UNROLLED for (int k = 0; k < L; ++k) {
          if (!Whole && k >= extent.columns) break;
          const int64_t i = factors.of(stack, c - first + k);
          // without a branch, behind which a product might be rounded before it is added, or not
          sum = Vector<T>{} + T(i) == Vector<T>{} + T(last) ? sum : Vector<T>{};
          sum += g[k] * v[k];
          last = i;
          store(totals.at(i), sum);
          g[k] *= load(factors.at(i));
        }
      }
      transpose<T>(g);
      store_square<T, Whole>(of_from + r * columns + c, columns, g, extent);
    });
    if (Scaled) totals.store_sums(stack, of_factor, r, input, inputs);
  });
}

// Of the whole inputs in columns [begin, end) of a matrix, where cotangent [end - begin, rows] belongs to what became of
// them.
template <class T>
void transpose_gradients(const StackGradients<T>& to, int64_t copy, const T* cotangent, int64_t begin, int64_t end) {
  const Stack& stack = to.stack;
  const int64_t all = copy * stack.rows * stack.columns, own = all / stack.size;
  with_storage<T>(stack.from, stack.storage, [&]<class S>(const S* from) {
    S *of_from = static_cast<S*>(to.of_from) + all, *of_factor = static_cast<S*>(to.of_factor);
    if (const S* factor = static_cast<const S*>(stack.factor))
      matrix_gradients<T, true>(stack, cotangent, from + all, factor + own, begin, end, of_from, of_factor + own);
    else
      matrix_gradients<T, false, S>(stack, cotangent, from + all, nullptr, begin, end, of_from, nullptr);
  });
}

}  // namespace HOF_VARIANT
}  // namespace hof
