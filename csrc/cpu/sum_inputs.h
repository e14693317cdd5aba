// y[e,b,o] = sum_i s f_oi(x): tiles of rows, and parts of the outputs where there are fewer tiles than threads. A few rows
// of many inputs: parts of the inputs, each with sums of its own, which `add_parts` adds up.
#pragma once

#include "branch.h"

namespace hof {
namespace HOF_VARIANT {

template <class T>
struct InputsScratch {
  Tile<T> tile;
  T *y, *branch, *weights, *packed;
  T *relieved, *constants;  // of a product: the coefficients that are left to it, what the others add to every row

  InputsScratch(const Problem<T>& p, const Cut& cut, Arena& arena) {
    const Relief<T> left_out = left_out_of_inputs(p);
    const int64_t kept = left_out.skipped ? std::min(cut.part, p.outputs) : 0;
    tile.lay(without(p, left_out).basis, cut.rows, arena);
    relieved = arena.take<T>(SLOTS * (p.basis.n - 1) * kept);
    constants = arena.take<T>(padded(kept, Simd<T>::width));
    y = arena.take<T>(cut.rows * padded(by_inputs(p) ? p.outputs : std::min(cut.part, p.outputs), Simd<T>::lanes));
    branch = arena.take<T>(branch_numbers(p, cut.rows));
    weights = arena.take<T>(branch_weights(p, by_inputs(p) ? p.outputs : std::min(cut.part, p.outputs)));
    packed = arena.take<T>(packed_numbers(p));
  }
};

template <class T>
Cut cut_inputs(const Problem<T>& p, int threads) {
  const bool apart = by_inputs(p);
  Cut cut = cut_rows(p, apart && !few_rows(p) ? int(divided(threads, most_parts(p))) : threads);
  if (apart) {
    cut.part = std::max(PART_INPUTS, divided(p.inputs, most_parts(p) * SLOTS) * SLOTS);
    cut.parts = divided(p.inputs, cut.part);
    cut.units = p.groups * cut.tiles * cut.parts;
  } else {
    cut_parts(p, cut, p.outputs, Simd<T>::width, threads);
  }
  cut.scratch = bytes_of<InputsScratch<T>>(p, cut);
  return cut;
}

// y += a few rows of a tile, one after the other; while one meets its window the next one's is asked for.
template <class T, class S>
inline void add_rows(const Problem<T>& p, const Tile<T>& tile, int slots, const S* w, int64_t outputs, const Blocks<T>& y) {
  struct Visit {
    int slot, at;  // at: among the slot's sorted rows
    const S* window;
  };
  auto add = [&](const Visit& visit, const S* next) {
    const T* phi = tile.slot_phi(visit.slot) + visit.at;
    const int64_t row = tile.slot_order(visit.slot)[visit.at];
    over_blocks<T>(tile.n, outputs, [&]<int N, int Q>(int j, int64_t o) {
      constexpr int64_t width = row_stride<T, Q>();
      const int64_t first = j * p.outputs + o;
      if (next) fetch<T, N, Q, S>(next + first, p.outputs);
      auto one = outputs - o >= width ? add_row<T, N, Q, true, S> : add_row<T, N, Q, false, S>;
      one(visit.window + first, p.outputs, outputs - o, phi + int64_t(j) * tile.capacity, tile.capacity, y.at(o) + row * width);
    });
  };
  Visit last{0, 0, nullptr};
  for (int k = 0; k < slots; ++k) {
    const int32_t* begin = tile.slot_offset(k);
    for (int t = 0, r = 0; r < tile.rows; ++t)
      for (; r < begin[t + 1]; ++r) {
        const Visit visit{k, r, w + (k * p.basis.size + p.basis.start[t]) * p.outputs};
        if (last.window) add(last, visit.window);
        last = visit;
      }
  }
  if (last.window) add(last, nullptr);
}

// y[row, o] = what the functions add that are the same number everywhere.
template <class T, class S>
inline void start_rows(const Problem<T>& p, T number, const S* w, int rows, int64_t outputs, T* constants, const Blocks<T>& y) {
  constexpr int L = Simd<T>::lanes;
  std::fill_n(constants, padded(outputs, Simd<T>::width), T(0));
  for (int64_t i = 0; i < p.inputs; ++i, w += p.basis.size * p.outputs)
    for (int64_t o = 0; o < outputs; o += L)
      store(constants + o, load(constants + o) + number * load_some_as<T>(w + o, outputs - o));
  over_blocks<T>(1, outputs, [&]<int, int Q>(int, int64_t o) {
    for (int r = 0; r < rows; ++r)
      for (int q = 0; q < Q; ++q) store(y.at(o) + r * row_stride<T, Q>() + q * L, load(constants + o + q * L));
  });
}

template <class T, class S>
void run_inputs(const Problem<T>& p, const S* coefficients, const Cut& cut, int64_t unit, char* scratch) {
  const int64_t e = unit / (cut.tiles * cut.parts), tile_number = unit / cut.parts % cut.tiles;
  const int64_t row = tile_number * cut.rows, part = unit % cut.parts, K = p.basis.size;
  const int rows = int(std::min<int64_t>(cut.rows, p.batch - row));
  const bool apart = by_inputs(p);
  const int64_t first = apart ? 0 : part * cut.part, outputs = apart ? p.outputs : std::min(cut.part, p.outputs - first);
  const int64_t input = apart ? part * cut.part : 0, end = apart ? std::min(input + cut.part, p.inputs) : p.inputs;
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  InputsScratch<T> room(p, cut, arena);
  Tile<T>& tile = room.tile;
  const Blocks<T> y{room.y, rows};
  const Relief<T> left_out = left_out_of_inputs(p);
  const Problem<T> left = without(p, left_out);
  if (left_out.skipped)
    start_rows(p, left_out.number, coefficients + e * p.inputs * K * p.outputs + first, rows, outputs, room.constants, y);
  else
    std::fill_n(y.data, rows * padded(outputs, Simd<T>::lanes), T(0));

  for (int64_t i = input, some = tile_inputs(p.basis); i < end; i += some) {
    const int slots = int(std::min(some, end - i));
    tile.prepare(left, e, row, rows, i, slots);
    const S* w = coefficients_of(p, coefficients, e, i, slots, room.packed) + first;
    if (p.basis.product()) {
      const Columns<T> phi{tile.phi, tile.capacity};
      if (left_out.skipped) {
        relieve(p, left_out, slots, w, outputs, room.relieved);
        multiply_tile(room.relieved, outputs, outputs, phi, slots * tile.n, rows, y);
      } else {
        multiply_tile(w, p.outputs, outputs, phi, slots * tile.n, rows, y);
      }
      continue;
    }
    if (few_rows(p)) {
      add_rows(p, tile, slots, w, outputs, y);
      continue;
    }
    tile.find_reliefs(p.basis, i, slots, false);
    const int ahead = windows_ahead(p, rows);
    over_blocks<T>(tile.n, outputs, [&]<int N, int Q>(int j, int64_t o) {
      for (int k = 0; k < slots; ++k)
        for (int t = 0; t < tile.segments; ++t) {
          const int begin = tile.slot_offset(k)[t], count = tile.slot_offset(k)[t + 1] - begin;
          if (count == 0) continue;
          const Relief<T> of = p.s ? Relief<T>{} : tile.relief_of(k, t);
          auto load = [from = w + (k * K + p.basis.start[t]) * p.outputs + o, ld = p.outputs, valid = outputs - o](auto& to, int f) INLINED {
            load_window<T>(to, from + f * ld, ld, valid);
          };
          if (const int later = t + ahead; later < tile.segments)
            fetch<T, N, Q, S>(w + (k * K + p.basis.start[later] + j) * p.outputs + o, p.outputs);
          else if (ahead > 1)
            fetch<T, N, Q, S>(w + ((k + 1) * K + p.basis.start[later - tile.segments] + j) * p.outputs + o, p.outputs);
          const T* phi = tile.slot_phi(k) + int64_t(j) * tile.capacity + begin;
          add_window_inputs<T, N, Q>(load, of, j, {tile.slot_order(k) + begin, count}, phi, tile.capacity, y.at(o), row_stride<T, Q>());
        }
    });
  }
  if (p.branch) add_branch<S>(p, {e, row, rows}, input, end, first, outputs, y, room.branch, room.weights);

  with_storage<T>(p.result, p.result_storage, [&](auto* stored) {
    const int64_t group = apart ? part * p.groups + e : e;  // of the part's own sums, or of the result
    store_rows(y, rows, outputs, stored + (group * p.batch + row) * p.outputs + first, p.outputs);
  });
}

}  // namespace HOF_VARIANT
}  // namespace hof
