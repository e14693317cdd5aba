// A whole link as two CPU operators, forward and backward: packing, gain and contractions without a view between them.
#include <torch/csrc/stable/library.h>

#include <memory>
#include <tuple>

#include "packing.h"

namespace {

using namespace hof;

// The base branch of a link of these operands: values like x, or null, weight [(groups,) outputs, inputs].
template <class T>
Branch<T> read_branch(const Problem<T>& p, const Tensor& w, const Tensor* values, const Tensor& weight) {
  const int64_t sizes[3] = {p.groups, p.batch, p.inputs}, needed[3] = {p.groups, p.outputs, p.inputs};
  const Grouped like(weight, 3);
  STD_TORCH_CHECK(std::equal(needed, needed + 3, like.size) && weight.is_contiguous(), "base_weight");
  STD_TORCH_CHECK(weight.scalar_type() == w.scalar_type(), "dtypes differ");
  Branch<T> branch{};
  branch.weight = weight.const_data_ptr(), branch.storage = storage_of<T>(w);
  if (values) {
    const Grouped rows(*values, 3);
    STD_TORCH_CHECK(std::equal(sizes, sizes + 3, rows.size) && (rows.stride[2] == 1 || p.inputs == 1 || values->numel() == 0),
                    "base");
    STD_TORCH_CHECK(values->scalar_type() == w.scalar_type(), "dtypes differ");
    branch.values = values->const_data_ptr(), branch.group = rows.stride[0], branch.row = rows.stride[1];
  }
  return branch;
}

// y of a few rows, from coefficients as they lie.
template <class T>
Tensor run_few(const Problem<T>& p, const Tensor& weight, const Tensor* gain, Tensor y, int64_t isa) {
  if (y.numel() == 0) return y;
  const int64_t edges = p.groups * p.inputs * p.batch;
  const auto functions = std::make_unique_for_overwrite<T[]>(size_t(edges * p.basis.n));
  const auto first = std::make_unique_for_overwrite<int32_t[]>(size_t(edges));
  FewRows<T> few{{p.batch, p.basis.n, functions.get(), first.get()}, nullptr, nullptr, 0, 0, 0};
  if (gain) {
    check_gain(weight, *gain);
    const Grouped own(*gain, 3);
    few.gain = gain->const_data_ptr(), few.gain_group = own.stride[0], few.gain_input = own.stride[1], few.gain_output = own.stride[2];
  }
  const Kernels<T>& kernels = variant<T>(isa);
  const Cut inputs = kernels.cut_few(p, false), outputs = kernels.cut_few(p, true);
  const auto values = std::make_unique_for_overwrite<T[]>(size_t(p.branch ? inputs.units * inputs.part * p.batch : 0));
  few.values = values.get();
  over_units(inputs, [&](int64_t unit, char* scratch) { kernels.meet_few(p, few, unit, scratch); });
  over_units(outputs, [&](int64_t unit, char* scratch) { kernels.add_few(p, few, unit, scratch); });
  return y;
}

// y and the packed coefficients, which the backward pass reads; or the weight itself, if a few rows were enough to read that.
std::tuple<Tensor, Tensor> link_output(Tensor x, Tensor weight, Optional gain, Optional base, Optional base_weight, Tensor domain,
                                       Tensor knots, Tensor tables, Tensor start, std::vector<int64_t> layout, int64_t isa) {
  STD_TORCH_CHECK(x.is_cpu() && x.dim() + 1 == weight.dim() && (base_weight || !base), "malformed call");
  const Operands basis{domain, knots, tables, start, layout};
  return basis.compute([&]<class T>() -> std::tuple<Tensor, Tensor> {
    auto [p, y] = read_problem<T>(SUM_INPUTS, x, &weight, nullptr, nullptr, basis.read<T>(x.size(x.dim() - 1)), true);
    Branch<T> branch;
    if (base_weight) branch = read_branch(p, weight, pointer(base), *base_weight), p.branch = &branch;
    if (few_rows(p) && !weight.is_contiguous() && lies_outputs_first(weight))
      return {run_few(p, weight, pointer(gain), y, isa), weight};
    if (y.numel() != 0 && by_inputs(p) && !weight.is_contiguous()) {
      const Cut cut = variant<T>(isa).cut[SUM_INPUTS](p, int(torch::stable::get_num_threads()));
      const std::optional<Stack> stack = packs_tiles(p, cut) ? stack_of<T>(weight, pointer(gain)) : std::nullopt;
      if (stack) {
        p.stack = &*stack;
        return {run(SUM_INPUTS, p, y, isa), weight};
      }
    }
    const Tensor w = packed(weight, pointer(gain), isa);
    p.w = w.const_data_ptr();
    return {run(SUM_INPUTS, p, y, isa), w};
  });
}

// The gradients of weight and gain; and that of x, of the basis `steep`, if this is given: in one pass over the rows where
// the inputs are enough for all threads. Those of a branch are filled in the same pass; that of silu(x) first, for the other
// gradient of x to be added to.
template <class T>
std::tuple<Tensor, Optional, Optional> weight_gradients(const Tensor& g, const Tensor& x, const Tensor* w, const Tensor& weight,
                                                        const Tensor* gain, const Basis<T>& basis, const Basis<T>* steep,
                                                        Branch<T>* branch, int64_t isa) {
  Problem<T> v = read_operands<T>(SUM_BATCH, x, nullptr, &g, nullptr, basis), r{};
  const Grouped like(weight, 4);
  const int64_t sizes[4] = {v.groups, v.inputs, v.basis.size, v.outputs};
  STD_TORCH_CHECK(std::equal(sizes, sizes + 4, like.size), "weight");
  v.branch = branch;
  const Kernels<T>& kernels = variant<T>(isa);
  const int threads = int(torch::stable::get_num_threads());

  // given where they belong, if those of some inputs can be kept until then; or packed
  std::optional<WeightGradients<T>> there;
  if (4 * v.basis.size * v.outputs <= SUMS_NUMBERS) there = WeightGradients<T>::of(weight, gain);
  const StackGradients<T>* to = there ? &there->to : nullptr;
  Optional sums, slope;
  if (!gain && weight.is_contiguous())
    std::tie(v, sums) = read_problem<T>(SUM_BATCH, x, nullptr, &g, nullptr, basis), v.branch = branch;
  else if (!there)
    sums = empty_wide<T>(weight), v.result = sums->mutable_data_ptr();
  if (steep) std::tie(r, slope) = read_problem<T>(SUM_OUTPUTS, x, &weight, &g, nullptr, *steep, true);
  if (steep && branch && !branch->values) branch->of_values = r.result, r.branch = branch;
  const Cut alone = weight.numel() != 0 ? kernels.cut_gradients(v, to, nullptr, threads) : Cut{};
  const bool together = steep && alone.units >= threads;
  Optional own;
  if (steep && !w && together && to && packs_tiles(r, alone))
    r.stack = &to->stack;
  else if (steep)
    own = w ? *w : packed(weight, gain, isa), r.w = own->const_data_ptr();
  if (weight.numel() != 0) {
    const Problem<T>* slopes = together ? &r : nullptr;
    const Cut cut = kernels.cut_gradients(v, to, slopes, threads);
    over_units(cut, [&](int64_t unit, char* scratch) { kernels.run_gradients(v, to, slopes, cut, unit, scratch); });
  }
  if (steep && !together) slope = run(SUM_OUTPUTS, r, *slope, isa);
  auto [of_weight, of_gain] = there ? std::tuple{there->of_weight, there->of_gain} : unpacked(*sums, weight, gain, isa);
  return {of_weight, of_gain, slope};
}

// The gradients of x, weight, gain, base and base_weight from that of y, those not wanted without a number: torch loops over
// batches of cotangents only for operators that return tensors. `kept` is what `link_output` gave; tables hold the derivative,
// too. A base branch comes only where the gradient of weight is wanted; of silu(x), its gradient is in that of x.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> link_gradients(
    Tensor g, Tensor x, Tensor kept, Tensor weight, Optional gain, Optional base, Optional base_weight, Tensor domain, Tensor knots,
    Tensor tables, Tensor start, std::vector<int64_t> layout, int64_t isa, bool of_x, bool of_weight,
    bool of_base) {
  STD_TORCH_CHECK(x.is_cpu() && x.dim() + 1 == weight.dim() && (base_weight || !base), "malformed call");
  STD_TORCH_CHECK((of_weight || !base_weight) && (base || !of_base), "malformed call");
  const bool is_packed = kept.is_contiguous();
  const Operands basis{domain, knots, tables, start, layout};
  return basis.compute([&]<class T>() -> std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> {
    const int64_t inputs = x.size(x.dim() - 1);
    const Basis<T> own = basis.read<T>(inputs), steep = basis.read<T>(inputs, of_x);
    Optional slope, v, scales, values, sums;
    Branch<T> branch;
    if (base_weight) {
      branch = read_branch(read_operands<T>(SUM_BATCH, x, nullptr, &g, nullptr, own), weight, pointer(base), *base_weight);
      sums = empty_wide<T>(*base_weight);
      branch.of_weight = sums->template mutable_data_ptr<T>();
      if (of_base) values = empty(*base), branch.of_values = values->mutable_data_ptr();
      if (of_base && weight.numel() == 0) torch::stable::fill_(*values, 0.0);
    }
    if (of_weight)
      std::tie(v, scales, slope) = weight_gradients<T>(g, x, is_packed ? &kept : nullptr, weight, pointer(gain), own,
                                                       of_x ? &steep : nullptr, base_weight ? &branch : nullptr, isa);
    else if (of_x) {
      const Tensor w = is_packed ? kept : packed(weight, pointer(gain), isa);
      slope = run<T>(SUM_OUTPUTS, x, &w, &g, nullptr, steep, isa);
    }
    if (base_weight && branch.storage != Storage::SAME) {  // sums are as wide as numbers are computed with
      Tensor rounded = empty(*base_weight);
      torch::stable::copy_(rounded, *sums);
      sums = rounded;
    }
    const int64_t none = 0;
    auto found = [&](const Optional& t) { return t ? *t : empty(x, 1, &none); };
    return {found(slope), found(v), found(scales), found(values), found(sums)};
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(high_order_fused, library) {
  library.def(
      "cpu_link(Tensor x, Tensor(a) weight, Tensor? gain, Tensor? base, Tensor? base_weight, Tensor domain, Tensor knots, "
      "Tensor tables, Tensor start, int[] layout, int isa) -> (Tensor, Tensor(a))");
  library.def(
      "cpu_link_gradients(Tensor g, Tensor x, Tensor w, Tensor weight, Tensor? gain, Tensor? base, Tensor? base_weight, "
      "Tensor domain, Tensor knots, Tensor tables, Tensor start, int[] layout, int isa, bool of_x, bool of_weight, "
      "bool of_base) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CPU, library) {
  library.impl("cpu_link", TORCH_BOX(&link_output));
  library.impl("cpu_link_gradients", TORCH_BOX(&link_gradients));
}
