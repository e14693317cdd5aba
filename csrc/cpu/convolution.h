// Convolutions: pixels are rows of a link, sorted by segment for each channel; a window of coefficients of some
// neighbouring taps stays in registers while its pixels go by, and what a pixel gives goes to where its taps reach.
#pragma once

#include <bit>

#include "places.h"

namespace hof {
namespace HOF_VARIANT {

constexpr int64_t PLACES_BYTES = 1 << 20;  // of the outputs of a tile: what the second-level cache holds
constexpr int FEW_SLOTS = 4;               // where each input has its own windows: what is prepared stays in the cache
constexpr int64_t UNITS = 32;              // about so many at least, for the threads; the same for any number of them
constexpr int64_t PART_NUMBERS = 1 << 20;  // of the sums of all parts

// Inputs of a tile.
template <class T>
int conv_slots(const Basis<T>& basis) {
  return basis.product() ? SLOTS : FEW_SLOTS;
}

// Pixels of a tile: twice the rows of a link's, since to begin a window of taps costs as much as ten of them.
template <class T>
int conv_rows(const Problem<T>& p) {
  return p.basis.product() ? 512 : std::clamp(2 * tile_rows(p), 1024, 2048);
}

template <class T>
struct ConvScratch {
  Tile<T> tile;
  Places places;
  int32_t* placed;  // [slot][capacity]: places in the order of the sorted rows; not for a product, which sorts none
  Piece *pieces, *slopes;  // slopes: of the gradient of x
  T* outputs;              // y or g by places
  T* constants;            // [taps, outputs]: what functions add that are the same number everywhere
  Vector<T>* partial;

  ConvScratch(const Convolution<T>& c, const ImageCut& cut, bool gradients, Arena& arena) {
    const int64_t outputs_padded = padded(gradients ? c.own.outputs : cut.each, Simd<T>::lanes), lines = most_lines(c, cut.lines, gradients);
    tile.lay(c.own.basis, cut.cut.rows, arena, conv_slots(c.own.basis));
    places.pixel = arena.take<int64_t>(cut.cut.tiles);
    places.place = arena.take<int32_t>(cut.cut.tiles);
    placed = arena.take<int32_t>(c.own.basis.product() ? 0 : FEW_SLOTS * tile.capacity);
    pieces = arena.take<Piece>(c.taps * outputs_padded / Simd<T>::lanes);
    slopes = arena.take<Piece>(gradients ? c.taps * outputs_padded / Simd<T>::lanes : 0);
    outputs = arena.take<T>(cut.images * lines * c.extent[1] * c.extent[2] * outputs_padded);
    constants = arena.take<T>(gradients ? 0 : c.taps * c.own.outputs + Simd<T>::lanes);
    partial = reinterpret_cast<Vector<T>*>(arena.take<T>(gradients ? Simd<T>::lanes * (cut.cut.rows + Simd<T>::lanes) : 0));
  }

