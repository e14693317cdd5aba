// What one x meets of an input: the first coefficient and the values of the n functions there.
#pragma once

#include "storage.h"

namespace hof::cuda {

constexpr int QUARTET = 4;  // functions whose values are made at a time

template <class T>
struct Met {
  const T* table;  // of the segment
  T u;
  int first;
};

template <class T>
__device__ inline Met<T> meet(const Basis<T>& basis, int64_t input, T x) {
  int32_t segment;
  locate(basis, input, &x, 1, &segment);
  const T* knots = basis.knots + input * basis.knots_stride + segment;
  const T left = knots[0], width = knots[1] - left;
  const T u = basis.frozen(segment) ? T(0) : 2 * ((x - left) / width) - 1;
  int first = int(basis.start[segment]);
  first = first < 0 ? 0 : first > basis.size - basis.n ? basis.size - basis.n : first;  // nothing out of bounds
  return {basis.table + input * basis.table_stride + segment * basis.table_segment_stride, u, first};
}

// Values of the functions j .. j + 3 of the window, times scale; 0 beyond the window.
template <class T>
__device__ inline Four<T> window(const Basis<T>& basis, const Met<T>& met, int j, T scale) {
  Four<T> values{};
  const T* table = met.table + j * basis.m;
  features<T>(basis, met.u, [&](int f, T feature) {
    for (int q = 0; q < QUARTET; ++q)
      if (j + q < basis.n) values.of[q] += feature * table[q * basis.m + f];
  });
  for (int q = 0; q < QUARTET; ++q) values.of[q] = values.of[q] * scale;
  return values;
}

template <class T>
__device__ inline T x_of(const Problem<T>& p, int64_t e, int64_t row, int64_t input) {
  return read<T>(p.x, p.x_storage, e * p.x_group + row * p.x_row + input * p.x_input);
}

// s, or 1 if there is none.
template <class T>
__device__ inline T scale_of(const Problem<T>& p, int64_t e, int64_t row, int64_t input) {
  return p.s ? read<T>(p.s, p.x_storage, e * p.s_group + row * p.s_row + input * p.s_input) : T(1);
}

}  // namespace hof::cuda
