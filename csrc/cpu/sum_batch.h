// v[e,i,k,o] = sum_b g s phi_k(x): parts of the inputs; tiles one after the other, so that no sum depends on threads.
#pragma once

#include "cut.h"

namespace hof {
namespace HOF_VARIANT {

// Inputs whose sums are kept at once where the result cannot hold them: a tile's where it has all rows.
template <class T>
inline int64_t few_inputs(const Problem<T>& p, const Cut& cut) {
  const int64_t some = tile_inputs(p.basis), most = cut.tiles > 1 ? cut.part : std::min(cut.part, some);
  const int64_t few = std::clamp<int64_t>(SUMS_NUMBERS / std::max<int64_t>(p.basis.size * p.outputs, 1), 1, std::max<int64_t>(most, 1));
  return few < some ? few : few / some * some;
}

template <class T>
inline void clear_strip(T* strip, int64_t numbers) {
  for (int64_t k = 0; k < numbers; k += Simd<T>::lanes) store(strip + k, Vector<T>{});
}

template <class T, int Q>
inline void stream_strip(const T* strip, int64_t size, T* to, int64_t ld) {
  constexpr int L = Simd<T>::lanes;
  for (int64_t k = 0; k < size; ++k)
    UNROLLED for (int q = 0; q < Q; ++q) stream(to + k * ld + q * L, load(strip + (k * Q + q) * L));
}

// v[slot, k, o] += the sums over the rows of a tile that is evaluated and whose reliefs are found; those of the functions that are left of
// a product side by side. With a strip, which has room for a slot's of a block of outputs, v becomes these sums.
template <class T>
inline void add_tile(const Problem<T>& p, const Tile<T>& tile, const Blocks<T>& g, int slots, T* v, T* strip) {
  const int64_t K = p.basis.size;
  if (p.basis.product()) {
    over_blocks<T>(1, p.outputs, [&]<int, int Q>(int, int64_t o) {
      over_rows<T, Q>(slots * tile.n, [&]<int R, int>(int k) {
        constexpr int64_t width = row_stride<T, Q>();
        using Phi = Columns<T>;
        auto multiply = p.outputs - o >= width ? multiply_batch<T, R, Q, true, Phi> : multiply_batch<T, R, Q, false, Phi>;
        multiply(g.at(o), width, Phi{tile.phi + int64_t(k) * tile.capacity, tile.capacity}, tile.rows, v + k * p.outputs + o,
                 p.outputs, p.outputs - o);
      });
    });
    return;
  }
  over_blocks<T>(1, p.outputs, [&]<int, int Q>(int, int64_t o) {
    constexpr int64_t width = row_stride<T, Q>();
    const int64_t ld = strip ? width : p.outputs, valid = strip ? width : p.outputs - o;
    for (int k = 0; k < slots; ++k) {
      const int32_t* begin = tile.slot_offset(k);
      T *own = v + k * K * p.outputs + o, *sums_of_slot = strip ? strip : own;
      if (strip) clear_strip<T>(strip, K * width);
      over_functions<T, Q>(tile.n, [&]<int N, int>(int j, int64_t) {
        for (int t = 0; t < tile.segments; ++t) {
          const int count = begin[t + 1] - begin[t];
          if (count == 0) continue;
          T* to = sums_of_slot + p.basis.start[t] * ld;
          fetch<T, N, Q, T>(to + j * ld, ld);
          const Relief<T> of = p.s ? Relief<T>{} : tile.relief_of(k, t);
          auto add = [to, ld, valid](const auto& sums, int f) INLINED { add_window<T>(sums, to + f * ld, ld, valid); };
          const Run run{tile.slot_order(k) + begin[t], count, far_apart(tile.rows, width * int64_t(sizeof(T)))};
          const T* phi = tile.slot_phi(k) + int64_t(j) * tile.capacity + begin[t];
          add_window_batch<T, N, Q>(add, of, j, run, phi, tile.capacity, g.at(o), width);
        }
      }, o);
      if (strip) stream_strip<T, Q>(strip, K, own, p.outputs);
    }
  });
}

// total[o] += sum over rows of g[row, o].
template <class T>
inline void add_cotangents(const Blocks<T>& g, int64_t outputs, T* total) {
  over_blocks<T>(1, outputs, [&]<int, int Q>(int, int64_t o) {
    constexpr int L = Simd<T>::lanes;
    UNROLLED for (int q = 0; q < Q; ++q) {
      Vector<T> sum{};
      for (int64_t r = 0; r < g.rows; ++r) sum += load(g.at(o) + r * row_stride<T, Q>() + q * L);
      store(total + o + q * L, load(total + o + q * L) + sum);
    }
  });
}

// Of a tile's inputs, the sums of the functions that are left go to their places, with that of the first before them: a
// number times the cotangents' own. NaN of the others is its own, too.
template <class T>
inline void finish_product(const Problem<T>& p, T number, int slots, const T* total, T* v) {
  const int n = p.basis.n;
  const int64_t outputs = p.outputs;
  for (int slot = slots - 1; slot >= 0; --slot) {
    const T* from = v + slot * (n - 1) * outputs;
    T* to = v + slot * n * outputs;
    for (int64_t o = 0; o < outputs; o += Simd<T>::lanes) {
      Vector<T> first = load_some(total + o, outputs - o) * number;
      for (int j = n - 1; j > 0; --j) {
        const Vector<T> sum = load_some(from + (j - 1) * outputs + o, outputs - o);
        first += only_nan<T>(sum);
        store_some(to + j * outputs + o, sum, outputs - o);
      }
      store_some(to + o, first, outputs - o);
    }
  }
}

// Parts of the inputs, of the same width for any number of rows.
template <class T>
inline Cut cut_by_inputs(const Problem<T>& p, int threads) {
  Cut cut{};
  cut.tiles = divided(p.batch, tile_rows_of_sums(p));
  set_equal_rows(p, cut);
  const int64_t blocks = divided(p.inputs, SLOTS);
  cut.parts = std::clamp<int64_t>(divided(threads, std::max<int64_t>(p.groups, 1)), 1, std::max<int64_t>(blocks, 1));
  cut.part = std::max<int64_t>(divided(blocks, cut.parts), 1) * SLOTS;
  if (blocks < threads) cut.part = std::max<int64_t>(divided(p.inputs, threads), 1);
  cut.parts = divided(p.inputs, cut.part);
  cut.units = p.groups * cut.parts;
  return cut;
}

template <class T>
struct BatchScratch {
  Tile<T> tile;
  int64_t few;  // inputs whose sums are kept at once, or 0: they grow in the result
  T *g, *sums;
  T* total;  // of the cotangents
  T* strip;  // of sums that are written past the caches, or null

