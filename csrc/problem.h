// What a kernel of the form is asked: sizes, pointers and strides, nothing of torch.
#pragma once

#include <cstdint>

#include "basis.h"

namespace hof {

enum Contraction { SUM_INPUTS = 0, SUM_OUTPUTS = 1, SUM_BATCH = 2 };

enum class Storage { SAME, BFLOAT16, HALF };  // as the numbers that are computed with, or 16 bits of them

// A branch beside the functions, y[e,b,o] += sum_i values[e,b,i] weight[e,o,i], and its gradients.
template <class T>
struct Branch {
  const void* values;  // stored like w, `row` from one row to the next; null: silu(x)
  int64_t group, row;
  const void* weight;  // contiguous, stored like w: [groups, outputs, inputs]
  void* of_values;     // contiguous, stored like values, or like x, times the slope of silu(x); null: not wanted
  T* of_weight;        // [groups, outputs, inputs]
  Storage storage;
};

struct Stack;

template <class T>
struct Problem {
  Basis<T> basis;
  int64_t groups, batch, inputs, outputs;
  Storage x_storage, w_storage, g_storage, result_storage;  // s is stored like x
  const void* x;
  const void* s;  // null: ones
  int64_t x_group, x_row, x_input, s_group, s_row, s_input;
  const void* w;  // [groups, inputs, K, outputs], contiguous
  const Stack* stack;  // null, or w as it lies, to be packed for a tile's inputs at a time
  const void* g;  // rows of `outputs` adjacent numbers
  int64_t g_group, g_row;
  void* result;  // contiguous
  const Branch<T>* branch;  // null: none. Of sum_outputs: its result holds the gradient of silu(x), to be added to
};

}  // namespace hof
