// sum_batch, its result unpacked to where the coefficients came from, and sum_outputs over the derivative basis, in one
// pass: what a backward pass asks for. A tile is looked up and its g packed once for both.
#pragma once

#include "branch.h"
#include "sum_batch.h"
#include "sum_outputs.h"

namespace hof {
namespace HOF_VARIANT {

// v: the problem of sum_batch; r: that of sum_outputs, of the same x and g, or null.
template <class T>
struct GradientsScratch {
  BatchScratch<T> batch;
  T* by_columns;
  OutputsRoom<T> room;
  T *branch, *packed;

  GradientsScratch(const Problem<T>& v, bool apart, const Problem<T>* r, const Cut& cut, Arena& arena)
      : batch(v, cut, apart, arena) {
    by_columns = arena.take<T>(r && v.basis.product() ? packed_outputs(v, cut.rows) : 0);
    if (r) room.lay(*r, cut.rows, arena);
    branch = arena.take<T>(branch_numbers(v, cut.rows));
    packed = arena.take<T>(r ? packed_numbers(*r) : 0);
  }
};

template <class T>
Cut cut_gradients(const Problem<T>& v, const StackGradients<T>* to, const Problem<T>* r, int threads) {
  Cut cut = cut_by_inputs(v, threads);
  cut.scratch = bytes_of<GradientsScratch<T>>(v, to || narrow(v), r, cut);
  return cut;
}

template <class T, class S>
void run_gradients(const Problem<T>& v, const StackGradients<T>* to, const Problem<T>* r, const S* coefficients, const Cut& cut,
                   int64_t unit, char* scratch) {
  const bool product = v.basis.product();
  Arena arena{reinterpret_cast<uintptr_t>(scratch)};
  GradientsScratch<T> own(v, to || narrow(v), r, cut, arena);
  Tile<T>& tile = own.batch.tile;
  Blocks<T> rows_of_g{}, columns_of_g{};
  const InputsPart part(v, cut, unit);
  const Problem<T> left = without(v, left_out_of_batch(v));
  if (v.branch) clear_branch(v, part.e, part.first, part.end);
  over_tiles(
      v, cut, unit, own.batch,
      [&](int64_t e, int64_t row, int rows, bool first_pass) {
        with_storage<T>(v.g, v.g_storage, [&](auto* stored) {
          const auto* g = stored + e * v.g_group + row * v.g_row;
          rows_of_g = pack_rows<T>(g, v.g_row, rows, v.outputs, own.batch.g);
          if (r && product) columns_of_g = pack_columns<T>(g, v.g_row, rows, v.outputs, own.by_columns);
        });
        if (v.branch && first_pass) add_branch_gradients<S>(v, {e, row, rows}, part.first, part.end, rows_of_g, own.branch);
        return rows_of_g;
      },
      [&](int64_t e, int64_t row, int rows, int64_t input, int slots, T* sums) {
        tile.prepare(left, e, row, rows, input, slots);
        tile.find_reliefs(left.basis, input, slots, false);
        add_tile(left, tile, rows_of_g, slots, sums, own.batch.strip);
        if (!r) return;
        const S* w = coefficients_of(*r, coefficients, e, input, slots, own.packed);
        tile.evaluate(*r, input, slots);
        tile.find_reliefs(r->basis, input, slots, true);
        outputs_of_tile(*r, tile, product ? columns_of_g : rows_of_g, w, slots, own.room);
        store_columns(*r, e, row, rows, input, slots, own.room.columns);
      },
      [&](int64_t e, int64_t from, int64_t end, const T* sums) {
        if (to)
          transpose_gradients(*to, e, sums, from * v.basis.size, end * v.basis.size);
        else
          give_narrow(v, e, from, end, sums);
      });
}

}  // namespace HOF_VARIANT
}  // namespace hof
