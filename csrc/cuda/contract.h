// The three contractions on tensors: from a call to launches.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include "../tensors.h"
#include "launch.h"

namespace hof::cuda {

// kernel, parts: as in Choice. stream: a cudaStream_t of the device of x, which is made the current one.
inline Tensor contract(int64_t contraction, Tensor x, Optional w, Optional g, Optional s, Tensor domain, Tensor knots,
                       Tensor tables, Tensor start, std::vector<int64_t> layout, int64_t kernel, int64_t parts,
                       int64_t stream) {
  STD_TORCH_CHECK(contraction >= 0 && contraction <= 2 && x.dim() == 3 && kernel >= 0 && kernel <= 1 && parts >= 1 &&
                      (contraction != SUM_OUTPUTS || parts == 1),
                  "malformed call");
  std::optional<torch::stable::accelerator::DeviceGuard> guard;
  if (x.is_cuda()) guard.emplace(x.get_device_index());
  const Operands operands{domain, knots, tables, start, layout};
  return operands.compute([&]<class T>() {
    for (const Tensor* t : {pointer(w), pointer(g), pointer(s), &operands.domain, &operands.knots, &operands.tables,
                            &operands.start})
      STD_TORCH_CHECK(!t || (t->is_cuda() == x.is_cuda() && t->get_device_index() == x.get_device_index()),
                      "devices differ");
    auto [p, result] =
        read_problem<T>(contraction, x, pointer(w), pointer(g), pointer(s), operands.read<T>(x.size(2)));
    if (result.numel() == 0) return result;
    if (p.groups * p.batch * p.inputs * p.outputs == 0) return torch::stable::fill_(result, 0.0);
    Choice how{Kernel(kernel), parts, nullptr, reinterpret_cast<void*>(stream)};
    std::optional<Tensor> room;
    const bool adds = needs_room(p, Contraction(contraction), how);
    if (adds) {
      const int64_t numbers = parts * result.numel();
      room = torch::stable::new_empty(x, {&numbers, 1}, sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float);
      how.room = room->mutable_data_ptr();
    }
    const char* why = contraction == SUM_INPUTS    ? sum_inputs(p, how)
                      : contraction == SUM_OUTPUTS ? sum_outputs(p, how)
                                                   : sum_batch(p, how);
    if (!why && adds) why = add_parts(p, result.numel(), how);
    STD_TORCH_CHECK(!why, "CUDA: ", why ? why : "");
    return result;
  });
}

constexpr const char* CONTRACT =
    "(int contraction, Tensor x, Tensor? w, Tensor? g, Tensor? s, Tensor domain, Tensor knots, Tensor tables, "
    "Tensor start, int[] layout, int kernel, int parts, int stream) -> Tensor";

}  // namespace hof::cuda
