// From torch's tensors to a problem and its result: what every operator begins with.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "problem.h"

namespace hof {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;

inline const Tensor* pointer(const Optional& t) { return t ? &*t : nullptr; }

// Sizes and strides of t behind an axis of groups, which t may lack: then it is one group.
struct Grouped {
  int64_t size[4] = {1}, stride[4] = {0};

  Grouped(const Tensor& t, int rank) {
    const int64_t lacks = rank - t.dim();
    STD_TORCH_CHECK(lacks == 0 || lacks == 1, "malformed call");
    for (int64_t k = lacks; k < rank; ++k) size[k] = t.size(k - lacks), stride[k] = t.stride(k - lacks);
  }
};

// The dtype and device of `like`; torch's operators for this cost as much as all else around a small kernel.
inline Tensor empty_strided(const Tensor& like, int64_t dim, const int64_t* sizes, const int64_t* strides) {
  int32_t dtype, device, index = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device));
  if (!like.is_cpu()) STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &index));
  AtenTensorHandle result;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dim, sizes, strides, dtype, device, index, &result));
  return Tensor(result);
}

// Contiguous.
inline Tensor empty(const Tensor& like, int64_t dim, const int64_t* sizes) {
  int64_t strides[8], next = 1;
  STD_TORCH_CHECK(dim <= 8, "malformed call");
  for (int64_t k = dim - 1; k >= 0; --k) strides[k] = next, next *= std::max<int64_t>(sizes[k], 1);
  return empty_strided(like, dim, sizes, strides);
}

// The same of like's sizes.
inline Tensor empty(const Tensor& like) {
  int64_t sizes[8];
  STD_TORCH_CHECK(like.dim() <= 8, "malformed call");
  for (int64_t k = 0; k < like.dim(); ++k) sizes[k] = like.size(k);
  return empty(like, like.dim(), sizes);
}

// A basis as Python's Operands hold it: four tensors and five integers.
struct Operands {
  Tensor domain, knots, tables, start;
  std::vector<int64_t> layout;

  // For x of so many inputs; `steeper` more derivatives are taken.
  template <class T>
  Basis<T> read(int64_t inputs, int64_t steeper = 0) const {
    STD_TORCH_CHECK(layout.size() == 5 && tables.dim() == 5 && knots.dim() == 2 && domain.dim() == 2 && start.dim() == 1,
                    "malformed basis");
    STD_TORCH_CHECK(domain.is_contiguous() && knots.is_contiguous() && tables.is_contiguous() && start.is_contiguous(),
                    "the basis must be contiguous");
    STD_TORCH_CHECK(domain.scalar_type() == knots.scalar_type() && tables.scalar_type() == knots.scalar_type(),
                    "dtypes differ");
    const int64_t order = layout[4] + steeper, segments = start.size(0), n = tables.size(3), m = tables.size(4);
    auto own = [&](int64_t size) {
      STD_TORCH_CHECK(size == 1 || size == inputs, "the basis has ", size, " features, x has ", inputs);
      return int64_t(size > 1);
    };
    STD_TORCH_CHECK(knots.size(1) == segments + 1 && domain.size(1) == 2 && order >= 0 && order < tables.size(0) &&
                        (tables.size(2) == 1 || tables.size(2) == segments) && n <= layout[3],
                    "malformed basis");
    Basis<T> basis{};
    basis.domain = domain.const_data_ptr<T>();
    basis.knots = knots.const_data_ptr<T>();
    basis.table = tables.const_data_ptr<T>() + order * tables.size(1) * tables.size(2) * n * m;
    basis.start = start.const_data_ptr<int64_t>();
    basis.domain_stride = own(domain.size(0)) * 2;
    basis.knots_stride = own(knots.size(0)) * (segments + 1);
    basis.table_stride = own(tables.size(1)) * tables.size(2) * n * m;
    basis.table_segment_stride = tables.size(2) > 1 ? n * m : 0;
    basis.kind = int(layout[0]), basis.uniform = int(layout[1]);
    basis.outer = steeper && layout[2] == LIVE ? FROZEN : int(layout[2]);  // slopes of lines are constants
    basis.size = int(layout[3]), basis.segments = int(segments), basis.n = int(n), basis.m = int(m);
    for (int64_t t = 0; t < segments && start.is_cpu(); ++t)  // elsewhere kernels keep within the coefficients
      STD_TORCH_CHECK(basis.start[t] >= 0 && basis.start[t] + n <= basis.size, "a window lies outside the coefficients");
    return basis;
  }

