// The three contractions over a sorted tile. A block of outputs of one window stays in registers while the rows of
// its segment go by; where every window is all coefficients it is a blocked matrix product whose left factor is made
// on the fly.
#pragma once

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

// y[row, block] += sum_j phi[j, row] w[j, block], over the rows of one segment; read(w) loads the window. Constant: 1 in
// place of the first phi. (Additions have units of their own, besides those that multiply and add.)
template <class T, int N, int Q, bool Constant = false, class Read>
ROW_LOOP void add_inputs(const Read& read, const Run run, const T* phi, int64_t ld, T* y, int64_t y_row) {
  constexpr int L = Simd<T>::lanes;
  Vector<T> w[N][Q];
  read(w);
  for (int r = 0; r < run.count; ++r) {
    T* to = y + run.row[r] * y_row;
    Vector<T> a[Q];
    UNROLLED for (int q = 0; q < Q; ++q) a[q] = load(to + q * L);
    UNROLLED for (int j = 0; j < N; ++j)
      UNROLLED for (int q = 0; q < Q; ++q) a[q] += Constant && j == 0 ? w[j][q] : w[j][q] * phi[j * ld + r];
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

// give(v) for v[j, block] = sum over rows of phi[j, row] g[row, block]. Constant: as above.
template <class T, int N, int Q, bool Constant = false, class Give>
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
      UNROLLED for (int q = 0; q < Q; ++q) sums[j][q] += Constant && j == 0 ? b[q] : b[q] * phi[j * ld + r];
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
  if (valid >= Q * L) {
    UNROLLED for (int j = 0; j < N; ++j)
      UNROLLED for (int q = 0; q < Q; ++q) w[j][q] = load_as<T>(from + j * ld + q * L);
  } else {
    UNROLLED for (int j = 0; j < N; ++j)
      UNROLLED for (int q = 0; q < Q; ++q) w[j][q] = load_some_as<T>(from + j * ld + q * L, valid - q * L);
  }
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

// The same of functions from the first on, with what the window gives everywhere in its place.
template <class T, int N, int Q, class Read>
INLINED inline void load_constant(Vector<T> (&w)[N][Q], const Relief<T>& relief, Read&& read) {
  read(w, 0);
  if (relief.taken)
    UNROLLED for (int f = 1; f < N; ++f)
      UNROLLED for (int q = 0; q < Q; ++q) w[f][q] -= w[0][q];
  UNROLLED for (int q = 0; q < Q; ++q) w[0][q] *= relief.number;
}

// first -= the sums of the functions from f on, of those whose sum is a number; of others NaN alone is the first's, too.
template <class T, int N, int Q>
INLINED inline void take_sums(const Vector<T> (&sums)[N][Q], int f, const Relief<T>& relief, Vector<T> (&first)[Q]) {
  UNROLLED for (; f < N; ++f)
    UNROLLED for (int q = 0; q < Q; ++q) first[q] -= relief.taken ? sums[f][q] : only_nan<T>(sums[f][q]);
}

// p[...] += v, all of it if Whole, otherwise the first `valid` numbers.
template <bool Whole, class T, class V>
inline void add_some(T* p, V v, int64_t valid) {
  if (Whole)
    store<T>(p, load(p) + v);
  else
    store_some<T>(p, load_some(p, valid) + v, valid);
}

template <class T, int N, int Q>
INLINED inline void add_window(const Vector<T> (&sums)[N][Q], T* to, int64_t ld, int64_t valid) {
  constexpr int L = Simd<T>::lanes;
  if (valid >= Q * L) {
    UNROLLED for (int j = 0; j < N; ++j)
      UNROLLED for (int q = 0; q < Q; ++q) add_some<true>(to + j * ld + q * L, sums[j][q], L);
  } else {
    UNROLLED for (int j = 0; j < N; ++j)
      UNROLLED for (int q = 0; q < Q; ++q) add_some<false>(to + j * ld + q * L, sums[j][q], valid - q * L);
  }
}

// What a window's functions from j on add to y; load(w, f) loads the coefficients of those from f on.
template <class T, int N, int Q, class Load>
INLINED inline void add_window_inputs(const Load& load, const Relief<T>& relief, int j, const Run run, const T* phi, int64_t ld,
                                      T* y, int64_t y_row) {
  if (relief.skipped && j == 0) {
    auto read = [load, relief](auto& window) INLINED { load_constant<T>(window, relief, load); };
    add_inputs<T, N, Q, true>(read, run, phi, ld, y, y_row);
  } else {
    auto read = [load, relief, j](auto& window) INLINED { load_relieved<T>(window, relief, j - relief.skipped, load); };
    add_inputs<T, N, Q>(read, run, phi, ld, y, y_row);
  }
}

// The sums of a window's functions from j on, whose phi this is; add(sums, f) adds to those from f on.
template <class T, int N, int Q, class Add>
INLINED inline void add_window_batch(const Add& add, Relief<T> relief, int j, const Run run, const T* phi, int64_t ld,
                                     const T* g, int64_t g_row) {
  if (relief.taken && !weighs(phi - j * ld, run.count)) relief = {};
  if (relief.skipped && j == 0) {
    auto give = [add, relief](auto& sums) INLINED {
      UNROLLED for (int q = 0; q < Q; ++q) sums[0][q] *= relief.number;
      take_sums<T>(sums, 1, relief, sums[0]);
      add(sums, 0);
    };
    add_batch<T, N, Q, true>(run, phi, ld, g, g_row, give);
  } else {
    auto give = [add, relief, j](auto& sums) INLINED {
      add(sums, j);
      if (!relief.skipped) return;
      Vector<T> first[1][Q] = {};
      take_sums<T>(sums, 0, relief, first[0]);
      add(first, 0);
    };
    add_batch<T, N, Q>(run, phi, ld, g, g_row, give);
  }
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
