// The CPU operators that pack coefficients: blocked transpositions, with a factor for each (row, input) and backwards.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "dispatch.h"

namespace {

using hof::Matrix;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

std::vector<int64_t> shape_of(const Tensor& t) {
  std::vector<int64_t> shape;
  for (int64_t k = 0; k < t.dim(); ++k) shape.push_back(t.size(k));
  return shape;
}

Tensor empty(const Tensor& like, const std::vector<int64_t>& shape) {
  return torch::stable::new_empty(like, {shape.data(), shape.size()});
}

// A stack of matrices, [..., rows, columns]; with factors [..., rows, inputs] each `size` columns are an input.
struct Stack {
  int64_t copies, rows, columns, size;
};

Stack stack_of(const Tensor& matrix, const std::optional<Tensor>& factor) {
  STD_TORCH_CHECK(matrix.dim() >= 2 && matrix.is_contiguous() && matrix.is_cpu(), "malformed call");
  Stack s{1, matrix.size(matrix.dim() - 2), matrix.size(matrix.dim() - 1), 1};
  for (int64_t k = 0; k + 2 < matrix.dim(); ++k) s.copies *= matrix.size(k);
  if (factor) {
    const std::vector<int64_t> outer = shape_of(matrix), own = shape_of(*factor);
    STD_TORCH_CHECK(own.size() == outer.size() && std::equal(own.begin(), own.end() - 1, outer.begin()) &&
                        own.back() > 0 && s.columns % own.back() == 0 && factor->is_contiguous() &&
                        factor->scalar_type() == matrix.scalar_type(), "factor");
    s.size = s.columns / own.back();
  }
  return s;
}

// use(copy, first column, end): parts of whole inputs, of a multiple of any vector.
template <class Use>
void over_columns(const Stack& s, Use&& use) {
  const int64_t part = s.size == 1 ? 64 : 16 * s.size, parts = (s.columns + part - 1) / part;
  torch::stable::parallel_for(0, s.copies * parts, std::max<int64_t>(65536 / (part * s.rows + 1), 1),
                              [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t first = unit % parts * part;
      use(unit / parts, first, std::min(first + part, s.columns));
    }
  });
}

template <class T>
void run(const Stack& s, const Tensor& matrix, const Tensor* factors, Tensor& result, int64_t isa) {
  const hof::Kernels<T>& kernels = hof::variant<T>(isa);
  const T *from = matrix.const_data_ptr<T>(), *factor = factors ? factors->const_data_ptr<T>() : nullptr;
  T* to = result.mutable_data_ptr<T>();
  const int64_t all = s.rows * s.columns;
  over_columns(s, [&](int64_t copy, int64_t begin, int64_t end) {
    const Matrix<T> m{from + copy * all, s.rows, s.columns, factor ? factor + copy * (all / s.size) : nullptr, s.size};
    kernels.transpose(m, begin, end, to + copy * all);
  });
}

Tensor transposed(const Tensor& matrix, const Tensor* factors, const Stack& s, int64_t isa) {
  std::vector<int64_t> shape = shape_of(matrix);
  std::swap(shape[shape.size() - 2], shape.back());
  Tensor result = empty(matrix, shape);
  if (matrix.numel() == 0) return result;
  if (matrix.scalar_type() == ScalarType::Double)
    run<double>(s, matrix, factors, result, isa);
  else if (matrix.scalar_type() == ScalarType::Float)
    run<float>(s, matrix, factors, result, isa);
  else
    STD_TORCH_CHECK(false, "needs float32 or float64");
  return result;
}

// [..., rows, columns] to [..., columns, rows], contiguous, times factor [..., rows, inputs] if there is one.
Tensor transpose(Tensor matrix, std::optional<Tensor> factor, int64_t isa) {
  const Stack s = stack_of(matrix, factor);
  if (!factor) return transposed(matrix, nullptr, s, isa);
  const Tensor factors = transposed(*factor, nullptr, stack_of(*factor, std::nullopt), isa);
  return transposed(matrix, &factors, s, isa);
}

template <class T>
void run_gradients(const Stack& s, const Tensor& cotangent, const Tensor& matrix, const Tensor& factors,
                   Tensor& of_matrix, Tensor& of_factors, int64_t isa) {
  const hof::Kernels<T>& kernels = hof::variant<T>(isa);
  const T *g = cotangent.const_data_ptr<T>(), *from = matrix.const_data_ptr<T>(), *factor = factors.const_data_ptr<T>();
  T *to = of_matrix.mutable_data_ptr<T>(), *total = of_factors.mutable_data_ptr<T>();
  const int64_t all = s.rows * s.columns, own = all / s.size;
  over_columns(s, [&](int64_t copy, int64_t begin, int64_t end) {
    const Matrix<T> m{from + copy * all, s.rows, s.columns, factor + copy * own, s.size};
    kernels.transpose_gradients(m, g + copy * all, begin, end, to + copy * all, total + copy * own);
  });
}

// The gradients of matrix and factor, where cotangent [..., columns, rows] belongs to `transpose`.
std::tuple<Tensor, Tensor> transpose_gradients(Tensor cotangent, Tensor matrix, Tensor factor, int64_t isa) {
  const Stack s = stack_of(matrix, factor);
  const Stack back = stack_of(cotangent, std::nullopt);
  STD_TORCH_CHECK(back.copies == s.copies && back.rows == s.columns && back.columns == s.rows &&
                      cotangent.scalar_type() == matrix.scalar_type(), "cotangent");
  const Tensor factors = transposed(factor, nullptr, stack_of(factor, std::nullopt), isa);
  Tensor of_matrix = empty(matrix, shape_of(matrix)), of_factors = empty(factors, shape_of(factors));
  if (matrix.numel() == 0) return {of_matrix, torch::stable::fill_(empty(factor, shape_of(factor)), 0.0)};
  if (matrix.scalar_type() == ScalarType::Double)
    run_gradients<double>(s, cotangent, matrix, factors, of_matrix, of_factors, isa);
  else
    run_gradients<float>(s, cotangent, matrix, factors, of_matrix, of_factors, isa);
  return {of_matrix, transposed(of_factors, nullptr, stack_of(of_factors, std::nullopt), isa)};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(high_order_fused, library) {
  library.def("cpu_transpose(Tensor matrix, Tensor? factor, int isa) -> Tensor");
  library.def(
      "cpu_transpose_gradients(Tensor cotangent, Tensor matrix, Tensor factor, int isa) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CPU, library) {
  library.impl("cpu_transpose", TORCH_BOX(&transpose));
  library.impl("cpu_transpose_gradients", TORCH_BOX(&transpose_gradients));
}
