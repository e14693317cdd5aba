// Numbers as they are stored, read and written as the T that kernels compute with: one by one, or four adjacent ones.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "launch.h"

namespace hof::cuda {

// `four`: groups of four numbers, in whatever rows, begin where one load of a vector may.
struct Numbers {
  const void* data;
  Storage storage;
  bool four;
};

struct Room {
  void* data;
  Storage storage;
  bool four;
};

template <class S>
struct alignas(sizeof(S) == 8 ? 16 : 4 * sizeof(S)) Four {
  S of[4];
};

template <class T, class S>
__device__ inline T value_as(S number) {
  if constexpr (std::is_same_v<S, __nv_bfloat16>)
    return __bfloat162float(number);
  else if constexpr (std::is_same_v<S, __half>)
    return __half2float(number);
  else
    return number;
}

// Rounded to the nearest, ties to even.
template <class S, class T>
__device__ inline S stored_as(T number) {
  if constexpr (std::is_same_v<S, __nv_bfloat16>)
    return __float2bfloat16_rn(number);
  else if constexpr (std::is_same_v<S, __half>)
    return __float2half_rn(number);
  else
    return number;
}

// Calls f with the pointer as what it points to.
template <class T, class Void, class F>
__device__ inline auto with_storage(Void* data, Storage storage, F&& f) {
  constexpr bool constant = std::is_const_v<Void>;
  if constexpr (std::is_same_v<T, float>) {
    using Bfloat16 = std::conditional_t<constant, const __nv_bfloat16, __nv_bfloat16>;
    using Half = std::conditional_t<constant, const __half, __half>;
    if (storage == Storage::BFLOAT16) return f(static_cast<Bfloat16*>(data));
    if (storage == Storage::HALF) return f(static_cast<Half*>(data));
  }
  return f(static_cast<std::conditional_t<constant, const T, T>*>(data));
}

template <class T>
__device__ inline T read(const void* data, Storage storage, int64_t at) {
  return with_storage<T>(data, storage, [&](auto* from) { return value_as<T>(from[at]); });
}

template <class T>
__device__ inline void write(const Room& to, int64_t at, T number) {
  with_storage<T>(to.data, to.storage, [&](auto* stored) {
    stored[at] = stored_as<std::remove_reference_t<decltype(*stored)>>(number);
  });
}

// The first `count` numbers at p, then zeros; reads nothing beyond them. four: all are there, and may be read as a vector.
template <class T, class S>
__device__ inline Four<T> load_four(const S* p, bool four, int64_t count) {
  Four<T> numbers;
  if (four) {
    const Four<S> stored = *reinterpret_cast<const Four<S>*>(p);
    for (int k = 0; k < 4; ++k) numbers.of[k] = value_as<T>(stored.of[k]);
  } else {
    for (int k = 0; k < 4; ++k) numbers.of[k] = k < count ? value_as<T>(p[k]) : T(0);
  }
  return numbers;
}

template <class T>
__device__ inline Four<T> read_four(const Numbers& from, int64_t at, int64_t count) {
  const bool four = from.four && count >= 4;
  return with_storage<T>(from.data, from.storage, [&](auto* p) { return load_four<T>(p + at, four, count); });
}

template <class T>
__device__ inline void write_four(const Room& to, int64_t at, const Four<T>& numbers, int64_t count) {
  with_storage<T>(to.data, to.storage, [&](auto* p) {
    using S = std::remove_reference_t<decltype(*p)>;
    Four<S> stored;
    for (int k = 0; k < 4; ++k) stored.of[k] = stored_as<S>(numbers.of[k]);
    if (to.four && count >= 4) {
      *reinterpret_cast<Four<S>*>(p + at) = stored;
    } else {
      for (int k = 0; k < 4 && k < count; ++k) p[at + k] = stored.of[k];
    }
  });
}

}  // namespace hof::cuda
