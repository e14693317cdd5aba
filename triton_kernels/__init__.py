"""The form on a GPU, in Triton: the kernels, the cost model that chooses among them, and what launches them."""
