// The CPU operator: guards memory, cuts the work, runs it on torch's threads with the best variant.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "choice.h"
#include "dispatch.h"

namespace {

using hof::Contraction;
using hof::Problem;
using torch::stable::Tensor;
using torch::headeronly::ScalarType;

template <class T>
hof::Basis<T> read_basis(const Tensor& domain, const Tensor& knots, const Tensor& tables, const Tensor& start,
                         const std::vector<int64_t>& layout, int64_t inputs) {
  STD_TORCH_CHECK(layout.size() == 5 && tables.dim() == 5 && knots.dim() == 2 && domain.dim() == 2 && start.dim() == 1,
                  "malformed basis");
  STD_TORCH_CHECK(domain.is_contiguous() && knots.is_contiguous() && tables.is_contiguous() && start.is_contiguous(),
                  "the basis must be contiguous");
  const int64_t order = layout[4], segments = start.size(0), n = tables.size(3), m = tables.size(4);
  auto own = [&](int64_t size) {
    STD_TORCH_CHECK(size == 1 || size == inputs, "the basis has ", size, " features, x has ", inputs);
    return int64_t(size > 1);
  };
  STD_TORCH_CHECK(knots.size(1) == segments + 1 && domain.size(1) == 2 && order >= 0 && order < tables.size(0) &&
                      (tables.size(2) == 1 || tables.size(2) == segments),
                  "malformed basis");
  hof::Basis<T> basis{};
  basis.domain = domain.const_data_ptr<T>();
  basis.knots = knots.const_data_ptr<T>();
  basis.table = tables.const_data_ptr<T>() + order * tables.size(1) * tables.size(2) * n * m;
  basis.start = start.const_data_ptr<int64_t>();
  basis.domain_stride = own(domain.size(0)) * 2;
  basis.knots_stride = own(knots.size(0)) * (segments + 1);
  basis.table_stride = own(tables.size(1)) * tables.size(2) * n * m;
  basis.table_segment_stride = tables.size(2) > 1 ? n * m : 0;
  basis.kind = int(layout[0]), basis.uniform = int(layout[1]), basis.outer = int(layout[2]);
  basis.size = int(layout[3]), basis.segments = int(segments), basis.n = int(n), basis.m = int(m);
  for (int64_t t = 0; t < segments; ++t)
    STD_TORCH_CHECK(basis.start[t] >= 0 && basis.start[t] + n <= basis.size, "a window lies outside the coefficients");
  return basis;
}

template <class T>
hof::Storage storage_of(const Tensor& t) {
  if constexpr (sizeof(T) == 8) {
    STD_TORCH_CHECK(t.scalar_type() == ScalarType::Double, "dtypes differ");
    return hof::Storage::SAME;
  } else {
    if (t.scalar_type() == ScalarType::BFloat16) return hof::Storage::BFLOAT16;
    if (t.scalar_type() == ScalarType::Half) return hof::Storage::HALF;
    STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float, "dtypes differ");
    return hof::Storage::SAME;
  }
}

// Memory that a thread keeps: from the allocator it would be new pages at every call, which cost as much as a kernel.
char* scratch_of_thread(size_t bytes) {
  struct Free {
    void operator()(char* p) const { ::operator delete[](p, std::align_val_t(64)); }
  };
  thread_local std::unique_ptr<char, Free> kept;
  thread_local size_t size = 0;
  if (size < bytes) {
    kept.reset();
    size = 0;
    kept.reset(static_cast<char*>(::operator new[](bytes, std::align_val_t(64))));
    size = bytes;
  }
  return kept.get();
}

using Optional = std::optional<Tensor>;

