// The kernels for avx2. Standard headers come first: what they define must not be compiled for these instructions.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC target("avx2,fma,f16c")

#define HOF_VARIANT avx2
#define HOF_VECTOR_BYTES 32
#include "variant.h"
#endif
