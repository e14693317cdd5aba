// silu(x) = x / (1 + e^-x) of vectors, and its slope: a KAN's activation.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../basis.h"
#include "simd.h"

namespace hof {
namespace HOF_VARIANT {

// 2^k as its bits, for |k| below the bias.
template <class T, class Integers>
inline Vector<T> power_of_two(Integers k) {
  if constexpr (sizeof(T) == 4)
    return Vector<T>((k + 127) << 23);
  else
    return Vector<T>((k + 1023) << 52);
}

// e^t: n halves or doublings of a Taylor series on |r| <= log(2) / 2. Infinite or 0 beyond what T holds; NaN stays NaN.
template <class T>
inline Vector<T> exponential(Vector<T> t) {
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Integer;
  typedef Integer Integers __attribute__((vector_size(HOF_VECTOR_BYTES)));
  const Vector<T> most = Vector<T>{} + T(sizeof(T) == 4 ? 150 : 1000), least = -most;
  t = t > most ? most : t < least ? least : t;
  const Vector<T> n = nearest<T>(t * T(1.44269504088896340736));
  // log(2) in two parts, the first of so few bits that its multiples are exact
  const T high = T(sizeof(T) == 4 ? 0.693359375 : 6.93147180369123816490e-1);
  const T low = T(sizeof(T) == 4 ? -2.12194440054690583e-4 : 1.90821492927058770002e-10);
  const Vector<T> r = t - n * high - n * low;
  Vector<T> e{};
  if constexpr (sizeof(T) == 8)
    for (double k : {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320}) e = e * r + T(k);
  for (double k : {1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0}) e = e * r + T(k);
  const Integers whole = __builtin_convertvector(n == n ? n : Vector<T>{}, Integers), half = whole >> 1;
  return e * power_of_two<T>(half) * power_of_two<T>(whole - half);  // in two steps, each of which T holds
}

template <class T>
inline Vector<T> silu(Vector<T> x) { return x / (1 + exponential<T>(-x)); }

template <class T>
inline Vector<T> silu_slope(Vector<T> x) {
  const Vector<T> sigmoid = 1 / (1 + exponential<T>(-x));
  return sigmoid * (1 + x * (1 - sigmoid));
}

}  // namespace HOF_VARIANT
}  // namespace hof
