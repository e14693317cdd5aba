// Convolutions as two CPU operators, forward and backward.
#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "launch.h"

namespace {

using namespace hof;

// A geometry as Python's geometry.py writes it: the sizes of y, and of each phase nine numbers, its taps and their offsets.
template <class T>
struct Layout {
  Convolution<T> c{};
  std::vector<Phase> phases;

  Layout(const Tensor& x, const std::vector<int64_t>& geometry) {
    STD_TORCH_CHECK(x.is_cpu() && x.dim() == 5 && x.is_contiguous() && geometry.size() > 4, "malformed call");
    c.images = x.size(0), c.taps = geometry[3];
    phases.resize(size_t(geometry[4]));
    size_t at = 5;
    auto next = [&](int64_t* to) {
      for (int a = 0; a < 3; ++a) to[a] = geometry.at(at++);
    };
    for (int a = 0; a < 3; ++a) {
      c.x_size[a] = x.size(2 + a), c.y_size[a] = geometry[size_t(a)];
      c.low[a] = 0, c.extent[a] = c.y_size[a] - 1;  // the highest, for now
      STD_TORCH_CHECK(c.y_size[a] > 0, "malformed geometry");
    }
    for (Phase& phase : phases) {
      next(phase.first), next(phase.every), next(phase.step);
      phase.taps = geometry.at(at++);
      STD_TORCH_CHECK(phase.taps > 0 && at + size_t(4 * phase.taps) <= geometry.size(), "malformed geometry");
      phase.numbers = geometry.data() + at, phase.offsets = phase.numbers + phase.taps;
      at += size_t(4 * phase.taps);
      for (int a = 0; a < 3; ++a) {
        STD_TORCH_CHECK(phase.every[a] > 0 && phase.step[a] > 0 && phase.first[a] >= 0, "malformed geometry");
        phase.pixels[a] = std::max<int64_t>(0, (c.x_size[a] - phase.first[a] + phase.every[a] - 1) / phase.every[a]);
      }
      phase.low = phase.high = phase.offsets[0];
      for (int64_t t = 0; t < phase.taps; ++t) {
        STD_TORCH_CHECK(phase.numbers[t] >= 0 && phase.numbers[t] < c.taps, "malformed geometry");
        phase.low = std::min(phase.low, phase.offsets[3 * t]), phase.high = std::max(phase.high, phase.offsets[3 * t]);
        for (int a = 0; a < 3; ++a) {
          const int64_t offset = phase.offsets[3 * t + a];
          c.low[a] = std::min(c.low[a], offset);
          c.extent[a] = std::max(c.extent[a], phase.step[a] * (phase.pixels[a] - 1) + offset);
        }
      }
    }
    for (int a = 0; a < 3; ++a) c.extent[a] += 1 - c.low[a];
    c.phases = int64_t(phases.size()), c.phase = phases.data();
  }

  int64_t pixels() const { return c.x_size[0] * c.x_size[1] * c.x_size[2]; }

  // Every pixel of x is met by a tap.
  bool whole() const {
    int64_t met = 0;
    for (const Phase& phase : phases) met += phase.pixels[0] * phase.pixels[1] * phase.pixels[2];
    return met == pixels();
  }

