// Vectors of the variant's width, by the compiler's own vector types.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "choice.h"

// A loop over registers, unrolled before the compiler lays their array in memory: a window that goes through the stack
// takes as long as some of its rows.
#define UNROLLED _Pragma("GCC unroll 16")

namespace hof {
namespace HOF_VARIANT {

template <class T>
struct Simd {
  static constexpr int lanes = HOF_VECTOR_BYTES / int(sizeof(T));
  typedef T Vector __attribute__((vector_size(HOF_VECTOR_BYTES)));
  typedef T Four __attribute__((vector_size(4 * sizeof(T))));
  typedef T Unaligned __attribute__((vector_size(HOF_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  // vectors of a block of outputs that a kernel keeps in registers, and rows of the blocked product
  static constexpr int block = HOF_VECTOR_BYTES == 64 ? 4 : 2;
  static constexpr int rows = 6;
  static constexpr int width = block * lanes;
};

template <class T>
using Vector = typename Simd<T>::Vector;

template <class T>
inline Vector<T> load(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::Unaligned*>(p);
}

template <class T>
inline void store(T* p, Vector<T> v) {
  *reinterpret_cast<typename Simd<T>::Unaligned*>(p) = v;
}

// Writes a whole vector of a line past the caches, where the variant can; `end_streams` comes before others read it.
template <class T>
inline void stream(T* p, Vector<T> v) {
#if HOF_VECTOR_BYTES == 64
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), __m512i(v));
#elif HOF_VECTOR_BYTES == 32
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), __m256i(v));
#else
  store(p, v);
#endif
}

inline void end_streams() {
#if HOF_VECTOR_BYTES > 16
  _mm_sfence();
#endif
}

// 0 for numbers.
template <class T>
inline Vector<T> only_nan(Vector<T> v) { return v == v ? Vector<T>{} : v; }

// The first `count` numbers at p, then zeros; reads nothing beyond them.
template <class T>
inline Vector<T> load_some(const T* p, int64_t count) {
  if (count >= Simd<T>::lanes) return load(p);
  T numbers[Simd<T>::lanes] = {};
  if (count > 0) std::memcpy(numbers, p, size_t(count) * sizeof(T));
  return load(numbers);
}

// The first `count` lanes, at most all; writes nothing beyond them.
template <class T>
inline void store_some(T* p, Vector<T> v, int64_t count) {
  if (count >= Simd<T>::lanes) return store(p, v);
  T numbers[Simd<T>::lanes];
  store(numbers, v);
  if (count > 0) std::memcpy(p, numbers, size_t(count) * sizeof(T));
}

#if HOF_VECTOR_BYTES == 64
// The lanes below `count`.
template <class T>
inline auto first_lanes(int64_t count) {
  const auto mask = (1u << std::clamp<int64_t>(count, 0, Simd<T>::lanes)) - 1;
  return std::conditional_t<sizeof(T) == 4, __mmask16, __mmask8>(mask);
}

template <>
inline Vector<float> load_some(const float* p, int64_t count) {
  return Vector<float>(_mm512_maskz_loadu_ps(first_lanes<float>(count), p));
}

template <>
inline Vector<double> load_some(const double* p, int64_t count) {
  return Vector<double>(_mm512_maskz_loadu_pd(first_lanes<double>(count), p));
}

template <>
inline void store_some(float* p, Vector<float> v, int64_t count) {
  _mm512_mask_storeu_ps(p, first_lanes<float>(count), __m512(v));
}

template <>
inline void store_some(double* p, Vector<double> v, int64_t count) {
  _mm512_mask_storeu_pd(p, first_lanes<double>(count), __m512d(v));
}
#elif HOF_VECTOR_BYTES == 32
// The lanes below `count`.
template <class T>
inline __m256i first_lanes(int64_t count) {
  const int64_t most = std::clamp<int64_t>(count, 0, Simd<T>::lanes);
  if constexpr (sizeof(T) == 4) return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(most)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(most), _mm256_setr_epi64x(0, 1, 2, 3));
}

template <>
inline Vector<float> load_some(const float* p, int64_t count) {
  return Vector<float>(_mm256_maskload_ps(p, first_lanes<float>(count)));
}

template <>
inline Vector<double> load_some(const double* p, int64_t count) {
  return Vector<double>(_mm256_maskload_pd(p, first_lanes<double>(count)));
}

template <>
inline void store_some(float* p, Vector<float> v, int64_t count) {
  if (count >= Simd<float>::lanes) return store(p, v);
  _mm256_maskstore_ps(p, first_lanes<float>(count), __m256(v));
}

template <>
inline void store_some(double* p, Vector<double> v, int64_t count) {
  if (count >= Simd<double>::lanes) return store(p, v);
  _mm256_maskstore_pd(p, first_lanes<double>(count), __m256d(v));
}
#endif

