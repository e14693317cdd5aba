"""The experiments with images: readers of the official files, and what each experiment's tiny form finds."""

import gzip
import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from examples import data


def write_mnist(folder, monkeypatch, name):
    """Six training and two test images of 2 x 3 pixels; their checksums count as official."""
    random = np.random.default_rng(0)
    arrays = {}
    for stem, number in (("train", 6), ("t10k", 2)):
        pixels = random.integers(0, 256, (number, 2, 3), dtype=np.uint8)
        labels = np.arange(number, dtype=np.uint8)
        arrays[stem] = pixels, labels
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            (folder / f"{stem}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    official(folder, monkeypatch, name)
    return arrays


def write_cifar(folder, monkeypatch, name):
    """Two pickled batches to train on, or one, and one to test, as in the archives; checksums as above."""
    random = np.random.default_rng(0)
    base, training, key = {
        "cifar10": ("cifar-10-batches-py", ("data_batch_1", "data_batch_2"), "labels"),
        "cifar100": ("cifar-100-python", ("train",), "fine_labels"),
    }[name]
    test = "test_batch" if name == "cifar10" else "test"
    batches = {}
    with tarfile.open(
        folder / f"{base.replace('-batches-py', '').replace('-python', '')}-python.tar.gz", "w:gz"
    ) as tar:
        for stem in (*training, test, "batches.meta"):
            pixels = random.integers(0, 256, (5, 3072), dtype=np.uint8)
            batches[stem] = {"data": pixels, key: [0, 1, 2, 3, 4], "coarse_labels": [9] * 5}
            content = pickle.dumps(batches[stem], protocol=2)
            member = tarfile.TarInfo(f"{base}/{stem}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    official(folder, monkeypatch, name)
    pixels = np.concatenate([batches[stem]["data"] for stem in training])
    return pixels, batches[test]["data"]


def official(folder, monkeypatch, name):
    sums = {file: hashlib.md5((folder / file).read_bytes()).hexdigest() for file in data.CHECKSUMS[name]}
    monkeypatch.setitem(data.CHECKSUMS, name, sums)


def rows(pixels):
    """Images as a set of byte rows, whatever their order."""
    return sorted(bytes(row) for row in np.asarray(pixels, dtype=np.uint8).reshape(len(pixels), -1))


def stored(*parts):
    return rows(torch.cat([part.x for part in parts]).mul(255).round().numpy())


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_are_read(name, tmp_path, monkeypatch):
    arrays = write_mnist(tmp_path, monkeypatch, name)
    images = data.load(name, str(tmp_path))
    assert images.train.x.shape == (5, 1, 2, 3) and images.validation.x.shape == (1, 1, 2, 3)
    assert stored(images.train, images.validation) == rows(arrays["train"][0])
    assert stored(images.test) == rows(arrays["t10k"][0])
    for x, y in zip(images.train.x, images.train.y, strict=True):
        np.testing.assert_allclose(x[0] * 255, arrays["train"][0][y], rtol=1e-6)
    assert len(data.load(name, str(tmp_path), train_fraction=0.5).train) == 2


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_archives_are_read(name, tmp_path, monkeypatch):
    training, test = write_cifar(tmp_path, monkeypatch, name)
    images = data.load(name, str(tmp_path))
    number = len(training)
    assert len(images.train) == number - number // 5 and images.test.x.shape == (5, 3, 32, 32)
    assert stored(images.train, images.validation) == rows(training)
    np.testing.assert_allclose(images.test.x.flatten(1) * 255, test, rtol=1e-6)
    assert images.test.y.tolist() == [0, 1, 2, 3, 4] and images.classes == 5


@pytest.mark.parametrize(("name", "write"), [("mnist", write_mnist), ("cifar10", write_cifar)])
def test_another_checksum_raises_and_names_the_file(name, write, tmp_path, monkeypatch):
    write(tmp_path, monkeypatch, name)
    file = sorted(tmp_path.iterdir())[0]
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=rf"{file.name}: got the MD5 sum \w+, needs \w+"):
        data.load(name, str(tmp_path))


def test_a_missing_file_or_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        data.load("mnist", str(tmp_path))
    with pytest.raises(ValueError, match="folder: got None, needs the one with cifar-10-python"):
        data.load("cifar10")
    with pytest.raises(ValueError, match="data: got 'emnist', needs one of 'digits'"):
        data.load("emnist")
    with pytest.raises(ValueError, match=r"train_fraction: got 0.0"):
        data.load(train_fraction=0.0)


def test_the_digits_are_split_without_overlap():
    images = data.load("digits")
    parts = images.train, images.validation, images.test
    assert [len(part) for part in parts] == [1123, 224, 450]
    from sklearn.datasets import load_digits

    assert stored_digits(*parts) == rows(load_digits().data)
    assert data.load("digits_rgb").train.x.shape == (1123, 3, 32, 32)


def stored_digits(*parts):
    return rows(torch.cat([part.x for part in parts]).mul(16).round().numpy())


def test_function_targets():
    x = torch.tensor([0.0, 0.5, -0.5])
    torch.testing.assert_close(
        data.oscillation(x), 0.5 * torch.cos(1.5 * 3.14159 / torch.tensor([0.25, 0.75, 0.75]))
    )
    points = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-0.5, -0.1], [0.3, -0.2]])
    assert data.xor(points).flatten().tolist() == [-0.5, 0.5, -0.5, 0.5]
    drawn = data.uniform(1000, 2, seed=3)
    assert drawn.shape == (1000, 2) and -1 <= drawn.min() < -0.99 and 0.99 < drawn.max() <= 1
