"""What is measured: one line a case, nothing but data."""

from dataclasses import dataclass, replace

import torch

KINDS = ("continuous", "discontinuous", "polynomial", "fourier", "monomial", "chebyshev", "kan")


@dataclass(frozen=True)
class Case:
    """A layer of some kind and the batch it is given.

    n: functions that are not zero at a point: nodes of a segment, Fourier terms, degree or order + 1.
    segments: of the interval [-1, 1]; for a KAN its grid_size. dtype: as torch has it, or "tf32": float32
    whose products may be rounded.
    """

    name: str
    kind: str
    batch: int
    in_features: int
    out_features: int
    n: int
    segments: int = 1
    dtype: str = "float32"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of input and coefficients."""
        found = getattr(torch, "float32" if self.dtype == "tf32" else self.dtype)
        assert isinstance(found, torch.dtype)
        return found

    @property
    def flop(self) -> int:
        """Useful arithmetic of a forward pass: 2 B I O n, with a KAN's base branch; a gradient is as much."""
        return 2 * self.batch * self.in_features * self.out_features * (self.n + (self.kind == "kan"))

    @property
    def linear_flop(self) -> int:
        """Arithmetic of a forward pass of nn.Linear of the same features."""
        return 2 * self.batch * self.in_features * self.out_features

    def small(self) -> "Case":
        """The same functions in a layer of a few features, for tests."""
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
)


def named(names: list[str] | None) -> tuple[Case, ...]:
    """The cases of those names, all of them for None; ValueError lists the names there are."""
    known = {case.name: case for case in CASES}
    for name in names or ():
        if name not in known:
            raise ValueError(f"cases: got {name!r}, needs some of {', '.join(known)}")
    return CASES if names is None else tuple(known[name] for name in names)
