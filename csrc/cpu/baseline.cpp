// The kernels for baseline. Standard headers come first: what they define must not be compiled for these instructions.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>


#define HOF_VARIANT baseline
#define HOF_VECTOR_BYTES 16
#include "variant.h"

