// Of functions that span the constants one is known from the others: the first of a window's is a number, or that number
// minus the sum of the others, to within the rounding of the largest. Sums leave the first out, add the number, and in the
// second case take the first's coefficient from the others'.
#pragma once

#include <limits>

#include "problem.h"
#include "simd.h"

namespace hof {
namespace HOF_VARIANT {

template <class T>
struct Relief {
  int skipped;  // functions at the front of the window: none or one
  bool taken;
  T number;     // 0 of slopes
};

// So many functions at most whose first is taken from the others: it has the rounding of all, for one in n products saved.
constexpr int MOST_TAKEN = 6;

// So many times smaller than the largest of its window the first function may be.
constexpr int MOST_APART = 32;

// Whether the first function weighs enough in some rows for its sum over them to be taken from the others': if it is 0 in all,
// that must be 0, or an optimiser that divides by a gradient's size would take its rounding for one.
template <class T>
inline bool weighs(const T* phi, int count) {
  constexpr int L = Simd<T>::lanes;
  for (int r = 0; r < count; r += L) {
    const Vector<T> v = load_some(phi + r, count - r);
    if (any((v < 0 ? -v : v) * T(MOST_APART) >= T(1) + Vector<T>{})) return true;
  }
  return false;
}

// Four features of a function.
template <class T>
using Four = typename Simd<T>::Four;

template <class T>
inline Four<T> load_four(const T* p, int count) {
  Four<T> v{};
  if (count >= 4)
    std::memcpy(&v, p, sizeof(v));
  else
    for (int f = 0; f < count; ++f) v[f] = p[f];
  return v;
}

template <class T>
inline Four<T> magnitude(Four<T> v) { return v < 0 ? -v : v; }

template <class T>
inline Four<T> larger(Four<T> a, Four<T> b) { return a > b ? a : b; }

template <class T>
inline T largest(Four<T> v) { return std::max(std::max(v[0], v[1]), std::max(v[2], v[3])); }

// Of slopes, or of functions, in a segment; in all that there are where rows are not sorted. N: how many functions and
// features there are, or 0.
template <class T, int N = 0>
inline Relief<T> relief(const Basis<T>& basis, int64_t input, int segment, bool slopes) {
  const int n = N ? N : basis.n, m = N ? N : basis.m, count = basis.product() && basis.table_segment_stride ? basis.segments : 1;
  if (n == 1) return {};
  const T* table = basis.table + input * basis.table_stride + (basis.product() ? 0 : segment) * basis.table_segment_stride;
  const Four<T> ones{1, T(basis.kind == HARMONIC || m == 1 ? 0 : 1)};  // features that make up 1
  const T of_first = slopes ? T(0) : table[0];
  T of_all = 0;
  bool first_constant = true, all_constant = true;
  for (int t = 0; t < count; ++t, table += basis.table_segment_stride) {
    Four<T> own{}, others{}, first_away{}, all_away{};
    for (int f = 0; f < m; f += 4) {
      const Four<T> first = load_four(table + f, m - f), one = f == 0 ? ones : Four<T>{};
      Four<T> sum = first;
      for (int j = 1; j < n; ++j) {
        const Four<T> v = load_four(table + j * m + f, m - f);
        sum += v, others = larger<T>(others, magnitude<T>(v));
      }
      own = larger<T>(own, magnitude<T>(first));
      if (!slopes && t == 0 && f == 0) {
        const T whole = nearest<T>(T(sum[0])), rounding = n * std::numeric_limits<T>::epsilon() * largest<T>(larger<T>(own, others));
        of_all = std::abs(sum[0] - whole) <= rounding ? whole : sum[0];
      }
      first_away = larger<T>(first_away, magnitude<T>(first - of_first * one));
      all_away = larger<T>(all_away, magnitude<T>(sum - of_all * one));
    }
    // tables are made in float64, so that what should be 0 is so to its rounding; sums are rounded to T, and others may
    // exceed the first function by far
    const T of_own = largest<T>(own), of_any = std::max(of_own, largest<T>(others));
    const T exact = n * T(std::numeric_limits<double>::epsilon()) * of_any;
    const T rounding = n * std::numeric_limits<T>::epsilon() * std::min(of_any, MOST_APART * of_own);
    first_constant = first_constant && largest<T>(first_away) <= exact;
    all_constant = all_constant && largest<T>(all_away) <= rounding;
  }
  if (first_constant) return {1, false, of_first};
  if (all_constant && (slopes || n <= MOST_TAKEN)) return {1, true, of_all};
  return {};
}

// Of functions whose rows all meet one window.
template <class T>
inline Relief<T> constants(const Basis<T>& basis) {
  return basis.product() && !basis.table_stride ? relief(basis, 0, 0, false) : Relief<T>{};
}

// What is left of a basis without the first function of its one window.
template <class T>
inline Basis<T> without_first(Basis<T> basis) {
  basis.table += basis.m, --basis.n, --basis.size;
  return basis;
}

}  // namespace HOF_VARIANT
}  // namespace hof
