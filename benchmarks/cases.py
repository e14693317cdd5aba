"""What is measured: one line a case, nothing but data."""

from dataclasses import dataclass, replace

import torch

FAMILIES = ("continuous", "discontinuous", "polynomial", "fourier")
SUMS = (*FAMILIES, "monomial", "chebyshev", "kan")
PRODUCTS = ("continuous_prod", "discontinuous_prod")
CONVOLUTIONS = tuple(f"{family}2d" for family in FAMILIES)
TRANSPOSED = ("continuous2d_transpose",)
ND = ("polynomial_3d",)
KINDS = (*SUMS, *PRODUCTS, *CONVOLUTIONS, *TRANSPOSED, *ND)


@dataclass(frozen=True)
class Case:
    """A layer of some kind and the batch it is given.

    n: functions that are not zero at a point: nodes of a segment, Fourier terms, degree or order + 1.
    segments: of the interval [-1, 1]; for a KAN its grid_size. dtype: as torch has it, or "tf32": float32
    whose products may be rounded. image, kernel, stride: of convolutions, sides of squares; the padding is
    half of the kernel.
    """

    name: str
    kind: str
    batch: int
    in_features: int
    out_features: int
    n: int
    segments: int = 1
    dtype: str = "float32"
    image: int = 0
    kernel: int = 1
    stride: int = 1

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of input and coefficients."""
        found = getattr(torch, "float32" if self.dtype == "tf32" else self.dtype)
        assert isinstance(found, torch.dtype)
        return found

    @property
    def padding(self) -> int:
        """Of a convolution."""
        return self.kernel // 2

    @property
    def out_image(self) -> int:
        """The side of a convolution's output."""
        if self.kind in TRANSPOSED:
            return (self.image - 1) * self.stride - 2 * self.padding + self.kernel
        return (self.image + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Of the input."""
        variables = (3,) if self.kind in ND else ()
        return self.batch, self.in_features, *variables, *(2 * (self.image,) if self.image else ())

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Of the output."""
        return self.batch, self.out_features, *(2 * (self.out_image,) if self.image else ())

    @property
    def flop(self) -> int:
        """Useful arithmetic of a forward pass, 2 B I O n for a sum; a gradient is as much.

        A KAN's base branch counts as one more function. Of convolutions for every tap and pixel.
        """
        functions = self.n ** (3 if self.kind in ND else 1) + (self.kind == "kan")
        return self.linear_flop * functions

    @property
    def linear_flop(self) -> int:
        """Arithmetic of a forward pass of nn.Linear or nn.Conv2d of the same features."""
        side = self.image if self.kind in TRANSPOSED else self.out_image
        taps = (side * self.kernel) ** 2 if self.image else 1
        return 2 * self.batch * self.in_features * self.out_features * taps

    def small(self) -> "Case":
        """The same functions in a layer of a few features, for tests."""
        if self.image:
            return replace(self, batch=2, in_features=3, out_features=5, image=max(6, self.kernel))
        return replace(self, batch=33, in_features=7, out_features=5)


CASES = (
    Case("continuous-5", "continuous", 512, 128, 128, n=4, segments=5),
    Case("continuous-20", "continuous", 512, 128, 128, n=4, segments=20),
    Case("continuous-ragged", "continuous", 300, 61, 37, n=3, segments=7),
    Case("discontinuous-5", "discontinuous", 512, 128, 128, n=4, segments=5),
    Case("polynomial-4", "polynomial", 512, 128, 128, n=4),
    Case("polynomial-9", "polynomial", 512, 128, 128, n=9),
    Case("fourier-5", "fourier", 512, 128, 128, n=5),
    Case("monomial-3", "monomial", 512, 128, 128, n=4),
    Case("kan-5", "kan", 512, 128, 128, n=4, segments=5),
    Case("kan-20", "kan", 512, 128, 128, n=4, segments=20),
)


def _conv(name: str, kind: str, *sizes: int, segments: int = 1, stride: int = 1, kernel: int = 3) -> Case:
    batch, channels, outputs, image = sizes
    return Case(name, kind, batch, channels, outputs, 3, segments, image=image, kernel=kernel, stride=stride)


# products, convolutions and functions of several variables; the last are those of ResNet-18
LAYERS = (
    Case("product", "continuous_prod", 256, 64, 64, n=3, segments=4),
    Case("product-discontinuous", "discontinuous_prod", 256, 64, 64, n=3, segments=4),
    Case("polynomial-3d", "polynomial_3d", 4096, 1, 10, n=5),
    *(_conv(f"conv-{m}", "continuous2d", 32, 16, 32, 28, segments=m) for m in (2, 4, 8, 32)),
    *(_conv(f"conv-discontinuous-{m}", "discontinuous2d", 32, 16, 32, 28, segments=m) for m in (2, 8, 32)),
    _conv("conv-polynomial", "polynomial2d", 32, 16, 32, 28),
    _conv("conv-fourier", "fourier2d", 32, 16, 32, 28),
    _conv("conv-transposed", "continuous2d_transpose", 32, 16, 32, 14, segments=2, stride=2),
    _conv("conv-5x5", "continuous2d", 32, 6, 16, 28, segments=4, kernel=5),
    _conv("resnet-first", "continuous2d", 2, 3, 64, 224, segments=4, stride=2, kernel=7),
    _conv("resnet-64", "continuous2d", 4, 64, 64, 56, segments=4),
    _conv("resnet-128-stride", "continuous2d", 4, 64, 128, 56, segments=4, stride=2),
    _conv("resnet-128-shortcut", "continuous2d", 4, 64, 128, 56, segments=4, stride=2, kernel=1),
    _conv("resnet-128", "continuous2d", 4, 128, 128, 28, segments=4),
    _conv("resnet-256", "continuous2d", 4, 256, 256, 14, segments=4),
    _conv("resnet-512", "continuous2d", 4, 512, 512, 7, segments=4),
)

SWEEP = tuple(
    Case(f"segments-{m}", "continuous", 512, 128, 128, n=4, segments=m) for m in (2, 4, 8, 16, 32, 64)
)  # time against segments


# for `make gpu-check`; the first of them ask for gigabytes in the packages that exist
GPU_CASES = (
    Case("gpu-continuous-5", "continuous", 8192, 256, 256, n=4, segments=5),
    Case("gpu-discontinuous-4", "discontinuous", 8192, 256, 256, n=4, segments=4),
    Case("gpu-kan-5", "kan", 65536, 256, 256, n=4, segments=5),
    Case("gpu-polynomial-4", "polynomial", 65536, 512, 512, n=4),
    Case("gpu-polynomial-4-tf32", "polynomial", 65536, 512, 512, n=4, dtype="tf32"),
    Case("gpu-polynomial-4-bfloat16", "polynomial", 65536, 512, 512, n=4, dtype="bfloat16"),
    Case("gpu-continuous-5-bfloat16", "continuous", 65536, 512, 512, n=4, segments=5, dtype="bfloat16"),
    Case("gpu-fourier-5", "fourier", 8192, 256, 256, n=5),
    Case("gpu-chebyshev-10", "chebyshev", 100, 1000, 1000, n=10),
    Case("gpu-one-row", "continuous", 1, 4096, 4096, n=4, segments=8),
    Case("gpu-product", "continuous_prod", 2048, 256, 256, n=3, segments=4),
    _conv("gpu-conv-8", "continuous2d", 128, 64, 64, 56, segments=8),
    _conv("gpu-conv-polynomial", "polynomial2d", 128, 64, 64, 56),
)


def named(names: list[str] | None, cases: tuple[Case, ...] = CASES) -> tuple[Case, ...]:
    """Those of the cases with the names, all of them for None; ValueError lists the names there are."""
    known = {case.name: case for case in cases}
    for name in names or ():
        if name not in known:
            raise ValueError(f"cases: got {name!r}, needs some of {', '.join(known)}")
    return cases if names is None else tuple(known[name] for name in names)
