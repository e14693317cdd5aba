// Dense tiles: a matrix product of two tiles in shared memory, of which one may be made of the functions at a tile of x.
#pragma once

#include "start.h"

namespace hof::cuda {

constexpr int TILE = 64;         // rows, outputs or functions: each side of a tile of the result
constexpr int PITCH = TILE + 4;  // so that rows begin in other banks
template <class T>
constexpr int DEPTH = 256 / int(sizeof(T));  // terms of the sums at a time

template <class T>
struct alignas(16) Tiles {
  T left[DEPTH<T>][PITCH];
  T right[DEPTH<T>][PITCH];
};

// Of each thread: 8 x 4 sums of the tile.
template <class T>
struct Sums {
  T of[8][4];
};

__device__ inline int left_of_thread() { return int(threadIdx.x) / 16 * 8; }
__device__ inline int right_of_thread() { return int(threadIdx.x) % 16 * 4; }

// sums[a][b] += sum over d of left[d][a] right[d][b]
template <class T>
__device__ inline void multiply(const Tiles<T>& tiles, int depth, Sums<T>& sums) {
  const int a0 = left_of_thread(), b0 = right_of_thread();
#pragma unroll 4
  for (int d = 0; d < depth; ++d) {
    const Four<T> low = *reinterpret_cast<const Four<T>*>(&tiles.left[d][a0]);
    const Four<T> high = *reinterpret_cast<const Four<T>*>(&tiles.left[d][a0 + 4]);
    const Four<T> right = *reinterpret_cast<const Four<T>*>(&tiles.right[d][b0]);
    for (int a = 0; a < 4; ++a)
      for (int b = 0; b < 4; ++b) {
        sums.of[a][b] += low.of[a] * right.of[b];
        sums.of[a + 4][b] += high.of[a] * right.of[b];
      }
  }
}

// Some functions of some inputs, side by side as coefficients lie: all of each input, or a part of one's.
struct Strip {
  int64_t input;
  int inputs, first, count;  // the number of inputs; the first function, and how many, of each
  __device__ int width() const { return inputs * count; }
};

// How the functions of all inputs are cut into strips that are at most `most` wide.
struct Strips {
  int64_t inputs;
  int size, most;
  __host__ __device__ int each() const { return size > most ? 1 : most / size; }            // inputs of a strip
  __host__ __device__ int parts() const { return size > most ? (size + most - 1) / most : 1; }  // strips of an input
  __host__ __device__ int64_t count() const { return (inputs + each() - 1) / each() * parts(); }
  __device__ Strip at(int64_t index) const {
    const int64_t input = index / parts() * each();
    const int first = int(index % parts()) * most, rest = size - first;
    return {input, int(inputs - input < each() ? inputs - input : each()), first, rest < most ? rest : most};
  }
};

// to[c][r] (ByRow: to[r][c]) = function c of a strip at row r of a tile, times s: 0 where the row does not meet it, and
// where there are no such rows. Begins, and does not end, with all threads in step.
template <bool ByRow, class T>
__device__ inline void expand(const Problem<T>& p, int64_t e, int64_t row, int rows, const Strip& strip, T (*to)[PITCH],
                              int columns) {
  __syncthreads();
  for (int t = int(threadIdx.x); t < columns * rows; t += THREADS) {
    if (ByRow)
      to[t / columns][t % columns] = 0;
    else
      to[t / rows][t % rows] = 0;
  }
  __syncthreads();
  const int there = int(p.batch - row < rows ? p.batch - row : rows);
  for (int t = int(threadIdx.x); t < strip.inputs * rows; t += THREADS) {
    const int slot = t / rows, r = t % rows;
    if (r >= there) continue;
    const Met<T> met = meet(p.basis, strip.input + slot, x_of(p, e, row + r, strip.input + slot));
    const T scale = scale_of(p, e, row + r, strip.input + slot);
    for (int j = 0; j < p.basis.n; j += QUARTET) {
      const Four<T> values = window(p.basis, met, j, scale);
      for (int q = 0; q < QUARTET; ++q) {
        const int k = met.first + j + q - strip.first, c = slot * strip.count + k;
        if (j + q < p.basis.n && k >= 0 && k < strip.count) (ByRow ? to[r][c] : to[c][r]) = values.of[q];
      }
    }
  }
}

// to[r][c] = the numbers of `rows` rows and TILE columns, `valid` of them, that begin at `at`, as they lie; zeros beyond.
template <class T>
__device__ inline void stage(const Numbers& from, int64_t at, int64_t ld, int64_t rows, int64_t valid, T (*to)[PITCH]) {
  for (int t = int(threadIdx.x); t < DEPTH<T> * (TILE / 4); t += THREADS) {
    const int r = t / (TILE / 4), c = t % (TILE / 4) * 4;
    Four<T> numbers{};
    if (r < rows && c < valid) numbers = read_four<T>(from, at + r * ld + c, valid - c);
    *reinterpret_cast<Four<T>*>(&to[r][c]) = numbers;
  }
}

// to[c][r] of TILE rows and DEPTH columns.
template <class T>
__device__ inline void stage_turned(const Numbers& from, int64_t at, int64_t ld, int64_t rows, int64_t valid,
                                    T (*to)[PITCH]) {
  for (int t = int(threadIdx.x); t < TILE * (DEPTH<T> / 4); t += THREADS) {
    const int r = t % TILE, c = t / TILE * 4;
    Four<T> numbers{};
    if (r < rows && c < valid) numbers = read_four<T>(from, at + r * ld + c, valid - c);
    for (int k = 0; k < 4; ++k) to[c + k][r] = numbers.of[k];
  }
}

}  // namespace hof::cuda
