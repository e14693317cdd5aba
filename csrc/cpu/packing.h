// Coefficients as kernels read them, from wherever a layer keeps them, and the way back for their gradients.
#pragma once

#include <tuple>

#include "launch.h"

namespace hof {

// weight [(groups,) inputs, K, outputs], any strides, times gain [(groups,) inputs, outputs]: contiguous, and weight
// itself where it is so already and has no gain.
Tensor packed(const Tensor& weight, const Tensor* gain, int64_t isa);

// Whether it does so in memory, without gaps.
bool lies_outputs_first(const Tensor& weight);

void check_gain(const Tensor& weight, const Tensor& gain);

// Where kernels find a weight that lies outputs first, and its gain; none of those that lie in another way.
template <class T>
std::optional<Stack> stack_of(const Tensor& weight, const Tensor* gain);

// The gradients of such a weight, and of its gain, which kernels give as these lie: `to` says where.
template <class T>
struct WeightGradients {
  StackGradients<T> to;
  Tensor of_weight;
  Optional of_gain;

  // None, too, for a weight that is packed as it is.
  static std::optional<WeightGradients> of(const Tensor& weight, const Tensor* gain);
};

// A contiguous tensor of t's sizes, of numbers as they are computed with.
template <class T>
Tensor empty_wide(const Tensor& t);

// The gradients of weight and gain, as these lie in memory, from that of `packed`, v: as wide as numbers are computed with,
// except that of a weight that is packed as it is.
std::tuple<Tensor, Optional> unpacked(const Tensor& v, const Tensor& weight, const Tensor* gain, int64_t isa);

}  // namespace hof
