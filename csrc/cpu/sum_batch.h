// v[e,i,k,o] = sum_b g s phi_k(x): parts of the inputs; tiles one after the other, so that no sum depends on threads.
#pragma once

#include "cut.h"

namespace hof {
namespace HOF_VARIANT {

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
  cut.scratch = Tile<T>::bytes(p.basis, cut.rows) +
                cut.rows * padded(p.outputs, Simd<T>::lanes) * int64_t(sizeof(T)) + 64;
  return cut;
}

template <class T>
void run_batch(const Problem<T>& p, const Cut& cut, int64_t unit, char* scratch) {
  const int64_t e = unit / cut.parts, first = unit % cut.parts * cut.part;
  const int64_t inputs = std::min(cut.part, p.inputs - first), K = p.basis.size;
  Arena arena{scratch};
  Tile<T> tile;
  tile.lay(p.basis, cut.rows, arena);
  T* packed = arena.take<T>(cut.rows * padded(p.outputs, Simd<T>::lanes));
  T* v = p.result + (e * p.inputs + first) * K * p.outputs;
  std::fill_n(v, inputs * K * p.outputs, T(0));

  for (int64_t row = 0; row < p.batch; row += cut.rows) {
    const int rows = int(std::min<int64_t>(cut.rows, p.batch - row));
    const Blocks<T> g =
        pack_rows(p.g + e * p.g_group + row * p.g_row, p.g_row, rows, p.outputs, packed);
    for (int64_t i = 0; i < inputs; i += SLOTS) {
      const int slots = int(std::min<int64_t>(SLOTS, inputs - i));
      tile.prepare(p, e, row, rows, first + i, slots);
      if (p.basis.single()) {
        over_blocks<T>(1, p.outputs, [&]<int, int Q>(int, int64_t o) {
          over_rows<T, Q>(slots * tile.n, [&]<int R, int>(int k) {
            constexpr int64_t width = row_stride<T, Q>();
            auto multiply = p.outputs - o >= width ? multiply_batch<T, R, Q, true> : multiply_batch<T, R, Q, false>;
            multiply(g.at(o), width, tile.phi + int64_t(k) * tile.capacity, tile.capacity, rows,
                     v + (i * K + k) * p.outputs + o, p.outputs, p.outputs - o);
          });
        });
        continue;
      }
      over_blocks<T>(tile.n, p.outputs, [&]<int N, int Q>(int j, int64_t o) {
        constexpr int L = Simd<T>::lanes;
        for (int k = 0; k < slots; ++k) {
          const int32_t* begin = tile.slot_offset(k);
          for (int t = 0; t < tile.segments; ++t) {
            const int count = begin[t + 1] - begin[t];
            if (count == 0) continue;
            T* to = v + ((i + k) * K + p.basis.start[t] + j) * p.outputs + o;
            Vector<T> window[N][Q] = {};
            fetch<T, N, Q>(to, p.outputs);
            add_batch(window, tile.slot_order(k) + begin[t],
                      tile.slot_phi(k) + int64_t(j) * tile.capacity + begin[t], tile.capacity, count, g.at(o),
                      row_stride<T, Q>());
            for (int f = 0; f < N; ++f)
              for (int q = 0; q < Q; ++q)
                add_some<false>(to + f * p.outputs + q * L, window[f][q], p.outputs - o - q * L);
          }
        }
      });
    }
  }
}

}  // namespace HOF_VARIANT
}  // namespace hof
