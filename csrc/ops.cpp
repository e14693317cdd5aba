// The compiled operators, on torch's stable ABI alone: one library serves every torch from TORCH_TARGET_VERSION on.
#include <torch/csrc/stable/library.h>

#include <cstdint>

namespace {

// The stable ABI this library was built for, as 0xMMmmpp0000000000 (major, minor, patch).
int64_t native_abi() {
  return TORCH_TARGET_VERSION;
}

}  // namespace

// A fragment, because Python defines operators in the same namespace.
STABLE_TORCH_LIBRARY_FRAGMENT(high_order_fused, library) {
  library.def("native_abi() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CompositeExplicitAutograd, library) {
  library.impl("native_abi", TORCH_BOX(&native_abi));
}
