// v[e,i,k,o] = sum_b g[e,b,o] s[e,b,i] phi_k(x[e,b,i])
#include "gather.h"
#include "tile.h"

namespace hof::cuda {

// v [parts, E, I, K, O]: a tile of functions and outputs, over some of the rows.
template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
    sum_batch_dense(const Problem<T> p, const Numbers g, const Room v, const Strips strips, int64_t output_tiles,
                    int64_t parts) {
  __shared__ Tiles<T> tiles;
  Place place{int64_t(blockIdx.x)};
  const int64_t o = place.take(output_tiles) * TILE;  // blocks side by side share x
  const Strip strip = strips.at(place.take(strips.count()));
  const int64_t part = place.take(parts), e = place.rest;
  const int64_t pieces = (p.batch + DEPTH<T> - 1) / DEPTH<T>;
  Sums<T> sums{};
  for (int64_t piece = pieces * part / parts; piece < pieces * (part + 1) / parts; ++piece) {
    const int64_t row = piece * DEPTH<T>, rows = p.batch - row;
    expand<true>(p, e, row, DEPTH<T>, strip, tiles.left, TILE);
    stage(g, e * p.g_group + row * p.g_row + o, p.g_row, rows, p.outputs - o, tiles.right);
    __syncthreads();
    multiply(tiles, int(rows < DEPTH<T> ? rows : DEPTH<T>), sums);
  }
  const int64_t begin = ((part * p.groups + e) * p.inputs + strip.input) * p.basis.size + strip.first;
  for (int a = 0; a < 8; ++a) {
    const int c = left_of_thread() + a;
    const int64_t column = o + right_of_thread();
    if (c >= strip.width() || column >= p.outputs) continue;
    Four<T> four;
    for (int k = 0; k < 4; ++k) four.of[k] = sums.of[a][k];
    write_four(v, (begin + c) * p.outputs + column, four, p.outputs - column);
  }
}

constexpr int ENTRIES = 8 * THREADS;  // rows that the teams of a block look at together

// Rows of an input, sorted by what they meet.
template <class T>
struct Sorted {
  Four<T> values[ENTRIES];
  int first[ENTRIES];
  short order[ENTRIES];
};

// Adds four functions' sums to v and clears them. Nobody else adds there.
template <class T>
__device__ inline void flush(const Room& v, int64_t at, int64_t outputs, int64_t left, int count,
                             Four<T> (&sums)[QUARTET]) {
  T* to = static_cast<T*>(v.data) + at;
  for (int q = 0; q < count; ++q) {
    Four<T> four = load_four<T>(static_cast<const T*>(to + q * outputs), v.four && left >= 4, left);
    for (int k = 0; k < 4; ++k) four.of[k] += sums[q].of[k];
    write_four(v, at + q * outputs, four, left);
  }
  for (int q = 0; q < QUARTET; ++q) sums[q] = {};
}

// v [parts, E, I, K, O]: all functions of an input and some outputs for each team, over some of the rows. Rows that meet
// the same coefficients follow each other, and their sums stay in registers.
template <class T>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
    sum_batch_gather(const Problem<T> p, const Numbers g, const Room v, const Teams teams, int64_t output_tiles,
                     int64_t input_tiles, int64_t parts) {
  __shared__ Sorted<T> sorted;
  Place place{int64_t(blockIdx.x)};
  const int64_t o = place.take(output_tiles) * teams.outputs() + teams.output();
  const int64_t inputs = place.take(input_tiles) * teams.count(), part = place.take(parts), e = place.rest;
  const int64_t input = inputs + teams.team();
  const int n = p.basis.n, capacity = ENTRIES / teams.count(), own = teams.team() * capacity;
  const bool there = input < p.inputs && o < p.outputs;
  const int64_t begin = (((part * p.groups + e) * p.inputs + input) * p.basis.size) * p.outputs + o;
  if (there)
    for (int k = 0; k < p.basis.size; ++k) write_four(v, begin + k * p.outputs, Four<T>{}, p.outputs - o);

  const int64_t end = p.batch * (part + 1) / parts;
  for (int64_t row = p.batch * part / parts; row < end; row += capacity) {
    const int rows = int(end - row < capacity ? end - row : capacity);
    for (int j = 0; j < n; j += QUARTET) {
      __syncthreads();
      for (int t = int(threadIdx.x); t < ENTRIES; t += THREADS) {
        const int64_t i = inputs + t / capacity, b = row + t % capacity;
        if (t % capacity >= rows || i >= p.inputs) continue;
        const Met<T> met = meet(p.basis, i, x_of(p, e, b, i));
        sorted.values[t] = window(p.basis, met, j, scale_of(p, e, b, i));
        sorted.first[t] = met.first;
      }
      __syncthreads();
      for (int t = int(threadIdx.x); j == 0 && t < ENTRIES; t += THREADS) {  // a row's place: how many come before it
        const int from = t / capacity * capacity, r = t % capacity;
        if (r >= rows || inputs + t / capacity >= p.inputs) continue;
        int before = 0;
        for (int other = 0; other < rows; ++other)
          before += sorted.first[from + other] < sorted.first[t] + (other < r ? 1 : 0);
        sorted.order[from + before] = short(r);
      }
      __syncthreads();
      if (!there) continue;
      const int count = n - j < QUARTET ? n - j : QUARTET;
      int met = sorted.first[own + sorted.order[own]];
      Four<T> sums[QUARTET] = {};
      with_vectors<T>(g, g.four && p.outputs - o >= 4, [&]<bool Whole>(auto* stored) {
        const auto* from = stored + e * p.g_group + row * p.g_row + o;
        Four<T> next = load_four<T>(from + sorted.order[own] * p.g_row, Whole, p.outputs - o);
        for (int t = 0; t < rows; ++t) {
          const Four<T> cotangents = next;  // those of the row behind are on their way meanwhile
          if (t + 1 < rows) next = load_four<T>(from + sorted.order[own + t + 1] * p.g_row, Whole, p.outputs - o);
          const int r = own + sorted.order[own + t], first = sorted.first[r];
          if (first != met) flush(v, begin + (met + j) * p.outputs, p.outputs, p.outputs - o, count, sums);
          met = first;
          const Four<T> values = sorted.values[r];
          for (int q = 0; q < QUARTET; ++q)
            for (int k = 0; k < 4; ++k) sums[q].of[k] += values.of[q] * cotangents.of[k];
        }
      });
      flush(v, begin + (met + j) * p.outputs, p.outputs, p.outputs - o, count, sums);
    }
  }
}

template <class T>
const char* sum_batch(const Problem<T>& p, const Choice& how) {
  const Room v = room(p, SUM_BATCH, how);
  if (how.kernel == GATHER) {
    const Teams teams = teams_for(p.outputs);
    const int64_t outputs = divided(p.outputs, teams.outputs()), inputs = divided(p.inputs, teams.count());
    return start(sum_batch_gather<T>, outputs * inputs * how.parts * p.groups, how, p, cotangents(p), v, teams, outputs,
                 inputs, how.parts);
  }
  const Strips strips{p.inputs, p.basis.size, TILE};
  const int64_t outputs = divided(p.outputs, TILE);
  return start(sum_batch_dense<T>, outputs * strips.count() * how.parts * p.groups, how, p, cotangents(p), v, strips,
               outputs, how.parts);
}

template const char* sum_batch(const Problem<float>&, const Choice&);
template const char* sum_batch(const Problem<double>&, const Choice&);

}  // namespace hof::cuda
