"""The experiments with images: readers of the official files, and what each experiment's tiny form finds."""

import gzip
import hashlib
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from matplotlib.image import imread

from examples import (
    autoencoder,
    block_mnist,
    cifar,
    coding,
    data,
    invariant_mnist,
    kan_digits,
    mnist,
    optimizers,
    polynomial_mlp,
    variational_autoencoder,
)
from examples.classification import judge


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


def written(folder, name):
    """Whether the picture is there, and not blank."""
    pixels = imread(folder / f"{name}.png")
    return min(pixels.shape[:2]) > 200 and pixels[..., :3].std() > 0.05


CHANCE = 0.2  # twice what guesses find of ten digits


@pytest.fixture
def tiny(tmp_path):
    """Options of the smallest run."""
    return {"tiny": True, "results": str(tmp_path)}


def test_convolutions_learn_digits(tiny, tmp_path):
    found = mnist.run(mnist.Options(**tiny, normalization="max_center", beside=["standard"]))
    assert found["test_acc"][0] > CHANCE and found["standard test_acc"][0] > CHANCE
    assert written(tmp_path, "mnist")


def test_the_convolutional_network_is_the_published_one():
    options = mnist.Options(kernel_size=5, channels=[6, 16], layer_type="polynomial2d")
    model = mnist.network(options, "polynomial2d", 28)
    n, features = options.n, 16 * 4 * 4  # 28 - 4, halved, - 4, halved
    assert sum(p.numel() for p in model.parameters()) == n * 25 * (6 + 6 * 16) + features * 10 + 10
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    options = mnist.Options(double=True, output_layer_type="auto", channels=[16, 32])
    model = mnist.network(options, "discontinuous2d", 28)  # 24, halved, 8, halved
    assert model.output.w.shape == (10, 32 * 4 * 4, 2 * 3)
    with pytest.raises(ValueError, match="kernel_size: got 9"):
        mnist.network(mnist.Options(kernel_size=9), "polynomial2d", 8)


def test_refinement_keeps_the_loss_and_trains_the_last_order(tiny, tmp_path):
    mlp = invariant_mnist.Mlp(n=2, target_n=4, hidden=invariant_mnist.Hidden(width=16, layers=1))
    options = invariant_mnist.Options(**tiny, mlp=mlp, relu=False)
    images = invariant_mnist.images_of(options, lambda x: 2 * x - 1)
    torch.manual_seed(0)
    trained = invariant_mnist.refined(options, images, "")
    assert trained.figures["refinement_gap"] < 1e-3
    assert trained.model[1].input_layer.n == 4
    assert len(trained.losses) == 4 and trained.losses[-1] < trained.losses[0]
    invariant_mnist.run(options)
    assert written(tmp_path, "invariant_mnist")


def test_high_orders_train_with_max_abs_and_lion(tiny):
    mlp = invariant_mnist.Mlp(layer_type="polynomial", n=24, p_refine=False)
    lion = optimizers.Settings("lion", lr=1e-3)
    options = invariant_mnist.Options(**tiny, mlp=mlp, relu=False, optimizer=lion, noise=0.0)
    found = invariant_mnist.run(options)
    assert found["test_loss"][0] < 2.3 and found["test_acc"][0] > CHANCE  # log(10) is that of a guess


def test_the_polynomial_networks_have_the_published_sizes(tiny, tmp_path):
    found = polynomial_mlp.run(polynomial_mlp.Options(**tiny))
    assert found["test_acc"][0] > CHANCE and found["linear test_acc"][0] > CHANCE
    assert written(tmp_path, "polynomial_mlp")
    for network, number in ((polynomial_mlp.PolynomialMLP(), 63_560), (polynomial_mlp.SimpleMLP(), 15_950)):
        assert sum(p.numel() for p in network.parameters()) == number


def test_a_kan_learns_digits(tiny, tmp_path):
    found = kan_digits.run(kan_digits.Options(**tiny, width=16))
    assert found["test_acc"][0] > CHANCE and found["KAN, constant test_loss"][0] > found["test_loss"][0]
    assert written(tmp_path, "kan_digits")


def test_one_function_of_value_and_place_learns_digits(tiny, tmp_path):
    found = block_mnist.run(block_mnist.Options(**tiny, n=4, beside=[]))
    assert found["parameters"] == [4**3 * 10 + 10] and found["test_acc"][0] > CHANCE
    assert written(tmp_path, "block_mnist")


def test_blocks_sum_over_pixels():
    block = block_mnist.Block(3)
    images = torch.rand(2, 1, 4, 5)
    found = torch.zeros(2, 10)
    for row in range(4):
        for column in range(5):
            value = 2 * images[:, 0, row, column] - 1
            place = torch.tensor([2 * row / 3 - 1, 2 * column / 4 - 1]).expand(2, -1)
            found += block.layer(torch.cat([value[:, None], place], 1).unsqueeze(1))
    torch.testing.assert_close(block(images), found)


