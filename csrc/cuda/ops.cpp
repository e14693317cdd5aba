// The CUDA operators, on torch's stable ABI alone. CUDA's runtime is linked in: the library loads where there is no GPU.
#include <torch/csrc/stable/library.h>

#include <string>

#include "contract.h"

namespace {

// As launch.h says; empty if there is a device.
std::string no_device() {
  const char* why = hof::cuda::no_device();
  return why ? why : "";
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(high_order_fused, library) {
  library.def("cuda_no_device() -> str");
  library.def((std::string("cuda_contract") + hof::cuda::CONTRACT).c_str());
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CompositeExplicitAutograd, library) {
  library.impl("cuda_no_device", TORCH_BOX(&no_device));
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CUDA, library) {
  library.impl("cuda_contract", TORCH_BOX(&hof::cuda::contract));
}
