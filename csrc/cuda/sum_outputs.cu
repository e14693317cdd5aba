// r[e,b,i] = sum_o g[e,b,o] f_oi(x[e,b,i])
#include "gather.h"
#include "tile.h"

namespace hof::cuda {

// r: a tile of rows and of the inputs of a strip. g times coefficients first, for each function; then times the functions.
template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
    sum_outputs_dense(const Problem<T> p, const Numbers w, const Numbers g, const Room r, const Strips strips,
                      int64_t row_tiles) {
  __shared__ union {
    Tiles<T> tiles;
    T functions[TILE][PITCH];
  } shared;
  static_assert(sizeof(shared.functions) <= sizeof(shared.tiles));
  Place place{int64_t(blockIdx.x)};
  const int64_t row = place.take(row_tiles) * TILE, group = place.take(strips.count() / strips.parts()), e = place.rest;
  T total = 0;  // of the row and input of a thread, where an input has several strips
  for (int part = 0; part < strips.parts(); ++part) {
    const Strip strip = strips.at(group * strips.parts() + part);
    const int64_t begin = (e * p.inputs + strip.input) * p.basis.size + strip.first;
    Sums<T> sums{};
    for (int64_t o = 0; o < p.outputs; o += DEPTH<T>) {
      __syncthreads();
      stage_turned(g, e * p.g_group + row * p.g_row + o, p.g_row, p.batch - row, p.outputs - o, shared.tiles.left);
      stage_turned(w, begin * p.outputs + o, p.outputs, strip.width(), p.outputs - o, shared.tiles.right);
      __syncthreads();
      multiply(shared.tiles, int(p.outputs - o < DEPTH<T> ? p.outputs - o : DEPTH<T>), sums);
    }
    expand<false>(p, e, row, TILE, strip, shared.functions, TILE);
    __syncthreads();
    for (int a = 0; a < 8; ++a)
      for (int b = 0; b < 4; ++b) shared.functions[right_of_thread() + b][left_of_thread() + a] *= sums.of[a][b];
    __syncthreads();
    for (int t = int(threadIdx.x); t < strip.inputs * TILE; t += THREADS) {
      const int slot = t / TILE, b = t % TILE;
      T sum = 0;
      for (int k = 0; k < strip.count; ++k) sum += shared.functions[slot * strip.count + k][b];
      total = part == 0 ? sum : total + sum;
      if (part == strips.parts() - 1 && row + b < p.batch)
        write(r, (e * p.batch + row + b) * p.inputs + strip.input + slot, total);
    }
  }
}

// r: up to THREADS inputs of one row, by the coefficients they meet.
template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
    sum_outputs_gather(const Problem<T> p, const Numbers w, const Numbers g, const Room r, const Teams teams,
                       int64_t input_tiles) {
  __shared__ Windows<T> windows;
  __shared__ T shares[THREADS][33];  // of the threads of a team, for each input
  Place place{int64_t(blockIdx.x)};
  const int64_t input = place.take(input_tiles) * THREADS, row = place.take(p.batch), e = place.rest;
  const int slots = int(p.inputs - input < THREADS ? p.inputs - input : THREADS);
  const auto own = windows.look_up(p, e, row, input, slots);
  T total = 0;
  for (int j = 0; j < p.basis.n; j += QUARTET) {
    windows.evaluate(p, own, j);
    with_vectors<T>(w, w.four, [&]<bool Whole>(auto* stored) {
      using S = std::remove_cvref_t<decltype(*stored)>;
      for (int slot = teams.team(); slot < slots; slot += teams.count()) {
        const auto* from = stored + ((e * p.inputs + input + slot) * p.basis.size + windows.first[slot]) * p.outputs;
        const Four<T> values = windows.values[slot];
        T share = 0;
        for (int64_t o = teams.output(); o < p.outputs; o += teams.outputs()) {
          const Four<T> cotangents = read_four<T>(g, e * p.g_group + row * p.g_row + o, p.outputs - o);
          const Coefficients<T, S> met(from + o, p.outputs, p.basis.n - j, Whole, p.outputs - o);
          for (int q = 0; q < QUARTET; ++q) {
            T sum = 0;
            for (int k = 0; k < 4; ++k) sum += met.of[q].of[k] * cotangents.of[k];
            share += values.of[q] * sum;
          }
        }
        shares[slot][teams.lane()] = share;
      }
    });
    __syncthreads();
    if (own.there)
      for (int lane = 0; lane < teams.lanes; ++lane) total += shares[threadIdx.x][lane];
  }
  if (own.there) write(r, (e * p.batch + row) * p.inputs + input + threadIdx.x, total);
}

template <class T>
const char* sum_outputs(const Problem<T>& p, const Choice& how) {
  const Room r = room(p, SUM_OUTPUTS, how);
  if (how.kernel == GATHER) {
    const int64_t tiles = divided(p.inputs, THREADS);
    return start(sum_outputs_gather<T>, tiles * p.batch * p.groups, how, p, coefficients(p), cotangents(p), r,
                 teams_for(p.outputs), tiles);
  }
  const Strips strips{p.inputs, p.basis.size, TILE};
  const int64_t rows = divided(p.batch, TILE);
  return start(sum_outputs_dense<T>, rows * (strips.count() / strips.parts()) * p.groups, how, p, coefficients(p),
               cotangents(p), r, strips, rows);
}

template const char* sum_outputs(const Problem<float>&, const Choice&);
template const char* sum_outputs(const Problem<double>&, const Choice&);

}  // namespace hof::cuda
