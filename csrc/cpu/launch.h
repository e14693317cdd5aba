// The work of a problem on torch's threads: what every CPU operator ends with.
#pragma once

#include <algorithm>
#include <memory>
#include <new>

#include "../tensors.h"
#include "choice.h"
#include "dispatch.h"

namespace hof {

// Memory that a thread keeps: from the allocator it would be new pages at every call, which cost as much as a kernel.
inline char* scratch_of_thread(size_t bytes) {
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

// work(unit, scratch) on torch's threads; units that one thread does follow each other.
template <class Work>
void over_units(const Cut& cut, Work&& work) {
  const int64_t hands = std::min<int64_t>(torch::stable::get_num_threads(), cut.units);
  torch::stable::parallel_for(0, hands, 1, [&](int64_t begin, int64_t end) {
    char* scratch = scratch_of_thread(size_t(cut.scratch));
    for (int64_t unit = cut.units * begin / hands; unit < cut.units * end / hands; ++unit) work(unit, scratch);
  });
}

// to = the sums of `count` arrays of `size` numbers, one after the other in memory, the first of them elsewhere.
template <class T>
void add_up(const Kernels<T>& kernels, const T* first, const T* others, int64_t count, int64_t size, void* to, Storage storage) {
  const int64_t stretch = 8192;
  over_units(Cut{0, 0, 0, 0, (size + stretch - 1) / stretch, 0}, [&](int64_t unit, char*) {
    const int64_t begin = unit * stretch;
    kernels.add_parts(first, others, count - 1, size, begin, std::min(size, begin + stretch), to, storage);
  });
}

// The result of a contraction, with that of a problem filled.
template <class T>
Tensor run(int64_t contraction, const Problem<T>& p, Tensor result, int64_t isa) {
  if (result.numel() == 0) return result;
  const Kernels<T>& kernels = variant<T>(isa);
  const Cut cut = kernels.cut[contraction](p, int(torch::stable::get_num_threads()));
  if (p.outputs == 0 || cut.units == 0) return torch::stable::fill_(result, 0.0);
  Problem<T> own = p;
  std::unique_ptr<T[]> sums;  // of parts of the inputs
  const int64_t size = result.numel();
  if (contraction == SUM_INPUTS && by_inputs(p)) {
    sums = std::make_unique_for_overwrite<T[]>(size_t(cut.parts * size));
    own.result = sums.get(), own.result_storage = Storage::SAME;
  }
  over_units(cut, [&](int64_t unit, char* scratch) { kernels.run[contraction](own, cut, unit, scratch); });
  if (sums) add_up(kernels, sums.get(), sums.get() + size, cut.parts, size, p.result, p.result_storage);
  return result;
}

template <class T>
Tensor run(int64_t contraction, const Tensor& x, const Tensor* w, const Tensor* g, const Tensor* s, const Basis<T>& basis,
           int64_t isa) {
  const auto [p, result] = read_problem<T>(contraction, x, w, g, s, basis);
  return run(contraction, p, result, isa);
}

}  // namespace hof
