// The three contractions over a sorted tile. A block of outputs of one window stays in registers while the rows of
// its segment go by; where every window is all coefficients it is a blocked matrix product whose left factor is made
// on the fly.
#pragma once

#include <cmath>
#include <limits>

#include "tile.h"

namespace hof {
namespace HOF_VARIANT {

// A loop over the rows of a segment, with what it reads before and gives after. Inlined into what surrounds it, it would
// keep its pointers in vector registers (under AVX-512, which has many), and lose a tenth of its time fetching them.
#define ROW_LOOP __attribute__((noinline))

// Rows that meet one window, by their numbers; `ahead`: g is asked for some rows before its use.
struct Run {
  const int32_t* row;
  int count;
  bool ahead = false;
};

// Whether that pays: rows of a segment lie too far apart to be foreseen, and those of the tile, with what else it keeps,
// exceed the second-level cache. (Under AVX2 it does not: two more registers than there are.)
inline bool far_apart(int rows, int64_t row_bytes) { return rows * row_bytes > 1 << 18; }

template <class T, int Q>
INLINED inline void fetch_row(const T* g, const Run& run, int r, int64_t row, int64_t block = Simd<T>::width) {
  constexpr int L = Simd<T>::lanes, B = Simd<T>::block;
  if (HOF_VECTOR_BYTES < 64 || !run.ahead) return;
  const T* later = g + run.row[std::min(r + 6, run.count - 1)] * row;
  UNROLLED for (int q = 0; q < Q; ++q) __builtin_prefetch(later + q / B * block + q % B * L);
}

// y[row, block] += sum_j phi[j, row] w[j, block], over the rows of one segment; read(w) loads the window.
template <class T, int N, int Q, class Read>
ROW_LOOP void add_inputs(const Read& read, const Run run, const T* phi, int64_t ld, T* y, int64_t y_row) {
  constexpr int L = Simd<T>::lanes;
  Vector<T> w[N][Q];
  read(w);
  for (int r = 0; r < run.count; ++r) {
    T* to = y + run.row[r] * y_row;
    Vector<T> a[Q];
    UNROLLED for (int q = 0; q < Q; ++q) a[q] = load(to + q * L);
    UNROLLED for (int j = 0; j < N; ++j)
      UNROLLED for (int q = 0; q < Q; ++q) a[q] += w[j][q] * phi[j * ld + r];
    UNROLLED for (int q = 0; q < Q; ++q) store(to + q * L, a[q]);
  }
}

// y[block] += sum_j phi[j] w[j, block], one row, from the coefficients as they lie; Whole: all outputs of it exist.
template <class T, int N, int Q, bool Whole, class S>
inline void add_row(const S* w, int64_t ld, int64_t valid, const T* phi, int64_t phi_ld, T* y) {
  constexpr int L = Simd<T>::lanes;
  Vector<T> a[Q];
  UNROLLED for (int q = 0; q < Q; ++q) a[q] = load(y + q * L);
  UNROLLED for (int j = 0; j < N; ++j)
    UNROLLED for (int q = 0; q < Q; ++q) {
      const S* from = w + j * ld + q * L;
      a[q] += (Whole ? load_as<T>(from) : load_some_as<T>(from, valid - q * L)) * phi[j * phi_ld];
    }
  UNROLLED for (int q = 0; q < Q; ++q) store(y + q * L, a[q]);
}

// Zeros one by one: an initialiser becomes a string instruction, which takes longer than a short segment's rows.
template <class T, int N, int Q>
inline void clear(Vector<T> (&v)[N][Q]) {
  UNROLLED for (int j = 0; j < N; ++j)
    UNROLLED for (int q = 0; q < Q; ++q) v[j][q] = Vector<T>{};
}

// give(v) for v[j, block] = sum over rows of phi[j, row] g[row, block].
template <class T, int N, int Q, class Give>
ROW_LOOP void add_batch(const Run run, const T* phi, int64_t ld, const T* g, int64_t g_row, const Give& give) {
  constexpr int L = Simd<T>::lanes;
  Vector<T> sums[N][Q];
  clear<T>(sums);
  for (int r = 0; r < run.count; ++r) {
    const T* from = g + run.row[r] * g_row;
    fetch_row<T, Q>(g, run, r, g_row);
    Vector<T> b[Q];
    UNROLLED for (int q = 0; q < Q; ++q) b[q] = load(from + q * L);
    UNROLLED for (int j = 0; j < N; ++j)
      UNROLLED for (int q = 0; q < Q; ++q) sums[j][q] += b[q] * phi[j * ld + r];
  }
  give(sums);
}

// partial[row] += sum_j phi[j, row] (w[j, block] g[row, block], lane by lane); First: = instead of +=. g_block: from a
// block of g to the next.
template <class T, int N, int Q, bool First, class Read>
ROW_LOOP void add_outputs(const Read& read, const Run run, const T* phi, int64_t ld, const T* g, int64_t g_row,
                          int64_t g_block, Vector<T>* partial) {
  constexpr int L = Simd<T>::lanes, block = Simd<T>::block;
  Vector<T> w[N][Q];
  read(w);
  for (int r = 0; r < run.count; ++r) {
    const T* from = g + run.row[r] * g_row;
    fetch_row<T, Q>(g, run, r, g_row, g_block);
    Vector<T> t[N];
    UNROLLED for (int q = 0; q < Q; ++q) {
      const Vector<T> b = load(from + q / block * g_block + q % block * L);
      UNROLLED for (int j = 0; j < N; ++j) t[j] = q == 0 ? b * w[j][q] : t[j] + b * w[j][q];
    }
    Vector<T> a = First ? Vector<T>{} : partial[r];
    UNROLLED for (int j = 0; j < N; ++j) a += t[j] * phi[j * ld + r];
    partial[r] = a;
  }
}

template <class T, int N, int Q, class S>
INLINED inline void load_window(Vector<T> (&w)[N][Q], const S* from, int64_t ld, int64_t valid) {
  constexpr int L = Simd<T>::lanes;
  UNROLLED for (int j = 0; j < N; ++j)
    UNROLLED for (int q = 0; q < Q; ++q)
      w[j][q] = valid >= Q * L ? load_as<T>(from + j * ld + q * L) : load_some_as<T>(from + j * ld + q * L, valid - q * L);
}

// Of functions that span the constants one is known from the others: the first of a window's is a number, or that number
// minus the sum of the others, to within rounding. It is 0 for slopes, and for the functions themselves asked for only
// where all rows meet one window. Sums leave the first out, add the number, and in the second case take the first's
// coefficient from the others'.
template <class T>
struct Relief {
  int skipped;  // functions at the front of the window: none or one
  bool taken;
  T number;
};

// Of slopes, or of functions, in a segment; in all that there are where rows are not sorted.
template <class T>
inline Relief<T> relief(const Basis<T>& basis, int64_t input, int segment, bool slopes = true) {
  if (basis.n == 1) return {};
  const int count = basis.product() && basis.table_segment_stride ? basis.segments : 1;
  const int first = basis.product() ? 0 : segment, ones = basis.kind == HARMONIC || basis.m == 1 ? 1 : 2;  // features that make up 1
  const T* tables = basis.table + input * basis.table_stride + first * basis.table_segment_stride;
  auto sum = [&](const T* table, int f) {
    T total = 0;
    for (int j = 0; j < basis.n; ++j) total += table[j * basis.m + f];
    return total;
  };
  const T of_first = slopes ? T(0) : tables[0], of_all = slopes ? T(0) : sum(tables, 0);
  bool first_constant = true, all_constant = true;
  for (int t = 0; t < count; ++t) {
    const T* table = tables + t * basis.table_segment_stride;
    T own = 0, largest = 0;  // of the first function, which others may exceed by far; of all
    for (int k = 0; k < basis.n * basis.m; ++k) {
      largest = std::max(largest, std::abs(table[k]));
      if (k < basis.m) own = largest;
    }
    // tables are made in float64, so that what should be 0 is so to its rounding; sums are rounded to T
    const T exact = basis.n * T(std::numeric_limits<double>::epsilon()) * largest;
    const T rounding = basis.n * std::numeric_limits<T>::epsilon() * std::min(largest, 32 * own);
    for (int f = 0; f < basis.m; ++f) {
      first_constant = first_constant && std::abs(table[f] - (f < ones ? of_first : T(0))) <= exact;
      all_constant = all_constant && std::abs(sum(table, f) - (f < ones ? of_all : T(0))) <= rounding;
    }
  }
  if (first_constant) return {1, false, of_first};
  if (all_constant) return {1, true, of_all};
  return {};
}

// The reliefs of slopes in the segments of a tile's inputs, asked once where all inputs have the same tables.
template <class T>
class Reliefs {
 public:
  Reliefs(const Basis<T>& basis, Relief<T>* room) : basis(basis), kept(basis.table_stride ? nullptr : room) {
    const int count = basis.product() ? 1 : basis.segments;
    for (int t = 0; kept && t < count; ++t) kept[t] = relief(basis, 0, t);
  }
  Relief<T> of(int64_t input, int segment) const { return kept ? kept[segment] : relief(basis, input, segment); }

