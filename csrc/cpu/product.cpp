// Products over inputs as two CPU operators, forward and backward.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "packing.h"

namespace {

using namespace hof;

// prod_i (1 + f_oi(x)): x [E, B, I], weight [E, I, K, O], any strides.
Tensor product(Tensor x, Tensor weight, Tensor domain, Tensor knots, Tensor tables, Tensor start,
               std::vector<int64_t> layout, int64_t isa) {
  STD_TORCH_CHECK(x.dim() == 3 && weight.dim() == 4 && x.is_cpu(), "malformed call");
  const Operands basis{domain, knots, tables, start, layout};
  const Tensor w = packed(weight, nullptr, isa);
  return basis.compute([&]<class T>() {
    auto [p, result] = read_problem<T>(SUM_INPUTS, x, &w, nullptr, nullptr, basis.read<T>(x.size(2)));
    if (result.numel() == 0) return result;
    const Kernels<T>& kernels = variant<T>(isa);
    const Cut cut = kernels.cut_product(p, int(torch::stable::get_num_threads()));
    over_units(cut, [&, &p = p](int64_t unit, char* scratch) { kernels.run_product(p, cut, unit, scratch); });
    return result;
  });
}

// The gradients of x and weight from that of `product`, g, in the dtype that is computed in; that of weight lies as this
// does, in its dtype unless it is contiguous.
std::tuple<Tensor, Tensor> product_gradients(Tensor g, Tensor x, Tensor weight, Tensor domain, Tensor knots,
                                             Tensor tables, Tensor start, std::vector<int64_t> layout, int64_t isa) {
  STD_TORCH_CHECK(x.dim() == 3 && weight.dim() == 4 && x.is_cpu(), "malformed call");
  const Operands basis{domain, knots, tables, start, layout};
  const Tensor w = packed(weight, nullptr, isa);
  return basis.compute([&]<class T>() -> std::tuple<Tensor, Tensor> {
    STD_TORCH_CHECK(g.scalar_type() == knots.scalar_type(), "dtypes differ");
    const Problem<T> p = read_operands<T>(SUM_OUTPUTS, x, &w, &g, nullptr, basis.read<T>(x.size(2)));
    Problem<T> slopes = p;
    slopes.basis = basis.read<T>(x.size(2), 1);
    const int64_t x_sizes[3] = {p.groups, p.batch, p.inputs}, w_sizes[4] = {p.groups, p.inputs, p.basis.size, p.outputs};
    Tensor of_x = empty(knots, 3, x_sizes), of_w = torch::stable::fill_(empty(knots, 4, w_sizes), 0.0);
    if (of_x.numel() == 0 || of_w.numel() == 0) return {torch::stable::fill_(of_x, 0.0), of_w};
    const Kernels<T>& kernels = variant<T>(isa);
    Cut passes[3];
    const int threads = int(torch::stable::get_num_threads());
    for (int pass = 0; pass < 3; ++pass) passes[pass] = kernels.cut_product_gradients(p, pass, threads);
    const Cut& cut = passes[1];
    const int64_t edges = cut.rows * p.inputs;
    const int64_t lines = (p.outputs * int64_t(sizeof(T)) + 63) / 64;
    const int64_t values = edges * 2 * p.basis.n, shares = lines * edges;
    const Tensor room = empty(knots, 1, &values), share = empty(knots, 1, &shares), firsts = empty(knots, 1, &edges);
    ProductTile<T> of{};
    of.met = {cut.rows, 2 * p.basis.n, room.mutable_data_ptr<T>(), reinterpret_cast<int32_t*>(firsts.mutable_data_ptr<T>())};
    of.shares = share.mutable_data_ptr<T>(), of.of_x = of_x.mutable_data_ptr<T>();
    for (of.e = 0; of.e < p.groups; ++of.e) {
      of.of_w = of_w.mutable_data_ptr<T>() + of.e * p.inputs * p.basis.size * p.outputs;
      for (of.row = 0; of.row < p.batch; of.row += cut.rows) {
        of.rows = int(std::min<int64_t>(cut.rows, p.batch - of.row));
        over_units(passes[0], [&](int64_t unit, char* own) { kernels.meet_rows(p, slopes, passes[0], of, unit, own); });
        over_units(cut, [&](int64_t unit, char* own) { kernels.pull_rows(p, cut, of, unit, own); });
        passes[2].units = (of.rows + 15) / 16;
        over_units(passes[2], [&](int64_t unit, char*) { kernels.add_shares(p, cut, of, unit); });
      }
    }
    return {of_x, std::get<0>(unpacked(of_w, weight, nullptr, isa))};
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(high_order_fused, library) {
  library.def(
      "cpu_product(Tensor x, Tensor weight, Tensor domain, Tensor knots, Tensor tables, Tensor start, int[] layout, int isa) "
      "-> Tensor");
  library.def(
      "cpu_product_gradients(Tensor g, Tensor x, Tensor weight, Tensor domain, Tensor knots, Tensor tables, Tensor start, "
      "int[] layout, int isa) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CPU, library) {
  library.impl("cpu_product", TORCH_BOX(&product));
  library.impl("cpu_product_gradients", TORCH_BOX(&product_gradients));
}
