// y of a few rows from coefficients as the peers' layers keep them, outputs first: each is read at most once, in the order
// they lie in, where packing would read and write them all. First what the rows meet of all inputs, then the outputs.
#pragma once

#include "branch.h"
#include "met.h"
#include "relief.h"

namespace hof {
namespace HOF_VARIANT {

constexpr int FEW_OUTPUTS = 4;  // at once, for each of which a function is met
constexpr int64_t UNIT_OUTPUTS = 16;

// The first Count of four numbers, then zeros; reads nothing beyond them.
template <class T, int Count, class S>
INLINED inline Four<T> load_four_as(const S* p) {
  Four<T> v{};
  if constexpr (std::is_same_v<T, S>) {
    std::memcpy(&v, p, Count * sizeof(T));
  } else if constexpr (std::is_same_v<S, BFloat16>) {
    typedef uint16_t Halves __attribute__((vector_size(8)));
    typedef uint32_t Wholes __attribute__((vector_size(16)));
    Halves bits{};
    std::memcpy(&bits, p, Count * sizeof(S));
    v = Four<T>(__builtin_convertvector(bits, Wholes) << 16);
  } else {
#if HOF_VECTOR_BYTES > 16
    int64_t bits = 0;
    std::memcpy(&bits, p, Count * sizeof(S));
    v = Four<T>(_mm_cvtph_ps(_mm_cvtsi64_si128(bits)));
#else
    for (int f = 0; f < Count; ++f) v[f] = T(p[f]);
#endif
  }
  return v;
}

template <class T>
inline int64_t input_blocks(const Problem<T>& p) { return divided(p.inputs, BRANCH_INPUTS); }

template <class T>
struct FewScratch {
  Tile<T> tile;
  Four<T>* sums;  // [row][FEW_OUTPUTS]

  FewScratch(const Problem<T>& p, Arena& arena) {
    tile.lay(p.basis, int(p.batch), arena);
    sums = reinterpret_cast<Four<T>*>(arena.take<T>(p.batch * FEW_OUTPUTS * 4));
  }
};

// Of the first pass, or of the second.
template <class T>
Cut cut_few(const Problem<T>& p, bool outputs) {
  Cut cut{};
  cut.part = outputs ? UNIT_OUTPUTS : BRANCH_INPUTS;
  cut.units = p.groups * divided(outputs ? p.outputs : p.inputs, cut.part);
  cut.scratch = bytes_of<FewScratch<T>>(p);
  return cut;
}

// A unit: BRANCH_INPUTS inputs of a group.
template <class T>
void meet_few(const Problem<T>& p, const FewRows<T>& few, int64_t unit, char* scratch) {
  const int64_t e = unit / input_blocks(p), first = unit % input_blocks(p) * BRANCH_INPUTS;
  const int64_t end = std::min(first + BRANCH_INPUTS, p.inputs), group = e * p.inputs * few.met.rows;
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  FewScratch<T> own(p, arena);
  const Met<T> met{few.met.rows, few.met.width, few.met.values + group * few.met.width, few.met.first + group};
  for (int64_t i = first, some = tile_inputs(p.basis); i < end; i += some)
    meet<T>(p, nullptr, own.tile, e, 0, int(p.batch), i, int(std::min(some, end - i)), met);
  if (!p.branch) return;
  with_storage<T>(p.w, p.w_storage, [&]<class S>(const S*) {
    take_values<T, S>(p, {e, 0, int(p.batch)}, first, end - first, few.values + unit * p.batch * BRANCH_INPUTS);
  });
}

// use.template operator()<Count>(first): over [0, n) by fours, and what is left.
template <class F>
INLINED inline void over_fours(int64_t n, F&& use) {
  int64_t k = 0;
  for (; k + 4 <= n; k += 4) use.template operator()<4>(k);
  if (n - k == 3) use.template operator()<3>(k);
  if (n - k == 2) use.template operator()<2>(k);
  if (n - k == 1) use.template operator()<1>(k);
}

// What belongs to FEW_OUTPUTS outputs, from the first of them on; the last one again where there are no more.
template <class S>
struct OfOutputs {
  const S* at[FEW_OUTPUTS];

