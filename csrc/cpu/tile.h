// A tile: some rows of some inputs, looked up, sorted by segment, with their window values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "choice.h"
#include "problem.h"
#include "relief.h"
#include "storage.h"

namespace hof {
namespace HOF_VARIANT {

template <class T>
constexpr int LINE = 64 / int(sizeof(T));  // numbers of a cache line

// Inputs of a tile: a cache line of x. Those of a product share their outputs, which are read and written for each tile.
template <class T>
inline int tile_inputs(const Basis<T>& basis) { return basis.product() ? SLOTS : LINE<T>; }

// Bytes are handed out in lines, so that vectors do not straddle them.
struct Arena {
  uintptr_t next;
  template <class U>
  U* take(int64_t count) {
    const uintptr_t here = next;
    next += uintptr_t((count * int64_t(sizeof(U)) + 63) / 64 * 64);
    return reinterpret_cast<U*>(here);
  }
};

// Bytes of a Scratch, which lays itself out from the same arguments when it is used.
template <class Scratch, class... Arguments>
inline int64_t bytes_of(const Arguments&... arguments) {
  Arena arena{0};
  [[maybe_unused]] const Scratch laid(arguments..., arena);
  return int64_t(arena.next);
}

// Calls f.template operator()<N>(); N: n, or 0 where n is not of the usual ones.
template <class F>
inline void with_functions(int n, F&& f) {
  switch (n) {
    case 2: return f.template operator()<2>();
    case 3: return f.template operator()<3>();
    case 4: return f.template operator()<4>();
    default: return f.template operator()<0>();
  }
}

template <class T>
struct Tile {
  int rows, capacity, n, segments;
  int of_slot;       // reliefs of a slot, or 0
  T* phi;            // [slot][n][capacity], in the order of `order`; of a product, in that of the rows
  T* sorted;         // [n][capacity], of a product whose rows are in several segments
  int32_t* order;    // [slot][capacity]: row numbers, segment after segment
  int32_t* offset;   // [slot][segments + 1]: where each segment's rows begin
  T *x, *u;          // [slot][capacity]: x as it comes, then local coordinates; x sorted
  T* of_row;         // features of one row
  Relief<T>* reliefs;  // [slot][windows], or [windows] where all inputs have the same tables
  int32_t *segment, *place;  // of each row; where the next row of a segment goes, for each quarter of the rows

  void lay(const Basis<T>& basis, int rows_at_most, Arena& arena) { lay(basis, rows_at_most, arena, tile_inputs(basis)); }

  void lay(const Basis<T>& basis, int rows_at_most, Arena& arena, int64_t slots) {
    // whole vectors are written, also past a segment's end: the next segment overwrites it
    constexpr int most = HOF_VECTOR_BYTES / int(sizeof(int32_t));  // lanes
    capacity = (rows_at_most + 2 * most - 1) / most * most, n = basis.n, segments = basis.segments;
    phi = arena.take<T>(slots * n * capacity);
    sorted = arena.take<T>(basis.product() && segments > 1 ? int64_t(n) * capacity : 0);
    order = arena.take<int32_t>(slots * capacity);
    offset = arena.take<int32_t>(slots * (segments + 1));
    x = arena.take<T>(slots * capacity);
    u = arena.take<T>(slots * capacity);
    segment = arena.take<int32_t>(capacity);
    place = arena.take<int32_t>(4 * segments);
    of_row = arena.take<T>(basis.m);
    reliefs = arena.take<Relief<T>>((basis.table_stride ? slots : 1) * windows(basis));
  }

  T* slot_phi(int slot) const { return phi + int64_t(slot) * n * capacity; }
  T* slot_x(int slot) const { return x + int64_t(slot) * capacity; }
  T* slot_u(int slot) const { return u + int64_t(slot) * capacity; }
  int32_t* slot_order(int slot) const { return order + int64_t(slot) * capacity; }
  int32_t* slot_offset(int slot) const { return offset + int64_t(slot) * (segments + 1); }

  static int windows(const Basis<T>& basis) { return basis.product() ? 1 : basis.segments; }

  // Finds what can be left out of functions, or of slopes.
  void find_reliefs(const Basis<T>& basis, int64_t input, int slots, bool slopes) {
    of_slot = basis.table_stride ? windows(basis) : 0;
    with_functions(basis.n == basis.m ? basis.n : 0, [&]<int N>() {
      for (int k = 0; k < (of_slot ? slots : 1); ++k)
        for (int t = 0; t < windows(basis); ++t) reliefs[k * of_slot + t] = relief<T, N>(basis, input + k, t, slopes);
    });
  }
  const Relief<T>& relief_of(int slot, int window) const { return reliefs[slot * of_slot + window]; }

  bool in_one_segment(int slot) const {
    return slot_offset(slot)[first_segment(slot) + 1] == rows;
  }

  // The first segment that has rows.
  int first_segment(int slot) const {
    int t = 0;
    while (slot_offset(slot)[t + 1] == 0) ++t;
    return t;
  }