// Whether a comparison holds in some lane. (Lane after lane it takes as long as the rows of a short segment.)
template <class M>
INLINED inline bool any(M holds) {
#if HOF_VECTOR_BYTES == 64
  return _mm512_test_epi64_mask(__m512i(holds), __m512i(holds));
#elif HOF_VECTOR_BYTES == 32
  return !_mm256_testz_si256(__m256i(holds), __m256i(holds));
#else
  for (size_t l = 0; l < sizeof(holds) / sizeof(holds[0]); ++l)
    if (holds[l]) return true;
  return false;
#endif
}

// Where lane k of a sum of two vectors comes from (lanes from L on: the second vector), so that in the end lanes hold
// whole sums in order: first within 128 bits by chunks of 1, 2.. lanes, then whole 128 bits (chunk 0). Processors do
// exactly these shuffles fast.
template <class T>
constexpr int summand(int k, int chunk, int half) {
  constexpr int L = Simd<T>::lanes, group = 16 / int(sizeof(T)), groups = L / group;
  if (chunk == 0) return k / group < groups / 2 ? (k / group * 2 + half) * group + k % group
                                                : L + ((k / group - groups / 2) * 2 + half) * group + k % group;
  const int place = k % group / chunk;
  return place % 2 * L + k / group * group + place / 2 * chunk + half * group / 2 + k % chunk;
}

template <class T, int Chunk, int... K>
inline Vector<T> add_halves(Vector<T> a, Vector<T> b, std::integer_sequence<int, K...>) {
  return __builtin_shufflevector(a, b, summand<T>(K, Chunk, 0)...) +
         __builtin_shufflevector(a, b, summand<T>(K, Chunk, 1)...);
}

template <class T, int Chunk, int Count>
INLINED inline void halve(Vector<T> (&v)[Simd<T>::lanes]) {
  for (int k = 0; k < Count / 2; ++k)
    v[k] = add_halves<T, Chunk>(v[2 * k], v[2 * k + 1], std::make_integer_sequence<int, Simd<T>::lanes>());
  constexpr int next = Chunk == 0 || 2 * Chunk * int(sizeof(T)) >= 16 ? 0 : 2 * Chunk;
  if constexpr (Count > 2) halve<T, next, Count / 2>(v);
}

// Lane r of the result is the sum of row r; of as many rows as there are lanes.
template <class T>
inline Vector<T> sums(const Vector<T>* rows) {
  Vector<T> v[Simd<T>::lanes];
  for (int r = 0; r < Simd<T>::lanes; ++r) v[r] = rows[r];
  halve<T, 1, Simd<T>::lanes>(v);
  return v[0];
}

// Numbers of a and b, those of b counted on from those of a: the k-th is index(k).
template <class T, auto index, int... K>
inline Vector<T> picked(Vector<T> a, Vector<T> b, std::integer_sequence<int, K...>) {
  return __builtin_shufflevector(a, b, index(K)...);
}

template <class T, auto first, auto second>
inline void exchange(Vector<T>& a, Vector<T>& b) {
  constexpr auto all = std::make_integer_sequence<int, Simd<T>::lanes>();
  const Vector<T> before = a;
  a = picked<T, first>(before, b, all), b = picked<T, second>(before, b, all);
}

// Rows become columns: v, as many vectors as there are lanes, in place. First squares within 16 bytes, which instructions
// mix in one step, then these as wholes.
template <class T>
INLINED inline void transpose(Vector<T>* v) {
  constexpr int L = Simd<T>::lanes, W = 16 / int(sizeof(T)), G = L / W;
  asm volatile("" ::: "memory");  // all are loaded before the first are mixed: they may come from far
  UNROLLED for (int k = 0; k < L; k += 2)
    exchange<T, [](int i) { return i / W * W + i % W / 2 + i % 2 * L; },
             [](int i) { return i / W * W + W / 2 + i % W / 2 + i % 2 * L; }>(v[k], v[k + 1]);
  if constexpr (W == 4)
    UNROLLED for (int k = 0; k < L; k += 4) {
      constexpr auto low = [](int i) { return i / 4 * 4 + i % 2 + i % 4 / 2 * L; };
      constexpr auto high = [](int i) { return i / 4 * 4 + 2 + i % 2 + i % 4 / 2 * L; };
      exchange<T, low, high>(v[k], v[k + 2]);
      exchange<T, low, high>(v[k + 1], v[k + 3]);
      std::swap(v[k + 1], v[k + 2]);
    }
  if constexpr (G == 1) return;
  UNROLLED for (int j = 0; j < W; ++j) {
    UNROLLED for (int g = 0; g < G; g += 2)
      exchange<T, [](int i) { return i % (L / 2) + i / (L / 2) * L; }, [](int i) { return L / 2 + i % (L / 2) + i / (L / 2) * L; }>(
          v[g * W + j], v[(g + 1) * W + j]);
    if constexpr (G == 4) {
      constexpr auto even = [](int i) { return i % W + i / W % 2 * 2 * W + i / (2 * W) * L; };
      constexpr auto odd = [](int i) { return W + i % W + i / W % 2 * 2 * W + i / (2 * W) * L; };
      exchange<T, even, odd>(v[j], v[2 * W + j]);
      exchange<T, even, odd>(v[W + j], v[3 * W + j]);
      std::swap(v[W + j], v[2 * W + j]);
    }
  }
}

