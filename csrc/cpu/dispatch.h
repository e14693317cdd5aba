// Which variant of the kernels runs: the instruction sets of this processor, and the one that is wanted.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include "problem.h"

namespace hof {

enum Isa { BASELINE = 0, AVX2 = 1, AVX512 = 2 };

inline int64_t best_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("f16c"))
    return AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return AVX2;
#endif
  return BASELINE;
}

template <class T>
const Kernels<T>& variant(int64_t isa) {
  STD_TORCH_CHECK(isa >= BASELINE && isa <= best_isa(), "isa: got ", isa, ", this processor has up to ", best_isa());
#if defined(__x86_64__)
  if (isa == AVX512) return avx512::kernels<T>();
  if (isa == AVX2) return avx2::kernels<T>();
#endif
  return baseline::kernels<T>();
}

}  // namespace hof
