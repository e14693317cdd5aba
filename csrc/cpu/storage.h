// Numbers as they are stored, read and written as the T that kernels compute with: T itself, or 16 bits for float.
#pragma once

#include <cstring>
#include <type_traits>

#include "problem.h"
#include "simd.h"

namespace hof {
namespace HOF_VARIANT {

// Calls f with the pointer as what it points to.
template <class T, class Void, class F>
inline auto with_storage(Void* data, Storage storage, F&& f) {
  constexpr bool constant = std::is_const_v<Void>;
  if constexpr (std::is_same_v<T, float>) {
    if (storage == Storage::BFLOAT16) return f(static_cast<std::conditional_t<constant, const BFloat16, BFloat16>*>(data));
    if (storage == Storage::HALF) return f(static_cast<std::conditional_t<constant, const Half, Half>*>(data));
  }
  return f(static_cast<std::conditional_t<constant, const T, T>*>(data));
}

typedef uint16_t Words __attribute__((vector_size(HOF_VECTOR_BYTES / 2), aligned(2), may_alias));
typedef uint32_t Bits __attribute__((vector_size(HOF_VECTOR_BYTES)));

template <class T, class S>
inline Vector<T> load_as(const S* p) {
  if constexpr (std::is_same_v<T, S>) {
    return load(p);
  } else if constexpr (std::is_same_v<S, BFloat16>) {
    return Vector<T>(__builtin_convertvector(*reinterpret_cast<const Words*>(p), Bits) << 16);
  } else {
#if HOF_VECTOR_BYTES == 64
    return Vector<T>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif HOF_VECTOR_BYTES == 32
    return Vector<T>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
    T numbers[Simd<T>::lanes];
    for (int l = 0; l < Simd<T>::lanes; ++l) numbers[l] = T(p[l]);
    return load(numbers);
#endif
  }
}

// Rounded to the nearest, ties to even; NaN stays NaN.
template <class T, class S>
inline void store_as(S* p, Vector<T> v) {
  if constexpr (std::is_same_v<T, S>) {
    store(p, v);
  } else if constexpr (std::is_same_v<S, BFloat16>) {
    const Bits bits = Bits(v), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    *reinterpret_cast<Words*>(p) = __builtin_convertvector(v == v ? rounded : Bits{} + 0x7fc0, Words);
  } else {
#if HOF_VECTOR_BYTES == 64
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(__m512(v), 0));
#elif HOF_VECTOR_BYTES == 32
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(__m256(v), 0));
#else
    for (int l = 0; l < Simd<T>::lanes; ++l) p[l] = S(v[l]);
#endif
  }
}

// The first `count` numbers at p, then zeros; reads nothing beyond them.
template <class T, class S>
inline Vector<T> load_some_as(const S* p, int64_t count) {
  if constexpr (std::is_same_v<T, S>) {
    return load_some(p, count);
  } else {
    if (count >= Simd<T>::lanes) return load_as<T>(p);
    uint16_t numbers[Simd<T>::lanes] = {};
    if (count > 0) std::memcpy(numbers, p, size_t(count) * sizeof(S));
    return load_as<T>(reinterpret_cast<const S*>(numbers));
  }
}

// The first `count` lanes, at most all.
template <class T, class S>
inline void store_some_as(S* p, Vector<T> v, int64_t count) {
  if constexpr (std::is_same_v<T, S>) {
    store_some(p, v, count);
  } else {
    if (count >= Simd<T>::lanes) return store_as<T>(p, v);
    S numbers[Simd<T>::lanes];
    store_as<T>(numbers, v);
    if (count > 0) std::memcpy(static_cast<void*>(p), numbers, size_t(count) * sizeof(S));
  }
}

template <class T, class S>
inline T value_as(S number) {
#if HOF_VECTOR_BYTES > 16
  if constexpr (std::is_same_v<S, Half>) return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(number.x)));
#endif
  return T(number);
}

// to[c * to_row + r] = from[r * from_row + c], for rows x columns. `to` has room for whole vectors of both.
template <class T, class S>
inline void transpose_rows(const S* from, int64_t from_row, int rows, int columns, T* to, int64_t to_row) {
  constexpr int L = Simd<T>::lanes;
  for (int r = 0; r < rows; r += L)
    for (int c = 0; c < columns; c += L) {
      Vector<T> v[L];
      for (int k = 0; k < L; ++k) v[k] = load_some_as<T>(from + (r + k < rows ? r + k : rows - 1) * from_row + c, columns - c);
      transpose<T>(v);
      for (int k = 0; k < L; ++k) store(to + (c + k) * to_row + r, v[k]);
    }
}

}  // namespace HOF_VARIANT
}  // namespace hof
