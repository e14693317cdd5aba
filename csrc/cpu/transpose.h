// Rows become columns, as coefficients are packed: from [rows, inputs, K] to [inputs, K, rows], where each `rows` is
// an output of a peer's layer; with a factor for each (row, input), and its gradients.
#pragma once

#include <algorithm>

#include "problem.h"
#include "storage.h"

namespace hof {
namespace HOF_VARIANT {

// The rows and columns of a square that exist, at most as many as there are lanes.
struct Extent {
  int64_t rows, columns;
};

// Calls f.operator()<Whole>(row, column, factors, extent) for the squares of lanes x lanes that cover all rows of columns
// [begin, end), column after column for each row; factors[k]: where those of column + k begin. A few neighbouring lines of
// each row are read together.
template <class T, class S, class F>
INLINED inline void over_squares(const Stack& stack, const S* factor, int64_t begin, int64_t end, F&& f) {
  constexpr int64_t L = Simd<T>::lanes, strip = 256 / int64_t(sizeof(T));
  const S* factors[strip];
  for (int64_t first = begin; first < end; first += strip) {
    const int64_t stop = std::min(first + strip, end);
    if (factor)
      for (int64_t c = first, input = first / stack.size; c < stop; ++c) {
        if (c == (input + 1) * stack.size) ++input;
        factors[c - first] = factor + input * stack.rows;
      }
    for (int64_t r = 0; r < stack.rows; r += L)
      for (int64_t c = first; c < stop; c += L) {
        const Extent extent{std::min(L, stack.rows - r), std::min(L, stop - c)};
        if (extent.rows == L && extent.columns == L)
          f.template operator()<true>(r, c, factors + (c - first), extent);
        else
          f.template operator()<false>(r, c, factors + (c - first), extent);
      }
  }
}

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

template <class T, bool Scaled, class S>
inline void transpose_matrix(const Stack& stack, const S* from, const S* factor, int64_t begin, int64_t end, S* to) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = stack.rows, columns = stack.columns;
  over_squares<T>(stack, factor, begin, end, [=]<bool Whole>(int64_t r, int64_t c, const S* const* factors, Extent extent) INLINED {
    Vector<T> v[L];
    load_square<T, Whole>(v, from + r * columns + c, columns, extent);
    transpose<T>(v);
    if constexpr (Scaled)
      UNROLLED for (int k = 0; k < L; ++k)
        if (Whole || k < extent.columns) v[k] *= Whole ? load_as<T>(factors[k] + r) : load_some_as<T>(factors[k] + r, extent.rows);
    store_square<T, Whole>(to + c * rows + r, rows, v, {extent.columns, extent.rows});
  });
}

// Columns [begin, end) of a matrix of a stack, all of an input if there are factors; to: all that becomes of the stack.
template <class T>
void transpose_columns(const Stack& stack, int64_t copy, int64_t begin, int64_t end, void* to) {
  const int64_t all = copy * stack.rows * stack.columns;
  with_storage<T>(stack.from, stack.storage, [&]<class S>(const S* from) {
    S* own = static_cast<S*>(to) + all;
    if (const S* factor = static_cast<const S*>(stack.factor))
      transpose_matrix<T, true>(stack, from + all, factor + all / stack.size, begin, end, own);
    else
      transpose_matrix<T, false, S>(stack, from + all, nullptr, begin, end, own);
  });
}

// The gradient of a factor is summed column after column, so that its bits do not depend on where parts begin.
template <class T, bool Scaled, class S>
inline void matrix_gradients(const Stack& stack, const T* cotangent, const S* from, const S* factor, int64_t begin, int64_t end,
                             S* of_from, T* of_factor) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = stack.rows, columns = stack.columns;
  if (Scaled) std::fill_n(of_factor + begin / stack.size * rows, (end - begin) / stack.size * rows, T(0));
  over_squares<T>(stack, factor, begin, end, [=]<bool Whole>(int64_t r, int64_t c, const S* const* factors, Extent extent) INLINED {
    Vector<T> g[L];
    load_square<T, Whole>(g, cotangent + (c - begin) * rows + r, rows, {extent.columns, extent.rows});
    if constexpr (Scaled) {
      Vector<T> v[L], sum{};
      load_square<T, Whole>(v, from + r * columns + c, columns, extent);
      transpose<T>(v);
      UNROLLED for (int k = 0; k < L; ++k) {
        if (!Whole && k >= extent.columns) break;
        T* total = of_factor + (factors[k] - factor) + r;
        if (k == 0 || factors[k] != factors[k - 1]) sum = Whole ? load(total) : load_some(total, extent.rows);
        sum += g[k] * v[k];
        g[k] *= Whole ? load_as<T>(factors[k] + r) : load_some_as<T>(factors[k] + r, extent.rows);
        if (k + 1 == (Whole ? L : extent.columns) || factors[k] != factors[k + 1])
          Whole ? store(total, sum) : store_some(total, sum, extent.rows);
      }
    }
    transpose<T>(g);
    store_square<T, Whole>(of_from + r * columns + c, columns, g, extent);
  });
}

// Of the whole inputs in columns [begin, end) of a matrix, where cotangent [end - begin, rows] belongs to what became of
// them.
template <class T>
void transpose_gradients(const StackGradients<T>& to, int64_t copy, const T* cotangent, int64_t begin, int64_t end) {
  const Stack& stack = to.stack;
  const int64_t all = copy * stack.rows * stack.columns, own = all / stack.size;
  with_storage<T>(stack.from, stack.storage, [&]<class S>(const S* from) {
    S* of_from = static_cast<S*>(to.of_from) + all;
    if (const S* factor = static_cast<const S*>(stack.factor))
      matrix_gradients<T, true>(stack, cotangent, from + all, factor + own, begin, end, of_from, to.of_factor + own);
    else
      matrix_gradients<T, false, S>(stack, cotangent, from + all, nullptr, begin, end, of_from, nullptr);
  });
}

}  // namespace HOF_VARIANT
}  // namespace hof
