"""The form on a GPU, in Triton: the kernels, the cost model that chooses, and what launches them."""
