// Products over inputs, P[e,b,o] = prod_i (1 + f_oi(x)), and their gradients: some inputs of a row at a time, the
// product of a block of outputs in registers. What a row meets of an input is evaluated before, for some rows together.
#pragma once

#include "cut.h"
#include "met.h"

namespace hof {
namespace HOF_VARIANT {

// The edges of some rows to a block of outputs.
template <class T, class S>
struct Edges {
  const S* w;  // of the first output of the block
  int64_t size, outputs, valid;
  Met<T> met;
  int n;

  Edges(const Problem<T>& p, const S* w, const Met<T>& met, int64_t o)
      : w(w + o), size(p.basis.size), outputs(p.outputs), valid(p.outputs - o), met(met), n(p.basis.n) {}

  const T* values(int64_t row, int64_t input) const { return met.values + (input * met.rows + row) * met.width; }
  int64_t window(int64_t row, int64_t input) const { return (input * size + met.first[input * met.rows + row]) * outputs; }
};

// f[block] of an edge: sum_j phi[j] w[j, block], of N functions, or of n where N is 0; Whole: all outputs of the block
// exist.
template <class T, int N, int Q, bool Whole, class S>
inline void function(const Edges<T, S>& edges, int64_t window, const T* phi, Vector<T> (&f)[Q]) {
  constexpr int L = Simd<T>::lanes;
  const S* w = edges.w + window;
  for (int q = 0; q < Q; ++q) f[q] = Vector<T>{};
  for (int j = 0; j < (N ? N : edges.n); ++j, w += edges.outputs)
    for (int q = 0; q < Q; ++q)
      f[q] += (Whole ? load_as<T>(w + q * L) : load_some_as<T>(w + q * L, edges.valid - q * L)) * phi[j];
}

// Inputs are taken some at a time, for all rows of a tile: their coefficients stay in the first-level cache.
template <class T>
constexpr int TOGETHER = Simd<T>::lanes;

// run *= 1 + f, of the inputs [i, end) of a row; each(k, run, 1 + f) before the k-th.
template <class T, int N, int Q, bool Whole, class S, class Each>
inline void multiply(const Edges<T, S>& edges, int64_t row, int64_t i, int64_t end, Vector<T> (&run)[Q], Each&& each) {
  for (int64_t k = i; k < end; ++k) {
    Vector<T> f[Q];
    function<T, N, Q, Whole>(edges, edges.window(row, k), edges.values(row, k), f);
    for (int q = 0; q < Q; ++q) f[q] = 1 + f[q];
    each(k - i, run, f);
    for (int q = 0; q < Q; ++q) run[q] *= f[q];
  }
}

// to = from times 1 + f, of the inputs [i, end) of a row; the two may be one.
template <class T, int N, int Q, bool Whole, class S>
inline void carry(const Edges<T, S>& edges, int64_t row, int64_t i, int64_t end, const Vector<T>* from, Vector<T>* to) {
  Vector<T> run[Q];
  for (int q = 0; q < Q; ++q) run[q] = from[q];
  multiply<T, N, Q, Whole>(edges, row, i, end, run, [](auto&&...) {});
  for (int q = 0; q < Q; ++q) to[q] = run[q];
}

// Most outputs of a block.
template <class T>
constexpr int BLOCK = 4 * Simd<T>::lanes;

// Calls f.template operator()<N, Q, Whole>(first output) over blocks of the outputs [o, end); N: 0, or n.
template <class T, class F>
inline void over_outputs(int n, int64_t o, int64_t end, F&& f) {
  constexpr int L = Simd<T>::lanes;
  with_functions(n, [&]<int N>() {
    for (; o + 4 * L <= end; o += 4 * L) f.template operator()<N, 4, true>(o);
    for (; o + 2 * L <= end; o += 2 * L) f.template operator()<N, 2, true>(o);
    for (; o + L <= end; o += L) f.template operator()<N, 1, true>(o);
  });
  if (o < end) f.template operator()<0, 1, false>(o);
}

template <class T>
struct ProductScratch {
  Tile<T> tile;
  Met<T> met;
  Vector<T>* run;  // [row][vectors of a block]

