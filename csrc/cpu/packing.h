// Coefficients as kernels read them, from wherever a layer keeps them, and the way back for their gradients.
#pragma once

#include <tuple>

#include "launch.h"

namespace hof {

// weight [(groups,) inputs, K, outputs], any strides, times gain [(groups,) inputs, outputs]: contiguous, and weight
// itself where it is so already and has no gain.
Tensor packed(const Tensor& weight, const Tensor* gain, int64_t isa);

// The gradients of weight and gain, as these lie in memory, from that of `packed`.
std::tuple<Tensor, Optional> unpacked(const Tensor& v, const Tensor& weight, const Tensor* gain, int64_t isa);

}  // namespace hof
