// CUDA C++ on a CPU: blocks one after the other, each thread of a block a fiber that runs to the next barrier.
//
// Enough for kernels that use barriers and shared memory alone. Stream 0 runs threads in their order, stream 1 in the
// opposite one: results that differ show a barrier that is missing. Barriers that not all threads reach end the process.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __shared__ static
#define __syncthreads() shim::barrier(__FILE__, __LINE__)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  explicit dim3(unsigned x) : x(x) {}
};

typedef void* cudaStream_t;
enum cudaError_t { cudaSuccess = 0, cudaErrorNoDevice = 100, cudaErrorNoKernelImageForDevice = 209 };
inline const char* cudaGetErrorName(cudaError_t) { return "cudaErrorNoDevice"; }
inline const char* cudaGetErrorString(cudaError_t) { return "no CUDA-capable device is detected"; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  return cudaErrorNoDevice;
}

enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };
inline cudaError_t cudaDeviceGetAttribute(int*, cudaDeviceAttr, int) { return cudaErrorNoDevice; }
#define HOF_LOWEST 80

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  void* attrs;
  unsigned numAttrs;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool running;
  const char* file;  // the barrier it waits at
  int line;
};

constexpr size_t STACK = 64 * 1024;
inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline unsigned current;
inline std::function<void()> body;

inline void barrier(const char* file, int line) {
  Fiber& own = fibers[current];
  own.file = file, own.line = line;
  swapcontext(&own.context, &scheduler);
}

inline void entry() {
  body();
  fibers[current].running = false;
}

// One block: rounds of all threads, each to its next barrier or its end.
inline void run_block(bool backwards) {
  const unsigned count = unsigned(fibers.size());
  for (Fiber& fiber : fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack = {fiber.stack.get(), 0, STACK};
    fiber.context.uc_link = &scheduler;
    fiber.running = true;
    makecontext(&fiber.context, entry, 0);
  }
  for (bool running = true; running;) {
    for (unsigned k = 0; k < count; ++k) {
      current = backwards ? count - 1 - k : k;
      threadIdx.x = current;
      swapcontext(&scheduler, &fibers[current].context);
    }
    running = fibers[0].running;
    for (const Fiber& fiber : fibers)
      if (fiber.running != running || (running && (fiber.line != fibers[0].line || fiber.file != fibers[0].file))) {
        std::fprintf(stderr, "CUDA shim: not all threads of a block reach %s:%d\n", fiber.file, fiber.line);
        std::abort();
      }
  }
}

}  // namespace shim

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  shim::body = [&] { kernel(arguments...); };
  blockDim = config->blockDim, gridDim = config->gridDim;
  while (shim::fibers.size() < blockDim.x) shim::fibers.push_back({{}, std::make_unique<char[]>(shim::STACK), false, "", 0});
  shim::fibers.resize(blockDim.x);
  for (unsigned block = 0; block < gridDim.x; ++block) {
    blockIdx.x = block;
    shim::run_block(config->stream != nullptr);
  }
  return cudaSuccess;
}