  // f.operator()<T>() with the T that lookups, and so kernels, compute in.
  template <class F>
  auto compute(F&& f) const {
    if (knots.scalar_type() == ScalarType::Double) return f.template operator()<double>();
    STD_TORCH_CHECK(knots.scalar_type() == ScalarType::Float, "the basis is in float32 or float64");
    return f.template operator()<float>();
  }
};

template <class T>
Storage storage_of(const Tensor& t) {
  if constexpr (sizeof(T) == 8) {
    STD_TORCH_CHECK(t.scalar_type() == ScalarType::Double, "dtypes differ");
    return Storage::SAME;
  } else {
    if (t.scalar_type() == ScalarType::BFloat16) return Storage::BFLOAT16;
    if (t.scalar_type() == ScalarType::Half) return Storage::HALF;
    STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float, "dtypes differ");
    return Storage::SAME;
  }
}

// The problem of a contraction, without a place for its result. Either all tensors have groups or none; anyhow: w need not
// be contiguous.
template <class T>
Problem<T> read_operands(int64_t contraction, const Tensor& x, const Tensor* w, const Tensor* g, const Tensor* s,
                         const Basis<T>& basis, bool anyhow = false) {
  Problem<T> p{};
  p.basis = basis;
  const Grouped rows(x, 3);
  p.groups = rows.size[0], p.batch = rows.size[1], p.inputs = rows.size[2];
  p.x = x.const_data_ptr(), p.x_storage = storage_of<T>(x);
  p.x_group = rows.stride[0], p.x_row = rows.stride[1], p.x_input = rows.stride[2];
  if (s) {
    const Grouped like(*s, 3);
    STD_TORCH_CHECK(s->scalar_type() == x.scalar_type(), "dtypes differ");
    STD_TORCH_CHECK(std::equal(like.size, like.size + 3, rows.size), "s");
    p.s = s->const_data_ptr(), p.s_group = like.stride[0], p.s_row = like.stride[1], p.s_input = like.stride[2];
  }
  if (contraction != SUM_BATCH) {
    STD_TORCH_CHECK(w && (anyhow || w->is_contiguous()), "w");
    const Grouped like(*w, 4);
    STD_TORCH_CHECK(like.size[0] == p.groups && like.size[1] == p.inputs && like.size[2] == basis.size, "w");
    p.w = w->const_data_ptr(), p.w_storage = storage_of<T>(*w), p.outputs = like.size[3];
  }
  if (contraction != SUM_INPUTS) {
    STD_TORCH_CHECK(g, "g");
    const Grouped like(*g, 3);
    STD_TORCH_CHECK(like.size[0] == p.groups && like.size[1] == p.batch, "g");
    STD_TORCH_CHECK(like.size[2] == 1 || like.stride[2] == 1 || g->numel() == 0, "g must have adjacent outputs");
    STD_TORCH_CHECK(contraction == SUM_BATCH || like.size[2] == p.outputs, "g");
    p.g = g->const_data_ptr(), p.g_storage = storage_of<T>(*g), p.outputs = like.size[2];
    p.g_group = like.stride[0], p.g_row = like.stride[1];
  }
  return p;
}

// The same with its result, which is still to be filled.
template <class T>
std::pair<Problem<T>, Tensor> read_problem(int64_t contraction, const Tensor& x, const Tensor* w, const Tensor* g,
                                           const Tensor* s, const Basis<T>& basis, bool anyhow = false) {
  Problem<T> p = read_operands<T>(contraction, x, w, g, s, basis, anyhow);
  const int64_t shapes[3][4] = {{p.groups, p.batch, p.outputs},
                                {p.groups, p.batch, p.inputs},
                                {p.groups, p.inputs, basis.size, p.outputs}};
  const int64_t rank = contraction == SUM_BATCH ? 4 : 3, lacks = 3 - x.dim();
  const Tensor& like = contraction == SUM_INPUTS ? *w : contraction == SUM_OUTPUTS ? x : *g;
  Tensor result = empty(like, rank - lacks, shapes[contraction] + lacks);
  p.result = result.mutable_data_ptr(), p.result_storage = storage_of<T>(like);
  return {p, result};
}

}  // namespace hof
