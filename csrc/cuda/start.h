// What every launch has in common: where numbers lie, where the sum goes, blocks of threads on a stream.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "launch.h"
#include "window.h"

namespace hof::cuda {

constexpr int THREADS = 128;                          // of every block
template <class T>
constexpr int BLOCKS = sizeof(T) == 8 ? 2 : 4;        // that a multiprocessor must have registers for

inline int64_t divided(int64_t count, int64_t by) { return (count + by - 1) / by; }

template <class T>
int64_t bytes_of(Storage storage) {
  return storage == Storage::SAME ? sizeof(T) : 2;
}

// Rows of `outputs` numbers, some apart.
template <class T>
bool by_four(const void* data, Storage storage, int64_t outputs, int64_t row = 0, int64_t group = 0) {
  const int64_t size = bytes_of<T>(storage), vector = size == 8 ? 16 : 4 * size;
  return outputs % 4 == 0 && row % 4 == 0 && group % 4 == 0 && reinterpret_cast<uintptr_t>(data) % vector == 0;
}

template <class T>
Numbers coefficients(const Problem<T>& p) {
  return {p.w, p.w_storage, by_four<T>(p.w, p.w_storage, p.outputs)};
}

template <class T>
Numbers cotangents(const Problem<T>& p) {
  return {p.g, p.g_storage, by_four<T>(p.g, p.g_storage, p.outputs, p.g_row, p.g_group)};
}

// Where a kernel writes: [parts, *result].
template <class T>
Room room(const Problem<T>& p, Contraction contraction, const Choice& how) {
  const bool own = needs_room(p, contraction, how);
  void* data = own ? how.room : p.result;
  const Storage storage = own ? Storage::SAME : p.result_storage;
  return {data, storage, by_four<T>(data, storage, p.outputs)};
}

template <class... Arguments>
const char* start(void (*kernel)(Arguments...), int64_t blocks, const Choice& how,
                  std::type_identity_t<Arguments>... arguments) {
  if (blocks > 0x7fffffff) return "more blocks than a launch may have";
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(blocks));
  config.blockDim = dim3(THREADS);
  config.stream = static_cast<cudaStream_t>(how.stream);
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Index of a block, split off from the fastest axis on.
struct Place {
  int64_t rest;
  __device__ int64_t take(int64_t size) {
    const int64_t index = rest % size;
    rest /= size;
    return index;
  }
};

}  // namespace hof::cuda