  ProductScratch(const Problem<T>& p, int rows, Arena& arena) {
    tile.lay(p.basis, rows, arena);
    met.rows = rows, met.width = p.basis.n;
    met.values = arena.take<T>(rows * p.inputs * met.width);
    met.first = arena.take<int32_t>(rows * p.inputs);
    run = reinterpret_cast<Vector<T>*>(arena.take<T>(rows * BLOCK<T>));
  }
};

template <class T>
Cut cut_product(const Problem<T>& p, int threads) {
  Cut cut{};
  cut.rows = int(std::clamp<int64_t>(PRODUCT_NUMBERS / std::max<int64_t>(p.inputs * p.basis.n, 1), 1, 64));
  cut.rows = int(std::min<int64_t>(cut.rows, divided(std::max<int64_t>(p.batch, 1), threads)));
  cut.tiles = divided(p.batch, cut.rows);
  cut.units = p.groups * cut.tiles;
  cut.scratch = bytes_of<ProductScratch<T>>(p, cut.rows);
  return cut;
}

template <class T>
void run_product(const Problem<T>& p, const Cut& cut, int64_t unit, char* scratch) {
  const int64_t e = unit / cut.tiles, row = unit % cut.tiles * cut.rows;
  const int rows = int(std::min<int64_t>(cut.rows, p.batch - row));
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  ProductScratch<T> own(p, cut.rows, arena);
  for (int64_t i = 0, some = tile_inputs(p.basis); i < p.inputs; i += some)
    meet<T>(p, nullptr, own.tile, e, row, rows, i, int(std::min(some, p.inputs - i)), own.met);
  with_storage<T>(p.w, p.w_storage, [&](auto* stored) {
    const auto* w = stored + e * p.inputs * p.basis.size * p.outputs;
    over_outputs<T>(p.basis.n, 0, p.outputs, [&]<int N, int Q, bool Whole>(int64_t o) {
      constexpr int L = Simd<T>::lanes;
      const Edges edges(p, w, own.met, o);
      std::fill_n(own.run, rows * Q, Vector<T>{} + T(1));
      for (int64_t i = 0; i < p.inputs; i += TOGETHER<T>)
        for (int r = 0; r < rows; ++r)
          carry<T, N, Q, Whole>(edges, r, i, std::min<int64_t>(i + TOGETHER<T>, p.inputs), own.run + r * Q, own.run + r * Q);
      with_storage<T>(p.result, p.result_storage, [&](auto* result) {
        for (int r = 0; r < rows; ++r) {
          auto* to = result + (e * p.batch + row + r) * p.outputs + o;
          for (int q = 0; q < Q; ++q) store_some_as<T>(to + q * L, own.run[r * Q + q], edges.valid - q * L);
        }
      });
    });
  });
}

// ---- gradients, in three passes over a tile of rows: what the rows meet; blocks of outputs, whose gradient of w is
// theirs alone; the sums of the shares of the gradient of x, one for each cache line of outputs, however they are cut

constexpr int64_t SHARES = 1 << 20;  // numbers

template <class T>
struct MeetScratch {
  Tile<T> tile;
  MeetScratch(const Problem<T>& p, int rows, Arena& arena) { tile.lay(p.basis, rows, arena); }
};

// Rows that a block of outputs takes together: what they keep between the inputs is in the second-level cache.
template <class T>
int pulled_rows(const Problem<T>& p, int rows) {
  const int64_t of_row = (divided(p.inputs, TOGETHER<T>) + 1) * BLOCK<T>;
  return int(std::clamp<int64_t>(PRODUCT_NUMBERS / 4 / of_row, 4, std::max(rows, 4)));
}

template <class T>
struct PullScratch {
  Vector<T>* before;  // [inputs together][row][vectors of a block]: the products of the inputs before
  Vector<T>* behind;  // [row][vectors]: g times the products of the inputs behind

