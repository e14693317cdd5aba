// What rows meet of each input: where a window begins, and the functions there, row by row.
#pragma once

#include "tile.h"

namespace hof {
namespace HOF_VARIANT {

// Writes, for each input and row, the first coefficient of its window and the n values there; with slopes, also those.
template <class T>
inline void meet(const Problem<T>& p, const Problem<T>* slopes, Tile<T>& tile, int64_t e, int64_t row, int rows,
                 int64_t input, int slots, const Met<T>& met) {
  auto spread = [&](int64_t offset) {
    with_functions(tile.n, [&]<int N>() {
      for (int k = 0; k < slots; ++k) {
        const int64_t at = (input + k) * met.rows;
        const int32_t *begin = tile.slot_offset(k), *order = tile.slot_order(k);
        const T* phi = tile.slot_phi(k);
        for (int t = 0; t < tile.segments; ++t)
          for (int r = begin[t]; r < begin[t + 1]; ++r) {
            const int64_t edge = at + (p.basis.product() ? r : order[r]);
            met.first[edge] = int32_t(p.basis.start[t]);
            T* to = met.values + edge * met.width + offset;
            for (int j = 0; j < (N ? N : tile.n); ++j) to[j] = phi[int64_t(j) * tile.capacity + r];
          }
      }
    });
  };
  tile.prepare(p, e, row, rows, input, slots);
  spread(0);
  if (!slopes) return;
  tile.evaluate(*slopes, input, slots);
  spread(tile.n);
}

}  // namespace HOF_VARIANT
}  // namespace hof