  // Window values of rows [row, row + count) of inputs [input, input + slots) of group e, times s.
  void prepare(const Problem<T>& p, int64_t e, int64_t row, int count, int64_t input, int slots) {
    look_up(p, e, row, count, input, slots);
    evaluate(p, input, slots);
    if (p.s) scale(p, e, row, input, slots);
  }

  void look_up(const Problem<T>& p, int64_t e, int64_t row, int count, int64_t input, int slots) {
    rows = count;
    with_storage<T>(p.x, p.x_storage, [&](auto* stored) {
      const auto* from = stored + e * p.x_group + row * p.x_row + input * p.x_input;
      if (p.x_input == 1) {
        transpose_rows<T>(from, p.x_row, count, slots, x, capacity);
      } else {
        for (int r = 0; r < count; ++r)
          for (int k = 0; k < slots; ++k) x[int64_t(k) * capacity + r] = value_as<T>(from[r * p.x_row + k * p.x_input]);
      }
    });
    settle(p, input, slots);
  }

  // Sorts the rows of inputs whose x is there.
  void settle(const Problem<T>& p, int64_t input, int slots) {
    for (int k = 0; k < slots; ++k) {
      sort(p.basis, input + k, k);
      if (!few_rows(p)) localize(p.basis, input + k, k);
    }
  }

  // Of the inputs that were looked up last, and as often as there are tables, of no more functions than it was laid for.
  void evaluate(const Problem<T>& p, int64_t input, int slots) {
    n = p.basis.n;
    for (int k = 0; k < slots; ++k) {
      const bool moved = p.basis.product() && !in_one_segment(k);
      T* to = moved ? sorted : slot_phi(k);
      if (few_rows(p))
        evaluate_few(p.basis, input + k, k, to);
      else
        evaluate_sorted(p.basis, input + k, k, to);
      if (moved)
        for (int j = 0; j < n; ++j)
          for (int r = 0; r < rows; ++r) slot_phi(k)[int64_t(j) * capacity + slot_order(k)[r]] = sorted[int64_t(j) * capacity + r];
    }
  }

 private:
  void scale(const Problem<T>& p, int64_t e, int64_t row, int64_t input, int slots) {
    for (int k = 0; k < slots; ++k) {
      const int32_t* number = slot_order(k);
      const bool by_row = p.basis.product();
      T* __restrict factor = few_rows(p) ? slot_x(k) : slot_u(k);  // the one that is not needed again
      with_storage<T>(p.s, p.x_storage, [&](auto* stored) {
        const auto* s = stored + e * p.s_group + row * p.s_row + (input + k) * p.s_input;
        for (int r = 0; r < rows; ++r) factor[r] = value_as<T>(s[(by_row ? r : number[r]) * p.s_row]);
      });
      for (int j = 0; j < n; ++j) {
        T* __restrict values = slot_phi(k) + int64_t(j) * capacity;
        for (int r = 0; r < rows; ++r) values[r] *= factor[r];
      }
    }
  }

  // Coordinates within the segment, of one sorted input.
  void localize(const Basis<T>& basis, int64_t input, int slot) {
    const int32_t* begin = slot_offset(slot);
    const T *knots = basis.knots + input * basis.knots_stride, *from = slot_u(slot);
    T* to = slot_x(slot);
    for (int t = 0; t < segments; ++t) {
      const T left = knots[t], width = knots[t + 1] - knots[t];
      const bool frozen = basis.frozen(t);
      for (int r = begin[t]; r < begin[t + 1]; r += Simd<T>::lanes)
        store(to + r, frozen ? Vector<T>{} : 2 * ((load(from + r) - left) / width) - 1);
    }
  }

  // Window values of one sorted input: neighbouring segments with the same table in one run.
  void evaluate_sorted(const Basis<T>& basis, int64_t input, int slot, T* to) {
    with_functions(basis.kind == POLYNOMIAL && n == basis.m ? n : 0, [&]<int N>() {
      over_runs(basis, input, slot, [&](const T* table, int begin, int end) {
        if constexpr (N)
          values<N, N>(basis, table, slot_x(slot), begin, end, to);
        else
          some_values(basis, table, slot_x(slot), begin, end, to);
      });
    });
  }

  // use(table, first row, end)
  template <class Use>
  void over_runs(const Basis<T>& basis, int64_t input, int slot, Use&& use) {
    const int32_t* begin = slot_offset(slot);
    const T* table = basis.table + input * basis.table_stride;
    const int64_t stride = basis.table_segment_stride;
    const size_t bytes = size_t(n) * basis.m * sizeof(T);
    for (int t = 0, next; t < segments; t = next) {
      next = t + 1;
      const T* own = table + t * stride;
      auto same = [&](const T* other) { return *other == *own && !std::memcmp(other, own, bytes); };
      while (next < segments && (begin[next + 1] == begin[next] || stride == 0 || same(table + next * stride))) ++next;
      use(own, begin[t], begin[next]);
    }
  }