  PullScratch(const Problem<T>& p, const Cut& cut, Arena& arena) {
    const int64_t numbers = pulled_rows(p, cut.rows) * BLOCK<T>;
    before = reinterpret_cast<Vector<T>*>(arena.take<T>(divided(p.inputs, TOGETHER<T>) * numbers));
    behind = reinterpret_cast<Vector<T>*>(arena.take<T>(numbers));
  }
};

template <class T>
Cut cut_product_gradients(const Problem<T>& p, int pass, int threads) {
  Cut cut{};
  cut.rows = int(std::clamp<int64_t>(8 * PRODUCT_NUMBERS / std::max<int64_t>(p.inputs * 2 * p.basis.n, 1), 1, 256));
  cut.rows = int(std::min<int64_t>(cut.rows, std::max<int64_t>(p.batch, 1)));
  const int64_t lines = std::max<int64_t>(divided(p.outputs, LINE<T>), 1);
  cut.rows = int(std::min<int64_t>(cut.rows, std::max<int64_t>(SHARES / std::max<int64_t>(p.inputs * lines, 1), 16)));
  cut.tiles = divided(p.batch, cut.rows);
  cut.part = std::clamp<int64_t>(padded(divided(p.outputs, threads), LINE<T>), LINE<T>, std::max(LINE<T>, BLOCK<T>));
  cut.parts = divided(p.outputs, cut.part);
  if (pass == 0) {
    cut.units = divided(p.inputs, tile_inputs(p.basis));
    cut.scratch = bytes_of<MeetScratch<T>>(p, cut.rows);
  } else if (pass == 1) {
    cut.units = cut.parts;
    cut.scratch = bytes_of<PullScratch<T>>(p, cut);
  } else {
    cut.units = divided(cut.rows, 16);
  }
  return cut;
}

template <class T>
void meet_rows(const Problem<T>& p, const Problem<T>& slopes, const Cut& cut, const ProductTile<T>& of, int64_t unit,
               char* scratch) {
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  MeetScratch<T> own(p, cut.rows, arena);
  const int64_t some = tile_inputs(p.basis), i = unit * some;
  meet<T>(p, &slopes, own.tile, of.e, of.row, of.rows, i, int(std::min(some, p.inputs - i)), of.met);
}

// Cache lines of a block of outputs.
template <class T, int Q>
constexpr int LINES = std::max(1, Q * Simd<T>::lanes / LINE<T>);

// The inputs [i, end) of a row, back: adds to the gradient of w, and gives the shares of the gradient of x by lanes.
template <class T, int N, int Q, bool Whole, class S>
inline void pull(const Edges<T, S>& edges, int64_t row, int64_t i, int64_t end, Vector<T>* before, Vector<T>* behind,
                 T* of_w, Vector<T> (&shares)[LINES<T, Q>][TOGETHER<T>]) {
  constexpr int L = Simd<T>::lanes;
  Vector<T> befores[TOGETHER<T>][Q], factors[TOGETHER<T>][Q], run[Q];
  for (int q = 0; q < Q; ++q) run[q] = before[q];
  multiply<T, N, Q, Whole>(edges, row, i, end, run, [&](int64_t k, auto& so_far, auto& factor) {
    for (int q = 0; q < Q; ++q) befores[k][q] = so_far[q], factors[k][q] = factor[q];
  });
  for (int q = 0; q < Q; ++q) run[q] = behind[q];
  for (int64_t k = end - 1; k >= i; --k) {
    const int64_t window = edges.window(row, k);
    const T* phi = edges.values(row, k);
    T* to = of_w + window;
    Vector<T> slope[Q], pulled[Q], share[LINES<T, Q>] = {};
    function<T, N, Q, Whole>(edges, window, phi + edges.n, slope);
    for (int q = 0; q < Q; ++q) {
      pulled[q] = run[q] * befores[k - i][q];
      share[q * LINES<T, Q> / Q] += pulled[q] * slope[q];
      run[q] *= factors[k - i][q];
    }
    for (int line = 0; line < LINES<T, Q>; ++line) shares[line][k - i] = share[line];
    for (int j = 0; j < (N ? N : edges.n); ++j, to += edges.outputs) {
      const Vector<T> value = phi[j] - Vector<T>{};  // read once: for all the compiler knows `to` may be of phi
      for (int q = 0; q < Q; ++q) add_some<Whole>(to + q * L, pulled[q] * value, edges.valid - q * L);
    }
  }
  for (int q = 0; q < Q; ++q) behind[q] = run[q];
}

template <class T, class S>
void pull_block(const Problem<T>& p, const S* w, const Cut& cut, const ProductTile<T>& of, int64_t unit, char* scratch) {
  constexpr int L = Simd<T>::lanes;
  const int64_t I = p.inputs, first_output = unit * cut.part, end_output = std::min(first_output + cut.part, p.outputs);
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  const PullScratch<T> own(p, cut, arena);
  const int step = pulled_rows(p, cut.rows);
  over_outputs<T>(p.basis.n, first_output, end_output, [&]<int N, int Q, bool Whole>(int64_t o) {
    const Edges edges(p, w, of.met, o);
    for (int row = 0; row < of.rows; row += step) {
      const int rows = std::min(step, of.rows - row);
      auto before = [&](int64_t i, int r) { return own.before + (i / TOGETHER<T> * step + r) * Q; };
      std::fill_n(before(0, 0), rows * Q, Vector<T>{} + T(1));
      for (int64_t i = 0; i + TOGETHER<T> < I; i += TOGETHER<T>)
        for (int r = 0; r < rows; ++r)
          carry<T, N, Q, Whole>(edges, row + r, i, i + TOGETHER<T>, before(i, r), before(i + TOGETHER<T>, r));
      for (int r = 0; r < rows; ++r) {
        const T* g = static_cast<const T*>(p.g) + of.e * p.g_group + (of.row + row + r) * p.g_row + o;
        for (int q = 0; q < Q; ++q) own.behind[r * Q + q] = Whole ? load(g + q * L) : load_some(g + q * L, edges.valid - q * L);
      }
      for (int64_t i = (I - 1) / TOGETHER<T> * TOGETHER<T>; i >= 0; i -= TOGETHER<T>) {
        const int64_t end = std::min<int64_t>(i + TOGETHER<T>, I);
        for (int r = 0; r < rows; ++r) {
          Vector<T> shares[LINES<T, Q>][TOGETHER<T>];
          pull<T, N, Q, Whole>(edges, row + r, i, end, before(i, r), own.behind + r * Q, of.of_w + o, shares);
          for (int line = 0; line < LINES<T, Q>; ++line) {
            for (int64_t k = end - i; k < TOGETHER<T>; ++k) shares[line][k] = Vector<T>{};
            const Vector<T> totals = sums<T>(shares[line]);
            T* to = of.shares + ((o / LINE<T> + line) * cut.rows + row + r) * I + i;
            if (o % LINE<T> == 0) {
              store_some_as<T>(to, totals, end - i);
            } else {
              add_some<false>(to, totals, end - i);
            }
          }
        }
      }
    }
  });
}

template <class T>
void pull_rows(const Problem<T>& p, const Cut& cut, const ProductTile<T>& of, int64_t unit, char* scratch) {
  with_storage<T>(p.w, p.w_storage, [&](auto* stored) {
    pull_block(p, stored + of.e * p.inputs * p.basis.size * p.outputs, cut, of, unit, scratch);
  });
}

template <class T>
void add_shares(const Problem<T>& p, const Cut& cut, const ProductTile<T>& of, int64_t unit) {
  const int64_t begin = unit * 16 * p.inputs, end = std::min<int64_t>((unit + 1) * 16, of.rows) * p.inputs;
  const int64_t lines = divided(p.outputs, LINE<T>);
  T* to = of.of_x + (of.e * p.batch + of.row) * p.inputs;
  for (int64_t at = begin; at < end; ++at) {
    T total = 0;
    for (int64_t line = 0; line < lines; ++line) total += of.shares[line * cut.rows * p.inputs + at];
    to[at] = total;
  }
}

}  // namespace HOF_VARIANT
}  // namespace hof