 private:
  const Basis<T>& basis;
  Relief<T>* kept;
};

// Of the functions themselves.
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

// The coefficients of the functions from j on that are left; read(w, k) loads those of functions k and on.
template <class T, int N, int Q, class Read>
INLINED inline void load_relieved(Vector<T> (&w)[N][Q], const Relief<T>& relief, int j, Read&& read) {
  read(w, relief.skipped + j);
  if (!relief.taken) return;
  Vector<T> first[1][Q];
  read(first, 0);
  UNROLLED for (int f = 0; f < N; ++f)
    UNROLLED for (int q = 0; q < Q; ++q) w[f][q] -= first[0][q];
}

// p[...] += v, all of it if Whole, otherwise the first `valid` numbers.
template <bool Whole, class T, class V>
inline void add_some(T* p, V v, int64_t valid) {
  if (Whole)
    store<T>(p, load(p) + v);
  else
    store_some<T>(p, load_some(p, valid) + v, valid);
}

// Asks for a window ahead of its use; addresses past the end are harmless.
template <class T, int N, int Q, class S>
inline void fetch(const S* from, int64_t ld) {
  UNROLLED for (int j = 0; j < N; ++j)
    UNROLLED for (int q = 0; q < Q; ++q) __builtin_prefetch(from + j * ld + q * Simd<T>::lanes);
}

// Calls f.template operator()<N, Q>(first function, first output) over blocks of at most Most functions x one block.
// Fewer vectors for the last outputs, so that narrow layers do not pay for wide ones.
template <class T, int Q, int Most = 4, class F>
inline void over_functions(int n, F&& f, int64_t o) {
  int j = 0;
  for (; n - j >= Most; j += Most) f.template operator()<Most, Q>(j, o);
  if constexpr (Most > 3)
    if (n - j == 3) f.template operator()<3, Q>(j, o);
  if constexpr (Most > 2)
    if (n - j == 2) f.template operator()<2, Q>(j, o);
  if (n - j == 1) f.template operator()<1, Q>(j, o);
}

template <class T, class F>
inline void over_blocks(int n, int64_t outputs, F&& f) {
  constexpr int L = Simd<T>::lanes, Q = Simd<T>::block;
  int64_t o = 0;
  for (; o + (Q - 1) * L < outputs; o += Q * L) over_functions<T, Q>(n, f, o);
  const int64_t rest = outputs - o;
  if (rest > 2 * L) over_functions<T, Q < 3 ? 1 : 3>(n, f, o);  // blocks of two never get here
  else if (rest > L) over_functions<T, Q < 2 ? 1 : 2>(n, f, o);
  else if (rest > 0) over_functions<T, 1>(n, f, o);
}

// The same by two whole blocks at once where the window of so few functions leaves registers for them.
template <class T, class F>
inline void over_wide_blocks(int n, int64_t outputs, F&& f) {
  constexpr int Q = 2 * Simd<T>::block;
  int64_t o = 0;
  if (HOF_VECTOR_BYTES == 64 && n <= 3)
    for (; o + Q * Simd<T>::lanes <= outputs; o += Q * Simd<T>::lanes) {
      if (n == 3) f.template operator()<3, Q>(0, o);
      if (n == 2) f.template operator()<2, Q>(0, o);
      if (n == 1) f.template operator()<1, Q>(0, o);
    }
  over_blocks<T>(n, outputs - o, [&]<int N, int R>(int j, int64_t rest) { f.template operator()<N, R>(j, o + rest); });
}

inline int64_t padded(int64_t outputs, int lanes) { return (outputs + lanes - 1) / lanes * lanes; }

// ---- products: blocks of rows (or functions) x outputs in registers

// Numbers phi[k, row] as they lie: the rows of each k side by side, or those of each row.
template <class S>
struct Columns {
  const S* data;
  int64_t ld;
  Columns from(int64_t r) const { return {data + r, ld}; }
  S operator()(int64_t k, int64_t r) const { return data[k * ld + r]; }
};

template <int64_t Width, class S>
struct Rows {
  const S* data;
  Rows from(int64_t r) const { return {data + r * Width}; }
  S operator()(int64_t k, int64_t r) const { return data[r * Width + k]; }
};

// y[rows, block] += sum_k phi[k, rows] w[k, block]; Whole: all `width` outputs of the block exist. (A test in the
// inner loop would push the block out of its registers.)
template <class T, int R, int Q, bool Whole, class S, class Phi>
inline void multiply_inputs(const S* w, int64_t w_row, int64_t valid, const Phi phi, int depth, T* y, int64_t y_row) {
  constexpr int L = Simd<T>::lanes;
  Vector<T> a[R][Q];
  UNROLLED for (int r = 0; r < R; ++r)
    UNROLLED for (int q = 0; q < Q; ++q) a[r][q] = load(y + r * y_row + q * L);
  for (int k = 0; k < depth; ++k) {
    Vector<T> b[Q];
    UNROLLED for (int q = 0; q < Q; ++q)
      b[q] = Whole ? load_as<T>(w + k * w_row + q * L) : load_some_as<T>(w + k * w_row + q * L, valid - q * L);
    UNROLLED for (int r = 0; r < R; ++r)
      UNROLLED for (int q = 0; q < Q; ++q) a[r][q] += b[q] * phi(k, r);
  }
  UNROLLED for (int r = 0; r < R; ++r)
    UNROLLED for (int q = 0; q < Q; ++q) store(y + r * y_row + q * L, a[r][q]);
}

// v[functions, block] += sum over rows of phi[functions, row] g[row, block]; Whole: as above
template <class T, int R, int Q, bool Whole, class Phi>
inline void multiply_batch(const T* g, int64_t g_row, const Phi phi, int64_t rows, T* v, int64_t v_row, int64_t valid) {
  constexpr int L = Simd<T>::lanes;
  Vector<T> a[R][Q];
  clear<T>(a);
  for (int64_t r = 0; r < rows; ++r) {
    Vector<T> b[Q];
    UNROLLED for (int q = 0; q < Q; ++q) b[q] = load(g + r * g_row + q * L);
    UNROLLED for (int k = 0; k < R; ++k)
      UNROLLED for (int q = 0; q < Q; ++q) a[k][q] += b[q] * value_as<T>(phi(k, r));
  }
  UNROLLED for (int k = 0; k < R; ++k)
    UNROLLED for (int q = 0; q < Q; ++q) add_some<Whole>(v + k * v_row + q * L, a[k][q], valid - q * L);
}

// Calls f.template operator()<R, Q>(first) over `count` in blocks of Simd::rows, then one by one.
template <class T, int Q, class F>
inline void over_rows(int count, F&& f) {
  int r = 0;
  for (; r + Simd<T>::rows <= count; r += Simd<T>::rows) f.template operator()<Simd<T>::rows, Q>(r);
  for (; r < count; ++r) f.template operator()<1, Q>(r);
}

}  // namespace HOF_VARIANT
}  // namespace hof