  void read(const Tensor& x, const Tensor& w, const Operands& basis, bool steep) {
    STD_TORCH_CHECK(w.dim() == 5 && w.is_contiguous() && w.size(3) == c.taps, "w");
    Problem<T>& p = c.own;
    p.groups = w.size(0), p.inputs = w.size(1), p.outputs = w.size(4), p.batch = c.images * pixels();
    STD_TORCH_CHECK(x.size(1) == p.groups * p.inputs, "x");
    p.basis = basis.read<T>(p.inputs);
    STD_TORCH_CHECK(w.size(2) == p.basis.size, "w");
    p.x = x.const_data_ptr(), p.x_storage = storage_of<T>(x);
    p.w = w.const_data_ptr(), p.w_storage = storage_of<T>(w);
    c.steep = p;
    if (steep) c.steep.basis = basis.read<T>(p.inputs, 1);
  }
};

// y [images, outputs, image] of x [images, channels, image] and w [groups, channels, K, taps, outputs], three axes each.
Tensor conv(Tensor x, Tensor w, Tensor domain, Tensor knots, Tensor tables, Tensor start, std::vector<int64_t> layout,
            std::vector<int64_t> geometry, int64_t isa) {
  const Operands basis{domain, knots, tables, start, layout};
  return basis.compute([&]<class T>() {
    Layout<T> of(x, geometry);
    of.read(x, w, basis, false);
    Convolution<T>& c = of.c;
    const int64_t sizes[5] = {c.images, c.own.groups * c.own.outputs, c.y_size[0], c.y_size[1], c.y_size[2]};
    Tensor y = empty(w, 5, sizes);
    if (y.numel() == 0) return y;
    if (x.numel() == 0) return torch::stable::fill_(y, 0.0);
    c.own.result = y.mutable_data_ptr(), c.own.result_storage = storage_of<T>(y);
    const Kernels<T>& kernels = variant<T>(isa);
    const ImageCut cut = kernels.cut_conv(c, false, int(torch::stable::get_num_threads()));
    over_units(cut.cut, [&](int64_t unit, char* scratch) { kernels.run_conv(c, cut, unit, scratch); });
    return y;
  });
}

// The gradients of x and w from that of y, those not wanted without a number; tables hold the derivative, too.
std::tuple<Tensor, Tensor> conv_gradients(Tensor g, Tensor x, Tensor w, Tensor domain, Tensor knots, Tensor tables,
                                          Tensor start, std::vector<int64_t> layout, std::vector<int64_t> geometry,
                                          int64_t isa, bool of_x, bool of_w) {
  const Operands basis{domain, knots, tables, start, layout};
  return basis.compute([&]<class T>() -> std::tuple<Tensor, Tensor> {
    Layout<T> of(x, geometry);
    of.read(x, w, basis, of_x);
    Convolution<T>& c = of.c;
    STD_TORCH_CHECK(g.dim() == 5 && g.is_contiguous() && g.size(0) == c.images &&
                        g.size(1) == c.own.groups * c.own.outputs && g.size(2) == c.y_size[0] &&
                        g.size(3) == c.y_size[1] && g.size(4) == c.y_size[2], "g");
    const int64_t x_sizes[5] = {x.size(0), x.size(1), x.size(2), x.size(3), x.size(4)}, none = 0;
    const int64_t w_sizes[5] = {w.size(0), w.size(1), w.size(2), w.size(3), w.size(4)};
    Tensor slope = of_x ? empty(x, 5, x_sizes) : empty(x, 1, &none), v = of_w ? empty(w, 5, w_sizes) : empty(w, 1, &none);
    if (x.numel() == 0 || g.numel() == 0 || w.numel() == 0)
      return {torch::stable::fill_(slope, 0.0), torch::stable::fill_(v, 0.0)};
    if (of_x && !of.whole()) slope = torch::stable::fill_(slope, 0.0);
    c.own.g = g.const_data_ptr(), c.own.g_storage = storage_of<T>(g);
    c.of_x = of_x ? slope.mutable_data_ptr() : nullptr;
    const Kernels<T>& kernels = variant<T>(isa);
    const ImageCut cut = kernels.cut_conv(c, true, int(torch::stable::get_num_threads()));
    const bool direct = storage_of<T>(w) == Storage::SAME;  // the first part is then where the sums end
    const int64_t size = w.numel(), room = of_w ? (cut.parts - direct) * size : 0;
    const Tensor parts = empty(knots, 1, &room);
    if (of_w) {
      c.of_w = direct ? v.mutable_data_ptr<T>() : parts.mutable_data_ptr<T>();
      c.of_parts = room ? parts.mutable_data_ptr<T>() + (direct ? 0 : size) : nullptr;
    }
    over_units(cut.cut, [&](int64_t unit, char* scratch) { kernels.run_conv_gradients(c, cut, unit, scratch); });
    if (room) add_up(kernels, c.of_w, c.of_parts, cut.parts, size, v.mutable_data_ptr(), storage_of<T>(v));
    return {slope, v};
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(high_order_fused, library) {
  library.def(
      "cpu_conv(Tensor x, Tensor w, Tensor domain, Tensor knots, Tensor tables, Tensor start, int[] layout, "
      "int[] geometry, int isa) -> Tensor");
  library.def(
      "cpu_conv_gradients(Tensor g, Tensor x, Tensor w, Tensor domain, Tensor knots, Tensor tables, Tensor start, "
      "int[] layout, int[] geometry, int isa, bool of_x, bool of_w) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(high_order_fused, CPU, library) {
  library.impl("cpu_conv", TORCH_BOX(&conv));
  library.impl("cpu_conv_gradients", TORCH_BOX(&conv_gradients));
}
