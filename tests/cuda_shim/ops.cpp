// The kernels themselves on tensors of a CPU: this and csrc/cuda/*.cu, with this folder before CUDA's.
#include <torch/csrc/stable/library.h>

#include <string>

#include "contract.h"

STABLE_TORCH_LIBRARY(high_order_fused_shim, library) {
  library.def((std::string("contract") + hof::cuda::CONTRACT).c_str());
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused_shim, CPU, library) {
  library.impl("contract", TORCH_BOX(&hof::cuda::contract));
}
