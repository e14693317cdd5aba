// Products over inputs, P[e,b,o] = prod_i (1 + f_oi(x)), and their gradients: a row at a time, the product of a block
// of outputs in registers. What a row meets of an input is evaluated before, for some rows together.
#pragma once

#include "cut.h"

namespace hof {
namespace HOF_VARIANT {

// Writes, for each row and input, the first coefficient of its window and the n values there; with slopes, also those.
template <class T>
inline void meet(const Problem<T>& p, const Problem<T>* slopes, Tile<T>& tile, int64_t e, int64_t row, int rows,
                 int64_t input, int slots, const Met<T>& met) {
  auto spread = [&](int64_t offset) {
    for (int k = 0; k < slots; ++k) {
      const int32_t *begin = tile.slot_offset(k), *order = tile.slot_order(k);
      const T* phi = tile.slot_phi(k);
      for (int t = 0; t < tile.segments; ++t)
        for (int at = begin[t]; at < begin[t + 1]; ++at) {
          const int64_t r = p.basis.product() ? at : order[at], edge = r * p.inputs + input + k;
          met.first[edge] = int32_t(p.basis.start[t]);
          for (int j = 0; j < tile.n; ++j) met.values[edge * met.width + offset + j] = phi[int64_t(j) * tile.capacity + at];
        }
    }
  };
  tile.prepare(p, e, row, rows, input, slots);
  spread(0);
  if (!slopes) return;
  tile.evaluate(*slopes, input, slots);
  spread(tile.n);
}

// f[block] of an edge: sum_j phi[j] w[j, block], of N functions, or of n where N is 0; Whole: all outputs of the block
// exist.
template <class T, int N, int Q, bool Whole, class S>
inline void edge(const S* w, int64_t ld, int64_t valid, const T* phi, int n, Vector<T> (&f)[Q]) {
  constexpr int L = Simd<T>::lanes;
  for (int q = 0; q < Q; ++q) f[q] = Vector<T>{};
  for (int j = 0; j < (N ? N : n); ++j)
    for (int q = 0; q < Q; ++q) {
      const S* from = w + j * ld + q * L;
      f[q] += (Whole ? load_as<T>(from) : load_some_as<T>(from, valid - q * L)) * phi[j];
    }
}

template <class T, int N, class F>
inline void over_outputs_of(int64_t o, int64_t end, F&& f) {
  constexpr int L = Simd<T>::lanes, Q = Simd<T>::block;
  for (; o + Q * L <= end; o += Q * L) f.template operator()<N, Q, true>(o);
  for (; o + L <= end; o += L) f.template operator()<N, 1, true>(o);
  if (o < end) f.template operator()<0, 1, false>(o);
}

// Calls f.template operator()<N, Q, Whole>(first output) over blocks of the outputs [o, end); N: 0, or n.
template <class T, class F>
inline void over_outputs(int n, int64_t o, int64_t end, F&& f) {
  switch (n) {
    case 2: return over_outputs_of<T, 2>(o, end, f);
    case 3: return over_outputs_of<T, 3>(o, end, f);
    case 4: return over_outputs_of<T, 4>(o, end, f);
    default: return over_outputs_of<T, 0>(o, end, f);
  }
}

template <class T>
struct ProductScratch {
  Tile<T> tile;
  Met<T> met;

  ProductScratch(const Problem<T>& p, int rows, Arena& arena) {
    tile.lay(p.basis, rows, arena);
    met.width = p.basis.n;
    met.values = arena.take<T>(rows * p.inputs * met.width);
    met.first = arena.take<int32_t>(rows * p.inputs);
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
  const int64_t e = unit / cut.tiles, row = unit % cut.tiles * cut.rows, n = p.basis.n;
  const int rows = int(std::min<int64_t>(cut.rows, p.batch - row));
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  ProductScratch<T> own(p, cut.rows, arena);
  for (int64_t i = 0; i < p.inputs; i += SLOTS)
    meet<T>(p, nullptr, own.tile, e, row, rows, i, int(std::min<int64_t>(SLOTS, p.inputs - i)), own.met);
  with_storage<T>(p.w, p.w_storage, [&](auto* stored) {
    const auto* w = stored + e * p.inputs * p.basis.size * p.outputs;
    over_outputs<T>(int(n), 0, p.outputs, [&]<int N, int Q, bool Whole>(int64_t o) {
      constexpr int L = Simd<T>::lanes;
      for (int r = 0; r < rows; ++r) {
        Vector<T> product[Q], f[Q];
        for (int q = 0; q < Q; ++q) product[q] = Vector<T>{} + T(1);
        for (int64_t i = 0; i < p.inputs; ++i) {
          const int64_t at = r * p.inputs + i;
          const auto* window = w + (i * p.basis.size + own.met.first[at]) * p.outputs + o;
          edge<T, N, Q, Whole>(window, p.outputs, p.outputs - o, own.met.values + at * n, int(n), f);
          for (int q = 0; q < Q; ++q) product[q] *= 1 + f[q];
        }
        with_storage<T>(p.result, p.result_storage, [&](auto* result) {
          auto* to = result + (e * p.batch + row + r) * p.outputs + o;
          for (int q = 0; q < Q; ++q) store_some_as<T>(to + q * L, product[q], p.outputs - o - q * L);
        });
      }
    });
  });
}

// ---- gradients, in three passes over a tile of rows: what the rows meet; blocks of outputs, whose gradient of w is
// theirs alone; the sums of the blocks' shares of the gradient of x

template <class T>
struct MeetScratch {
  Tile<T> tile;
  MeetScratch(const Problem<T>& p, int rows, Arena& arena) { tile.lay(p.basis, rows, arena); }
};

template <class T>
struct PullScratch {
  Vector<T> *before, *factor;  // [input][vectors of a block]: the products of the inputs before, and 1 + f
  Vector<T>* share;            // [input]: of the gradient of x

