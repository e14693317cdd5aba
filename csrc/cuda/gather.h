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

// Calls f<whole>(the pointer as what it points to): where four outputs are loaded as one vector, nothing is tested between
// one load and the next.
template <class T, class F>
__device__ inline void with_vectors(const Numbers& from, bool whole, F&& f) {
  with_storage<T>(from.data, from.storage, [&](auto* stored) {
    if (whole)
      f.template operator()<true>(stored);
    else
      f.template operator()<false>(stored);
  });
}

// The coefficients of up to four functions from `from` on, `ld` apart, at some outputs; all loads first.
template <class T, class S>
struct Coefficients {
  Four<T> of[QUARTET];
  __device__ Coefficients(const S* from, int64_t ld, int count, bool whole, int64_t outputs) {
    if (count >= QUARTET) {
      for (int q = 0; q < QUARTET; ++q) of[q] = load_four<T>(from + q * ld, whole, outputs);
    } else {
      for (int q = 0; q < QUARTET; ++q) of[q] = q < count ? load_four<T>(from + q * ld, whole, outputs) : Four<T>{};
    }
  }
};

}  // namespace hof::cuda
