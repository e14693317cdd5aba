// What launches the kernels; to be included without a CUDA compiler, too. Each says what CUDA has against it, or null.
#pragma once

#define HOF_VARIANT cuda  // the namespace of basis.h
#include "../problem.h"

namespace hof::cuda {

enum Kernel { DENSE = 0, GATHER = 1 };

// How a contraction runs: by which kernel, its sum in how many parts. high_order_fused/cuda.py chooses.
struct Choice {
  Kernel kernel;
  int64_t parts;
  void* room;    // [parts, *result] in T, where `needs_room`
  void* stream;  // a cudaStream_t
};

// Parts are added afterwards; a gather adds to what is stored, which 16 bits would round each time.
template <class T>
bool needs_room(const Problem<T>& p, Contraction contraction, const Choice& how) {
  const bool adds = contraction == SUM_BATCH && how.kernel == GATHER && p.result_storage != Storage::SAME;
  return how.parts > 1 || adds;
}

template <class T>
const char* sum_inputs(const Problem<T>& p, const Choice& how);
template <class T>
const char* sum_outputs(const Problem<T>& p, const Choice& how);
template <class T>
const char* sum_batch(const Problem<T>& p, const Choice& how);

// result = the sum of its parts in the order of the parts.
template <class T>
const char* add_parts(const Problem<T>& p, int64_t size, const Choice& how);

// Why there is no device that these kernels run on, by CUDA's name for it, or null.
const char* no_device();

}  // namespace hof::cuda
