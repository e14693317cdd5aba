// Gradients of convolutions: a tile's rows are prepared once for the sums over them, which go to the coefficients, and for
// the sums over the outputs that they reached.
#pragma once

#include "convolution.h"

namespace hof {
namespace HOF_VARIANT {

// Asks for numbers that sums are going to be added to.
template <class T, int N, int Q>
inline void fetch_piece(const T* to, int64_t ld, const Piece& piece) {
  for (int f = 0; f < N; ++f)
    for (int q = 0; q < Q; ++q) __builtin_prefetch(to + f * ld + piece.w[q]);
}

template <class T, int N, int Q>
INLINED inline void add_piece(const Vector<T> (&sums)[N][Q], T* to, int64_t ld, const Piece& piece) {
  constexpr int L = Simd<T>::lanes;
  if (piece.whole) {
    UNROLLED for (int f = 0; f < N; ++f)
      UNROLLED for (int q = 0; q < Q; ++q) add_some<true>(to + f * ld + piece.w[q], sums[f][q], L);
  } else {
    UNROLLED for (int f = 0; f < N; ++f)
      UNROLLED for (int q = 0; q < Q; ++q) add_some<false>(to + f * ld + piece.w[q], sums[f][q], std::min<int64_t>(piece.valid[q], L));
  }
}

// The sums over the rows of a tile for each coefficient, added to v [slot, K, taps, outputs]. Those of functions that are
// left out are finished later from the cotangents' own, which are kept in place of the first.
template <class T>
inline void add_pixels(const Convolution<T>& c, const Relief<T>& of, ConvScratch<T>& own, int64_t pieces, int64_t row, int slots,
                       T* v) {
  const Tile<T>& tile = own.tile;
  const int64_t K = c.own.basis.size, ld = c.taps * c.own.outputs;
  auto add_run = [&]<int N, int Q>(const Piece& piece, const Relief<T>& relief, int j, const Run& run, const T* phi, T* to) {
    fetch_piece<T, N, Q>(to + j * ld, ld, piece);
    auto add = [to, ld, &piece](const auto& sums, int f) INLINED { add_piece<T>(sums, to + f * ld, ld, piece); };
    add_window_batch<T, N, Q>(add, relief, j, run, phi, tile.capacity, own.outputs + piece.at, piece.width);
  };
  over_pieces<T>(own.pieces, pieces, tile.n - of.skipped, [&]<int N, int Q>(const Piece& piece, int first) {
    const int j = of.skipped + first;
    for (int slot = 0; slot < slots; ++slot)
      over_segments(c.own.basis, tile, slot, [&](int t, int begin, int count) {
        const Relief<T> relief = c.own.basis.product() ? Relief<T>{} : tile.relief_of(slot, t);
        add_run.template operator()<N, Q>(piece, relief, j, {own.placed_of(c.own.basis, row, slot) + begin, count},
                                          tile.slot_phi(slot) + int64_t(j) * tile.capacity + begin,
                                          v + (slot * K + c.own.basis.start[t]) * ld);
      });
  });
  if (!of.skipped) return;
  std::fill_n(tile.phi, tile.rows, T(1));
  over_pieces<T>(own.pieces, pieces, 1, [&]<int N, int Q>(const Piece& piece, int) {
    add_run.template operator()<N, Q>(piece, Relief<T>{}, 0, {own.places.place + row, tile.rows}, tile.phi, v);
  });
}

// The sums of the functions that were left out: a number times the cotangents' own, less the others where those were
// taken from it. NaN of the others is theirs in any case.
template <class T>
inline void finish_first(const Convolution<T>& c, const Relief<T>& of, int slots, T* v) {
  const int64_t K = c.own.basis.size, ld = c.taps * c.own.outputs;
  for (int slot = slots - 1; slot >= 0; --slot) {
    T* to = v + slot * K * ld;
    for (int64_t k = 0; k < ld; ++k) {
      T others = 0;
      for (int64_t j = 1; j < K; ++j) others += to[j * ld + k];
      to[k] = of.number * v[k] - (of.taken ? T(1) : T(0)) * others;
    }
  }
}

// The gradient of x at the rows of a tile that is evaluated over the derivative basis.
template <class T, class S, class R>
inline void pull_pixels(const Convolution<T>& c, const ConvScratch<T>& own, int64_t pieces, int64_t row, int slots,
                        const S* w, R* of_x) {
  constexpr int L = Simd<T>::lanes;
  const Basis<T>& basis = c.steep.basis;
  const Tile<T>& tile = own.tile;
  const int64_t ld = c.taps * c.own.outputs, plane = c.x_size[0] * c.x_size[1] * c.x_size[2];
  for (int slot = 0; slot < slots; ++slot) {
    const int32_t* placed = own.placed_of(basis, row, slot);
    over_segments(basis, tile, slot, [&](int t, int begin, int count) {
      const Relief<T> of = tile.relief_of(slot, t);
      const int64_t ahead = to_next(basis, t) * ld;
      over_pieces<T>(own.slopes, pieces, tile.n - of.skipped, [&]<int N, int Q>(const Piece& piece, int j) {
        auto read = [&](auto& window) INLINED {
          load_relieved<T>(window, of, j, [&](auto& to, int k) INLINED {
            load_piece<T>(to, w + (slot * basis.size + basis.start[t] + k) * ld, ld, piece, ahead);
          });
        };
        const T* phi = tile.slot_phi(slot) + int64_t(of.skipped + j) * tile.capacity + begin;
        // not by a pointer to one of the two: the window would leave its registers
        if (j == 0 && &piece == own.slopes)
          add_outputs<T, N, Q, true>(read, {placed + begin, count}, phi, tile.capacity, own.outputs + piece.at, piece.width,
                                     Simd<T>::width, own.partial + begin);
        else
          add_outputs<T, N, Q, false>(read, {placed + begin, count}, phi, tile.capacity, own.outputs + piece.at, piece.width,
                                      Simd<T>::width, own.partial + begin);
      });
    });
    const int32_t* order = tile.slot_order(slot);
    for (int r = 0; r < tile.rows; r += L) {
      T totals[L];
      store(totals, sums<T>(own.partial + r));
      for (int l = r; l < std::min(r + L, tile.rows); ++l)
        of_x[slot * plane + own.places.pixel[row + (basis.product() ? l : order[l])]] = R(totals[l - r]);
    }
  }
}

template <class T>
void run_conv_gradients(const Convolution<T>& c, const ImageCut& cut, int64_t unit, char* scratch) {
  const Problem<T>& p = c.own;
  const int64_t blocks = divided(p.inputs, cut.each), part = unit / (p.groups * blocks), e = unit / blocks % p.groups;
  const int64_t input = unit % blocks * cut.each, tiles = cut.image_tiles * cut.bands;
  const int64_t each = p.basis.size * c.taps * p.outputs, plane = c.x_size[0] * c.x_size[1] * c.x_size[2];
  const int slots = int(std::min<int64_t>(cut.each, p.inputs - input));
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  ConvScratch<T> own(c, cut, true, arena);
  const Relief<T> of = left_out(p);
  // functions with a slope of their own, of all units whose inputs share a cache line
  const int left = c.of_x ? p.basis.n - relief(c.steep.basis, input - input % SLOTS, 0, true).skipped : 1;
  T* v = !c.of_w ? nullptr : (part ? c.of_parts + (part - 1) * p.groups * p.inputs * each : c.of_w) + (e * p.inputs + input) * each;
  if (v) std::fill_n(v, slots * each, T(0));
  for (int64_t tile = tiles * part / cut.parts; tile < tiles * (part + 1) / cut.parts; ++tile) {
    const Band band = band_of(c, cut, tile, true);
    const int64_t places = band.images * band.lines * c.extent[1] * c.extent[2];
    read_cotangents(c, band, e * p.outputs, places, own.outputs);
    for (int64_t k = 0; k < c.phases; ++k) {
      own.places.fill(c, c.phase[k], band, p.groups * p.inputs);
      if (!own.places.count) continue;
      const int64_t pieces = cut_pieces(c, c.phase[k], Piece::vectors_for(p.basis.n - of.skipped), 0, p.outputs, places, own.pieces);
      const int64_t slopes = cut_pieces(c, c.phase[k], Piece::vectors_for_slopes(left), 0, p.outputs, places, own.slopes);
      over_chunks(own.places, cut.cut.rows, [&](int64_t row, int rows) {
        const int some = conv_slots(p.basis);
        for (int64_t i = input; i < input + slots; i += some) {
          const int few = int(std::min<int64_t>(some, input + slots - i));
          prepare_pixels(c, band, own.places, e, row, rows, i, few, own.tile, own.placed);
          own.tile.find_reliefs(p.basis, i, few, false);
          if (v) add_pixels(c, of, own, pieces, row, few, v + (i - input) * each);
          if (!c.of_x) continue;
          own.tile.evaluate(c.steep, i, few);
          own.tile.find_reliefs(c.steep.basis, i, few, true);
          with_storage<T>(p.w, p.w_storage, [&](auto* w) {
            with_storage<T>(c.of_x, p.x_storage, [&](auto* of_x) {
              pull_pixels(c, own, slopes, row, few, w + (e * p.inputs + i) * each,
                          of_x + (band.image * p.groups * p.inputs + e * p.inputs + i) * plane);
            });
          });
        }
      });
    }
  }
  if (v && of.skipped) finish_first(c, of, slots, v);
}

// to[begin, end) = first + the sums of `count` arrays of `size` numbers, always in their order.
template <class T>
void add_parts(const T* first, const T* parts, int64_t count, int64_t size, int64_t begin, int64_t end, void* to, Storage storage) {
  with_storage<T>(to, storage, [&](auto* stored) {
    for (int64_t at = begin; at < end; at += Simd<T>::lanes) {
      Vector<T> sum = load_some(first + at, end - at);
      for (int64_t part = 0; part < count; ++part) sum += load_some(parts + part * size + at, end - at);
      store_some_as<T>(stored + at, sum, end - at);
    }
  });
}

}  // namespace HOF_VARIANT
}  // namespace hof
