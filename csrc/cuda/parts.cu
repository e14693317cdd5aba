// Sums of parts, and whether there is a device.
#include "start.h"

namespace hof::cuda {

// Four numbers a thread.
template <class T>
__global__ void __launch_bounds__(THREADS) sum_parts(const Numbers from, const Room to, int64_t size, int64_t parts) {
  const int64_t at = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * 4;
  if (at >= size) return;
  Four<T> sum{};
  for (int64_t part = 0; part < parts; ++part) {
    const Four<T> four = read_four<T>(from, part * size + at, size - at);
    for (int k = 0; k < 4; ++k) sum.of[k] += four.of[k];
  }
  write_four(to, at, sum, size - at);
}

template <class T>
const char* add_parts(const Problem<T>& p, int64_t size, const Choice& how) {
  const Numbers from{how.room, Storage::SAME, by_four<T>(how.room, Storage::SAME, size)};
  const Room to{p.result, p.result_storage, by_four<T>(p.result, p.result_storage, size)};
  return start(sum_parts<T>, divided(size, 4 * THREADS), how, from, to, size, how.parts);
}

template const char* add_parts(const Problem<float>&, int64_t, const Choice&);
template const char* add_parts(const Problem<double>&, int64_t, const Choice&);

const char* no_device() {
  int count = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && !count) error = cudaErrorNoDevice;
  for (int device = 0; error == cudaSuccess && device < count; ++device) {  // questions that make no context
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (error == cudaSuccess && 10 * major + minor >= HOF_LOWEST) return nullptr;
  }
  return cudaGetErrorName(error == cudaSuccess ? cudaErrorNoKernelImageForDevice : error);
}

}  // namespace hof::cuda