  PullScratch(const Problem<T>& p, const Cut&, Arena& arena) {
    constexpr int L = Simd<T>::lanes;
    before = reinterpret_cast<Vector<T>*>(arena.take<T>(p.inputs * Simd<T>::width));
    factor = reinterpret_cast<Vector<T>*>(arena.take<T>(p.inputs * Simd<T>::width));
    share = reinterpret_cast<Vector<T>*>(arena.take<T>((p.inputs + L) * L));
  }
};

template <class T>
Cut cut_product_gradients(const Problem<T>& p, int pass) {
  constexpr int L = Simd<T>::lanes;
  Cut cut{};
  cut.rows = int(std::clamp<int64_t>(8 * PRODUCT_NUMBERS / std::max<int64_t>(p.inputs * 2 * p.basis.n, 1), 1, 256));
  cut.rows = int(std::min<int64_t>(cut.rows, std::max<int64_t>(p.batch, 1)));
  cut.tiles = divided(p.batch, cut.rows);
  // about eight blocks of whole cache lines: more cost shares of the gradient of x, fewer leave threads without work
  constexpr int line = 64 / int(sizeof(T));
  cut.part = std::clamp<int64_t>(padded(divided(p.outputs, 8), line), line, std::max(line, L * Simd<T>::block));
  cut.parts = divided(p.outputs, cut.part);
  if (pass == 0) {
    cut.units = divided(p.inputs, SLOTS);
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
  const int64_t i = unit * SLOTS;
  meet<T>(p, &slopes, own.tile, of.e, of.row, of.rows, i, int(std::min<int64_t>(SLOTS, p.inputs - i)), of.met);
}

template <class T, class S>
void pull_block(const Problem<T>& p, const S* w, const Cut& cut, const ProductTile<T>& of, int64_t unit, char* scratch) {
  constexpr int L = Simd<T>::lanes;
  const int64_t I = p.inputs, n = p.basis.n, first_output = unit * cut.part;
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  const PullScratch<T> own(p, cut, arena);
  Vector<T>*const before = own.before, *const factor = own.factor, *const share = own.share;
  for (int r = 0; r < of.rows; ++r) {
    for (int64_t i = 0; i < I + L; ++i) share[i] = Vector<T>{};
    const T* g = static_cast<const T*>(p.g) + of.e * p.g_group + (of.row + r) * p.g_row;
    over_outputs<T>(int(n), first_output, std::min(first_output + cut.part, p.outputs), [&]<int N, int Q, bool Whole>(int64_t o) {
      const int64_t valid = p.outputs - o;
      Vector<T> run[Q], f[Q];
      for (int q = 0; q < Q; ++q) run[q] = Vector<T>{} + T(1);
      for (int64_t i = 0; i < I; ++i) {
        const int64_t at = r * I + i;
        edge<T, N, Q, Whole>(w + (i * p.basis.size + of.met.first[at]) * p.outputs + o, p.outputs, valid,
                             of.met.values + at * 2 * n, int(n), f);
        for (int q = 0; q < Q; ++q) before[i * Q + q] = run[q], factor[i * Q + q] = 1 + f[q], run[q] *= 1 + f[q];
      }
      for (int q = 0; q < Q; ++q) run[q] = Whole ? load(g + o + q * L) : load_some(g + o + q * L, valid - q * L);
      for (int64_t i = I - 1; i >= 0; --i) {  // run: g times the products of the inputs behind
        const int64_t at = r * I + i, window = (i * p.basis.size + of.met.first[at]) * p.outputs + o;
        const T* phi = of.met.values + at * 2 * n;
        T* to = of.of_w + window;
        edge<T, N, Q, Whole>(w + window, p.outputs, valid, phi + n, int(n), f);  // the slopes
        Vector<T> pulled[Q];
        for (int q = 0; q < Q; ++q) {
          pulled[q] = run[q] * before[i * Q + q];
          share[i] += pulled[q] * f[q];
          run[q] *= factor[i * Q + q];
        }
        for (int j = 0; j < (N ? N : n); ++j)
          for (int q = 0; q < Q; ++q) add_some<Whole>(to + j * p.outputs + q * L, pulled[q] * phi[j], valid - q * L);
      }
    });
    T* to = of.shares + (unit * cut.rows + r) * I;
    for (int64_t i = 0; i < I; i += L) {
      const Vector<T> totals = sums<T>(share + i);
      if (i + L <= I) {
        store(to + i, totals);
      } else {
        T numbers[L];
        store(numbers, totals);
        for (int64_t l = i; l < I; ++l) to[l] = numbers[l - i];
      }
    }
  }
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
  T* to = of.of_x + (of.e * p.batch + of.row) * p.inputs;
  for (int64_t at = begin; at < end; ++at) {
    T total = 0;
    for (int64_t part = 0; part < cut.parts; ++part) total += of.shares[part * cut.rows * p.inputs + at];
    to[at] = total;
  }
}

}  // namespace HOF_VARIANT
}  // namespace hof
