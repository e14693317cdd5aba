// Lookup and features of a basis: what reference.py does, for one number or a vector of them. The only C++ copy.
#pragma once

#include <cmath>
#include <cstdint>

// Compiled by nvcc for a device, too. Lookups are to the bit those of a CPU there: division is rounded as on a CPU unless
// fast mathematics is asked for, and no product of a lookup is added to anything, so contraction has nothing to change.
#ifdef __CUDACC__
#define HOF_BOTH __host__ __device__
#else
#define HOF_BOTH
#endif

namespace hof {

enum Kind { POLYNOMIAL = 0, HARMONIC = 1 };
enum Outer { NONE = 0, LIVE = 1, FROZEN = 2 };

// A basis as a kernel reads it; strides are 0 where inputs or segments share.
template <class T>
struct Basis {
  const T* domain;
  const T* knots;
  const T* table;  // of the derivative order that is wanted
  const int64_t* start;
  int64_t domain_stride, knots_stride, table_stride, table_segment_stride;
  int kind, uniform, outer, segments, n, m, size;  // segments count the outer ones

  HOF_BOTH int inner() const { return segments - (outer == NONE ? 0 : 2); }
  // Every window is all of the coefficients: the contractions are then matrix products.
  HOF_BOTH bool product() const { return size == n; }
  HOF_BOTH bool frozen(int segment) const { return outer == FROZEN && (segment == 0 || segment == segments - 1); }
};

// Each variant of the kernels compiles what follows for its own instruction set.
namespace HOF_VARIANT {

// segment[r], found among those inside, becomes that among all.
template <class T>
HOF_BOTH inline void count_outside(const Basis<T>& basis, int64_t input, const T* __restrict x, int rows,
                                   int32_t* __restrict segment) {
  if (basis.outer == NONE) return;
  const T low = basis.domain[input * basis.domain_stride], high = basis.domain[input * basis.domain_stride + 1];
  const int inner = basis.inner();
  for (int r = 0; r < rows; ++r) segment[r] = x[r] < low ? 0 : x[r] > high ? inner + 1 : segment[r] + 1;
}

// The knots between segments inside.
template <class T>
HOF_BOTH inline const T* inner_knots(const Basis<T>& basis, int64_t input) {
  return basis.knots + input * basis.knots_stride + (basis.outer == NONE ? 1 : 2);
}

// segment[r] of x[r] for one input; NaN is in the first one inside.
template <class T>
HOF_BOTH inline void locate(const Basis<T>& basis, int64_t input, const T* __restrict x, int rows,
                            int32_t* __restrict segment) {
  const T low = basis.domain[input * basis.domain_stride], high = basis.domain[input * basis.domain_stride + 1];
  const int inner = basis.inner();
  if (inner == 1) {
    for (int r = 0; r < rows; ++r) segment[r] = 0;
  } else if (basis.uniform) {
    const T length = high - low, count = T(inner), last = T(inner - 1);
    for (int r = 0; r < rows; ++r) {
      T position = (x[r] - low) / length * count;
      position = position > T(0) ? position : T(0);  // NaN becomes 0
      position = position < last ? position : last;
      segment[r] = int32_t(position);
    }
  } else {
    const T* knots = inner_knots(basis, input);
    if (rows > 1 && inner <= 128) {  // counting the knots on the left beats a search
      auto count_knots = [&](int first, int some) {
        int32_t passed[64] = {};  // of so many rows in registers
        for (int k = 0; k < inner - 1; ++k) {
          const T knot = knots[k];
          for (int r = 0; r < some; ++r) passed[r] += x[first + r] >= knot;
        }
        for (int r = 0; r < some; ++r) segment[first + r] = passed[r];
      };
      int r = 0;
      for (; r + 64 <= rows; r += 64) count_knots(r, 64);
      if (r < rows) count_knots(r, rows - r);
    } else {
      for (int r = 0; r < rows; ++r) {
        int first = 0, count = inner - 1;
        while (count > 0) {
          const int half = count / 2;
          const bool right = x[r] >= knots[first + half];
          first = right ? first + half + 1 : first;
          count = right ? count - half - 1 : half;
        }
        segment[r] = first;
      }
    }
  }
  count_outside(basis, input, x, rows, segment);
}

// The nearest integer, ties to even; V is T or a vector of T.
template <class T, class V>
HOF_BOTH inline V nearest(V t) {
  const T whole = sizeof(T) == 4 ? T(8388608.0) : T(4503599627370496.0);  // 2^23, 2^52: no fractions from here on
  const V positive = V{} + whole, negative = V{} - whole;
  const V shift = t < 0 ? negative : positive;
  const V rounded = (t + shift) - shift;
  return (t < whole) & (t > -whole) ? rounded : t;
}

// sin(pi t) and cos(pi t): exact reduction to |t| <= 1/4, then Taylor series. Infinite t gives NaN.
template <class T, class V>
HOF_BOTH inline void sincospi(V t, V& sine, V& cosine) {
  const V turn = t - 2 * nearest<T>(t / 2);
  const V quarter = nearest<T>(2 * turn);
  const V a = T(3.14159265358979323846) * (turn - quarter / 2), q = a * a;
  V s = q * 0, c = q * 0;
  if constexpr (sizeof(T) == 4) {
    for (double k : {1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6}) s = s * q + T(k);
    for (double k : {1.0 / 40320, -1.0 / 720, 1.0 / 24, -0.5}) c = c * q + T(k);
  } else {
    for (double k : {1.0 / 355687428096000, -1.0 / 1307674368000, 1.0 / 6227020800, -1.0 / 39916800, 1.0 / 362880,
                     -1.0 / 5040, 1.0 / 120, -1.0 / 6})
      s = s * q + T(k);
    for (double k : {-1.0 / 6402373705728000, 1.0 / 20922789888000, -1.0 / 87178291200, 1.0 / 479001600,
                     -1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -0.5})
      c = c * q + T(k);
  }
  s = a + a * q * s;
  c = 1 + q * c;
  const auto swapped = (quarter == 1) | (quarter == -1), half = (quarter == 2) | (quarter == -2);
  const auto negative = quarter < 0;
  const V minus_s = -s, minus_c = -c;
  sine = swapped ? (negative ? minus_c : c) : (half ? minus_s : s);
  cosine = swapped ? (negative ? s : minus_s) : (half ? minus_c : c);
}

// Calls use(f, feature) for the m features at local coordinate u, in order; V is T or a vector of T. Beside outer segments
// bubbles end with theirs, and hats go on where they are lines: far outside powers of u exceed T, and sums of hats that are
// a number lose it.
template <class T, class V, class Use>
HOF_BOTH inline void features(const Basis<T>& basis, V u, Use&& use) {
  const int m = basis.m;
  const V one = V{} + T(1);
  if (basis.kind == HARMONIC) {
    use(0, u == u ? one : u);
    V s1, c1;
    sincospi<T>(u, s1, c1);
    V sine = s1, cosine = c1;
    for (int f = 1; f < m; f += 2) {
      use(f, sine);
      use(f + 1, cosine);
      const V next = sine * c1 + cosine * s1;
      cosine = cosine * c1 - sine * s1;
      sine = next;
    }
  } else if (m == 1) {
    use(0, u == u ? one : u);
  } else {
    V within = u;
    if (basis.outer != NONE) within = u > one ? one : u < -one ? -one : u;
    if (basis.outer != LIVE) u = within;
    use(0, (1 - u) / 2);
    use(1, (1 + u) / 2);
    V older = (1 - within) * (1 + within), old = older * within;
    for (int f = 2; f < m; ++f) {
      use(f, older);
      const V bubble = 2 * within * old - older;
      older = old;
      old = bubble;
    }
  }
}

}  // namespace HOF_VARIANT
}  // namespace hof