// The problem of a contraction, and its result, which is still to be filled.
template <class T>
std::pair<Problem<T>, Tensor> read_problem(int64_t contraction, const Tensor& x, const Optional& w, const Optional& g,
                                           const Optional& s, const hof::Basis<T>& basis) {
  Problem<T> p{};
  p.basis = basis;
  p.groups = x.size(0), p.batch = x.size(1), p.inputs = x.size(2);
  p.x = x.const_data_ptr(), p.x_storage = storage_of<T>(x), p.x_group = x.stride(0), p.x_row = x.stride(1), p.x_input = x.stride(2);
  if (s) {
    STD_TORCH_CHECK(s->scalar_type() == x.scalar_type(), "dtypes differ");
    STD_TORCH_CHECK(s->dim() == 3 && s->size(0) == p.groups && s->size(1) == p.batch && s->size(2) == p.inputs, "s");
    p.s = s->const_data_ptr(), p.s_group = s->stride(0), p.s_row = s->stride(1), p.s_input = s->stride(2);
  }
  if (contraction != hof::SUM_BATCH) {
    STD_TORCH_CHECK(w && w->dim() == 4 && w->is_contiguous() && w->size(0) == p.groups && w->size(1) == p.inputs &&
                        w->size(2) == basis.size, "w");
    p.w = w->const_data_ptr(), p.w_storage = storage_of<T>(*w), p.outputs = w->size(3);
  }
  if (contraction != hof::SUM_INPUTS) {
    STD_TORCH_CHECK(g && g->dim() == 3 && g->size(0) == p.groups && g->size(1) == p.batch, "g");
    STD_TORCH_CHECK(g->size(2) == 1 || g->stride(2) == 1, "g must have adjacent outputs");
    STD_TORCH_CHECK(contraction == hof::SUM_BATCH || g->size(2) == p.outputs, "g");
    p.g = g->const_data_ptr(), p.g_storage = storage_of<T>(*g), p.g_group = g->stride(0), p.g_row = g->stride(1), p.outputs = g->size(2);
  }
  const std::vector<int64_t> shapes[] = {{p.groups, p.batch, p.outputs},
                                         {p.groups, p.batch, p.inputs},
                                         {p.groups, p.inputs, basis.size, p.outputs}};
  const std::vector<int64_t>& shape = shapes[contraction];
  const Tensor& like = contraction == hof::SUM_INPUTS ? *w : contraction == hof::SUM_OUTPUTS ? x : *g;
  Tensor result = torch::stable::new_empty(like, {shape.data(), shape.size()});
  p.result = result.mutable_data_ptr(), p.result_storage = storage_of<T>(like);
  return {p, result};
}

// work(unit, scratch) on torch's threads; units that one thread does follow each other.
template <class Work>
void over_units(const hof::Cut& cut, Work&& work) {
  const int64_t hands = std::min<int64_t>(torch::stable::get_num_threads(), cut.units);
  torch::stable::parallel_for(0, hands, 1, [&](int64_t begin, int64_t end) {
    char* scratch = scratch_of_thread(size_t(cut.scratch));
    for (int64_t unit = cut.units * begin / hands; unit < cut.units * end / hands; ++unit) work(unit, scratch);
  });
}

// How a contraction would run: strategy, rows of a tile, units of work, bytes of scratch for a thread.
template <class T>
Tensor choose(Contraction contraction, const Tensor& x, int64_t outputs, bool narrow, const hof::Basis<T>& basis,
              int64_t isa) {
  Problem<T> p{};
  p.basis = basis, p.groups = x.size(0), p.batch = x.size(1), p.inputs = x.size(2), p.outputs = outputs;
  p.result_storage = narrow ? hof::Storage::BFLOAT16 : hof::Storage::SAME;
  const hof::Cut cut = hof::variant<T>(isa).cut[contraction](p, int(torch::stable::get_num_threads()));
  const std::vector<int64_t> shape{4};
  Tensor result = torch::stable::new_empty(x, {shape.data(), 1}, ScalarType::Long);
  int64_t* numbers = result.mutable_data_ptr<int64_t>();
  numbers[0] = hof::strategy(p, contraction), numbers[1] = cut.rows, numbers[2] = cut.units, numbers[3] = cut.scratch;
  return result;
}

template <class T>
Tensor run(int64_t contraction, const Tensor& x, const Optional& w, const Optional& g, const Optional& s,
           const hof::Basis<T>& basis, int64_t isa) {
  auto [p, result] = read_problem<T>(contraction, x, w, g, s, basis);
  if (result.numel() == 0) return result;
  const hof::Kernels<T>& kernels = hof::variant<T>(isa);
  const hof::Cut cut = kernels.cut[contraction](p, int(torch::stable::get_num_threads()));
  if (p.outputs == 0 || cut.units == 0) return torch::stable::fill_(result, 0.0);
  over_units(cut, [&, &p = p](int64_t unit, char* scratch) { kernels.run[contraction](p, cut, unit, scratch); });
  return result;
}

