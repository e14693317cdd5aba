// Packing: where outputs come first in memory, as in the peers' layers, a blocked transposition; else number by number.
#include "packing.h"

#include <torch/csrc/stable/library.h>

namespace hof {
namespace {

// A stack of matrices to transpose, [copies, rows, columns]; with factors [copies, inputs, rows] each `size` columns
// are an input.
struct Stack {
  int64_t copies, rows, columns, size;
};

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
void transpose(const Stack& s, const T* from, const T* factor, T* to, int64_t isa) {
  const Kernels<T>& kernels = variant<T>(isa);
  const int64_t all = s.rows * s.columns;
  over_columns(s, [&](int64_t copy, int64_t begin, int64_t end) {
    const Matrix<T> m{from + copy * all, s.rows, s.columns, factor ? factor + copy * (all / s.size) : nullptr, s.size};
    kernels.transpose(m, begin, end, to + copy * all);
  });
}

template <class T>
void transpose_gradients(const Stack& s, const T* cotangent, const Unpacking<T>& to, int64_t isa) {
  const Kernels<T>& kernels = variant<T>(isa);
  const int64_t all = s.rows * s.columns, own = all / s.size;
  over_columns(s, [&](int64_t copy, int64_t begin, int64_t end) {
    const Matrix<T> m{to.weight + copy * all, s.rows, s.columns, to.factor ? to.factor + copy * own : nullptr, s.size};
    kernels.transpose_gradients(m, cotangent + copy * all + begin * s.rows, begin, end, to.of_weight + copy * all,
                                to.factor ? to.of_factor + copy * own : nullptr);
  });
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

bool weight_lies_outputs_first(const Tensor& weight) {
  return weight.dim() == 3 ? lies(weight, {2, 0, 1}) : lies(weight, {0, 3, 1, 2});
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

// Whether the vector kernels can transpose these.
template <class S>
bool by_blocks(const Tensor& weight, const Tensor* gain) {
  return sizeof(S) > 2 && weight_lies_outputs_first(weight) &&
         (!gain || gain->is_contiguous() || gain_lies_outputs_first(*gain));
}

void check_gain(const Tensor& weight, const Grouped& w, const Tensor* gain) {
  if (!gain) return;
  const Grouped own(*gain, 3);
  STD_TORCH_CHECK(gain->scalar_type() == weight.scalar_type(), "dtypes differ");
  STD_TORCH_CHECK(own.size[0] == w.size[0] && own.size[1] == w.size[1] && own.size[2] == w.size[3] &&
                      gain->dim() + 1 == weight.dim(), "gain");
}

// The gain with adjacent outputs.
template <class T>
Tensor factors_of(const Tensor& gain, const Grouped& w, int64_t isa) {
  if (gain.is_contiguous()) return gain;
  Tensor factors = empty_as(gain, false);
  transpose<T>({w.size[0], w.size[3], w.size[1], 1}, gain.const_data_ptr<T>(), nullptr, factors.mutable_data_ptr<T>(), isa);
  return factors;
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

Tensor packed(const Tensor& weight, const Tensor* gain, int64_t isa) {
  if (!gain && weight.is_contiguous()) return weight;
  const Grouped w(weight, 4);
  check_gain(weight, w, gain);
  const int64_t size = w.size[2], outputs = w.size[3];
  Tensor result = empty_as(weight, false);
  with_dtype(weight, [&]<class S, class T>(S, T) {
    const S* from = weight.const_data_ptr<S>();
    S* to = result.mutable_data_ptr<S>();
    if constexpr (std::is_same_v<S, T>)
      if (by_blocks<S>(weight, gain)) {
        const Stack stack{w.size[0], outputs, w.size[1] * size, gain ? size : 1};
        if (!gain) return transpose<T>(stack, from, nullptr, to, isa);
        const Tensor factors = factors_of<T>(*gain, w, isa);
        return transpose<T>(stack, from, factors.const_data_ptr<T>(), to, isa);
      }
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
std::optional<Unpacked<T>> Unpacked<T>::as(const Tensor& weight, const Tensor* gain, int64_t isa) {
  const Grouped w(weight, 4);
  check_gain(weight, w, gain);
  const bool stored = weight.scalar_type() == (sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float);
  if (!stored || (!gain && weight.is_contiguous()) || !by_blocks<T>(weight, gain)) return std::nullopt;
  Unpacked own{{}, empty_as(weight, true), {}, {}, {}};
  own.to.weight = weight.const_data_ptr<T>(), own.to.of_weight = own.of_weight.template mutable_data_ptr<T>();
  if (!gain) return own;
  own.of_gain = empty_as(*gain, true), own.factors = factors_of<T>(*gain, w, isa);
  own.sums = gain->is_contiguous() ? *own.of_gain : empty_as(*gain, false);
  own.to.factor = own.factors->template const_data_ptr<T>(), own.to.of_factor = own.sums->template mutable_data_ptr<T>();
  return own;
}

template <class T>
std::tuple<Tensor, Optional> Unpacked<T>::gradients(int64_t isa) {
  if (of_gain && !of_gain->is_contiguous()) {
    const Grouped g(*of_gain, 3);
    transpose<T>({g.size[0], g.size[1], g.size[2], 1}, sums->template const_data_ptr<T>(), nullptr,
                 of_gain->template mutable_data_ptr<T>(), isa);
  }
  return {of_weight, of_gain};
}

template struct Unpacked<float>;
template struct Unpacked<double>;

std::tuple<Tensor, Optional> unpacked(const Tensor& v, const Tensor& weight, const Tensor* gain, int64_t isa) {
  if (!gain && weight.is_contiguous()) return {v, std::nullopt};
  const Grouped w(weight, 4);
  check_gain(weight, w, gain);
  const int64_t inputs = w.size[1], size = w.size[2], outputs = w.size[3];
  STD_TORCH_CHECK(v.is_contiguous() && v.numel() == weight.numel() && v.scalar_type() == weight.scalar_type(), "v");
  return with_dtype(weight, [&]<class S, class T>(S, T) -> std::tuple<Tensor, Optional> {
    const S *from = weight.const_data_ptr<S>(), *g = v.const_data_ptr<S>();
    if constexpr (std::is_same_v<S, T>)
      if (auto own = Unpacked<T>::as(weight, gain, isa)) {
        transpose_gradients<T>({w.size[0], outputs, inputs * size, size}, g, own->to, isa);
        return own->gradients(isa);
      }
    Tensor of_weight = empty_as(weight, weight_lies_outputs_first(weight));
    Optional of_gain;
    if (gain) of_gain = empty_as(*gain, gain_lies_outputs_first(*gain));
    S* to = of_weight.mutable_data_ptr<S>();
    const Grouped each = gain ? Grouped(*gain, 3) : w, back(of_weight, 4), sum = gain ? Grouped(*of_gain, 3) : w;
    const S* factor = gain ? gain->const_data_ptr<S>() : nullptr;
    S* total = gain ? of_gain->mutable_data_ptr<S>() : nullptr;
    over_edges(w, [&](int64_t e, int64_t i, int64_t o) {
      const T scale = factor ? T(factor[place(each, e, i, o * each.stride[2])]) : T(1);
      const S *own = from + place(w, e, i, o * w.stride[3]), *packed = g + (e * inputs + i) * size * outputs + o;
      S* gradient = to + place(back, e, i, o * back.stride[3]);
      T product = 0;
      for (int64_t k = 0; k < size; ++k) {
        const T number = T(packed[k * outputs]);
        gradient[k * back.stride[2]] = S(scale * number);
        product += number * T(own[k * w.stride[2]]);
      }
      if (total) total[place(sum, e, i, o * sum.stride[2])] = S(product);
    });
    return {of_weight, of_gain};
  });
}

namespace {

// [..., rows, columns] to [..., columns, rows], contiguous.
Tensor transposed(Tensor matrix, int64_t isa) {
  const int64_t dim = matrix.dim();
  STD_TORCH_CHECK(dim >= 2 && dim <= 8 && matrix.is_contiguous() && matrix.is_cpu(), "malformed call");
  int64_t shape[8];
  Stack stack{1, matrix.size(dim - 2), matrix.size(dim - 1), 1};
  for (int64_t k = 0; k + 2 < dim; ++k) stack.copies *= shape[k] = matrix.size(k);
  shape[dim - 2] = stack.columns, shape[dim - 1] = stack.rows;
  Tensor result = empty(matrix, dim, shape);
  with_dtype(matrix, [&]<class S, class T>(S, T) {
    STD_TORCH_CHECK((std::is_same_v<S, T>), "needs float32 or float64");
    if constexpr (std::is_same_v<S, T>)
      transpose<T>(stack, matrix.const_data_ptr<T>(), nullptr, result.mutable_data_ptr<T>(), isa);
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