#if HOF_VECTOR_BYTES == 64
// Those of 16 numbers that are in the mask, one after the other.
inline void keep(__mmask16 mask, const float* from, float* to) {
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(mask, _mm512_loadu_ps(from)));
}

inline void keep(__mmask16 mask, const double* from, double* to) {
  const __mmask8 low = __mmask8(mask), high = __mmask8(mask >> 8);
  _mm512_storeu_pd(to, _mm512_maskz_compress_pd(low, _mm512_loadu_pd(from)));
  _mm512_storeu_pd(to + __builtin_popcount(low), _mm512_maskz_compress_pd(high, _mm512_loadu_pd(from + 8)));
}

// Sorts rows by segment where few segments have any: `order` and `sorted` get row number and x segment after segment,
// offset[t] where each begins. Whole vectors are written. False where they are many.
template <class T>
inline bool sort_few(const int32_t* segment, const T* x, int rows, int segments, int32_t* order, T* sorted, int32_t* offset) {
  if (segments > 32) return false;
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i one = _mm512_set1_epi32(1), bound = _mm512_set1_epi32(rows);
  __m512i seen = _mm512_setzero_si512();
  for (int r = 0; r < rows; r += 16) {
    const __mmask16 valid = _mm512_cmplt_epi32_mask(_mm512_add_epi32(lanes, _mm512_set1_epi32(r)), bound);
    seen = _mm512_or_si512(seen, _mm512_maskz_sllv_epi32(valid, one, _mm512_loadu_si512(segment + r)));
  }
  const uint32_t present = uint32_t(_mm512_reduce_or_epi32(seen));
  if (__builtin_popcount(present) > FEW_SEGMENTS) return false;
  int at = 0;
  for (int t = 0; t < segments; ++t) {
    offset[t] = at;
    if (!(present >> t & 1)) continue;
    const __m512i wanted = _mm512_set1_epi32(t);
    for (int r = 0; r < rows; r += 16) {
      const __m512i number = _mm512_add_epi32(lanes, _mm512_set1_epi32(r));
      const __mmask16 valid = _mm512_cmplt_epi32_mask(number, bound);
      const __mmask16 here = _mm512_mask_cmpeq_epi32_mask(valid, _mm512_loadu_si512(segment + r), wanted);
      _mm512_storeu_si512(order + at, _mm512_maskz_compress_epi32(here, number));
      keep(here, x + r, sorted + at);
      at += __builtin_popcount(here);
    }
  }
  offset[segments] = at;
  return true;
}
// passed[r]: how many of at most 31 increasing knots x[r] has passed, by halves within two registers. Whole vectors are
// read and written. False where the knots are more.
inline bool count_few(const float* knots, int count, const float* x, int rows, int32_t* passed) {
  if (count > 31) return false;
  const __m512 none = _mm512_set1_ps(__builtin_nanf(""));  // which no number passes
  const __m512 low = _mm512_mask_loadu_ps(none, first_lanes<float>(count), knots);
  const __m512 high = _mm512_mask_loadu_ps(none, first_lanes<float>(count - 16), knots + 16);
  for (int r = 0; r < rows; r += 16) {
    const __m512 number = _mm512_loadu_ps(x + r);
    __m512i at = _mm512_setzero_si512();
    UNROLLED for (int half = 16; half > 0; half /= 2) {
      const __m512 knot = _mm512_permutex2var_ps(low, _mm512_add_epi32(at, _mm512_set1_epi32(half - 1)), high);
      at = _mm512_mask_add_epi32(at, _mm512_cmp_ps_mask(number, knot, _CMP_GE_OQ), at, _mm512_set1_epi32(half));
    }
    _mm512_storeu_si512(passed + r, at);
  }
  return true;
}

// Of 16 doubles a register holds too few.
inline bool count_few(const double*, int, const double*, int, int32_t*) { return false; }
#else
// Without instructions for it.
template <class T>
inline bool sort_few(const int32_t*, const T*, int, int, int32_t*, T*, int32_t*) {
  return false;
}

template <class T>
inline bool count_few(const T*, int, const T*, int, int32_t*) {
  return false;
}
#endif

}  // namespace HOF_VARIANT
}  // namespace hof
