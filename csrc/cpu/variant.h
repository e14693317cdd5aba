// One variant of the kernels: how the work is cut and run. Included once for each instruction set.
#include "kernels.h"

namespace hof {
namespace HOF_VARIANT {

// Rows so many that a segment has about 32 of them, within what the caches hold.
template <class T>
inline int tile_rows(const Problem<T>& p) {
  const int wanted = 32 * p.basis.segments * 4 / int(sizeof(T));
  const int most = std::max<int64_t>(256, std::min<int64_t>(2048, 524288 / std::max<int64_t>(p.basis.n * 4, 1) / 4));
  return int(std::min<int64_t>(std::max<int64_t>(p.batch, 1), std::clamp(wanted, 256, most)));
}

inline int64_t divided(int64_t count, int64_t by) { return (count + by - 1) / by; }

// Tiles as equal as can be, a multiple of the threads where that costs no more tiles than threads.
template <class T>
inline Cut cut_rows(const Problem<T>& p, int threads) {
  Cut cut{};
  cut.rows = tile_rows(p);
  cut.tiles = divided(divided(p.batch, cut.rows), threads) * threads;
  cut.rows = int(divided(p.batch, std::max<int64_t>(cut.tiles, 1)));
  cut.rows = std::max(int(divided(cut.rows, 8)) * 8, 8);
  cut.tiles = divided(p.batch, cut.rows);
  return cut;
}

// A tile's numbers in blocks of outputs: block after block, each [rows][width of the block].
template <class T>
struct Blocks {
  T* data;
  int64_t rows;
  T* at(int64_t o) const { return data + rows * o; }
};

template <class T, int Q>
constexpr int64_t row_stride() { return Q * Simd<T>::lanes; }

template <class T>
inline Blocks<T> pack_rows(const T* from, int64_t ld, int rows, int64_t outputs, T* to) {
  Blocks<T> blocks{to, rows};
  over_blocks<T>(1, outputs, [&]<int N, int Q>(int, int64_t o) {
    const int64_t width = row_stride<T, Q>(), valid = std::min(width, outputs - o);
    T* block = blocks.at(o);
    for (int r = 0; r < rows; ++r) {
      for (int64_t l = 0; l < valid; ++l) block[r * width + l] = from[r * ld + o + l];
      for (int64_t l = valid; l < width; ++l) block[r * width + l] = 0;
    }
  });
  return blocks;
}

// ---- sum_inputs

template <class T>
Cut cut_inputs(const Problem<T>& p, int threads) {
  Cut cut = cut_rows(p, threads);
  const int64_t blocks = divided(p.outputs, Simd<T>::width);
  cut.parts = std::clamp<int64_t>(divided(threads, std::max<int64_t>(p.groups * cut.tiles, 1)), 1, blocks);
  cut.part = divided(blocks, cut.parts) * Simd<T>::width;
  cut.parts = divided(p.outputs, cut.part);
  cut.units = p.groups * cut.tiles * cut.parts;
  const int64_t width = padded(std::min(cut.part, p.outputs), Simd<T>::lanes);
  cut.scratch = Tile<T>::bytes(p.basis, cut.rows) + cut.rows * width * int64_t(sizeof(T)) + 64;
  return cut;
}

template <class T>
void run_inputs(const Problem<T>& p, const Cut& cut, int64_t unit, char* scratch) {
  const int64_t e = unit / (cut.tiles * cut.parts), tile_number = unit / cut.parts % cut.tiles;
  const int64_t row = tile_number * cut.rows, first = unit % cut.parts * cut.part;
  const int rows = int(std::min<int64_t>(cut.rows, p.batch - row));
  const int64_t outputs = std::min(cut.part, p.outputs - first), K = p.basis.size;
  Arena arena{scratch};
  Tile<T> tile;
  tile.lay(p.basis, cut.rows, arena);
  Blocks<T> y{arena.take<T>(rows * padded(outputs, Simd<T>::lanes)), rows};
  std::fill_n(y.data, rows * padded(outputs, Simd<T>::lanes), T(0));

  for (int64_t i = 0; i < p.inputs; i += SLOTS) {
    const int slots = int(std::min<int64_t>(SLOTS, p.inputs - i));
    tile.prepare(p, e, row, rows, i, slots);
    const T* w = p.w + (e * p.inputs + i) * K * p.outputs + first;
    if (p.basis.segments == 1) {
      over_blocks<T>(1, outputs, [&]<int, int Q>(int, int64_t o) {
        constexpr int64_t width = row_stride<T, Q>();
        over_rows<T, Q>(rows, [&]<int R, int>(int r) {
          auto multiply = outputs - o >= width ? multiply_inputs<T, R, Q, true> : multiply_inputs<T, R, Q, false>;
          multiply(w + o, p.outputs, outputs - o, tile.phi + r, tile.capacity, slots * tile.n, y.at(o) + r * width,
                   width);
        });
      });
      continue;
    }
    auto add = [&]<int N, int Q>(int k, int t, int j, int64_t o) {
      const int begin = tile.slot_offset(k)[t], count = tile.slot_offset(k)[t + 1] - begin;
      if (count == 0) return;
      Vector<T> window[N][Q];
      load_window(window, w + (k * K + p.basis.start[t] + j) * p.outputs + o, p.outputs, outputs - o);
      if (t + 1 < tile.segments && p.batch > FEW_ROWS)
        fetch<T, N, Q>(w + (k * K + p.basis.start[t + 1] + j) * p.outputs + o, p.outputs);
      add_inputs(window, tile.slot_order(k) + begin, tile.slot_phi(k) + int64_t(j) * tile.capacity + begin,
                 tile.capacity, count, y.at(o), row_stride<T, Q>());
    };
    if (p.batch <= FEW_ROWS) {  // coefficients are read once, so in the order they lie in
      for (int k = 0; k < slots; ++k) {
        const T* ahead = w + ((k + 1) * K + p.basis.start[tile.first_segment(std::min(k + 1, slots - 1))]) * p.outputs;
        for (int t = 0; t < tile.segments; ++t)
          if (tile.slot_offset(k)[t + 1] > tile.slot_offset(k)[t])
            over_blocks<T>(tile.n, outputs, [&]<int N, int Q>(int j, int64_t o) {
              fetch<T, N, Q>(ahead + j * p.outputs + o, p.outputs);
              add.template operator()<N, Q>(k, t, j, o);
            });
      }
      continue;
    }
    over_blocks<T>(tile.n, outputs, [&]<int N, int Q>(int j, int64_t o) {
      for (int k = 0; k < slots; ++k)
        for (int t = 0; t < tile.segments; ++t) add.template operator()<N, Q>(k, t, j, o);
    });
  }

  T* result = p.result + (e * p.batch + row) * p.outputs + first;
  over_blocks<T>(1, outputs, [&]<int, int Q>(int, int64_t o) {
    const int64_t width = row_stride<T, Q>(), valid = std::min(width, outputs - o);
    for (int r = 0; r < rows; ++r)
      std::memcpy(result + r * p.outputs + o, y.at(o) + r * width, size_t(valid) * sizeof(T));
  });
}

// ---- sum_outputs

// One segment: t[k, row] = sum_o w[k, o] g[row, o] is a matrix product for all inputs of a tile; then r = sum_j phi t.

template <class T>
inline Blocks<T> pack_columns(const T* from, int64_t ld, int rows, int64_t outputs, T* to) {
  constexpr int L = Simd<T>::lanes;
  Blocks<T> blocks{to, outputs};
  over_blocks<T>(1, rows, [&]<int, int Q>(int, int64_t first) {
    constexpr int64_t width = row_stride<T, Q>();
    T* block = blocks.at(first);
    const int64_t whole = first + width <= rows ? outputs / L * L : 0;
    for (int64_t o = 0; o < whole; o += L)
      for (int q = 0; q < Q; ++q) {
        Vector<T> v[L];
        for (int k = 0; k < L; ++k) v[k] = load(from + (first + q * L + k) * ld + o);
        transpose<T>(v);
        for (int k = 0; k < L; ++k) store(block + (o + k) * width + q * L, v[k]);
      }
    for (int64_t o = whole; o < outputs; ++o)
      for (int64_t l = 0; l < width; ++l) block[o * width + l] = first + l < rows ? from[(first + l) * ld + o] : T(0);
  });
  return blocks;
}

// columns[slot * rows + row]; t has room for SLOTS * n vectors blocks.
template <class T>
inline void multiply_outputs(const Problem<T>& p, const Tile<T>& tile, int slots, const T* w, const Blocks<T>& g, T* t,
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
  const int64_t blocks = divided(p.inputs, SLOTS);
  cut.parts = std::clamp<int64_t>(divided(threads, std::max<int64_t>(p.groups * cut.tiles, 1)), 1, blocks);
  cut.part = divided(blocks, cut.parts) * SLOTS;
  cut.parts = divided(p.inputs, cut.part);
  cut.units = p.groups * cut.tiles * cut.parts;
  const int64_t g = padded(cut.rows, Simd<T>::lanes) * padded(p.outputs, Simd<T>::lanes);
  const int64_t room = std::max<int64_t>(cut.rows, SLOTS * p.basis.n * Simd<T>::block);  // partial sums, or t
  const int64_t numbers = g + room * Simd<T>::lanes + cut.rows * SLOTS;
  cut.scratch = Tile<T>::bytes(p.basis, cut.rows) + (numbers + Simd<T>::lanes * Simd<T>::lanes) * int64_t(sizeof(T)) + 256;
  return cut;
}

template <class T>
void run_outputs(const Problem<T>& p, const Cut& cut, int64_t unit, char* scratch) {
  const int64_t e = unit / (cut.tiles * cut.parts), tile_number = unit / cut.parts % cut.tiles;
  const int64_t row = tile_number * cut.rows, first = unit % cut.parts * cut.part;
  const int rows = int(std::min<int64_t>(cut.rows, p.batch - row));
  const int64_t inputs = std::min(cut.part, p.inputs - first), K = p.basis.size;
  Arena arena{scratch};
  Tile<T> tile;
  tile.lay(p.basis, cut.rows, arena);
  const bool single = p.basis.segments == 1;
  const T* cotangent = p.g + e * p.g_group + row * p.g_row;
  T* packed = arena.take<T>(padded(rows, Simd<T>::lanes) * padded(p.outputs, Simd<T>::lanes));
  const Blocks<T> g = single ? pack_columns(cotangent, p.g_row, rows, p.outputs, packed)
                             : pack_rows(cotangent, p.g_row, rows, p.outputs, packed);
  const int64_t room = std::max<int64_t>(rows + Simd<T>::lanes, SLOTS * p.basis.n * Simd<T>::block);
  Vector<T>* partial = reinterpret_cast<Vector<T>*>(arena.take<T>(room * Simd<T>::lanes));
  constexpr int L = Simd<T>::lanes;
  T* columns = arena.take<T>(int64_t(SLOTS) * rows);

  for (int64_t i = first; i < first + inputs; i += SLOTS) {
    const int slots = int(std::min<int64_t>(SLOTS, first + inputs - i));
    tile.prepare(p, e, row, rows, i, slots);
    if (single)
      multiply_outputs(p, tile, slots, p.w + (e * p.inputs + i) * K * p.outputs, g, reinterpret_cast<T*>(partial), columns);
    for (int k = 0; k < slots && !single; ++k) {
      const int32_t *begin = tile.slot_offset(k), *order = tile.slot_order(k);
      const T* w = p.w + ((e * p.inputs + i + k) * K) * p.outputs;
      for (int t = 0; t < tile.segments; ++t) {
        const int count = begin[t + 1] - begin[t];
        if (count == 0) continue;
        over_blocks<T>(tile.n, p.outputs, [&]<int N, int Q>(int j, int64_t o) {
          Vector<T> window[N][Q];
          load_window(window, w + (p.basis.start[t] + j) * p.outputs + o, p.outputs, p.outputs - o);
          if (t + 1 < tile.segments) fetch<T, N, Q>(w + (p.basis.start[t + 1] + j) * p.outputs + o, p.outputs);
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
    T* result = p.result + (e * p.batch + row) * p.inputs + i;
    int done = 0;
    if (slots == SLOTS) {
      for (; done + L <= rows; done += L)
        for (int k = 0; k < SLOTS; k += L) {
          Vector<T> v[L];
          for (int l = 0; l < L; ++l) v[l] = load(columns + int64_t(k + l) * rows + done);
          transpose<T>(v);
          for (int l = 0; l < L; ++l) store(result + (done + l) * p.inputs + k, v[l]);
        }
    }
    for (int r = done; r < rows; ++r)
      for (int k = 0; k < slots; ++k) result[r * p.inputs + k] = columns[int64_t(k) * rows + r];
  }
}

// ---- sum_batch: tiles one after the other, whatever the threads, so that sums do not depend on them

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
      if (p.basis.segments == 1) {
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

template <class T>
void transpose_columns(const T* from, int64_t rows, int64_t columns, int64_t begin, int64_t end, T* to) {
  constexpr int L = Simd<T>::lanes;
  const int64_t whole = rows / L * L;
  int64_t c = begin;
  for (; c + L <= end; c += L)
    for (int64_t r = 0; r < whole; r += L) {
      Vector<T> v[L];
      for (int k = 0; k < L; ++k) v[k] = load(from + (r + k) * columns + c);
      transpose<T>(v);
      for (int k = 0; k < L; ++k) store(to + (c + k) * rows + r, v[k]);
    }
  const int64_t done = c;
  for (int64_t r = whole; r < rows; ++r)
    for (c = begin; c < done; ++c) to[c * rows + r] = from[r * columns + c];
  for (int64_t r = 0; r < rows; ++r)
    for (c = done; c < end; ++c) to[c * rows + r] = from[r * columns + c];
}

template <class T>
const Kernels<T>& kernels() {
  static const Kernels<T> table{{cut_inputs<T>, cut_outputs<T>, cut_batch<T>},
                                {run_inputs<T>, run_outputs<T>, run_batch<T>},
                                transpose_columns<T>};
  return table;
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();

}  // namespace HOF_VARIANT
}  // namespace hof