  // Of any number of functions; features are computed once for up to 8.
  void some_values(const Basis<T>& basis, const T* table, const T* u, int begin, int end, T* phi_of_slot) {
    const int blocks = (n + 7) / 8, block = (n + blocks - 1) / blocks;
    for (int j = 0; j < n; j += block) {
      const T* part = table + j * basis.m;
      T* to = phi_of_slot + int64_t(j) * capacity;
      switch (std::min(block, n - j)) {
        case 1: values<1>(basis, part, u, begin, end, to); break;
        case 2: values<2>(basis, part, u, begin, end, to); break;
        case 3: values<3>(basis, part, u, begin, end, to); break;
        case 4: values<4>(basis, part, u, begin, end, to); break;
        case 5: values<5>(basis, part, u, begin, end, to); break;
        case 6: values<6>(basis, part, u, begin, end, to); break;
        case 7: values<7>(basis, part, u, begin, end, to); break;
        default: values<8>(basis, part, u, begin, end, to);
      }
    }
  }

  // The same for a handful of rows, one by one.
  void evaluate_few(const Basis<T>& basis, int64_t input, int slot, T* to) {
    const int32_t* begin = slot_offset(slot);
    const T* knots = basis.knots + input * basis.knots_stride;
    const T* u = slot_u(slot);
    for (int t = 0, r = 0; r < rows; ++t)
      for (; r < begin[t + 1]; ++r) {
        const T* table = basis.table + input * basis.table_stride + t * basis.table_segment_stride;
        const T v = basis.frozen(t) ? T(0) : 2 * ((u[r] - knots[t]) / (knots[t + 1] - knots[t])) - 1;
        features<T>(basis, v, [&](int f, T feature) { of_row[f] = feature; });
        for (int j = 0; j < n; ++j) {
          T value = 0;
          for (int f = 0; f < basis.m; ++f) value += of_row[f] * table[j * basis.m + f];
          to[j * capacity + r] = value;
        }
      }
  }

  // Of N functions; M: of so many features of polynomials, or 0.
  template <int N, int M = 0>
  void values(Basis<T> basis, const T* table, const T* u, int begin, int end, T* to) {
    if (M) basis.kind = POLYNOMIAL, basis.m = M;
    const int m = basis.m;
    T own[N * M + 1];
    if (M) std::copy_n(table, N * M, own), table = own;  // what is stored could be a table, for all the compiler knows
    for (int r = begin; r < end; r += Simd<T>::lanes) {
      Vector<T> a[N] = {};
      features<T>(basis, load(u + r), [&](int f, Vector<T> feature) {
        for (int j = 0; j < N; ++j) a[j] += feature * table[j * m + f];
      });
      for (int j = 0; j < N; ++j) store(to + j * capacity + r, a[j]);
    }
  }

  // Not inlined: among other code the compiler gathers x number by number for each knot.
  __attribute__((noinline)) static void locate_rows(const Basis<T>& basis, int64_t input, const T* column, int rows,
                                                    int32_t* segment) {
    const int inner = basis.inner();
    if (!basis.uniform && inner > 1 && rows > 1 && count_few(inner_knots(basis, input), inner - 1, column, rows, segment))
      count_outside(basis, input, column, rows, segment);
    else
      locate(basis, input, column, rows, segment);
  }

  // Sorts one input's rows by segment: fills order, offset and u (x in that order).
  void sort(const Basis<T>& basis, int64_t input, int slot) {
    const T* column = slot_x(slot);
    T* u = slot_u(slot);
    int32_t *number = slot_order(slot), *begin = slot_offset(slot);
    begin[0] = 0;
    if (segments == 1) {
      begin[1] = rows;
      for (int r = 0; r < rows; ++r) number[r] = r, u[r] = column[r];
      return;
    }
    locate_rows(basis, input, column, rows, segment);
    if (rows == 1) {
      number[0] = 0, u[0] = column[0];
      for (int t = 0; t <= segments; ++t) begin[t] = t > segment[0];
      return;
    }
    if (sort_few(segment, column, rows, segments, number, u, begin)) return;
    // counting sort; each quarter of the rows counts for itself, since a count waits for the one before
    std::fill_n(place, 4 * segments, 0);
    over_quarters(rows, [&](int row, int q) { ++place[4 * segment[row] + q]; });
    int at = 0;
    for (int t = 0; t < segments; ++t) {
      begin[t] = at;
      for (int q = 0; q < 4; ++q) at += std::exchange(place[4 * t + q], at);
    }
    begin[segments] = at;
    over_quarters(rows, [&](int row, int q) {
      const int32_t to = place[4 * segment[row] + q]++;
      number[to] = row;
      u[to] = column[row];
    });
  }

  // use(row, quarter): all quarters side by side; the last one is up to three rows longer.
  template <class Use>
  static void over_quarters(int rows, Use&& use) {
    const int size = rows / 4;
    for (int r = 0; r < size; ++r)
      for (int q = 0; q < 4; ++q) use(q * size + r, q);
    for (int r = 4 * size; r < rows; ++r) use(r, 3);
  }
};

}  // namespace HOF_VARIANT
}  // namespace hof
