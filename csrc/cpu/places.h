// Where a tile of pixels reads and writes: its outputs lie in scratch with the channels innermost and room for those
// beyond the image, so that neighbouring taps of a pixel are neighbours in memory.
#pragma once

#include "cut.h"

namespace hof {
namespace HOF_VARIANT {

// Pixels j in [begin, end) along the first axis.
struct Span {
  int64_t begin, end;
  bool empty() const { return begin >= end; }
};

inline int64_t rounded_up(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

// Of a phase: the pixels whose taps reach the output lines [begin, end), or those on the lines [begin, end) of x.
inline Span reaching(const Phase& phase, int64_t begin, int64_t end) {
  const int64_t step = phase.step[0];
  return {std::max<int64_t>(0, rounded_up(begin - phase.high, step)),
          std::min<int64_t>(phase.pixels[0], rounded_up(end - phase.low, step))};
}

inline Span lying(const Phase& phase, int64_t begin, int64_t end) {
  return {std::max<int64_t>(0, rounded_up(begin - phase.first[0], phase.every[0])),
          std::min<int64_t>(phase.pixels[0], rounded_up(end - phase.first[0], phase.every[0]))};
}

// Some images, some of their lines: `begin` to `end` of y, or of x for the gradients; and the lines of places it needs.
struct Band {
  int64_t image, images, begin, end;
  bool gradients;
  int64_t low, lines;

  Span span(const Phase& phase) const { return gradients ? lying(phase, begin, end) : reaching(phase, begin, end); }
};

template <class T>
inline Band band_of(const Convolution<T>& c, const ImageCut& cut, int64_t tile, bool gradients) {
  const int64_t total = gradients ? c.x_size[0] : c.y_size[0];
  Band band{};
  band.image = tile / cut.bands * cut.images, band.images = std::min(cut.images, c.images - band.image);
  band.begin = tile % cut.bands * cut.lines, band.end = std::min(band.begin + cut.lines, total);
  band.gradients = gradients;
  int64_t low = band.begin, high = band.end - 1;  // of y; lines of x may all be beyond it
  bool any = !gradients;
  for (int64_t k = 0; k < c.phases; ++k) {
    const Phase& phase = c.phase[k];
    const Span span = band.span(phase);
    if (span.empty()) continue;
    const int64_t first = span.begin * phase.step[0] + phase.low, last = (span.end - 1) * phase.step[0] + phase.high;
    low = any ? std::min(low, first) : first, high = any ? std::max(high, last) : last;
    any = true;
  }
  band.low = low, band.lines = any ? std::max<int64_t>(high - low + 1, 0) : 0;
  return band;
}

// Lines of places that a band of so many lines needs at most.
template <class T>
inline int64_t most_lines(const Convolution<T>& c, int64_t lines, bool gradients) {
  int64_t low = c.extent[0], high = -c.extent[0], needed = lines;
  for (int64_t k = 0; k < c.phases; ++k) {
    const Phase& phase = c.phase[k];
    low = std::min(low, phase.low), high = std::max(high, phase.high);
    if (gradients) needed = std::max(needed, (divided(lines, phase.every[0]) + 1) * phase.step[0]);
  }
  const int64_t reach = std::max<int64_t>(high - low, 0);
  return std::min(needed + (gradients ? 1 : 2) * reach + 1, c.extent[0]);
}

// Rows follow each other eighths of the tile apart: neighbours would wait for each other's outputs, which overlap.
struct Places {
  int64_t count;
  int64_t* pixel;  // [count]: in x, from the first image and channel on
  int32_t* place;  // [count]: of the outputs, before a tap's offset is added

  template <class T>
  void fill(const Convolution<T>& c, const Phase& phase, const Band& band, int64_t channels) {
    const Span span = band.span(phase);
    const int64_t lines = span.end - span.begin, image = lines * phase.pixels[1] * phase.pixels[2];
    count = span.empty() ? 0 : band.images * image;
    const int64_t eighth = count / 8, rest = count % 8;
    int64_t strip = 0, along = 0;
    for (int64_t number = 0; number < (count ? band.images : 0); ++number)
      for (int64_t j0 = span.begin; j0 < span.end; ++j0)
        for (int64_t j1 = 0; j1 < phase.pixels[1]; ++j1)
          for (int64_t j2 = 0; j2 < phase.pixels[2]; ++j2) {
            const int64_t row = along * 8 + strip, line = number * band.lines + phase.step[0] * j0 - band.low;
            pixel[row] = number * channels * c.x_size[0] * c.x_size[1] * c.x_size[2] +
                         ((phase.first[0] + phase.every[0] * j0) * c.x_size[1] + phase.first[1] + phase.every[1] * j1) *
                             c.x_size[2] +
                         phase.first[2] + phase.every[2] * j2;
            place[row] = int32_t((line * c.extent[1] + phase.step[1] * j1 - c.low[1]) * c.extent[2] +
                                 phase.step[2] * j2 - c.low[2]);
            if (++along == eighth + (strip < rest)) along = 0, ++strip;
          }
  }
};

// Vectors of the outputs of neighbouring taps, as many as a kernel keeps in registers: with few functions more than a
// block of outputs. Slopes leave room for more of them, since their sums run over outputs.
struct Piece {
  static constexpr int block = Simd<float>::block, wide = HOF_VECTOR_BYTES == 64 ? 6 : HOF_VECTOR_BYTES == 32 ? 3 : 2;
  static constexpr int most = HOF_VECTOR_BYTES == 16 ? 2 : 6;
  static constexpr int window = HOF_VECTOR_BYTES == 64 ? 18 : 12;  // vectors of all functions taken at once
  static constexpr int vectors_for(int functions) { return functions <= 3 ? wide : block; }
  static constexpr int vectors_for_slopes(int functions) { return functions <= 2 ? most : vectors_for(functions); }
  int vectors;
  bool whole;           // all outputs of all of them exist
  int64_t at;           // from the first place on, in numbers
  int64_t width;        // numbers from one place to the next
  int64_t w[most];      // of each vector, in the coefficients [taps, outputs] of a function
  int64_t valid[most];  // outputs that it has
};

// The pieces of a phase, of at most so many vectors, for so many places and the outputs [first, first + outputs); `to`
// has room for taps * padded(outputs) / lanes.
template <class T>
inline int64_t cut_pieces(const Convolution<T>& c, const Phase& phase, int most, int64_t first, int64_t outputs,
                          int64_t places, Piece* to) {
  constexpr int L = Simd<T>::lanes;
  auto offset = [&](int64_t t) {
    const int64_t* of = phase.offsets + 3 * t;
    return (of[0] * c.extent[1] + of[1]) * c.extent[2] + of[2];
  };
  auto before = [&](int64_t a, int64_t b) { return offset(a) < offset(b); };
  int64_t count = 0;
  over_blocks<T>(1, outputs, [&]<int, int Q>(int, int64_t o) {
    constexpr int64_t width = row_stride<T, Q>();
    // taps in the order of their offsets; those of whole blocks that follow each other share pieces
    int64_t last = -1;
    Piece* open = nullptr;
    for (int64_t done = 0; done < phase.taps; ++done) {
      int64_t next = -1;
      for (int64_t t = 0; t < phase.taps; ++t)
        if ((last < 0 || before(last, t)) && (next < 0 || before(t, next))) next = t;
      const bool follows = open && offset(next) == offset(last) + 1;
      for (int q = 0; q < Q; ++q) {
        if (!(open && open->vectors < most && (q > 0 || follows))) {
          open = to + count++;
          *open = Piece{0, true, places * o + offset(next) * width + q * L, width, {}, {}};
        }
        open->w[open->vectors] = phase.numbers[next] * c.own.outputs + first + o + q * L;
        open->whole = open->whole && outputs - o - q * L >= L;
        open->valid[open->vectors++] = outputs - o - q * L;
      }
      last = next;
    }
  });
  return count;
}

// Calls f.template operator()<N, Q>(piece, first function) over all pieces and blocks of functions.
template <class T, class F>
inline void over_pieces(const Piece* pieces, int64_t count, int n, F&& f) {
  constexpr int most = Piece::most, many = 6;  // functions, with no more vectors than a block of outputs
  for (const Piece* piece = pieces; piece < pieces + count; ++piece) {
    auto functions = [&]<int Q>() {
      int first = 0;
      if constexpr (Q <= Simd<T>::block)
        for (; n > 4 && n - first >= many; first += many) f.template operator()<many, Q>(*piece, first);
      auto some = [&]<int N, int>(int j, int64_t) { f.template operator()<N, Q>(*piece, first + j); };
      over_functions<T, Q, std::min(4, Piece::window / Q)>(n - first, some, 0);
    };
    switch (piece->vectors) {
      case 1: functions.template operator()<1>(); break;
      case 2: functions.template operator()<2>(); break;
      case 3: functions.template operator()<std::min(3, most)>(); break;
      case 4: functions.template operator()<std::min(4, most)>(); break;
      case 5: functions.template operator()<std::min(5, most)>(); break;
      default: functions.template operator()<most>();
    }
  }
}

// Calls f(first output of an image, their number, place of the first) over stretches of a band's outputs whose places
// follow each other, with the number of the image in the band.
template <class T, class F>
inline void over_lines(const Convolution<T>& c, const Band& band, F&& f) {
  const int64_t begin = std::max<int64_t>(band.gradients ? band.low : band.begin, 0);
  const int64_t end = std::min(band.gradients ? band.low + band.lines : band.end, c.y_size[0]);
  // the last axis that there is runs through a stretch
  const int axis = c.extent[2] > 1 ? 2 : c.extent[1] > 1 ? 1 : 0;
  for (int64_t image = 0; image < band.images; ++image)
    for (int64_t l0 = begin; l0 < end; l0 += axis == 0 ? end - begin : 1)
      for (int64_t l1 = 0; l1 < c.y_size[1]; l1 += axis == 1 ? c.y_size[1] : 1) {
        const int64_t place = ((image * band.lines + l0 - band.low) * c.extent[1] + l1 - c.low[1]) * c.extent[2] - c.low[2];
        f(image, (l0 * c.y_size[1] + l1) * c.y_size[2], axis == 0 ? end - begin : c.y_size[axis], place);
      }
}

// Outputs from scratch to y [images, channels, image], `channel` being the first.
template <class T>
inline void write_outputs(const Convolution<T>& c, const Band& band, int64_t channel, int64_t outputs, int64_t places,
                          const T* y) {
  constexpr int L = Simd<T>::lanes;
  const int64_t all = c.own.groups * c.own.outputs, plane = c.y_size[0] * c.y_size[1] * c.y_size[2];
  with_storage<T>(c.own.result, c.own.result_storage, [&](auto* stored) {
    over_blocks<T>(1, outputs, [&]<int, int Q>(int, int64_t o) {
      constexpr int64_t width = row_stride<T, Q>();
      over_lines(c, band, [&](int64_t image, int64_t first, int64_t length, int64_t place) {
        auto* to = stored + ((band.image + image) * all + channel + o) * plane + first;
        const T* from = y + places * o + place * width;
        for (int64_t at = 0; at < length; at += L)
          for (int q = 0; q < Q; ++q) {
            Vector<T> v[L];
            for (int l = 0; l < L; ++l) v[l] = load(from + std::min(at + l, length - 1) * width + q * L);
            transpose<T>(v);
            for (int l = 0; l < L && o + q * L + l < outputs; ++l) store_some_as<T>(to + (q * L + l) * plane + at, v[l], length - at);
          }
      });
    });
  });
}

// Cotangents of the outputs into scratch, zeros beyond the image.
template <class T>
inline void read_cotangents(const Convolution<T>& c, const Band& band, int64_t channel, int64_t places, T* g) {
  constexpr int L = Simd<T>::lanes;
  const int64_t O = c.own.outputs, plane = c.y_size[0] * c.y_size[1] * c.y_size[2];
  std::fill_n(g, places * padded(O, L), T(0));
  with_storage<T>(c.own.g, c.own.g_storage, [&](auto* stored) {
    over_blocks<T>(1, O, [&]<int, int Q>(int, int64_t o) {
      constexpr int64_t width = row_stride<T, Q>();
      over_lines(c, band, [&](int64_t image, int64_t first, int64_t length, int64_t place) {
        const auto* from = stored + ((band.image + image) * c.own.groups * O + channel + o) * plane + first;
        T* to = g + places * o + place * width;
        for (int64_t at = 0; at < length; at += L)
          for (int q = 0; q < Q; ++q) {
            Vector<T> v[L];
            for (int l = 0; l < L; ++l)
              v[l] = o + q * L + l < O ? load_some_as<T>(from + (q * L + l) * plane + at, length - at) : Vector<T>{};
            transpose<T>(v);
            for (int l = 0; l < L && at + l < length; ++l) store(to + (at + l) * width + q * L, v[l]);
          }
      });
    });
  });
}

}  // namespace HOF_VARIANT
}  // namespace hof
