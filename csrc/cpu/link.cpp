// A whole link as two CPU operators, forward and backward: packing, gain and contractions without a view between them.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "packing.h"

namespace {

using namespace hof;

// y and the packed coefficients, which the backward pass reads.
std::tuple<Tensor, Tensor> link_output(Tensor x, Tensor weight, Optional gain, Tensor domain, Tensor knots, Tensor tables,
                                       Tensor start, std::vector<int64_t> layout, int64_t isa) {
  STD_TORCH_CHECK(x.is_cpu() && x.dim() + 1 == weight.dim(), "malformed call");
  const Operands basis{domain, knots, tables, start, layout};
  const Tensor w = packed(weight, pointer(gain), isa);
  return {basis.compute([&]<class T>() {
    return run<T>(SUM_INPUTS, x, &w, nullptr, nullptr, basis.read<T>(x.size(x.dim() - 1)), isa);
  }), w};
}

// The slope of the functions at x, summed with g, and the gradient of the packed coefficients: in one pass where the
// inputs are enough for all threads.
template <class T>
std::tuple<Tensor, Tensor> both(const Tensor& g, const Tensor& x, const Tensor& w, const Basis<T>& basis,
                                const Basis<T>& steep, int64_t isa) {
  auto [r, slope] = read_problem<T>(SUM_OUTPUTS, x, &w, &g, nullptr, steep);
  auto [v, sums] = read_problem<T>(SUM_BATCH, x, nullptr, &g, nullptr, basis);
  const Kernels<T>& kernels = variant<T>(isa);
  const int64_t threads = torch::stable::get_num_threads();
  const Cut cut = kernels.cut_gradients(v, r, int(threads));
  if (slope.numel() == 0 || sums.numel() == 0 || cut.units < threads)
    return {run<T>(SUM_OUTPUTS, x, &w, &g, nullptr, steep, isa), run<T>(SUM_BATCH, x, nullptr, &g, nullptr, basis, isa)};
  over_units(cut, [&, &v = v, &r = r](int64_t unit, char* scratch) { kernels.run_gradients(v, r, cut, unit, scratch); });
  return {slope, sums};
}

// The gradients of x, weight and gain from that of y, those not wanted without a number: torch loops over batches of
// cotangents only for operators that return tensors. w is what `link_output` packed; tables hold the derivative, too.
std::tuple<Tensor, Tensor, Tensor> link_gradients(Tensor g, Tensor x, Tensor w, Tensor weight, Optional gain,
                                                  Tensor domain, Tensor knots, Tensor tables, Tensor start,
                                                  std::vector<int64_t> layout, int64_t isa, bool of_x, bool of_weight) {
  STD_TORCH_CHECK(x.is_cpu() && x.dim() + 1 == weight.dim(), "malformed call");
  const Operands basis{domain, knots, tables, start, layout};
  return basis.compute([&]<class T>() -> std::tuple<Tensor, Tensor, Tensor> {
    const int64_t inputs = x.size(x.dim() - 1);
    const Basis<T> own = basis.read<T>(inputs), steep = basis.read<T>(inputs, of_x);
    Optional slope, v, scales;
    if (of_x && of_weight)
      std::tie(slope, v) = both<T>(g, x, w, own, steep, isa);
    else if (of_x)
      slope = run<T>(SUM_OUTPUTS, x, &w, &g, nullptr, steep, isa);
    else if (of_weight)
      v = run<T>(SUM_BATCH, x, nullptr, &g, nullptr, own, isa);
    if (v) std::tie(v, scales) = unpacked(*v, weight, pointer(gain), isa);
    const int64_t none = 0;
    auto found = [&](const Optional& t) { return t ? *t : empty(x, 1, &none); };
    return {found(slope), found(v), found(scales)};
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(high_order_fused, library) {
  library.def(
      "cpu_link(Tensor x, Tensor(a) weight, Tensor? gain, Tensor domain, Tensor knots, Tensor tables, Tensor start, "
      "int[] layout, int isa) -> (Tensor, Tensor(a))");
  library.def(
      "cpu_link_gradients(Tensor g, Tensor x, Tensor w, Tensor weight, Tensor? gain, Tensor domain, Tensor knots, "
      "Tensor tables, Tensor start, int[] layout, int isa, bool of_x, bool of_weight) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CPU, library) {
  library.impl("cpu_link", TORCH_BOX(&link_output));
  library.impl("cpu_link_gradients", TORCH_BOX(&link_gradients));
}
