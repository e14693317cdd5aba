// Packing: where outputs come first in memory, as in the peers' layers, a blocked transposition; else number by number.
#include "packing.h"

#include <torch/csrc/stable/library.h>

namespace hof {
namespace {

// use(copy, first column, end): parts of whole inputs, of a multiple of any vector where there are enough for all threads.
template <class Use>
void over_columns(const Stack& s, Use&& use) {
  const int64_t enough = 2 * int64_t(torch::stable::get_num_threads());
  int64_t part = s.size == 1 ? 64 : 16 * s.size;
  auto count = [&] { return (s.columns + part - 1) / part; };
  while (s.copies * count() < enough && part > 64 && part / 2 % s.size == 0) part /= 2;
  const int64_t parts = count();
  torch::stable::parallel_for(0, s.copies * parts, std::max<int64_t>(65536 / (part * s.rows + 1), 1),
                              [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t first = unit % parts * part;
      use(unit / parts, first, std::min(first + part, s.columns));
    }
  });
}

template <class T>
void transpose(const Stack& s, void* to, int64_t isa) {
  const Kernels<T>& kernels = variant<T>(isa);
  over_columns(s, [&](int64_t copy, int64_t begin, int64_t end) { kernels.transpose(s, copy, begin, end, to); });
}

// Whether t lies in memory without gaps with its axes in this order, the outermost first.
bool lies(const Tensor& t, std::initializer_list<int> axes) {
  int64_t next = 1;
  for (auto axis = std::rbegin(axes); axis != std::rend(axes); ++axis) {
    if (t.size(*axis) != 1 && t.stride(*axis) != next) return false;
    next *= t.size(*axis);
  }
  return true;
}

bool gain_lies_outputs_first(const Tensor& gain) {
  return gain.dim() == 2 ? lies(gain, {1, 0}) : lies(gain, {0, 2, 1});
}

// An empty tensor of t's sizes: one that lies the same way, for a t without gaps, or a contiguous one.
Tensor empty_as(const Tensor& t, bool same) {
  const int64_t dim = t.dim();
  int64_t sizes[4], strides[4];
  for (int64_t k = 0; k < dim; ++k) sizes[k] = t.size(k), strides[k] = t.stride(k);
  return same ? empty_strided(t, dim, sizes, strides) : empty(t, dim, sizes);
}

// use(S(), T()) with S as the numbers of t are stored and T as they are computed with.
template <class F>
auto with_dtype(const Tensor& t, F&& use) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return use(double(), double());
    case ScalarType::BFloat16: return use(BFloat16(), float());
    case ScalarType::Half: return use(Half(), float());
    default: STD_TORCH_CHECK(t.scalar_type() == ScalarType::Float, "needs float32, float64, bfloat16 or float16");
  }
  return use(float(), float());
}

// use(group, input, output)
template <class Use>
void over_edges(const Grouped& w, Use&& use) {
  const int64_t inputs = w.size[1], outputs = w.size[3];
  torch::stable::parallel_for(0, w.size[0] * inputs, std::max<int64_t>(8192 / (w.size[2] * outputs + 1), 1),
                              [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit)
      for (int64_t o = 0; o < outputs; ++o) use(unit / inputs, unit % inputs, o);
  });
}

int64_t place(const Grouped& t, int64_t e, int64_t i, int64_t last) {
  return e * t.stride[0] + i * t.stride[1] + last;
}

}  // namespace

bool lies_outputs_first(const Tensor& weight) {
  return weight.dim() == 3 ? lies(weight, {2, 0, 1}) : lies(weight, {0, 3, 1, 2});
}

void check_gain(const Tensor& weight, const Tensor& gain) {
  const Grouped w(weight, 4), own(gain, 3);
  STD_TORCH_CHECK(gain.scalar_type() == weight.scalar_type(), "dtypes differ");
  STD_TORCH_CHECK(own.size[0] == w.size[0] && own.size[1] == w.size[1] && own.size[2] == w.size[3] &&
                      gain.dim() + 1 == weight.dim(), "gain");
}

template <class T>
std::optional<Stack> stack_of(const Tensor& weight, const Tensor* gain) {
  if (gain) check_gain(weight, *gain);
  const bool rows_first = gain && !gain->is_contiguous();
  if (!lies_outputs_first(weight) || (rows_first && !gain_lies_outputs_first(*gain))) return std::nullopt;
  const Grouped w(weight, 4);
  const int64_t size = gain ? std::max<int64_t>(w.size[2], 1) : 1;
  const void* factor = gain ? gain->const_data_ptr() : nullptr;
  return Stack{w.size[0], w.size[3], w.size[1] * w.size[2], weight.const_data_ptr(), factor, size, storage_of<T>(weight), rows_first};
}

template std::optional<Stack> stack_of<float>(const Tensor&, const Tensor*);
template std::optional<Stack> stack_of<double>(const Tensor&, const Tensor*);

Tensor packed(const Tensor& weight, const Tensor* gain, int64_t isa) {
  if (!gain && weight.is_contiguous()) return weight;
  const Grouped w(weight, 4);
  if (gain) check_gain(weight, *gain);
  const int64_t size = w.size[2], outputs = w.size[3];
  Tensor result = empty_as(weight, false);
  with_dtype(weight, [&]<class S, class T>(S, T) {
    const S* from = weight.const_data_ptr<S>();
    S* to = result.mutable_data_ptr<S>();
    if (const auto stack = stack_of<T>(weight, gain)) return transpose<T>(*stack, to, isa);
    const Grouped each = gain ? Grouped(*gain, 3) : w;
    const S* factor = gain ? gain->const_data_ptr<S>() : nullptr;
    over_edges(w, [&](int64_t e, int64_t i, int64_t o) {
      const T scale = factor ? T(factor[place(each, e, i, o * each.stride[2])]) : T(1);
      const S* own = from + place(w, e, i, o * w.stride[3]);
      S* packed = to + (e * w.size[1] + i) * size * outputs + o;
      for (int64_t k = 0; k < size; ++k) packed[k * outputs] = S(scale * T(own[k * w.stride[2]]));
    });
  });
  return result;
}

