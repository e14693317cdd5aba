// How work is cut into tiles, and how a tile's numbers lie in scratch.
#pragma once

#include "kernels.h"

namespace hof {
namespace HOF_VARIANT {

inline int64_t divided(int64_t count, int64_t by) { return (count + by - 1) / by; }

// Rows for at most cut.tiles tiles as equal as can be, by eights.
template <class T>
inline void set_equal_rows(const Problem<T>& p, Cut& cut) {
  cut.rows = int(divided(divided(p.batch, std::max<int64_t>(cut.tiles, 1)), 8)) * 8;
  cut.rows = std::max(cut.rows, 8);
  cut.tiles = divided(p.batch, cut.rows);
}

// Tiles as equal as can be, a multiple of the threads where that costs no more tiles than threads.
template <class T>
inline Cut cut_rows(const Problem<T>& p, int threads) {
  Cut cut{};
  cut.tiles = divided(divided(p.batch, tile_rows(p)), threads) * threads;
  set_equal_rows(p, cut);
  return cut;
}

// Where there are fewer tiles than threads, `total` numbers of the other axis in parts of whole `width`s.
template <class T>
inline void cut_parts(const Problem<T>& p, Cut& cut, int64_t total, int64_t width, int threads) {
  const int64_t blocks = divided(total, width), tiles = std::max<int64_t>(p.groups * cut.tiles, 1);
  cut.part = divided(blocks, std::clamp<int64_t>(divided(threads, tiles), 1, blocks)) * width;
  cut.parts = divided(total, cut.part);
  cut.units = p.groups * cut.tiles * cut.parts;
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

// Numbers that a tile's g takes, by rows or by columns.
template <class T>
inline int64_t packed_outputs(const Problem<T>& p, int rows) {
  return padded(rows, Simd<T>::lanes) * padded(p.outputs, Simd<T>::lanes);
}

template <class T, class S>
inline Blocks<T> pack_rows(const S* from, int64_t ld, int rows, int64_t outputs, T* to) {
  Blocks<T> blocks{to, rows};
  over_blocks<T>(1, outputs, [&]<int N, int Q>(int, int64_t o) {
    const int64_t width = row_stride<T, Q>();
    T* block = blocks.at(o);
    constexpr int L = Simd<T>::lanes;
    for (int r = 0; r < rows; ++r)
      for (int q = 0; q < Q; ++q)
        store(block + r * width + q * L, load_some_as<T>(from + r * ld + o + q * L, outputs - o - q * L));
  });
  return blocks;
}

// to[slot, function, outputs]: the coefficients that are left to a product, of so many outputs.
template <class T, class S>
inline void relieve(const Problem<T>& p, const Relief<T>& relief, int slots, const S* w, int64_t outputs, T* to) {
  for (int slot = 0; slot < slots; ++slot, w += p.basis.size * p.outputs)
    for (int j = relief.skipped; j < p.basis.n; ++j, to += outputs)
      for (int64_t o = 0; o < outputs; ++o)
        to[o] = value_as<T>(w[j * p.outputs + o]) - (relief.taken ? value_as<T>(w[o]) : T(0));
}

// What a product leaves out of its sums over inputs: of a few rows it would cost as much as it saves.
template <class T>
inline Relief<T> left_out_of_inputs(const Problem<T>& p) {
  return p.s || p.batch < 64 ? Relief<T>{} : constants(p.basis);
}

// And of those over rows: nothing that would be taken from the others, since it may be 0 in all rows.
template <class T>
inline Relief<T> left_out_of_batch(const Problem<T>& p) {
  const Relief<T> of = left_out_of_inputs(p);
  return of.taken ? Relief<T>{} : of;
}

// The problem that is left.
template <class T>
inline Problem<T> without(Problem<T> p, const Relief<T>& left_out) {
  if (left_out.skipped) p.basis = without_first(p.basis);
  return p;
}

// y[row, o] += sum_k phi[k, row] w[k, o] for k below depth.
template <class T, class S, class Phi>
inline void multiply_tile(const S* w, int64_t w_row, int64_t outputs, const Phi& phi, int depth, int rows, const Blocks<T>& y) {
  over_blocks<T>(1, outputs, [&]<int, int Q>(int, int64_t o) {
    constexpr int64_t width = row_stride<T, Q>();
    over_rows<T, Q>(rows, [&]<int R, int>(int r) {
      auto multiply = outputs - o >= width ? multiply_inputs<T, R, Q, true, S, Phi> : multiply_inputs<T, R, Q, false, S, Phi>;
      multiply(w + o, w_row, outputs - o, phi.from(r), depth, y.at(o) + r * width, width);
    });
  });
}

// to[row, o] = y[row, o], a vector at a time changed by change(v, row, o)
template <class T, class S, class Change>
inline void store_rows(const Blocks<T>& y, int rows, int64_t outputs, S* to, int64_t ld, Change&& change) {
  over_blocks<T>(1, outputs, [&]<int, int Q>(int, int64_t o) {
    constexpr int L = Simd<T>::lanes;
    for (int r = 0; r < rows; ++r)
      for (int q = 0; q < Q; ++q)
        store_some_as<T>(to + r * ld + o + q * L, change(load(y.at(o) + r * row_stride<T, Q>() + q * L), r, o + q * L),
                         outputs - o - q * L);
  });
}

template <class T, class S>
inline void store_rows(const Blocks<T>& y, int rows, int64_t outputs, S* to, int64_t ld) {
  store_rows(y, rows, outputs, to, ld, [](Vector<T> v, int, int64_t) INLINED { return v; });
}

}  // namespace HOF_VARIANT
}  // namespace hof
