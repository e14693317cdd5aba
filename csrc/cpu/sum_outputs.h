// r[e,b,i] = sum_o g f_oi(x): tiles of rows, and parts of the inputs where there are few rows.
#pragma once

#include "cut.h"

namespace hof {
namespace HOF_VARIANT {

// One segment: t[k, row] = sum_o w[k, o] g[row, o] is a matrix product for all inputs of a tile; then r = sum_j phi t.

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

// columns[slot * rows + row]; t has room for SLOTS * n vectors blocks.
template <class T, class S>
inline void multiply_outputs(const Problem<T>& p, const Tile<T>& tile, int slots, const S* w, const Blocks<T>& g, T* t,
                             T* columns) {
  constexpr int L = Simd<T>::lanes;
  const int rows = tile.rows, n = tile.n;
  over_blocks<T>(1, rows, [&]<int, int Q>(int, int64_t first) {
    constexpr int64_t width = row_stride<T, Q>();
    std::fill_n(t, slots * n * width, T(0));
    over_rows<T, Q>(slots * n, [&]<int R, int>(int k) {
      multiply_batch<T, R, Q, true>(g.at(first), width, w + k * p.outputs, p.outputs, p.outputs, t + k * width, width,
                                    width);
    });
    for (int slot = 0; slot < slots; ++slot)
      for (int q = 0; q < Q; ++q) {
        Vector<T> sum{};
        const T* phi = tile.slot_phi(slot) + first + q * L;
        for (int j = 0; j < n; ++j) sum += load(t + (slot * n + j) * width + q * L) * load(phi + int64_t(j) * tile.capacity);
        T numbers[L];
        store(numbers, sum);
        const int64_t at = first + q * L;
        for (int64_t l = 0; l < std::min<int64_t>(L, rows - at); ++l) columns[int64_t(slot) * rows + at + l] = numbers[l];
      }
  });
}

template <class T>
Cut cut_outputs(const Problem<T>& p, int threads) {
  Cut cut = cut_rows(p, threads);
  cut_parts(p, cut, p.inputs, SLOTS, threads);
  const int64_t g = padded(cut.rows, Simd<T>::lanes) * padded(p.outputs, Simd<T>::lanes);
  const int64_t room = std::max<int64_t>(cut.rows, SLOTS * p.basis.n * Simd<T>::block);  // partial sums, or t
  const int64_t numbers = g + room * Simd<T>::lanes + cut.rows * SLOTS;
  cut.scratch = Tile<T>::bytes(p.basis, cut.rows) + (numbers + Simd<T>::lanes * Simd<T>::lanes) * int64_t(sizeof(T)) + 256;
  return cut;
}

template <class T, class S>
void run_outputs(const Problem<T>& p, const S* coefficients, const Cut& cut, int64_t unit, char* scratch) {
  const int64_t e = unit / (cut.tiles * cut.parts), tile_number = unit / cut.parts % cut.tiles;
  const int64_t row = tile_number * cut.rows, first = unit % cut.parts * cut.part;
  const int rows = int(std::min<int64_t>(cut.rows, p.batch - row));
  const int64_t inputs = std::min(cut.part, p.inputs - first), K = p.basis.size;
  Arena arena{scratch};
  Tile<T> tile;
  tile.lay(p.basis, cut.rows, arena);
  const bool single = p.basis.single();
  T* packed = arena.take<T>(padded(rows, Simd<T>::lanes) * padded(p.outputs, Simd<T>::lanes));
  const Blocks<T> g = with_storage<T>(p.g, p.g_storage, [&](auto* stored) {
    const auto* cotangent = stored + e * p.g_group + row * p.g_row;
    return single ? pack_columns<T>(cotangent, p.g_row, rows, p.outputs, packed)
                  : pack_rows<T>(cotangent, p.g_row, rows, p.outputs, packed);
  });
  const int64_t room = std::max<int64_t>(rows + Simd<T>::lanes, SLOTS * p.basis.n * Simd<T>::block);
  Vector<T>* partial = reinterpret_cast<Vector<T>*>(arena.take<T>(room * Simd<T>::lanes));
  constexpr int L = Simd<T>::lanes;
  T* columns = arena.take<T>(int64_t(SLOTS) * rows);

  for (int64_t i = first; i < first + inputs; i += SLOTS) {
    const int slots = int(std::min<int64_t>(SLOTS, first + inputs - i));
    tile.prepare(p, e, row, rows, i, slots);
    if (single)
      multiply_outputs<T>(p, tile, slots, coefficients + (e * p.inputs + i) * K * p.outputs, g, reinterpret_cast<T*>(partial), columns);
    for (int k = 0; k < slots && !single; ++k) {
      const int32_t *begin = tile.slot_offset(k), *order = tile.slot_order(k);
      const S* w = coefficients + ((e * p.inputs + i + k) * K) * p.outputs;
      for (int t = 0; t < tile.segments; ++t) {
        const int count = begin[t + 1] - begin[t];
        if (count == 0) continue;
        over_blocks<T>(tile.n, p.outputs, [&]<int N, int Q>(int j, int64_t o) {
          Vector<T> window[N][Q];
          load_window<T, N, Q>(window, w + (p.basis.start[t] + j) * p.outputs + o, p.outputs, p.outputs - o);
          if (t + 1 < tile.segments) fetch<T, N, Q, S>(w + (p.basis.start[t + 1] + j) * p.outputs + o, p.outputs);
          const T* phi = tile.slot_phi(k) + int64_t(j) * tile.capacity + begin[t];
          if (j == 0 && o == 0)
            add_outputs<T, N, Q, true>(window, order + begin[t], phi, tile.capacity, count, g.at(o),
                                       row_stride<T, Q>(), partial + begin[t]);
          else
            add_outputs<T, N, Q, false>(window, order + begin[t], phi, tile.capacity, count, g.at(o),
                                        row_stride<T, Q>(), partial + begin[t]);
        });
      }
      T* to = columns + int64_t(k) * rows;
      for (int r = 0; r < rows; r += L) {
        T totals[L];
        store(totals, sums<T>(partial + r));
        for (int l = r; l < std::min(r + L, rows); ++l) to[order[l]] = totals[l - r];
      }
    }
    with_storage<T>(p.result, p.result_storage, [&](auto* stored) {
      auto* result = stored + (e * p.batch + row) * p.inputs + i;
      int done = 0;
      if (slots == SLOTS) {
        for (; done + L <= rows; done += L)
          for (int k = 0; k < SLOTS; k += L) {
            Vector<T> v[L];
            for (int l = 0; l < L; ++l) v[l] = load(columns + int64_t(k + l) * rows + done);
            transpose<T>(v);
            for (int l = 0; l < L; ++l) store_as<T>(result + (done + l) * p.inputs + k, v[l]);
          }
      }
      for (int r = done; r < rows; ++r)
        for (int k = 0; k < slots; ++k) result[r * p.inputs + k] = columns[int64_t(k) * rows + r];
    });
  }
}

}  // namespace HOF_VARIANT
}  // namespace hof
