// v[e,i,k,o] = sum_b g s phi_k(x): parts of the inputs; tiles one after the other, so that no sum depends on threads.
#pragma once

#include "cut.h"

namespace hof {
namespace HOF_VARIANT {

// Inputs whose sums are kept at once where the result cannot hold them: about 4 MiB, at most a tile's.
template <class T>
inline int64_t few_inputs(const Problem<T>& p) {
  return std::clamp<int64_t>(1048576 / std::max<int64_t>(p.basis.size * p.outputs, 1), 1, SLOTS);
}

template <class T>
Cut cut_batch(const Problem<T>& p, int threads) {
  Cut cut{};
  cut.rows = tile_rows(p);
  cut.tiles = divided(p.batch, cut.rows);
  const int64_t blocks = divided(p.inputs, SLOTS);
  cut.parts = std::clamp<int64_t>(divided(threads, std::max<int64_t>(p.groups, 1)), 1, std::max<int64_t>(blocks, 1));
  cut.part = std::max<int64_t>(divided(blocks, cut.parts), 1) * SLOTS;
  if (blocks < threads) cut.part = std::max<int64_t>(divided(p.inputs, threads), 1);
  cut.parts = divided(p.inputs, cut.part);
  cut.units = p.groups * cut.parts;
  const int64_t sums = p.result_storage == Storage::SAME ? 0 : few_inputs(p) * p.basis.size * p.outputs;
  cut.scratch = Tile<T>::bytes(p.basis, cut.rows) +
                (cut.rows * padded(p.outputs, Simd<T>::lanes) + sums) * int64_t(sizeof(T)) + 128;
  return cut;
}

// v[slot, k, o] += the sums over the rows of a tile, which it looks up.
template <class T>
inline void add_tile(const Problem<T>& p, Tile<T>& tile, const Blocks<T>& g, int64_t e, int64_t row, int rows,
                     int64_t input, int slots, T* v) {
  const int64_t K = p.basis.size;
  tile.prepare(p, e, row, rows, input, slots);
  if (p.basis.single()) {
    over_blocks<T>(1, p.outputs, [&]<int, int Q>(int, int64_t o) {
      over_rows<T, Q>(slots * tile.n, [&]<int R, int>(int k) {
        constexpr int64_t width = row_stride<T, Q>();
        auto multiply = p.outputs - o >= width ? multiply_batch<T, R, Q, true, T> : multiply_batch<T, R, Q, false, T>;
        multiply(g.at(o), width, tile.phi + int64_t(k) * tile.capacity, tile.capacity, rows, v + k * p.outputs + o,
                 p.outputs, p.outputs - o);
      });
    });
    return;
  }
  over_blocks<T>(tile.n, p.outputs, [&]<int N, int Q>(int j, int64_t o) {
    constexpr int L = Simd<T>::lanes;
    for (int k = 0; k < slots; ++k) {
      const int32_t* begin = tile.slot_offset(k);
      for (int t = 0; t < tile.segments; ++t) {
        const int count = begin[t + 1] - begin[t];
        if (count == 0) continue;
        T* to = v + (k * K + p.basis.start[t] + j) * p.outputs + o;
        Vector<T> window[N][Q] = {};
        fetch<T, N, Q, T>(to, p.outputs);
        add_batch(window, tile.slot_order(k) + begin[t], tile.slot_phi(k) + int64_t(j) * tile.capacity + begin[t],
                  tile.capacity, count, g.at(o), row_stride<T, Q>());
        for (int f = 0; f < N; ++f)
          for (int q = 0; q < Q; ++q)
            add_some<false>(to + f * p.outputs + q * L, window[f][q], p.outputs - o - q * L);
      }
    }
  });
}

template <class T>
void run_batch(const Problem<T>& p, const Cut& cut, int64_t unit, char* scratch) {
  const int64_t e = unit / cut.parts, first = unit % cut.parts * cut.part;
  const int64_t inputs = std::min(cut.part, p.inputs - first), each = p.basis.size * p.outputs;
  Arena arena{scratch};
  Tile<T> tile;
  tile.lay(p.basis, cut.rows, arena);
  T* packed = arena.take<T>(cut.rows * padded(p.outputs, Simd<T>::lanes));
  auto rows_at = [&](int64_t row) { return int(std::min<int64_t>(cut.rows, p.batch - row)); };
  auto pack = [&](int64_t row) {
    return with_storage<T>(p.g, p.g_storage, [&](auto* g) {
      return pack_rows<T>(g + e * p.g_group + row * p.g_row, p.g_row, rows_at(row), p.outputs, packed);
    });
  };
  const int64_t before = (e * p.inputs + first) * each;
  if (p.result_storage == Storage::SAME) {
    T* v = static_cast<T*>(p.result) + before;
    std::fill_n(v, inputs * each, T(0));
    for (int64_t row = 0; row < p.batch; row += cut.rows) {
      const Blocks<T> g = pack(row);
      for (int64_t i = 0; i < inputs; i += SLOTS)
        add_tile(p, tile, g, e, row, rows_at(row), first + i, int(std::min<int64_t>(SLOTS, inputs - i)), v + i * each);
    }
    return;
  }
  const int64_t few = few_inputs(p);
  T* v = arena.take<T>(few * each);
  for (int64_t i = 0; i < inputs; i += few) {
    const int slots = int(std::min(few, inputs - i));
    std::fill_n(v, slots * each, T(0));
    for (int64_t row = 0; row < p.batch; row += cut.rows)
      add_tile(p, tile, pack(row), e, row, rows_at(row), first + i, slots, v);
    with_storage<T>(p.result, p.result_storage, [&](auto* stored) {
      constexpr int L = Simd<T>::lanes;
      auto* result = stored + before + i * each;
      for (int64_t k = 0; k < slots * each; k += L) store_some_as<T>(result + k, load_some(v + k, slots * each - k), slots * each - k);
    });
  }
}

}  // namespace HOF_VARIANT
}  // namespace hof
