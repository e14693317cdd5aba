// r[e,b,i] = sum_o g f_oi(x): tiles of rows, and parts of the inputs where there are few rows.
#pragma once

#include "cut.h"

namespace hof {
namespace HOF_VARIANT {

// A product: t[k, row] = sum_o w[k, o] g[row, o] for all inputs of a tile; then r = sum_j phi t.

template <class T, class S>
inline Blocks<T> pack_columns(const S* from, int64_t ld, int rows, int64_t outputs, T* to) {
  constexpr int L = Simd<T>::lanes;
  Blocks<T> blocks{to, outputs};
  over_blocks<T>(1, rows, [&]<int, int Q>(int, int64_t first) {
    constexpr int64_t width = row_stride<T, Q>();
    T* block = blocks.at(first);
    const int64_t whole = first + width <= rows ? outputs / L * L : 0;
    for (int64_t o = 0; o < whole; o += L)
      for (int q = 0; q < Q; ++q) {
        Vector<T> v[L];
        for (int k = 0; k < L; ++k) v[k] = load_as<T>(from + (first + q * L + k) * ld + o);
        transpose<T>(v);
        for (int k = 0; k < L; ++k) store(block + (o + k) * width + q * L, v[k]);
      }
    for (int64_t o = whole; o < outputs; ++o)
      for (int64_t l = 0; l < width; ++l) block[o * width + l] = first + l < rows ? value_as<T>(from[(first + l) * ld + o]) : T(0);
  });
  return blocks;
}

// columns[slot * rows + row] of w [slot, function, outputs], some functions at the front left out; t has room for
// SLOTS * n vectors blocks.
template <class T, class S>
inline void multiply_outputs(const Problem<T>& p, const Tile<T>& tile, int skipped, int slots, const S* w,
                             const Blocks<T>& g, T* t, T* columns) {
  constexpr int L = Simd<T>::lanes;
  const int rows = tile.rows, n = tile.n - skipped;
  over_blocks<T>(1, rows, [&]<int, int Q>(int, int64_t first) {
    constexpr int64_t width = row_stride<T, Q>();
    std::fill_n(t, slots * n * width, T(0));
    over_rows<T, Q>(slots * n, [&]<int R, int>(int k) {
      multiply_batch<T, R, Q, true>(g.at(first), width, Columns<S>{w + k * p.outputs, p.outputs}, p.outputs, t + k * width,
                                    width, width);
    });
    for (int slot = 0; slot < slots; ++slot)
      for (int q = 0; q < Q; ++q) {
        Vector<T> sum{};
        const T* phi = tile.slot_phi(slot) + int64_t(skipped) * tile.capacity + first + q * L;
        for (int j = 0; j < n; ++j) sum += load(t + (slot * n + j) * width + q * L) * load(phi + int64_t(j) * tile.capacity);
        T numbers[L];
        store(numbers, sum);
        const int64_t at = first + q * L;
        for (int64_t l = 0; l < std::min<int64_t>(L, rows - at); ++l) columns[int64_t(slot) * rows + at + l] = numbers[l];
      }
  });
}

// What a tile needs besides: partial sums of its rows (of a product: t), and its results by columns.
template <class T>
struct OutputsRoom {
  Vector<T>* partial;
  T* columns;
  T* relieved;          // the coefficients that are left to a product

