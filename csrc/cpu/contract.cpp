// The three contractions as CPU operators, and the word of the cost model on them.
#include <torch/csrc/stable/library.h>

#include "choice.h"
#include "launch.h"

namespace {

using namespace hof;

Tensor contract(int64_t contraction, Tensor x, Optional w, Optional g, Optional s, Tensor domain, Tensor knots,
                Tensor tables, Tensor start, std::vector<int64_t> layout, int64_t isa) {
  STD_TORCH_CHECK(contraction >= 0 && contraction <= 2 && x.dim() == 3 && x.is_cpu(), "malformed call");
  const Operands basis{domain, knots, tables, start, layout};
  return basis.compute([&]<class T>() {
    return run<T>(contraction, x, pointer(w), pointer(g), pointer(s), basis.read<T>(x.size(2)), isa);
  });
}

// How a contraction would run: strategy, rows of a tile, units of work, bytes of scratch for a thread; and a link read
// coefficients that lie outputs first: 0 packed, 1 as they lie, 2 packed by tiles.
Tensor choice(int64_t contraction, Tensor x, int64_t outputs, bool narrow, Tensor domain, Tensor knots, Tensor tables,
              Tensor start, std::vector<int64_t> layout, int64_t isa) {
  STD_TORCH_CHECK(contraction >= 0 && contraction <= 2 && x.dim() == 3 && x.is_cpu(), "malformed call");
  const Operands basis{domain, knots, tables, start, layout};
  return basis.compute([&]<class T>() {
    Problem<T> p{};
    p.basis = basis.read<T>(x.size(2));
    p.groups = x.size(0), p.batch = x.size(1), p.inputs = x.size(2), p.outputs = outputs;
    p.result_storage = narrow ? Storage::BFLOAT16 : Storage::SAME;
    const Cut cut = variant<T>(isa).cut[contraction](p, int(torch::stable::get_num_threads()));
    const int64_t five = 5;
    Tensor result = torch::stable::new_empty(x, {&five, 1}, ScalarType::Long);
    int64_t* numbers = result.mutable_data_ptr<int64_t>();
    numbers[0] = strategy(p, Contraction(contraction)), numbers[1] = cut.rows, numbers[2] = cut.units, numbers[3] = cut.scratch;
    numbers[4] = few_rows(p) ? 1 : by_inputs(p) && packs_tiles(p, cut) ? 2 : 0;
    return result;
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(high_order_fused, library) {
  library.def("cpu_isa() -> int");
  library.def(
      "cpu_contract(int contraction, Tensor x, Tensor? w, Tensor? g, Tensor? s, Tensor domain, Tensor knots, "
      "Tensor tables, Tensor start, int[] layout, int isa) -> Tensor");
  library.def(
      "cpu_choice(int contraction, Tensor x, int outputs, bool narrow, Tensor domain, Tensor knots, Tensor tables, "
      "Tensor start, int[] layout, int isa) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CompositeExplicitAutograd, library) {
  library.impl("cpu_isa", TORCH_BOX(&best_isa));
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CPU, library) {
  library.impl("cpu_contract", TORCH_BOX(&contract));
  library.impl("cpu_choice", TORCH_BOX(&choice));
}
