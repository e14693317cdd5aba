// Rows become columns, as coefficients are packed: from [rows, inputs, K] to [inputs, K, rows], where each `rows` is
// an output of a peer's layer; with a factor for each (row, input), and its gradients.
#pragma once

#include "problem.h"
#include "simd.h"

namespace hof {
namespace HOF_VARIANT {

// Columns [begin, end) of m; factor [inputs, rows], null for ones.
template <class T>
void transpose_columns(const Matrix<T>& m, int64_t begin, int64_t end, T* to) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = m.rows, columns = m.columns, whole = rows / L * L;
  int64_t c = begin;
  for (; c + L <= end; c += L)
    for (int64_t r = 0; r < whole; r += L) {
      Vector<T> v[L];
      for (int k = 0; k < L; ++k) v[k] = load(m.from + (r + k) * columns + c);
      transpose<T>(v);
      int64_t input = c / m.size, next = (input + 1) * m.size;  // the first column of the next input
      for (int k = 0; k < L; ++k) {
        if (m.factor && c + k == next) ++input, next += m.size;
        store(to + (c + k) * rows + r, m.factor ? v[k] * load(m.factor + input * rows + r) : v[k]);
      }
    }
  auto one = [&](int64_t r, int64_t c) {
    to[c * rows + r] = m.factor ? m.from[r * columns + c] * m.factor[c / m.size * rows + r] : m.from[r * columns + c];
  };
  const int64_t done = c;
  for (int64_t r = whole; r < rows; ++r)
    for (c = begin; c < done; ++c) one(r, c);
  for (int64_t r = 0; r < rows; ++r)
    for (c = done; c < end; ++c) one(r, c);
}

// Of the whole inputs in columns [begin, end): the gradients of from [rows, columns] and factor [inputs, rows], where
// cotangent [columns, rows] belongs to the result.
template <class T>
void transpose_gradients(const Matrix<T>& m, const T* cotangent, int64_t begin, int64_t end, T* of_from, T* of_factor) {
  constexpr int L = Simd<T>::lanes;
  const int64_t rows = m.rows, columns = m.columns, whole = rows / L * L;
  std::fill_n(of_factor + begin / m.size * rows, (end - begin) / m.size * rows, T(0));
  int64_t c = begin;
  for (; c + L <= end; c += L)
    for (int64_t r = 0; r < whole; r += L) {
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
    }
  auto one = [&](int64_t r, int64_t c) {
    const T g = cotangent[c * rows + r];
    of_factor[c / m.size * rows + r] += g * m.from[r * columns + c];
    of_from[r * columns + c] = g * m.factor[c / m.size * rows + r];
  };
  const int64_t done = c;
  for (int64_t r = whole; r < rows; ++r)
    for (c = begin; c < done; ++c) one(r, c);
  for (int64_t r = 0; r < rows; ++r)
    for (c = done; c < end; ++c) one(r, c);
}

}  // namespace HOF_VARIANT
}  // namespace hof
