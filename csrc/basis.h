// Lookup, features and window values of a basis: what reference.py does, over a run of rows of one input.
// Plain loops over arrays that compilers turn into vector code; no dependency.
#pragma once

#include <cmath>
#include <cstdint>

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
};

// Each variant of the kernels compiles what follows for its own instruction set.
namespace HOF_VARIANT {

// segment[r] of x[r] for one input.
template <class T>
inline void locate(const Basis<T>& basis, int64_t input, const T* __restrict x, int rows, int32_t* __restrict segment) {
  const T low = basis.domain[input * basis.domain_stride], high = basis.domain[input * basis.domain_stride + 1];
  const int inner = basis.segments - (basis.outer == NONE ? 0 : 2);
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
    const T* knots = basis.knots + input * basis.knots_stride + (basis.outer == NONE ? 1 : 2);
    if (inner <= 128) {
      for (int r = 0; r < rows; ++r) segment[r] = 0;
      for (int k = 0; k < inner - 1; ++k) {
        const T knot = knots[k];
        for (int r = 0; r < rows; ++r) segment[r] += x[r] >= knot;
      }
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
  if (basis.outer != NONE) {
    for (int r = 0; r < rows; ++r) segment[r] = x[r] < low ? 0 : x[r] > high ? inner + 1 : segment[r] + 1;
  }
}

// sin(pi t) and cos(pi t) by Taylor series after reduction to |t| <= 1/4; infinite t gives NaN.
template <class T>
inline void sincospi(T t, T& sine, T& cosine) {
  const T turn = t - 2 * std::nearbyint(t / 2);
  const T quarter = std::nearbyint(2 * turn);
  const T a = T(3.14159265358979323846) * (turn - quarter / 2), q = a * a;
  T s, c;
  if constexpr (sizeof(T) == 4) {
    s = a + a * q * (T(-1.0 / 6) + q * (T(1.0 / 120) + q * (T(-1.0 / 5040) + q * T(1.0 / 362880))));
    c = 1 + q * (T(-0.5) + q * (T(1.0 / 24) + q * (T(-1.0 / 720) + q * T(1.0 / 40320))));
  } else {
    s = 0, c = 0;
    const double sines[] = {1.0 / 355687428096000.0, -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0,
                            1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0};
    const double cosines[] = {-1.0 / 6402373705728000.0, 1.0 / 20922789888000.0, -1.0 / 87178291200.0,
                              1.0 / 479001600.0, -1.0 / 3628800.0, 1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5};
    for (double k : sines) s = s * q + k;
    for (double k : cosines) c = c * q + k;
    s = a + a * q * s;
    c = 1 + q * c;
  }
  const bool swap = quarter == 1 || quarter == -1, flip = quarter == 2 || quarter == -2;
  sine = swap ? (quarter > 0 ? c : -c) : flip ? -s : s;
  cosine = swap ? (quarter > 0 ? -s : s) : flip ? -c : c;
}

// phi[j * stride + r], j < n: the window's functions at x[r], all in one segment of one input. x is overwritten by u.
template <class T>
inline void evaluate(const Basis<T>& basis, int64_t input, int segment, T* __restrict x, int rows, T* __restrict phi,
                     int64_t stride) {
  const T* knots = basis.knots + input * basis.knots_stride + segment;
  const T* table = basis.table + input * basis.table_stride + segment * basis.table_segment_stride;
  const T left = knots[0], width = knots[1] - knots[0];
  const int n = basis.n, m = basis.m;
  constexpr int chunk = 64;
  const bool frozen = basis.outer == FROZEN && (segment == 0 || segment == basis.segments - 1);
  for (int begin = 0; begin < rows; begin += chunk) {
    const int count = rows - begin < chunk ? rows - begin : chunk;
    T* __restrict u = x + begin;
    T* __restrict out = phi + begin;
    T older[chunk], old[chunk], next[chunk];
    auto add = [&](int f, const T* __restrict feature) {
      for (int j = 0; j < n; ++j) {
        const T factor = table[j * m + f];
        T* __restrict row = out + j * stride;
        if (f == 0) {
          for (int r = 0; r < count; ++r) row[r] = factor * feature[r];
        } else {
          for (int r = 0; r < count; ++r) row[r] += factor * feature[r];
        }
      }
    };
    if (frozen) {
      for (int r = 0; r < count; ++r) u[r] = 0;
    } else {
      for (int r = 0; r < count; ++r) u[r] = 2 * ((u[r] - left) / width) - 1;
    }
    if (basis.kind == HARMONIC) {
      T sine[chunk], cosine[chunk], s1[chunk], c1[chunk];
      for (int r = 0; r < count; ++r) old[r] = u[r] == u[r] ? T(1) : u[r];
      add(0, old);
      for (int r = 0; r < count; ++r) sincospi(u[r], s1[r], c1[r]);
      for (int r = 0; r < count; ++r) sine[r] = s1[r], cosine[r] = c1[r];
      for (int f = 1; f < m; f += 2) {
        add(f, sine);
        add(f + 1, cosine);
        for (int r = 0; r < count; ++r) {
          const T s = sine[r] * c1[r] + cosine[r] * s1[r];
          cosine[r] = cosine[r] * c1[r] - sine[r] * s1[r];
          sine[r] = s;
        }
      }
    } else if (m == 1) {
      for (int r = 0; r < count; ++r) old[r] = u[r] == u[r] ? T(1) : u[r];
      add(0, old);
    } else {
      for (int r = 0; r < count; ++r) old[r] = (1 - u[r]) / 2, next[r] = (1 + u[r]) / 2;
      add(0, old);
      add(1, next);
      for (int r = 0; r < count; ++r) older[r] = (1 - u[r]) * (1 + u[r]), old[r] = older[r] * u[r];
      for (int f = 2; f < m; ++f) {
        add(f, older);
        for (int r = 0; r < count; ++r) {
          const T bubble = 2 * u[r] * old[r] - older[r];
          older[r] = old[r];
          old[r] = bubble;
        }
      }
    }
  }
}

}  // namespace HOF_VARIANT
}  // namespace hof
