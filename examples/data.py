"""What the examples learn from: images of the usual sets, and functions with points to learn them at.

The sets are read from their official files in a folder of yours, each only if its checksum is the official
one. Digits, the default, come with scikit-learn: 1797 images of 8 x 8 pixels, a quarter of them to test on.
"""

import gzip
import hashlib
import io
import math
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from high_order_fused.checks import choice

# MD5 sums, as the publishers give them
CHECKSUMS = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    "cifar10": {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
    "cifar100": {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
}
SETS = ("digits", "digits_rgb", *CHECKSUMS)


@dataclass(frozen=True)
class Part:
    """Images x [N, channels, height, width] from 0 to 1, and their labels y [N]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice) -> "Part":
        return Part(self.x[rows], self.y[rows])

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Part":
        """The images changed, all at once."""
        return Part(change(self.x), self.y)

    def to(self, device: torch.device | str) -> "Part":
        """The same on that device."""
        return Part(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Images:
    """A set of images: to train, to choose settings by, and to judge by at the end."""

    train: Part
    validation: Part
    test: Part

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return 1 + int(torch.cat([self.train.y, self.validation.y, self.test.y]).max())

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Images":
        """The images of all parts changed."""
        return Images(self.train.mapped(change), self.validation.mapped(change), self.test.mapped(change))

    def to(self, device: torch.device | str) -> "Images":
        """The same on that device."""
        return Images(self.train.to(device), self.validation.to(device), self.test.to(device))


def load(data: str = "digits", folder: str | None = None, train_fraction: float = 1.0) -> Images:
    """A set of images by name: one of `SETS`; "digits_rgb" are digits of 32 x 32 pixels, red, green, blue.

    A sixth of the images to train on, of CIFAR's a fifth, is kept for validation, and of the rest that
    fraction is taken; the split is always the same, for MNIST and CIFAR that of high-order-layers-torch.
    ValueError for a wrong argument, or a file with another checksum; FileNotFoundError for a missing one.
    """
    choice("data", data, SETS)
    if not 0 < train_fraction <= 1:
        raise ValueError(f"train_fraction: got {train_fraction}, needs a number above 0, at most 1")
    if data in CHECKSUMS and not folder:
        raise ValueError(f"folder: got {folder!r}, needs the one with {', '.join(CHECKSUMS[data])}")
    if data in CHECKSUMS:
        train, test = _files(data, str(folder))
    else:
        train, test = _digits(large=data == "digits_rgb")
    kept = len(train) // (5 if data.startswith("cifar") else 6)
    taken = max(1, int((len(train) - kept) * train_fraction))
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    return Images(train[order[:taken]], train[order[taken : taken + kept]], test)


def oscillation(x: Tensor) -> Tensor:
    """0.5 cos(1.5 pi / (|x| + 0.25)), pi as 3.14159: it swings ever faster towards 0.

    Source: high-order-layers-torch, function_example.
    """
    return 0.5 * torch.cos(1.5 * 3.14159 / (x.abs() + 0.25))


def xor(x: Tensor) -> Tensor:
    """-0.5 where both of x [N, 2] have one sign, else 0.5: [N, 1]. Source: high-order-layers-torch."""
    return torch.where(x.prod(1, keepdim=True) > 0, -0.5, 0.5)


def uniform(number: int, variables: int, seed: int) -> Tensor:
    """Points [number, variables] from U(-1, 1)."""
    return 2 * torch.rand(number, variables, generator=torch.Generator().manual_seed(seed)) - 1


def _digits(large: bool) -> tuple[Part, Part]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    if large:
        x = torch.nn.functional.interpolate(x, size=(32, 32), mode="bilinear").repeat(1, 3, 1, 1)
    rows = train_test_split(range(len(x)), test_size=0.25, stratify=labels, random_state=0)
    whole = Part(x, torch.tensor(labels))
    return whole[torch.tensor(rows[0])], whole[torch.tensor(rows[1])]


def _files(data: str, folder: str) -> tuple[Part, Part]:
    files = [_checked(Path(folder) / name, md5) for name, md5 in CHECKSUMS[data].items()]
    if data.startswith("cifar"):
        return _cifar(files[0])
    x, y, test_x, test_y = (torch.from_numpy(_idx(gzip.decompress(file))) for file in files)
    return _part(x.unsqueeze(1), y), _part(test_x.unsqueeze(1), test_y)


def _part(x: Tensor, y: Tensor) -> Part:
    return Part(x.float() / 255, y.long())


def _checked(path: Path, md5: str) -> bytes:
    content = path.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(f"{path}: got the MD5 sum {found}, needs {md5}, that of the official file")
    return content


def _idx(content: bytes) -> np.ndarray:
    """An array of bytes in the format of MNIST: 0, 0, 8, the number of axes, their sizes, the values."""
    axes = content[3]
    sizes = np.frombuffer(content, ">u4", axes, offset=4).astype(int)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if content[:3] != b"\0\0\x08" or len(values) != math.prod(sizes):
        raise ValueError(f"idx file: got {len(values)} values, needs bytes of shape {tuple(sizes)}")
    return values.reshape(sizes).copy()


def _cifar(content: bytes) -> tuple[Part, Part]:
    """The parts of an archive of pickled batches, whose checksum says that they are the official ones."""
    batches: dict[bool, list[Part]] = {False: [], True: []}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for name in sorted(archive.getnames()):
            stem = Path(name).name
            if stem.startswith(("data_batch", "train", "test")):
                batch = pickle.load(archive.extractfile(name), encoding="latin1")
                x = torch.from_numpy(batch["data"]).view(-1, 3, 32, 32)
                y = torch.tensor(batch["fine_labels" if "fine_labels" in batch else "labels"])
                batches[stem.startswith("test")].append(_part(x, y))
    train, test = (
        Part(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))
        for parts in (batches[False], batches[True])
    )
    return train, test