  void lay(const Problem<T>& p, int rows, Arena& arena) {
    constexpr int L = Simd<T>::lanes;
    partial = reinterpret_cast<Vector<T>*>(
        arena.take<T>(L * std::max<int64_t>(rows + L, SLOTS * p.basis.n * Simd<T>::block)));
    columns = arena.take<T>(int64_t(tile_inputs(p.basis)) * rows);
    relieved = arena.take<T>(p.basis.product() ? SLOTS * (p.basis.n - 1) * p.outputs : 0);
  }
};

// room.columns[slot * rows + row] of a tile that is evaluated and whose reliefs are found; g by columns for a product, else by rows.
template <class T, class S>
inline void outputs_of_tile(const Problem<T>& p, const Tile<T>& tile, const Blocks<T>& g, const S* coefficients, int slots,
                            const OutputsRoom<T>& room) {
  constexpr int L = Simd<T>::lanes;
  const int rows = tile.rows;
  if (p.basis.product()) {
    T* t = reinterpret_cast<T*>(room.partial);
    const Relief<T> of = tile.relief_of(0, 0);
    if (!of.skipped || p.basis.table_stride) return multiply_outputs<T>(p, tile, 0, slots, coefficients, g, t, room.columns);
    relieve(p, of, slots, coefficients, p.outputs, room.relieved);
    return multiply_outputs<T>(p, tile, 1, slots, room.relieved, g, t, room.columns);
  }
  for (int k = 0; k < slots; ++k) {
    const int32_t *begin = tile.slot_offset(k), *order = tile.slot_order(k);
    const S* w = coefficients + k * p.basis.size * p.outputs;
    for (int t = 0; t < tile.segments; ++t) {
      const int count = begin[t + 1] - begin[t];
      if (count == 0) continue;
      const Relief<T> of = tile.relief_of(k, t);
      over_wide_blocks<T>(tile.n - of.skipped, p.outputs, [&]<int N, int Q>(int j, int64_t o) {
        auto load = [from = w + p.basis.start[t] * p.outputs + o, ld = p.outputs, valid = p.outputs - o](auto& to, int f) INLINED {
          load_window<T>(to, from + f * ld, ld, valid);
        };
        auto read = [load, of, j](auto& window) INLINED { load_relieved<T>(window, of, j, load); };
        if (t + 1 < tile.segments) {
          const S* next = w + p.basis.start[t + 1] * p.outputs + o;
          fetch<T, N, Q, S>(next + (of.skipped + j) * p.outputs, p.outputs);
          if (of.taken) fetch<T, 1, Q, S>(next, p.outputs);
        }
        const T* phi = tile.slot_phi(k) + int64_t(of.skipped + j) * tile.capacity + begin[t];
        constexpr int64_t width = row_stride<T, std::min(Q, Simd<T>::block)>();
        const int64_t block = g.rows * width;
        const Run run{order + begin[t], count, far_apart(rows, Q * L * int64_t(sizeof(T)))};
        // not by a pointer to one of the two: the window would leave its registers
        if (j == 0 && o == 0)
          add_outputs<T, N, Q, true>(read, run, phi, tile.capacity, g.at(o), width, block, room.partial + begin[t]);
        else
          add_outputs<T, N, Q, false>(read, run, phi, tile.capacity, g.at(o), width, block, room.partial + begin[t]);
      });
    }
    T* to = room.columns + int64_t(k) * rows;
    for (int r = 0; r < rows; r += L) {
      T totals[L];
      store(totals, sums<T>(room.partial + r));
      for (int l = r; l < std::min(r + L, rows); ++l) to[order[l]] = totals[l - r];
    }
  }
}

// The columns of inputs [input, input + slots) become rows of the result, or are added to what a branch has given there.
template <class T>
inline void store_columns(const Problem<T>& p, int64_t e, int64_t row, int rows, int64_t input, int slots,
                          const T* columns) {
  constexpr int L = Simd<T>::lanes;
  with_storage<T>(p.result, p.result_storage, [&](auto* stored) {
    auto* result = stored + (e * p.batch + row) * p.inputs + input;
    int done = 0;
    for (; done + L <= rows; done += L)
      for (int k = 0; k < slots; k += L) {
        Vector<T> v[L];
        for (int l = 0; l < L; ++l) v[l] = load(columns + int64_t(k + l) * rows + done);
        transpose<T>(v);
        if (p.branch)
          for (int l = 0; l < L; ++l) v[l] += load_some_as<T>(result + (done + l) * p.inputs + k, slots - k);
        for (int l = 0; l < L; ++l) store_some_as<T>(result + (done + l) * p.inputs + k, v[l], slots - k);
      }
    for (int r = done; r < rows; ++r)
      for (int k = 0; k < slots; ++k) {
        auto& to = result[r * p.inputs + k];
        to = columns[int64_t(k) * rows + r] + (p.branch ? value_as<T>(to) : T(0));
      }
  });
}

template <class T>
struct OutputsScratch {
  Tile<T> tile;
  T* g;
  OutputsRoom<T> room;

  OutputsScratch(const Problem<T>& p, const Cut& cut, Arena& arena) {
    tile.lay(p.basis, cut.rows, arena);
    g = arena.take<T>(packed_outputs(p, cut.rows));
    room.lay(p, cut.rows, arena);
  }
};

template <class T>
Cut cut_outputs(const Problem<T>& p, int threads) {
  Cut cut = cut_rows(p, threads);
  cut_parts(p, cut, p.inputs, SLOTS, threads);
  cut.scratch = bytes_of<OutputsScratch<T>>(p, cut);
  return cut;
}

template <class T, class S>
void run_outputs(const Problem<T>& p, const S* coefficients, const Cut& cut, int64_t unit, char* scratch) {
  const int64_t e = unit / (cut.tiles * cut.parts), tile_number = unit / cut.parts % cut.tiles;
  const int64_t row = tile_number * cut.rows, first = unit % cut.parts * cut.part;
  const int rows = int(std::min<int64_t>(cut.rows, p.batch - row));
  const int64_t end = std::min(first + cut.part, p.inputs);
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  OutputsScratch<T> own(p, cut, arena);
  Tile<T>& tile = own.tile;
  const Blocks<T> g = with_storage<T>(p.g, p.g_storage, [&](auto* stored) {
    const auto* cotangent = stored + e * p.g_group + row * p.g_row;
    return p.basis.product() ? pack_columns<T>(cotangent, p.g_row, rows, p.outputs, own.g)
                             : pack_rows<T>(cotangent, p.g_row, rows, p.outputs, own.g);
  });
  for (int64_t i = first, some = tile_inputs(p.basis); i < end; i += some) {
    const int slots = int(std::min(some, end - i));
    tile.prepare(p, e, row, rows, i, slots);
    tile.find_reliefs(p.basis, i, slots, true);
    outputs_of_tile(p, tile, g, coefficients + (e * p.inputs + i) * p.basis.size * p.outputs, slots, own.room);
    store_columns(p, e, row, rows, i, slots, own.room.columns);
  }
}

}  // namespace HOF_VARIANT
}  // namespace hof
