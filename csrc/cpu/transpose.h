// Rows become columns, as coefficients are packed: from [rows, inputs, K] to [inputs, K, rows], where each `rows` is
// an output of a peer's layer; with a factor for each (row, input), and its gradients.
#pragma once

#include <algorithm>

#include "problem.h"
#include "storage.h"

namespace hof {
namespace HOF_VARIANT {

// Calls f(row, column, factors) for the squares of lanes x lanes in the whole vectors of rows and in columns [begin, end);
// factors[k]: where those of column + k begin. The first column that is in none. A few neighbouring lines of each row are
// read together.
template <class T, class S, class F>
INLINED inline int64_t over_squares(const Stack& stack, const S* factor, int64_t begin, int64_t end, F&& f) {
  constexpr int64_t L = Simd<T>::lanes, strip = 256 / int64_t(sizeof(T));
  const int64_t whole = stack.rows / L * L, last = begin + (end - begin) / L * L;
  const S* factors[strip];
  for (int64_t first = begin; first < last; first += strip) {
    const int64_t stop = std::min(first + strip, last);
    if (factor)
      for (int64_t c = first, input = first / stack.size; c < stop; ++c) {
        if (c == (input + 1) * stack.size) ++input;
        factors[c - first] = factor + input * stack.rows;
      }
    for (int64_t r = 0; r < whole; r += L)
      for (int64_t c = first; c < stop; c += L) f(r, c, factors + (c - first));
  }
  return last;
}

// Calls f(row, column) for what is in no square.
template <class T, class F>
inline void over_rest(const Stack& stack, int64_t begin, int64_t done, int64_t end, F&& f) {
  for (int64_t r = stack.rows / Simd<T>::lanes * Simd<T>::lanes; r < stack.rows; ++r)
    for (int64_t c = begin; c < done; ++c) f(r, c);
  for (int64_t r = 0; r < stack.rows; ++r)
    for (int64_t c = done; c < end; ++c) f(r, c);
}

template <class T, bool Scaled, class S>
inline void transpose_matrix(const Stack& stack, const S* from, const S* factor, int64_t begin, int64_t end, S* to) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = stack.rows, columns = stack.columns;
  const int64_t done = over_squares<T>(stack, factor, begin, end, [=](int64_t r, int64_t c, const S* const* factors) INLINED {
    Vector<T> v[L];
    UNROLLED for (int k = 0; k < L; ++k) v[k] = load_as<T>(from + (r + k) * columns + c);
    transpose<T>(v);
    UNROLLED for (int k = 0; k < L; ++k)
      store_as<T>(to + (c + k) * rows + r, Scaled ? v[k] * load_as<T>(factors[k] + r) : v[k]);
  });
  over_rest<T>(stack, begin, done, end, [&](int64_t r, int64_t c) {
    const S number = from[r * columns + c];
    to[c * rows + r] = Scaled ? S(value_as<T>(number) * value_as<T>(factor[c / stack.size * rows + r])) : number;
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

template <class T, bool Scaled, class S>
inline void matrix_gradients(const Stack& stack, const T* cotangent, const S* from, const S* factor, int64_t begin, int64_t end,
                             S* of_from, T* of_factor) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = stack.rows, columns = stack.columns;
  if (Scaled) std::fill_n(of_factor + begin / stack.size * rows, (end - begin) / stack.size * rows, T(0));
  const int64_t done = over_squares<T>(stack, factor, begin, end, [=](int64_t r, int64_t c, const S* const* factors) INLINED {
    Vector<T> g[L];
    UNROLLED for (int k = 0; k < L; ++k) g[k] = load(cotangent + (c - begin + k) * rows + r);
    if constexpr (Scaled) {
      Vector<T> v[L], sum{};
      UNROLLED for (int k = 0; k < L; ++k) v[k] = load_as<T>(from + (r + k) * columns + c);
      transpose<T>(v);
      UNROLLED for (int k = 0; k < L; ++k) {
        sum += g[k] * v[k];
        g[k] *= load_as<T>(factors[k] + r);
        if (k == L - 1 || factors[k] != factors[k + 1]) {  // the last of an input
          T* total = of_factor + (factors[k] - factor) + r;
          store(total, load(total) + sum);
          sum = Vector<T>{};
        }
      }
    }
    transpose<T>(g);
    UNROLLED for (int k = 0; k < L; ++k) store_as<T>(of_from + (r + k) * columns + c, g[k]);
  });
  over_rest<T>(stack, begin, done, end, [&](int64_t r, int64_t c) {
    const T g = cotangent[(c - begin) * rows + r];
    const int64_t own = Scaled ? c / stack.size * rows + r : 0;
    of_from[r * columns + c] = S(Scaled ? g * value_as<T>(factor[own]) : g);
    if (Scaled) of_factor[own] += g * value_as<T>(from[r * columns + c]);
  });
}

// Of the whole inputs in columns [begin, end) of a matrix, where cotangent [end - begin, rows] belongs to what became of
// them.
template <class T>
void transpose_gradients(const Unpacking<T>& to, int64_t copy, const T* cotangent, int64_t begin, int64_t end) {
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
