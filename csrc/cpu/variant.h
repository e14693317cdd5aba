// One variant of the kernels. Included once for each instruction set.
#include "convolution_gradients.h"
#include "few_rows.h"
#include "gradients.h"
#include "product.h"
#include "sum_inputs.h"

namespace hof {
namespace HOF_VARIANT {

template <class T>
void start_inputs(const Problem<T>& p, const Cut& cut, int64_t unit, char* scratch) {
  with_storage<T>(p.w, p.w_storage, [&](auto* w) { run_inputs(p, w, cut, unit, scratch); });
}

template <class T>
void start_outputs(const Problem<T>& p, const Cut& cut, int64_t unit, char* scratch) {
  with_storage<T>(p.w, p.w_storage, [&](auto* w) { run_outputs(p, w, cut, unit, scratch); });
}

template <class T>
void start_gradients(const Problem<T>& v, const StackGradients<T>* to, const Problem<T>* r, const Cut& cut, int64_t unit,
                     char* scratch) {
  const Storage stored = r ? r->w_storage : v.branch ? v.branch->storage : Storage::SAME;
  with_storage<T>(r ? r->w : nullptr, stored, [&](auto* w) { run_gradients(v, to, r, w, cut, unit, scratch); });
}

template <class T>
const Kernels<T>& kernels() {
  static const Kernels<T> table{{cut_inputs<T>, cut_outputs<T>, cut_batch<T>},
                                {start_inputs<T>, start_outputs<T>, run_batch<T>},
                                cut_gradients<T>, start_gradients<T>,
                                cut_few<T>, meet_few<T>, add_few<T>,
                                cut_product<T>, run_product<T>,
                                cut_product_gradients<T>, meet_rows<T>, pull_rows<T>, add_shares<T>,
                                cut_conv<T>, run_conv<T>, run_conv_gradients<T>, add_parts<T>,
                                transpose_columns<T>, transpose_gradients<T>};
  return table;
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();

}  // namespace HOF_VARIANT
}  // namespace hof
