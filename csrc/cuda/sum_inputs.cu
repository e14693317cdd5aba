// y[e,b,o] = sum_i s[e,b,i] f_oi(x[e,b,i])
#include "gather.h"
#include "tile.h"

namespace hof::cuda {

// y [parts, E, B, O]: a tile of rows and outputs, over some of the strips of functions.
template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
    sum_inputs_dense(const Problem<T> p, const Numbers w, const Room y, const Strips strips, int64_t row_tiles,
                     int64_t output_tiles, int64_t parts) {
  __shared__ Tiles<T> tiles;
  Place place{int64_t(blockIdx.x)};
  const int64_t row = place.take(row_tiles) * TILE;  // blocks side by side share coefficients
  const int64_t o = place.take(output_tiles) * TILE, part = place.take(parts), e = place.rest;
  const int64_t count = strips.count(), size = p.basis.size;
  Sums<T> sums{};
  for (int64_t index = count * part / parts; index < count * (part + 1) / parts; ++index) {
    const Strip strip = strips.at(index);
    expand<false>(p, e, row, TILE, strip, tiles.left, strip.width());
    const int64_t begin = (e * p.inputs + strip.input) * size + strip.first;
    stage(w, begin * p.outputs + o, p.outputs, strip.width(), p.outputs - o, tiles.right);
    __syncthreads();
    multiply(tiles, strip.width(), sums);
  }
  for (int a = 0; a < 8; ++a) {
    const int64_t b = row + left_of_thread() + a, column = o + right_of_thread();
    if (b >= p.batch || column >= p.outputs) continue;
    const int64_t at = ((part * p.groups + e) * p.batch + b) * p.outputs + column;
    Four<T> four;
    for (int k = 0; k < 4; ++k) four.of[k] = sums.of[a][k];
    write_four(y, at, four, p.outputs - column);
  }
}

// y [parts, E, B, O]: some outputs of one row, the coefficients it meets of some inputs.
template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
    sum_inputs_gather(const Problem<T> p, const Numbers w, const Room y, const Teams teams, int64_t output_tiles,
                      int64_t parts) {
  __shared__ Windows<T> windows;
  __shared__ Four<T> shares[THREADS];
  Place place{int64_t(blockIdx.x)};
  const int64_t o = place.take(output_tiles) * teams.outputs() + teams.output(), part = place.take(parts);
  const int64_t row = place.take(p.batch), e = place.rest;
  const int64_t begin = p.inputs * part / parts, end = p.inputs * (part + 1) / parts;
  Four<T> sum{};
  for (int64_t input = begin; input < end; input += THREADS) {
    const int slots = int(end - input < THREADS ? end - input : THREADS);
    const auto own = windows.look_up(p, e, row, input, slots);
    for (int j = 0; j < p.basis.n; j += QUARTET) {
      windows.evaluate(p, own, j);
      if (o >= p.outputs) continue;
      with_vectors<T>(w, w.four && p.outputs - o >= 4, [&]<bool Whole>(auto* stored) {
        using S = std::remove_cvref_t<decltype(*stored)>;
        for (int slot = teams.team(); slot < slots; slot += teams.count()) {
          const int64_t begin = (e * p.inputs + input + slot) * p.basis.size + windows.first[slot];
          const Coefficients<T, S> met(stored + begin * p.outputs + o, p.outputs, p.basis.n - j, Whole, p.outputs - o);
          const Four<T> values = windows.values[slot];
          for (int q = 0; q < QUARTET; ++q)
            for (int k = 0; k < 4; ++k) sum.of[k] += values.of[q] * met.of[q].of[k];
        }
      });
    }
  }
  shares[threadIdx.x] = sum;
  __syncthreads();
  if (teams.team() == 0 && o < p.outputs) {
    for (int team = 1; team < teams.count(); ++team)
      for (int k = 0; k < 4; ++k) sum.of[k] += shares[team * teams.lanes + threadIdx.x].of[k];
    write_four(y, ((part * p.groups + e) * p.batch + row) * p.outputs + o, sum, p.outputs - o);
  }
}

template <class T>
const char* sum_inputs(const Problem<T>& p, const Choice& how) {
  const Room y = room(p, SUM_INPUTS, how);
  if (how.kernel == GATHER) {
    const Teams teams = teams_for(p.outputs);
    const int64_t tiles = divided(p.outputs, teams.outputs());
    return start(sum_inputs_gather<T>, tiles * how.parts * p.batch * p.groups, how, p, coefficients(p), y, teams, tiles,
                 how.parts);
  }
  const int64_t rows = divided(p.batch, TILE), outputs = divided(p.outputs, TILE);
  return start(sum_inputs_dense<T>, rows * outputs * how.parts * p.groups, how, p, coefficients(p), y,
               Strips{p.inputs, p.basis.size, DEPTH<T>}, rows, outputs, how.parts);
}

template const char* sum_inputs(const Problem<float>&, const Choice&);
template const char* sum_inputs(const Problem<double>&, const Choice&);

}  // namespace hof::cuda