def test_a_small_network_learns_colour_images_stage_by_stage(tiny, tmp_path):
    staged = {"layer_by_layer": True, "epochs_per_layer": 2}
    found = cifar.run(
        cifar.Options(**tiny, **staged, model_name="simple", layer_type="polynomial2d", beside=[])
    )
    assert found["train_loss"][0] < 2.2 and found["train_acc5"][0] > 0.6  # guesses: 2.303 and 0.5
    assert found["test_acc"] == found["test_acc1"] and found["test_acc5"][0] > found["test_acc1"][0]
    assert written(tmp_path, "cifar")


def test_options_reach_the_residual_network():
    model = cifar.network(cifar.Options(n=4, segments=3, rescale_planes=16), "discontinuous2d", 100)
    assert model.layer0[0].conv.weight.shape == (4, 3 * 4 * 3, 7, 7)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 100)


def test_second_order_optimizers_train_residual_networks(tiny):
    adahessian = {"optimizer": optimizers.GROUP["adahessian"], "learning_rate": 0.1}
    few = {"model_name": "resnet10", "rescale_planes": 32, "n": 2, "gradient_clip_val": 1.0, "beside": []}
    options = cifar.Options(**tiny, **adahessian, **few, max_epochs=1)
    found = cifar.run(options)
    torch.manual_seed(options.seed)
    begun = cifar.network(options, options.layer_type, 10)
    images = cifar.images_of(options, cifar.normalised)
    assert found["train_loss"][0] < judge(begun, images.train, "train")["train_loss"]


def test_augmentation_moves_images():
    torch.manual_seed(0)
    x = torch.zeros(64, 3, 32, 32)
    x[..., 16:, 10:22] = 1
    y = cifar.augmented(x, mirror=False)
    places = torch.linspace(0, 31, 32)
    centre = (y[:, 0] * places).sum((1, 2)) / y[:, 0].sum((1, 2))
    assert 3 < (centre - 15.5).abs().max() < 9 and centre.std() > 1
    flat = torch.ones(8, 3, 32, 32)
    assert (cifar.augmented(flat, mirror=True)[..., 12:20, 12:20] > 0.9999).all()


@pytest.fixture
def narrow(tiny):
    """Options of small autoencoders."""
    encoder = coding.Coder([3, 8, 8, 16], [3, 3, 3], 1)
    return tiny | {"encoder": encoder, "decoder": coding.Coder([16, 8, 8, 4, 3], [3, 3, 3, 4], 0)}


def test_an_autoencoder_learns(narrow, tmp_path):
    found = autoencoder.run(autoencoder.Options(**narrow))
    assert found["train_loss"][0] < 0.6  # images of 0 alone would differ by 0.8
    assert written(tmp_path, "autoencoder")


def test_a_variational_autoencoder_learns(narrow, tmp_path):
    options = variational_autoencoder.Options(**narrow, latent_dim=8)
    found = variational_autoencoder.run(options)
    assert found["test_Reconstruction_Loss"][0] < 0.6
    loss = found["test_Reconstruction_Loss"][0] - options.M_N * found["test_KLD"][0]
    assert found["test_KLD"][0] < 0 and found["test_loss"][0] == pytest.approx(loss, rel=1e-5)
    assert written(tmp_path, "variational_autoencoder")


@pytest.mark.parametrize("name", [*optimizers.GROUP])
def test_each_optimizer_of_the_group_is_built(name):
    model = nn.Linear(1, 1)
    optimizer, advance = optimizers.build(optimizers.GROUP[name], model, range(4))
    before = optimizer.param_groups[0]["lr"]
    for _ in range(8):
        optimizer.step(lambda: 0.0) if name == "lbfgs" else optimizer.step()
        advance(1.0)
    after = {"adam": 0.1 * before, "lion": 0.1 * before}.get(name, before)
    if name != "adamw":
        assert optimizer.param_groups[0]["lr"] == pytest.approx(after)


def test_a_schedule_goes_on_where_another_ended():
    settings = optimizers.Settings("adamw", lr=1.0, scheduler="cosine")
    rates = []
    for epochs in (range(4), range(0, 2), range(2, 4)):
        optimizer, advance = optimizers.build(settings, nn.Linear(1, 1), epochs)
        for _ in epochs:
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            advance(0.0)
    whole, parts = rates[:4], rates[4:]
    assert whole == pytest.approx([1, 0.853553, 0.5, 0.146447], rel=1e-5) and parts[2:] == pytest.approx(
        whole[2:]
    )
    with pytest.raises(ValueError, match=r"optimizer\.scheduler: got 'one'"):
        optimizers.build(optimizers.Settings(scheduler="one"), nn.Linear(1, 1), range(1))


def test_the_group_and_a_sweep_reach_the_options(tmp_path, monkeypatch):
    pytest.importorskip("hydra")
    arguments = ["optimizer=adam,sophia", "optimizer.lr=3e-3", "tiny=True", f"results={tmp_path}", "-m"]
    monkeypatch.setattr("sys.argv", ["polynomial_mlp", *arguments])
    polynomial_mlp.main()
    found = [
        json.loads(file.read_text())["options"] for file in sorted(tmp_path.glob("*/polynomial_mlp.json"))
    ]
    assert [each["optimizer"]["name"] for each in found] == ["adam", "sophia"]
    assert [each["optimizer"]["lr"] for each in found] == [3e-3, 3e-3]
    assert [each["optimizer"]["scheduler"] for each in found] == ["plateau", "none"]
