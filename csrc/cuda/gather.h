// Gathers: teams of threads, each at the coefficients that one input of one row meets, four outputs a thread.
#pragma once

#include "start.h"

namespace hof::cuda {

// A block's threads in teams of `lanes`, as wide as the outputs need and at most a warp.
struct Teams {
  int lanes;
  __host__ __device__ int outputs() const { return 4 * lanes; }
  __host__ __device__ int count() const { return THREADS / lanes; }
  __device__ int team() const { return int(threadIdx.x) / lanes; }
  __device__ int lane() const { return int(threadIdx.x) % lanes; }
  __device__ int output() const { return 4 * lane(); }
};

inline Teams teams_for(int64_t outputs) {
  Teams teams{1};
  while (teams.lanes < 32 && teams.outputs() < outputs) teams.lanes *= 2;
  return teams;
}

// What one row meets of up to THREADS inputs, made by a thread each; four functions at a time.
template <class T>
struct Windows {
  Four<T> values[THREADS];
  int first[THREADS];

  struct Own {
    Met<T> met;
    T scale;
    bool there;
  };

  __device__ Own look_up(const Problem<T>& p, int64_t e, int64_t row, int64_t input, int slots) const {
    Own own{};
    own.there = int(threadIdx.x) < slots;
    if (own.there) {
      own.met = meet(p.basis, input + threadIdx.x, x_of(p, e, row, input + threadIdx.x));
      own.scale = scale_of(p, e, row, input + threadIdx.x);
    }
    return own;
  }

  // The functions j .. j + 3, for all threads to read.
  __device__ void evaluate(const Problem<T>& p, const Own& own, int j) {
    __syncthreads();
    if (own.there) {
      values[threadIdx.x] = window(p.basis, own.met, j, own.scale);
      first[threadIdx.x] = own.met.first + j;
    }
    __syncthreads();
  }
};

// Calls use(q) for the functions j + q of a window; without a test where there are four.
template <class T, class Use>
__device__ inline void over_functions(const Basis<T>& basis, int j, Use&& use) {
  if (basis.n - j >= QUARTET) {
    for (int q = 0; q < QUARTET; ++q) use(q);
  } else {
    for (int q = 0; q < basis.n - j; ++q) use(q);
  }
}

}  // namespace hof::cuda