  BatchScratch(const Problem<T>& p, const Cut& cut, bool apart, Arena& arena) {
    tile.lay(p.basis, cut.rows, arena);
    few = apart ? few_inputs(p, cut) : 0;
    g = arena.take<T>(packed_outputs(p, cut.rows));
    sums = arena.take<T>(few * p.basis.size * p.outputs);
    total = arena.take<T>(padded(p.outputs, Simd<T>::width));
    const bool lines = HOF_VECTOR_BYTES > 16 && !apart && reinterpret_cast<uintptr_t>(p.result) % 64 == 0;
    strip = lines && streams_sums(p, cut) ? arena.take<T>(p.basis.size * Simd<T>::width) : nullptr;
  }
};

template <class T>
inline bool narrow(const Problem<T>& p) { return p.result_storage != Storage::SAME; }

template <class T>
Cut cut_batch(const Problem<T>& p, int threads) {
  Cut cut = cut_by_inputs(p, threads);
  cut.scratch = bytes_of<BatchScratch<T>>(p, cut, narrow(p));
  return cut;
}

// The inputs [first, end) of group e, which a unit has.
struct InputsPart {
  int64_t e, first, end;

  template <class T>
  InputsPart(const Problem<T>& p, const Cut& cut, int64_t unit)
      : e(unit / cut.parts), first(unit % cut.parts * cut.part), end(std::min(first + cut.part, p.inputs)) {}
};

// Sums over all tiles of a part of the inputs: pack(group, row, rows, first_pass) gives a tile's g, by rows, add(group, row, rows, input,
// slots, v) adds the tile to the sums v [slots, K, outputs], and give(group, from, to, v) gets those of the inputs
// [from, to) unless they grew in the result.
template <class T, class Pack, class Add, class Give>
inline void over_tiles(const Problem<T>& p, const Cut& cut, int64_t unit, const BatchScratch<T>& own, Pack&& pack, Add&& add,
                       Give&& give) {
  const auto [e, first, end] = InputsPart(p, cut, unit);
  const int64_t each = p.basis.size * p.outputs, few = own.few ? own.few : cut.part, some = tile_inputs(p.basis);
  const Relief<T> left_out = left_out_of_batch(p);
  std::fill_n(own.total, padded(p.outputs, Simd<T>::width), T(0));
  for (int64_t from = first; from < end; from += few) {
    const int64_t to = std::min(from + few, end);
    T* v = own.few ? own.sums : static_cast<T*>(p.result) + (e * p.inputs + from) * each;
    if (!own.strip) std::fill_n(v, (to - from) * each, T(0));
    for (int64_t row = 0; row < p.batch; row += cut.rows) {
      const int rows = int(std::min<int64_t>(cut.rows, p.batch - row));
      if (from == first || cut.tiles > 1) {
        const Blocks<T> g = pack(e, row, rows, from == first);
        if (from == first && left_out.skipped) add_cotangents(g, p.outputs, own.total);
      }
      for (int64_t i = from; i < to; i += some) add(e, row, rows, i, int(std::min(some, to - i)), v + (i - from) * each);
    }
    for (int64_t i = from; i < to && left_out.skipped; i += some)
      finish_product(p, left_out.number, int(std::min(some, to - i)), own.total, v + (i - from) * each);
    if (own.few) give(e, from, to, v);
  }
  if (own.strip) end_streams();
}

// The sums of inputs [from, to) into a result of 16 bits.
template <class T>
inline void give_narrow(const Problem<T>& p, int64_t e, int64_t from, int64_t to, const T* v) {
  const int64_t each = p.basis.size * p.outputs, numbers = (to - from) * each;
  with_storage<T>(p.result, p.result_storage, [&](auto* stored) {
    auto* result = stored + (e * p.inputs + from) * each;
    for (int64_t k = 0; k < numbers; k += Simd<T>::lanes)
      store_some_as<T>(result + k, load_some(v + k, numbers - k), numbers - k);
  });
}

template <class T>
void run_batch(const Problem<T>& p, const Cut& cut, int64_t unit, char* scratch) {
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  BatchScratch<T> own(p, cut, narrow(p), arena);
  const Problem<T> left = without(p, left_out_of_batch(p));
  Blocks<T> g{};
  over_tiles(
      p, cut, unit, own,
      [&](int64_t e, int64_t row, int rows, bool) {
        g = with_storage<T>(p.g, p.g_storage, [&](auto* stored) {
          return pack_rows<T>(stored + e * p.g_group + row * p.g_row, p.g_row, rows, p.outputs, own.g);
        });
        return g;
      },
      [&](int64_t e, int64_t row, int rows, int64_t input, int slots, T* v) {
        own.tile.prepare(left, e, row, rows, input, slots);
        own.tile.find_reliefs(left.basis, input, slots, false);
        add_tile(left, own.tile, g, slots, v, own.strip);
      },
      [&](int64_t e, int64_t from, int64_t to, const T* v) { give_narrow(p, e, from, to, v); });
}

}  // namespace HOF_VARIANT
}  // namespace hof