  // Of a slot of the tile that begins with this row of a phase.
  const int32_t* placed_of(const Basis<T>& basis, int64_t row, int slot) const {
    return basis.product() ? places.place + row : placed + int64_t(slot) * tile.capacity;
  }
};

template <class T>
ImageCut cut_conv(const Convolution<T>& c, bool gradients, int threads) {
  const int64_t lines = gradients ? c.x_size[0] : c.y_size[0], pixels = c.x_size[0] * c.x_size[1] * c.x_size[2];
  const int64_t line = c.extent[1] * c.extent[2] * padded(c.own.outputs, Simd<T>::lanes) * int64_t(sizeof(T));
  const int64_t fit = std::max<int64_t>(PLACES_BYTES / line, 1);  // lines
  const int64_t blocks = c.own.groups * divided(c.own.inputs, SLOTS);
  ImageCut cut{};
  cut.images = 1, cut.lines = lines;
  if (c.extent[0] <= fit) {
    const int64_t wanted = std::min<int64_t>(fit / c.extent[0], conv_rows(c.own) / std::max<int64_t>(pixels, 1));
    cut.images = std::clamp<int64_t>(wanted, 1, divided(c.images, gradients ? divided(UNITS / 2, blocks) : 1));
  } else {
    // of every band the lines that its taps reach are done again: it should be several times as many
    const int64_t reach = most_lines(c, 1, gradients);
    cut.bands = divided(lines, std::max(fit - reach, 3 * reach));
    cut.lines = divided(lines, cut.bands);
  }
  cut.bands = divided(lines, cut.lines), cut.image_tiles = divided(c.images, cut.images);
  int64_t most = 0;  // pixels of a phase
  for (int64_t k = 0; k < c.phases; ++k) {
    const Phase& phase = c.phase[k];
    const int64_t reached = gradients ? divided(cut.lines, phase.every[0])
                                      : divided(cut.lines + phase.high - phase.low, phase.step[0]) + 1;
    most = std::max(most, cut.images * std::min(phase.pixels[0], reached) * phase.pixels[1] * phase.pixels[2]);
  }
  cut.cut.tiles = most;
  cut.cut.rows = int(std::clamp<int64_t>(conv_rows(c.own), 1, std::max<int64_t>(most, 1)));
  const int64_t tiles = cut.image_tiles * cut.bands;
  if (gradients) {
    const int64_t sums = c.own.groups * c.own.inputs * c.own.basis.size * c.taps * c.own.outputs;
    const int64_t most_parts = std::min({divided(UNITS, blocks), PART_NUMBERS / std::max<int64_t>(sums, 1), tiles});
    cut.parts = int64_t(std::bit_floor(uint64_t(std::max<int64_t>(most_parts, 1))));  // as many for one thread as for another
    // inputs of a unit, none of whose sums is another's: fewer for many threads, each of which reads its cotangents again
    cut.each = SLOTS;
    while (cut.each > conv_slots(c.own.basis) && blocks * (SLOTS / cut.each) * cut.parts < threads) cut.each /= 2;
    cut.cut.units = c.own.groups * divided(c.own.inputs, cut.each) * cut.parts;
  } else {
    const int64_t width = Simd<T>::width, widths = divided(c.own.outputs, width);
    cut.each = divided(widths, std::clamp<int64_t>(divided(UNITS / 2, c.own.groups * tiles), 1, widths)) * width;
    cut.each = std::min(cut.each, c.own.outputs), cut.parts = divided(c.own.outputs, cut.each);
    cut.cut.units = c.own.groups * tiles * cut.parts;
  }
  cut.cut.scratch = bytes_of<ConvScratch<T>>(c, cut, gradients);
  return cut;
}

// Rows [row, row + rows) of a phase of channels [input, input + slots) of group e, looked up, sorted and evaluated.
template <class T>
inline void prepare_pixels(const Convolution<T>& c, const Band& band, const Places& places, int64_t e, int64_t row, int rows,
                           int64_t input, int slots, Tile<T>& tile, int32_t* placed) {
  const Problem<T>& p = c.own;
  const int64_t plane = c.x_size[0] * c.x_size[1] * c.x_size[2], channels = p.groups * p.inputs;
  tile.rows = rows;
  with_storage<T>(p.x, p.x_storage, [&](auto* stored) {
    const auto* x = stored + (band.image * channels + e * p.inputs + input) * plane;
    for (int k = 0; k < slots; ++k)
      for (int r = 0; r < rows; ++r) tile.slot_x(k)[r] = value_as<T>(x[k * plane + places.pixel[row + r]]);
  });
  tile.settle(p, input, slots);
  tile.evaluate(p, input, slots);
  for (int k = 0; k < (p.basis.product() ? 0 : slots); ++k) {
    int32_t* __restrict to = placed + int64_t(k) * tile.capacity;
    const int32_t *order = tile.slot_order(k), *place = places.place + row;
    for (int r = 0; r < rows; ++r) to[r] = place[order[r]];
  }
}

// Calls f(segment, first row, rows) over the segments of a slot that have rows; the rows of a product have one window.
template <class T, class F>
inline void over_segments(const Basis<T>& basis, const Tile<T>& tile, int slot, F&& f) {
  if (basis.product()) return f(0, 0, tile.rows);
  const int32_t* begin = tile.slot_offset(slot);
  for (int t = 0; t < tile.segments; ++t)
    if (begin[t + 1] > begin[t]) f(t, begin[t], begin[t + 1] - begin[t]);
}

// Functions from a segment's window to the next one's, after the last to the next input's first.
template <class T>
inline int64_t to_next(const Basis<T>& basis, int segment) {
  return (segment + 1 < basis.segments ? basis.start[segment + 1] : basis.size) - basis.start[segment];
}

// The coefficients of a piece, and what lies `ahead` of them asked for, the next segment's; past the end is harmless.
template <class T, int N, int Q, class S>
INLINED inline void load_piece(Vector<T> (&window)[N][Q], const S* w, int64_t ld, const Piece& piece, int64_t ahead) {
  if (piece.whole) {  // asked once: a run may be of a few rows
    UNROLLED for (int j = 0; j < N; ++j)
      UNROLLED for (int q = 0; q < Q; ++q) {
        const S* from = w + j * ld + piece.w[q];
        window[j][q] = load_as<T>(from);
        __builtin_prefetch(from + ahead);
      }
  } else {
    UNROLLED for (int j = 0; j < N; ++j)
      UNROLLED for (int q = 0; q < Q; ++q) window[j][q] = load_some_as<T>(w + j * ld + piece.w[q], piece.valid[q]);
  }
}

// Calls f(first row, rows) over the rows of a phase, at most `most` at a time and about as many each time.
template <class F>
inline void over_chunks(const Places& places, int most, F&& f) {
  const int64_t rows = divided(places.count, std::max<int64_t>(divided(places.count, most), 1));
  for (int64_t row = 0; row < places.count; row += rows) f(row, int(std::min<int64_t>(rows, places.count - row)));
}

// The outputs that functions add which are the same number everywhere: those of an image, in all images of a band.
template <class T, class S>
void fill_constants(const Convolution<T>& c, const Band& band, int64_t e, int64_t first, int64_t outputs, int64_t places,
                    T number, const S* w, ConvScratch<T>& own) {
  const Problem<T>& p = c.own;
  const int64_t ld = c.taps * p.outputs, each = places / band.images;
  std::fill_n(own.constants, ld, T(0));
  for (int64_t i = 0; i < p.inputs; ++i)
    for (int64_t t = 0; t < c.taps; ++t) {
      const int64_t at = t * p.outputs + first;
      const S* from = w + i * p.basis.size * ld + at;
      for (int64_t o = 0; o < outputs; o += Simd<T>::lanes)
        store(own.constants + at + o, load(own.constants + at + o) + number * load_some_as<T>(from + o, outputs - o));
    }
  Band one = band;
  one.images = 1;
  std::fill_n(own.tile.phi, own.tile.capacity, T(1));
  for (int64_t k = 0; k < c.phases; ++k) {
    own.places.fill(c, c.phase[k], one, p.groups * p.inputs);
    if (!own.places.count) continue;
    const int64_t pieces = cut_pieces(c, c.phase[k], Piece::vectors_for(1), first, outputs, places, own.pieces);
    over_chunks(own.places, own.tile.capacity, [&](int64_t row, int rows) {
      over_pieces<T>(own.pieces, pieces, 1, [&]<int N, int Q>(const Piece& piece, int) {
        auto read = [&](auto& window) INLINED { load_piece<T, N, Q>(window, own.constants, ld, piece, 0); };
        add_inputs<T, N, Q>(read, {own.places.place + row, rows}, own.tile.phi, own.tile.capacity, own.outputs + piece.at, piece.width);
      });
    });
  }
  over_blocks<T>(1, outputs, [&]<int, int Q>(int, int64_t o) {
    constexpr int64_t width = row_stride<T, Q>();
    T* block = own.outputs + places * o;
    for (int64_t image = 1; image < band.images; ++image) std::copy_n(block, each * width, block + image * each * width);
  });
}

// What is left out; of one channel it would cost as much as it saves.
template <class T>
inline Relief<T> left_out(const Problem<T>& p) {
  return p.inputs > 1 ? constants(p.basis) : Relief<T>{};
}

template <class T>
void run_conv(const Convolution<T>& c, const ImageCut& cut, int64_t unit, char* scratch) {
  const Problem<T>& p = c.own;
  const int64_t tiles = cut.image_tiles * cut.bands, e = unit / (tiles * cut.parts), K = p.basis.size;
  const int64_t ld = c.taps * p.outputs, first = unit % cut.parts * cut.each, outputs = std::min(cut.each, p.outputs - first);
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  // where every window is all coefficients, the rows of all inputs are in one order: their functions are as one's
  const int together = p.basis.product() ? int(std::min<int64_t>(SLOTS, p.inputs)) : 1;
  const Relief<T> of = left_out(p);
  Convolution<T> left = c;
  if (of.skipped) left.own.basis = without_first(p.basis);
  ConvScratch<T> own(left, cut, false, arena);
  const Basis<T>& basis = left.own.basis;
  const Band band = band_of(c, cut, unit / cut.parts % tiles, false);
  const int64_t places = band.images * band.lines * c.extent[1] * c.extent[2];
  std::fill_n(own.outputs, places * padded(outputs, Simd<T>::lanes), T(0));
  with_storage<T>(p.w, p.w_storage, [&](auto* stored) {
    const auto* coefficients = stored + e * p.inputs * K * ld;
    if (of.skipped) fill_constants(c, band, e, first, outputs, places, of.number, coefficients, own);
    for (int64_t k = 0; k < c.phases; ++k) {
      own.places.fill(c, c.phase[k], band, p.groups * p.inputs);
      if (!own.places.count) continue;
      const int vectors = Piece::vectors_for(basis.n * together);
      const int64_t pieces = cut_pieces(c, c.phase[k], vectors, first, outputs, places, own.pieces);
      over_chunks(own.places, cut.cut.rows, [&](int64_t row, int rows) {
        const int some = conv_slots(p.basis);
        for (int64_t i = 0; i < p.inputs; i += some) {
          const int slots = int(std::min<int64_t>(some, p.inputs - i));
          prepare_pixels(left, band, own.places, e, row, rows, i, slots, own.tile, own.placed);
          own.tile.find_reliefs(basis, i, slots, false);
          for (int slot = 0; slot < slots; slot += together)
            over_segments(basis, own.tile, slot, [&](int t, int begin, int count) {
              const Relief<T> of_segment = own.tile.relief_of(slot, t);
              const int32_t* placed = own.placed_of(basis, row, slot) + begin;
              const T* phi = own.tile.slot_phi(slot) + begin;
              const auto* w = coefficients + ((i + slot) * K + basis.start[t]) * ld;
              const int64_t ahead = to_next(basis, t) * ld;
              over_pieces<T>(own.pieces, pieces, basis.n * std::min(slots, together), [&]<int N, int Q>(const Piece& piece, int j) {
                if (!basis.product()) {
                  auto load = [w, ld, &piece, ahead](auto& to, int f) INLINED { load_piece<T>(to, w + f * ld, ld, piece, ahead); };
                  return add_window_inputs<T, N, Q>(load, of_segment, j, {placed, count}, phi + int64_t(j) * own.tile.capacity,
                                                    own.tile.capacity, own.outputs + piece.at, piece.width);
                }
                auto read = [&](auto& window) INLINED {
                  UNROLLED for (int f = 0; f < N; ++f) {
                    const int input = together == 1 ? 0 : (j + f) / basis.n;  // of those that are as one
                    load_relieved<T>(reinterpret_cast<Vector<T>(&)[1][Q]>(window[f]), of, j + f - input * basis.n, [&](auto& to, int k) INLINED {
                      load_piece<T>(to, w + (input * K + k) * ld, ld, piece, ahead);
                    });
                  }
                };
                add_inputs<T, N, Q>(read, {placed, count}, phi + int64_t(j) * own.tile.capacity, own.tile.capacity,
                                    own.outputs + piece.at, piece.width);
              });
            });
        }
      });
    }
  });
  write_outputs(c, band, e * p.outputs + first, outputs, places, own.outputs);
}

}  // namespace HOF_VARIANT
}  // namespace hof
