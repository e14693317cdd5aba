// What a CPU kernel is asked: sizes, pointers and strides, nothing of torch.
#pragma once

#include <cstdint>

#include "../basis.h"

namespace hof {

template <class T>
struct Problem {
  Basis<T> basis;
  int64_t groups, batch, inputs, outputs;
  const T* x;
  const T* s;  // null: ones
  int64_t x_group, x_row, x_input, s_group, s_row, s_input;
  const T* w;  // [groups, inputs, K, outputs], contiguous
  const T* g;  // rows of `outputs` adjacent numbers
  int64_t g_group, g_row;
  T* result;  // contiguous
};

// Work is cut into units that do not depend on the number of threads; a unit needs `scratch` bytes.
struct Cut {
  int rows;                       // of a tile
  int64_t tiles, parts, part;     // row tiles; parts of the other axis, each `part` wide
  int64_t units;
  int64_t scratch;
};

enum Contraction { SUM_INPUTS = 0, SUM_OUTPUTS = 1, SUM_BATCH = 2 };

// A variant of the kernels, compiled for one instruction set.
template <class T>
struct Kernels {
  Cut (*cut[3])(const Problem<T>&, int threads);
  void (*run[3])(const Problem<T>&, const Cut&, int64_t unit, char* scratch);
  // Columns [begin, end) of from [rows, columns] become rows of to [columns, rows].
  void (*transpose)(const T* from, int64_t rows, int64_t columns, int64_t begin, int64_t end, T* to);
};

namespace baseline { template <class T> const Kernels<T>& kernels(); }
namespace avx2 { template <class T> const Kernels<T>& kernels(); }
namespace avx512 { template <class T> const Kernels<T>& kernels(); }

}  // namespace hof
