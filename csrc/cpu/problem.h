// What CPU kernels are asked besides, how their work is cut, and the table of a variant.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "../problem.h"

namespace hof {

using BFloat16 = c10::BFloat16;
using Half = c10::Half;

// Work is cut into units that do not depend on the number of threads; a unit needs `scratch` bytes.
struct Cut {
  int rows;                       // of a tile
  int64_t tiles, parts, part;     // row tiles; parts of the other axis, each `part` wide
  int64_t units;
  int64_t scratch;
};

// Matrices [copies, rows, columns] that are transposed, times a factor for each row and `size` columns, which may be null, of
// the same storage: [copies, columns / size, rows], or with the rows first.
struct Stack {
  int64_t copies, rows, columns;
  const void *from, *factor;
  int64_t size;
  Storage storage;
  bool rows_first;
};

// Where the gradients of a stack go, and of its factors, as these lie.
template <class T>
struct StackGradients {
  Stack stack;
  void *of_from, *of_factor;
};

// What rows meet of each input: the first coefficient of a window, and `width` numbers.
template <class T>
struct Met {
  int64_t rows, width;  // room for so many
  T* values;            // [input][row][width]
  int32_t* first;       // [input][row]
};

// A few rows between the passes that give their output from coefficients [groups, outputs, inputs, K], times a gain or not.
template <class T>
struct FewRows {
  Met<T> met;        // [group][input].. of all rows
  T* values;         // of a branch: [group][block of inputs][row]..
  const void* gain;  // stored like w; null: ones
  int64_t gain_group, gain_input, gain_output;
};

// Rows of a group between the passes of the gradients of a product.
template <class T>
struct ProductTile {
  int64_t e, row;
  int rows;
  Met<T> met;      // window values, then slopes
  T* shares;       // [cache line of outputs][row][input]: of the gradient of x
  T *of_x, *of_w;  // the gradients; of_w is the group's
};

// The pixels first, first + every.. along each of three axes, and the taps that they meet: pixel j gives what tap t
// makes of it to the output step * j + offsets[t].
struct Phase {
  int64_t first[3], every[3], step[3], pixels[3];
  int64_t taps;
  const int64_t *numbers, *offsets;  // of the taps: among all, and [taps][3]
  int64_t low, high;                 // the least and the largest offset along the first axis
};

// A convolution: pixels are the rows of a link, and what a row gives to all taps is added where it belongs.
template <class T>
struct Convolution {
  Problem<T> own, steep;  // of a group, the second over the derivative basis; x, g, results [images, channels, image]
  int64_t images, taps, phases;
  int64_t x_size[3], y_size[3];
  int64_t low[3], extent[3];  // of the outputs, with those beyond the image
  const Phase* phase;
  void* of_x;    // null: not wanted
  T *of_w, *of_parts;  // [groups, inputs, K, taps, outputs] of the first part, or null; and of each other part
};

// How a convolution is cut: tiles of some images, and of some lines along the first axis.
struct ImageCut {
  int64_t images, image_tiles, lines, bands;
  int64_t parts;  // of its gradients: sums of w, each over some of the tiles; else of the outputs
  int64_t each;   // outputs of a part; of its gradients: inputs of a unit
  Cut cut;
};

// A variant of the kernels, compiled for one instruction set.
template <class T>
struct Kernels {
  Cut (*cut[3])(const Problem<T>&, int threads);
  void (*run[3])(const Problem<T>&, const Cut&, int64_t unit, char* scratch);
  // SUM_BATCH, its result unpacked or not, and SUM_OUTPUTS over the derivative basis, or not, together
  Cut (*cut_gradients)(const Problem<T>& v, const StackGradients<T>*, const Problem<T>* r, int threads);
  void (*run_gradients)(const Problem<T>& v, const StackGradients<T>*, const Problem<T>* r, const Cut&, int64_t unit, char* scratch);
  Cut (*cut_few)(const Problem<T>&, bool outputs);
  void (*meet_few)(const Problem<T>&, const FewRows<T>&, int64_t unit, char* scratch);
  void (*add_few)(const Problem<T>&, const FewRows<T>&, int64_t unit, char* scratch);
  Cut (*cut_product)(const Problem<T>&, int threads);
  void (*run_product)(const Problem<T>&, const Cut&, int64_t unit, char* scratch);
  Cut (*cut_product_gradients)(const Problem<T>&, int pass, int threads);
  void (*meet_rows)(const Problem<T>&, const Problem<T>& slopes, const Cut&, const ProductTile<T>&, int64_t unit, char* scratch);
  void (*pull_rows)(const Problem<T>&, const Cut&, const ProductTile<T>&, int64_t unit, char* scratch);
  void (*add_shares)(const Problem<T>&, const Cut&, const ProductTile<T>&, int64_t unit);
  ImageCut (*cut_conv)(const Convolution<T>&, bool gradients, int threads);
  void (*run_conv)(const Convolution<T>&, const ImageCut&, int64_t unit, char* scratch);
  void (*run_conv_gradients)(const Convolution<T>&, const ImageCut&, int64_t unit, char* scratch);
  void (*add_parts)(const T* first, const T* parts, int64_t count, int64_t size, int64_t begin, int64_t end, void* to, Storage storage);
  void (*transpose)(const Stack&, int64_t copy, int64_t begin, int64_t end, void* to);
  void (*transpose_gradients)(const StackGradients<T>&, int64_t copy, const T* cotangent, int64_t begin, int64_t end);
};

namespace baseline { template <class T> const Kernels<T>& kernels(); }
namespace avx2 { template <class T> const Kernels<T>& kernels(); }
namespace avx512 { template <class T> const Kernels<T>& kernels(); }

}  // namespace hof