// sum_outputs over the derivative basis and sum_batch, in one pass where the inputs are enough for all threads.
template <class T>
std::tuple<Tensor, Tensor> run_gradients(const Tensor& x, const Tensor& w, const Tensor& g, const Optional& s,
                                         const hof::Basis<T>& basis, const hof::Basis<T>& steep, int64_t isa) {
  auto [r, slope] = read_problem<T>(hof::SUM_OUTPUTS, x, w, g, std::nullopt, steep);
  auto [v, sums] = read_problem<T>(hof::SUM_BATCH, x, std::nullopt, g, s, basis);
  const hof::Kernels<T>& kernels = hof::variant<T>(isa);
  const int64_t threads = torch::stable::get_num_threads();
  const hof::Cut cut = kernels.cut_gradients(v, r, int(threads));
  if (slope.numel() == 0 || sums.numel() == 0 || cut.units < threads)
    return {run<T>(hof::SUM_OUTPUTS, x, w, g, std::nullopt, steep, isa),
            run<T>(hof::SUM_BATCH, x, std::nullopt, g, s, basis, isa)};
  over_units(cut, [&, &v = v, &r = r](int64_t unit, char* scratch) { kernels.run_gradients(v, r, cut, unit, scratch); });
  return {slope, sums};
}

Tensor contract(int64_t contraction, Tensor x, std::optional<Tensor> w, std::optional<Tensor> g,
                std::optional<Tensor> s, Tensor domain, Tensor knots, Tensor tables, Tensor start,
                std::vector<int64_t> layout, int64_t isa) {
  STD_TORCH_CHECK(contraction >= 0 && contraction <= 2 && x.dim() == 3 && x.is_cpu(), "malformed call");
  STD_TORCH_CHECK(tables.scalar_type() == knots.scalar_type(), "dtypes differ");
  if (knots.scalar_type() == ScalarType::Double)
    return run<double>(contraction, x, w, g, s,
                       read_basis<double>(domain, knots, tables, start, layout, x.size(2)), isa);
  STD_TORCH_CHECK(knots.scalar_type() == ScalarType::Float, "the basis is in float32 or float64");
  return run<float>(contraction, x, w, g, s, read_basis<float>(domain, knots, tables, start, layout, x.size(2)), isa);
}

Tensor choice(int64_t contraction, Tensor x, int64_t outputs, bool narrow, Tensor domain, Tensor knots, Tensor tables,
              Tensor start, std::vector<int64_t> layout, int64_t isa) {
  STD_TORCH_CHECK(contraction >= 0 && contraction <= 2 && x.dim() == 3 && x.is_cpu(), "malformed call");
  const Contraction which = Contraction(contraction);
  if (knots.scalar_type() == ScalarType::Double)
    return choose<double>(which, x, outputs, narrow,
                          read_basis<double>(domain, knots, tables, start, layout, x.size(2)), isa);
  return choose<float>(which, x, outputs, narrow, read_basis<float>(domain, knots, tables, start, layout, x.size(2)),
                       isa);
}

// layout is that of the coefficients' basis; tables hold its derivative, too.
std::tuple<Tensor, Tensor> gradients(Tensor x, Tensor w, Tensor g, Optional s, Tensor domain, Tensor knots,
                                     Tensor tables, Tensor start, std::vector<int64_t> layout, int64_t isa) {
  STD_TORCH_CHECK(x.dim() == 3 && x.is_cpu() && tables.scalar_type() == knots.scalar_type(), "malformed call");
  std::vector<int64_t> steep = layout;
  steep[4] += 1;
  auto run_as = [&]<class T>(T) {
    return run_gradients<T>(x, w, g, s, read_basis<T>(domain, knots, tables, start, layout, x.size(2)),
                            read_basis<T>(domain, knots, tables, start, steep, x.size(2)), isa);
  };
  return knots.scalar_type() == ScalarType::Double ? run_as(0.0) : run_as(0.0f);
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
  library.def(
      "cpu_gradients(Tensor x, Tensor w, Tensor g, Tensor? s, Tensor domain, Tensor knots, Tensor tables, "
      "Tensor start, int[] layout, int isa) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CompositeExplicitAutograd, library) {
  library.impl("cpu_isa", TORCH_BOX(&hof::best_isa));
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CPU, library) {
  library.impl("cpu_contract", TORCH_BOX(&contract));
  library.impl("cpu_choice", TORCH_BOX(&choice));
  library.impl("cpu_gradients", TORCH_BOX(&gradients));
}
