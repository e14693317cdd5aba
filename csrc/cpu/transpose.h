// Rows become columns, as coefficients are packed: from [rows, inputs, K] to [inputs, K, rows], where each `rows` is
// an output of a peer's layer; with a factor for each (row, input), and its gradients.
#pragma once

#include <algorithm>

#include "problem.h"
#include "simd.h"

namespace hof {
namespace HOF_VARIANT {

// Calls f(row, column) for the squares of lanes x lanes in rows [0, whole) and columns [begin, end); the first column
// that is in none. A few neighbouring lines of each row are read together.
template <class T, class F>
inline int64_t over_squares(int64_t begin, int64_t end, int64_t whole, F&& f) {
  constexpr int64_t L = Simd<T>::lanes, strip = 256 / int64_t(sizeof(T));
  const int64_t last = begin + (end - begin) / L * L;
  for (int64_t first = begin; first < last; first += strip)
    for (int64_t r = 0; r < whole; r += L)
      for (int64_t c = first; c < std::min(first + strip, last); c += L) f(r, c);
  return last;
}

// Columns [begin, end) of m; factor [inputs, rows], null for ones.
template <class T>
void transpose_columns(const Matrix<T>& m, int64_t begin, int64_t end, T* to) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = m.rows, columns = m.columns, whole = rows / L * L;
  const int64_t done = over_squares<T>(begin, end, whole, [&](int64_t r, int64_t c) {
    Vector<T> v[L];
    for (int k = 0; k < L; ++k) v[k] = load(m.from + (r + k) * columns + c);
    transpose<T>(v);
    int64_t input = c / m.size, next = (input + 1) * m.size;  // the first column of the next input
    for (int k = 0; k < L; ++k) {
      if (m.factor && c + k == next) ++input, next += m.size;
      store(to + (c + k) * rows + r, m.factor ? v[k] * load(m.factor + input * rows + r) : v[k]);
    }
  });
  auto one = [&](int64_t r, int64_t c) {
    to[c * rows + r] = m.factor ? m.from[r * columns + c] * m.factor[c / m.size * rows + r] : m.from[r * columns + c];
  };
  for (int64_t r = whole; r < rows; ++r)
    for (int64_t c = begin; c < done; ++c) one(r, c);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = done; c < end; ++c) one(r, c);
}

// Of the whole inputs in columns [begin, end): the gradients of from [rows, columns] and factor [inputs, rows], where
// cotangent [columns, rows] belongs to the result.
template <class T>
void transpose_gradients(const Matrix<T>& m, const T* cotangent, int64_t begin, int64_t end, T* of_from, T* of_factor) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = m.rows, columns = m.columns, whole = rows / L * L;
  std::fill_n(of_factor + begin / m.size * rows, (end - begin) / m.size * rows, T(0));
  const int64_t done = over_squares<T>(begin, end, whole, [&](int64_t r, int64_t c) {
    Vector<T> v[L], sum{};
    for (int k = 0; k < L; ++k) v[k] = load(m.from + (r + k) * columns + c);
    transpose<T>(v);
    int64_t input = c / m.size, next = (input + 1) * m.size;
    auto finish = [&] {
      T* total = of_factor + input * rows + r;
      store(total, load(total) + sum);
    };
    for (int k = 0; k < L; ++k) {
      if (c + k == next) {
        finish();
        sum = Vector<T>{}, ++input, next += m.size;
      }
      const Vector<T> g = load(cotangent + (c + k) * rows + r);
      sum += g * v[k];
      v[k] = g * load(m.factor + input * rows + r);
    }
    finish();
    transpose<T>(v);
    for (int k = 0; k < L; ++k) store(of_from + (r + k) * columns + c, v[k]);
  });
  auto one = [&](int64_t r, int64_t c) {
    const T g = cotangent[c * rows + r];
    of_factor[c / m.size * rows + r] += g * m.from[r * columns + c];
    of_from[r * columns + c] = g * m.factor[c / m.size * rows + r];
  };
  for (int64_t r = whole; r < rows; ++r)
    for (int64_t c = begin; c < done; ++c) one(r, c);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = done; c < end; ++c) one(r, c);
}

}  // namespace HOF_VARIANT
}  // namespace hof
