// Rows become columns, as coefficients are packed: from [rows, inputs, K] to [inputs, K, rows], where each `rows` is
// an output of a peer's layer; with a factor for each (row, input), and its gradients.
#pragma once

#include <algorithm>

#include "problem.h"
#include "simd.h"

namespace hof {
namespace HOF_VARIANT {

// Calls f(row, column, factors) for the squares of lanes x lanes in the whole vectors of rows and in columns [begin, end);
// factors[k]: where those of column + k begin. The first column that is in none. A few neighbouring lines of each row are
// read together.
template <class T, class F>
INLINED inline int64_t over_squares(const Matrix<T>& m, int64_t begin, int64_t end, F&& f) {
  constexpr int64_t L = Simd<T>::lanes, strip = 256 / int64_t(sizeof(T));
  const int64_t whole = m.rows / L * L, last = begin + (end - begin) / L * L;
  const T* factors[strip];
  for (int64_t first = begin; first < last; first += strip) {
    const int64_t stop = std::min(first + strip, last);
    if (m.factor)
      for (int64_t c = first, input = first / m.size; c < stop; ++c) {
        if (c == (input + 1) * m.size) ++input;
        factors[c - first] = m.factor + input * m.rows;
      }
    for (int64_t r = 0; r < whole; r += L)
      for (int64_t c = first; c < stop; c += L) f(r, c, factors + (c - first));
  }
  return last;
}

// Columns [begin, end) of m, which has factors or not.
template <class T, bool Scaled>
inline void transpose_columns(const Matrix<T>& m, int64_t begin, int64_t end, T* to) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = m.rows, columns = m.columns;
  const T* from = m.from;
  const int64_t done = over_squares(m, begin, end, [=](int64_t r, int64_t c, const T* const* factors) INLINED {
    Vector<T> v[L];
    UNROLLED for (int k = 0; k < L; ++k) v[k] = load(from + (r + k) * columns + c);
    transpose<T>(v);
    UNROLLED for (int k = 0; k < L; ++k) store(to + (c + k) * rows + r, Scaled ? v[k] * load(factors[k] + r) : v[k]);
  });
  auto one = [&](int64_t r, int64_t c) {
    to[c * rows + r] = Scaled ? from[r * columns + c] * m.factor[c / m.size * rows + r] : from[r * columns + c];
  };
  for (int64_t r = rows / L * L; r < rows; ++r)
    for (int64_t c = begin; c < done; ++c) one(r, c);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = done; c < end; ++c) one(r, c);
}

template <class T>
void transpose_columns(const Matrix<T>& m, int64_t begin, int64_t end, T* to) {
  m.factor ? transpose_columns<T, true>(m, begin, end, to) : transpose_columns<T, false>(m, begin, end, to);
}

template <class T, bool Scaled>
inline void transpose_gradients(const Matrix<T>& m, const T* cotangent, int64_t begin, int64_t end, T* of_from, T* of_factor) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = m.rows, columns = m.columns;
  const T *from = m.from, *factor = m.factor;
  if (Scaled) std::fill_n(of_factor + begin / m.size * rows, (end - begin) / m.size * rows, T(0));
  const int64_t done = over_squares(m, begin, end, [=](int64_t r, int64_t c, const T* const* factors) INLINED {
    Vector<T> g[L];
    UNROLLED for (int k = 0; k < L; ++k) g[k] = load(cotangent + (c - begin + k) * rows + r);
    if constexpr (Scaled) {
      Vector<T> v[L], sum{};
      UNROLLED for (int k = 0; k < L; ++k) v[k] = load(from + (r + k) * columns + c);
      transpose<T>(v);
      UNROLLED for (int k = 0; k < L; ++k) {
        sum += g[k] * v[k];
        g[k] *= load(factors[k] + r);
        if (k == L - 1 || factors[k] != factors[k + 1]) {  // the last of an input
          T* total = of_factor + (factors[k] - factor) + r;
          store(total, load(total) + sum);
          sum = Vector<T>{};
        }
      }
    }
    transpose<T>(g);
    UNROLLED for (int k = 0; k < L; ++k) store(of_from + (r + k) * columns + c, g[k]);
  });
  auto one = [&](int64_t r, int64_t c) {
    const T g = cotangent[(c - begin) * rows + r];
    of_from[r * columns + c] = Scaled ? g * factor[c / m.size * rows + r] : g;
    if (Scaled) of_factor[c / m.size * rows + r] += g * from[r * columns + c];
  };
  for (int64_t r = rows / L * L; r < rows; ++r)
    for (int64_t c = begin; c < done; ++c) one(r, c);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = done; c < end; ++c) one(r, c);
}

// Of the whole inputs in columns [begin, end): the gradients of from [rows, columns] and factor [inputs, rows], null for
// ones, where cotangent [end - begin, rows] belongs to the result.
template <class T>
void transpose_gradients(const Matrix<T>& m, const T* cotangent, int64_t begin, int64_t end, T* of_from, T* of_factor) {
  m.factor ? transpose_gradients<T, true>(m, cotangent, begin, end, of_from, of_factor)
           : transpose_gradients<T, false>(m, cotangent, begin, end, of_from, of_factor);
}

}  // namespace HOF_VARIANT
}  // namespace hof