  OfOutputs(const S* first, int64_t step, int64_t outputs) {
    for (int l = 0; l < FEW_OUTPUTS; ++l) at[l] = first + std::min<int64_t>(l, outputs - 1) * step;
  }
};

// sums[row] += what inputs [i, end) of group e give; N: n, or 0.
template <class T, int N, bool Gain, class S>
inline void add_functions(const Problem<T>& p, const FewRows<T>& few, int64_t e, int64_t i, int64_t end, const OfOutputs<S> w,
                          const OfOutputs<S> gain, Four<T>* sums) {
  const int64_t rows = p.batch, size = p.basis.size, width = few.met.width, gain_input = few.gain_input;
  const int n = N ? N : p.basis.n;
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t* first = few.met.first + e * p.inputs * rows + r;
    const T* values = few.met.values + (e * p.inputs * rows + r) * width;
    Four<T> a[FEW_OUTPUTS];
    UNROLLED for (int l = 0; l < FEW_OUTPUTS; ++l) a[l] = sums[r * FEW_OUTPUTS + l];
    for (int64_t k = i; k < end; ++k) {
      const int64_t at = k * size + first[k * rows];
      T factor[FEW_OUTPUTS];
      UNROLLED for (int l = 0; Gain && l < FEW_OUTPUTS; ++l) factor[l] = value_as<T>(gain.at[l][k * gain_input]);
      over_fours(n, [&]<int Count>(int64_t j) INLINED {
        const Four<T> v = load_four_as<T, Count>(values + k * rows * width + j);
        UNROLLED for (int l = 0; l < FEW_OUTPUTS; ++l) {
          const Four<T> f = load_four_as<T, Count>(w.at[l] + at + j) * v;
          a[l] += Gain ? f * factor[l] : f;
        }
      });
    }
    UNROLLED for (int l = 0; l < FEW_OUTPUTS; ++l) sums[r * FEW_OUTPUTS + l] = a[l];
  }
}

// sums[row] += the branch's part of the same; weight: of the first of so many inputs.
template <class T, class S>
inline void add_values(int64_t rows, const T* values, int64_t inputs, const OfOutputs<S> weight, Four<T>* sums) {
  for (int64_t r = 0; r < rows; ++r)
    over_fours(inputs, [&]<int Count>(int64_t k) INLINED {
      const Four<T> v = load_four_as<T, Count>(values + r * BRANCH_INPUTS + k);
      UNROLLED for (int l = 0; l < FEW_OUTPUTS; ++l)
        sums[r * FEW_OUTPUTS + l] += load_four_as<T, Count>(weight.at[l] + k) * v;
    });
}

// A unit: UNIT_OUTPUTS outputs of a group.
template <class T>
void add_few(const Problem<T>& p, const FewRows<T>& few, int64_t unit, char* scratch) {
  const int64_t units = divided(p.outputs, UNIT_OUTPUTS), e = unit / units, first = unit % units * UNIT_OUTPUTS;
  const int64_t end = std::min(first + UNIT_OUTPUTS, p.outputs), each = p.inputs * p.basis.size;
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  FewScratch<T> own(p, arena);
  with_storage<T>(p.w, p.w_storage, [&]<class S>(const S* coefficients) {
    const S *gains = static_cast<const S*>(few.gain), *base = p.branch ? static_cast<const S*>(p.branch->weight) : nullptr;
    for (int64_t o = first; o < end; o += FEW_OUTPUTS) {
      const int64_t output = e * p.outputs + o, outputs = std::min<int64_t>(FEW_OUTPUTS, end - o);
      const OfOutputs<S> w(coefficients + output * each, each, outputs);
      const OfOutputs<S> gain(gains + (gains ? e * few.gain_group + o * few.gain_output : 0), few.gain_output, outputs);
      std::fill_n(own.sums, p.batch * FEW_OUTPUTS, Four<T>{});
      for (int64_t block = 0; block < input_blocks(p); ++block) {
        const int64_t i = block * BRANCH_INPUTS, stop = std::min(i + BRANCH_INPUTS, p.inputs);
        with_functions(p.basis.n, [&]<int N>() {
          auto add = gains ? add_functions<T, N, true, S> : add_functions<T, N, false, S>;
          add(p, few, e, i, stop, w, gain, own.sums);
        });
        if (!base) continue;
        const T* values = few.values + (e * input_blocks(p) + block) * p.batch * BRANCH_INPUTS;
        add_values<T, S>(p.batch, values, stop - i, {base + output * p.inputs + i, p.inputs, outputs}, own.sums);
      }
      with_storage<T>(p.result, p.result_storage, [&](auto* y) {
        for (int64_t r = 0; r < p.batch; ++r)
          for (int64_t l = 0; l < outputs; ++l) {
            const Four<T> sum = own.sums[r * FEW_OUTPUTS + l];
            y[(e * p.batch + r) * p.outputs + o + l] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
          }
      });
    }
  });
}

}  // namespace HOF_VARIANT
}  // namespace hof
