// Vectors of the variant's width, by the compiler's own vector types.
#pragma once

#include <cstdint>
#include <cstring>

namespace hof {
namespace HOF_VARIANT {

template <class T>
struct Simd {
  static constexpr int lanes = HOF_VECTOR_BYTES / int(sizeof(T));
  typedef T Vector __attribute__((vector_size(HOF_VECTOR_BYTES)));
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

// The first `count` numbers at p, then zeros; reads nothing beyond them.
template <class T>
inline Vector<T> load_some(const T* p, int64_t count) {
  if (count >= Simd<T>::lanes) return load(p);
  T numbers[Simd<T>::lanes] = {};
  if (count > 0) std::memcpy(numbers, p, size_t(count) * sizeof(T));
  return load(numbers);
}

template <class T>
inline T sum(Vector<T> v) {
  T numbers[Simd<T>::lanes];
  store(numbers, v);
  for (int half = Simd<T>::lanes / 2; half > 0; half /= 2)
    for (int k = 0; k < half; ++k) numbers[k] += numbers[k + half];
  return numbers[0];
}

// The sums of four vectors.
template <class T>
inline void sum4(const Vector<T>* v, T* out) {
  for (int k = 0; k < 4; ++k) out[k] = sum<T>(v[k]);
}

#if HOF_VECTOR_BYTES == 64 && defined(__AVX512F__)
template <>
inline void sum4<float>(const Vector<float>* v, float* out) {
  const __m512 a = __m512(v[0]), b = __m512(v[1]), c = __m512(v[2]), d = __m512(v[3]);
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
#endif

}  // namespace HOF_VARIANT
}  // namespace hof