template <class T>
Tensor empty_wide(const Tensor& t) {
  return storage_of<T>(t) == Storage::SAME ? empty_as(t, false)
                                           : torch::stable::new_empty(t, t.sizes(), ScalarType::Float);
}

template Tensor empty_wide<float>(const Tensor&);
template Tensor empty_wide<double>(const Tensor&);

template <class T>
std::optional<WeightGradients<T>> WeightGradients<T>::of(const Tensor& weight, const Tensor* gain) {
  const std::optional<Stack> stack = stack_of<T>(weight, gain);
  if (!stack || (!gain && weight.is_contiguous())) return std::nullopt;
  WeightGradients own{{*stack, nullptr, nullptr}, empty_as(weight, true), {}};
  own.to.of_from = own.of_weight.mutable_data_ptr();
  if (gain) own.of_gain = empty_as(*gain, true), own.to.of_factor = own.of_gain->mutable_data_ptr();
  return own;
}

template struct WeightGradients<float>;
template struct WeightGradients<double>;

std::tuple<Tensor, Optional> unpacked(const Tensor& v, const Tensor& weight, const Tensor* gain, int64_t isa) {
  if (!gain && weight.is_contiguous()) return {v, std::nullopt};
  const Grouped w(weight, 4);
  if (gain) check_gain(weight, *gain);
  const int64_t inputs = w.size[1], size = w.size[2], outputs = w.size[3];
  STD_TORCH_CHECK(v.is_contiguous() && v.numel() == weight.numel(), "v");
  return with_dtype(weight, [&]<class S, class T>(S, T) -> std::tuple<Tensor, Optional> {
    const S* from = weight.const_data_ptr<S>();
    const T* g = v.const_data_ptr<T>();
    if (!gain && std::is_same_v<S, T> && lies_outputs_first(weight)) {
      Tensor of_weight = empty_as(weight, true);
      transpose<T>({w.size[0], inputs * size, outputs, g, nullptr, 1, Storage::SAME, false}, of_weight.mutable_data_ptr(), isa);
      return {of_weight, std::nullopt};
    }
    if (const auto own = WeightGradients<T>::of(weight, gain)) {
      const Stack& stack = own->to.stack;
      over_columns(stack, [&](int64_t copy, int64_t begin, int64_t end) {
        variant<T>(isa).transpose_gradients(own->to, copy, g + (copy * stack.columns + begin) * stack.rows, begin, end);
      });
      return {own->of_weight, own->of_gain};
    }
    Tensor of_weight = empty_as(weight, lies_outputs_first(weight));
    Optional of_gain;
    if (gain) of_gain = empty_as(*gain, gain_lies_outputs_first(*gain));
    S* to = of_weight.mutable_data_ptr<S>();
    const Grouped each = gain ? Grouped(*gain, 3) : w, back(of_weight, 4), sum = gain ? Grouped(*of_gain, 3) : w;
    const S* factor = gain ? gain->const_data_ptr<S>() : nullptr;
    S* total = gain ? of_gain->mutable_data_ptr<S>() : nullptr;
    over_edges(w, [&](int64_t e, int64_t i, int64_t o) {
      const T scale = factor ? T(factor[place(each, e, i, o * each.stride[2])]) : T(1);
      const S* own = from + place(w, e, i, o * w.stride[3]);
      const T* packed = g + (e * inputs + i) * size * outputs + o;
      S* gradient = to + place(back, e, i, o * back.stride[3]);
      T product = 0;
      for (int64_t k = 0; k < size; ++k) {
        const T number = packed[k * outputs];
        gradient[k * back.stride[2]] = S(scale * number);
        product += number * T(own[k * w.stride[2]]);
      }
      if (total) total[place(sum, e, i, o * sum.stride[2])] = S(product);
    });
    return {of_weight, of_gain};
  });
}

namespace {

// [..., rows, columns] to [..., columns, rows], both contiguous.
Tensor transposed(Tensor matrix, int64_t isa) {
  const int64_t dim = matrix.dim();
  STD_TORCH_CHECK(dim >= 2 && dim <= 8 && matrix.is_contiguous() && matrix.is_cpu(), "malformed call");
  int64_t shape[8];
  Stack stack{1, matrix.size(dim - 2), matrix.size(dim - 1), matrix.const_data_ptr(), nullptr, 1, Storage::SAME, false};
  for (int64_t k = 0; k + 2 < dim; ++k) stack.copies *= shape[k] = matrix.size(k);
  shape[dim - 2] = stack.columns, shape[dim - 1] = stack.rows;
  Tensor result = empty(matrix, dim, shape);
  with_dtype(matrix, [&]<class S, class T>(S, T) {
    stack.storage = storage_of<T>(matrix);
    transpose<T>(stack, result.mutable_data_ptr(), isa);
  });
  return result;
}

}  // namespace
}  // namespace hof

STABLE_TORCH_LIBRARY_FRAGMENT(high_order_fused, library) {
  library.def("cpu_transpose(Tensor matrix, int isa) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CPU, library) {
  library.impl("cpu_transpose", TORCH_BOX(&hof::transposed));
}
