// One variant of the kernels. Included once for each instruction set.
#include "sum_batch.h"
#include "sum_inputs.h"
#include "sum_outputs.h"

namespace hof {
namespace HOF_VARIANT {

template <class T>
void transpose_columns(const T* from, int64_t rows, int64_t columns, int64_t begin, int64_t end, T* to) {
  constexpr int L = Simd<T>::lanes;
  const int64_t whole = rows / L * L;
  int64_t c = begin;
  for (; c + L <= end; c += L)
    for (int64_t r = 0; r < whole; r += L) {
      Vector<T> v[L];
      for (int k = 0; k < L; ++k) v[k] = load(from + (r + k) * columns + c);
      transpose<T>(v);
      for (int k = 0; k < L; ++k) store(to + (c + k) * rows + r, v[k]);
    }
  const int64_t done = c;
  for (int64_t r = whole; r < rows; ++r)
    for (c = begin; c < done; ++c) to[c * rows + r] = from[r * columns + c];
  for (int64_t r = 0; r < rows; ++r)
    for (c = done; c < end; ++c) to[c * rows + r] = from[r * columns + c];
}

template <class T>
const Kernels<T>& kernels() {
  static const Kernels<T> table{{cut_inputs<T>, cut_outputs<T>, cut_batch<T>},
                                {run_inputs<T>, run_outputs<T>, run_batch<T>},
                                transpose_columns<T>};
  return table;
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();

}  // namespace HOF_VARIANT
}  // namespace hof
