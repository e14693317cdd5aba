// Coefficients as kernels read them, from wherever a layer keeps them, and the way back for their gradients.
#pragma once

#include <tuple>

#include "launch.h"

namespace hof {

// weight [(groups,) inputs, K, outputs], any strides, times gain [(groups,) inputs, outputs]: contiguous, and weight
// itself where it is so already and has no gain.
Tensor packed(const Tensor& weight, const Tensor* gain, int64_t isa);

// The gradients of weight and gain, as these lie in memory, where kernels can give those of weight [(groups,) outputs,
// inputs, K] there themselves: `to` says where.
template <class T>
struct Unpacked {
  Unpacking<T> to;
  Tensor of_weight;
  Optional of_gain, factors, sums;  // gain and its gradients as kernels read and give them

  // Nothing where weight or gain lie in another way.
  static std::optional<Unpacked> as(const Tensor& weight, const Tensor* gain, int64_t isa);

  // When they are given.
  std::tuple<Tensor, Optional> gradients();
};

// A contiguous tensor of t's sizes, of numbers as they are computed with.
template <class T>
Tensor empty_wide(const Tensor& t);

// The gradients of weight and gain, as these lie in memory, from that of `packed`, v: as wide as numbers are computed with,
// except that of a weight that is packed as it is.
std::tuple<Tensor, Optional> unpacked(const Tensor& v, const Tensor& weight, const Tensor* gain, int64_t isa);

}  // namespace hof
