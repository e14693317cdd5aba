"""install, uninstall and run: the peers' names give our objects, whether or not the peers are installed."""

import importlib
import json
import pickle
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace as Cfg

import pytest
import torch
from torch import nn

import high_order_fused as hof
from high_order_fused import compat, kan, layers
from high_order_fused.__main__ import main
from tests.peer_networks import peer_networks
from tests.support import difference

PROGRAMS = Path(__file__).parent / "programs"
MODULES = (
    "Basis",
    "FunctionalConvolution",
    "FunctionalConvolutionTranspose",
    "LagrangePolynomial",
    "PolynomialLayers",
    "ProductLayer",
    "attentions",
    "layers",
    "networks",
    "positional_embeddings",
    "sparse_optimizers",
    "sparse_optimizers.sparse_lion",
    "utils",
)


def ours(module):
    return importlib.import_module(f"high_order_fused.compat.high_order_layers_torch.{module}")


def public(module):
    return {name for name in vars(module) if not name.startswith("_")}


@pytest.fixture
def fresh():
    """As a process that has not imported the originals."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(compat.PACKAGES)}
    yield
    compat.uninstall()
    for name in [name for name in sys.modules if name.startswith(compat.PACKAGES)]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def installed(fresh):
    compat.install()


def test_the_peers_names_are_our_objects(installed):
    import efficient_kan
    import efficient_kan.kan
    import high_order_layers_torch.layers
    from high_order_layers_torch.networks import HighOrderMLP
    from high_order_layers_torch.sparse_optimizers import SparseLion

    assert efficient_kan.KAN is efficient_kan.kan.KAN is kan.KAN
    assert high_order_layers_torch.layers.PiecewisePolynomial is layers.PiecewisePolynomial
    assert high_order_layers_torch.layers is ours("layers")
    assert HighOrderMLP.__module__.startswith("high_order_fused.")
    assert SparseLion.__module__.startswith("high_order_fused.")
    for module in (*MODULES, "modules"):
        assert importlib.import_module(f"high_order_layers_torch.{module}") is ours(module)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'high_order_layers_torch\.nothing'"):
        importlib.import_module("high_order_layers_torch.nothing")


def test_installing_twice_and_uninstalling(fresh):
    before = list(sys.meta_path)
    compat.install()
    import high_order_layers_torch.layers as here

    compat.install()
    assert len(sys.meta_path) == len(before) + 1
    compat.uninstall()
    compat.uninstall()
    assert sys.meta_path == before and "high_order_layers_torch.layers" not in sys.modules
    peer = pytest.importorskip("high_order_layers_torch.layers")
    assert peer is not here and peer.PiecewisePolynomial is not layers.PiecewisePolynomial


def test_an_original_that_was_imported_before_is_not_mixed_with_ours(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficient_kan", types.ModuleType("efficient_kan"))
    before = list(sys.meta_path)
    with pytest.raises(RuntimeError, match=r"efficient_kan was imported before .*hof.fuse"):
        compat.install()
    assert sys.meta_path == before


def test_pickles_cross_over(installed):
    from high_order_layers_torch.layers import high_order_fc_layers

    layer = high_order_fc_layers("continuous", n=3, in_features=2, out_features=2, segments=2)
    loaded, x = pickle.loads(pickle.dumps(layer)), torch.rand(3, 2)
    assert type(loaded) is layers.PiecewisePolynomial and torch.equal(loaded(x), layer(x))
    assert pickle.loads(b"cefficient_kan.kan\nKANLinear\n.") is kan.KANLinear
    assert pickle.loads(b"chigh_order_layers_torch.layers\nPolynomial\n.") is layers.Polynomial


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_the_peers(module):
    peer_networks()
    peer = importlib.import_module(f"high_order_layers_torch.{module}")
    assert set(ours(module).__all__) == public(peer)
    assert all(hasattr(ours(module), name) for name in ours(module).__all__)


def peer_modules(monkeypatch):
    """The peer's module `modules`, without the packages that it imports."""
    peer_networks()
    names = {"omegaconf": "DictConfig", "pytorch_lightning": "LightningModule", "torchmetrics": "Accuracy"}
    for package, name in {**names, "lion_pytorch": "Lion", "torch_optimizer": "Adahessian"}.items():
        stub = types.ModuleType(package)
        setattr(stub, name, nn.Module)
        monkeypatch.setitem(sys.modules, package, stub)
    module = importlib.import_module("high_order_layers_torch.modules")
    monkeypatch.delitem(sys.modules, module.__name__)
    return module


def test_public_names_of_modules_are_the_peers(monkeypatch):
    others = {"Accuracy", "DictConfig", "Lion", "alt_optim"}  # where their packages are installed
    assert set(ours("modules").__all__) - others == public(peer_modules(monkeypatch)) - others
    assert all(hasattr(ours("modules"), name) for name in ours("modules").__all__)


def net(model_type, normalize=True, **more):
    sizes = {"n": 3, "n_in": 3, "n_out": 2, "normalize": normalize, "layer_type": "continuous"}
    width = {"input": Cfg(width=6, segments=2), "output": Cfg(width=4, segments=2)}
    hidden = Cfg(width=5, layers=2, segments=2)
    return Cfg(net=Cfg(model_type=model_type, hidden=hidden, **sizes, **width, **more))


CONVOLUTIONS = {"channels": [1, 3, 2], "segments": [2, 2], "kernel_size": [3, 3], "stride": [2, 2]}
CONVOLUTIONS |= {"periodicity": None, "out_features": 4, "focus": [2, 2], "features": 40}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("model_type", ["high_order", "high_order_input", "conv", "tail_focus"])
def test_networks_by_configuration_are_the_peers(model_type, normalize, monkeypatch):
    if model_type in ("conv", "tail_focus"):
        cfg, shape = net(f"high_order_{model_type}", normalize, **CONVOLUTIONS), (7, 1, 40)
        cfg.net.n, cfg.net.layer_type = [3, 3], ["continuous1d"] * 2
    else:
        cfg, shape = net(model_type, normalize), (7, 6)
    cfg.output = cfg.net.output  # where the peer looks for one of its types
    x, made = torch.rand(shape), []
    for module in (peer_modules(monkeypatch), ours("modules")):
        torch.manual_seed(0)
        made.append(module.select_network(cfg))
        made[-1](x)  # makes lazy parameters
    theirs, own = made
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert list(own.state_dict()) == list(theirs.state_dict())
    own.load_state_dict(theirs.state_dict())
    assert difference(own.eval()(x), theirs.eval()(x)) < 1e-4 and own(x).shape == (7, 4)


def test_networks_by_configuration_may_tell_all_of_their_output_in_one_place():
    select = ours("modules").select_network
    assert select(net("high_order_input"))(torch.rand(3, 6)).shape == (3, 4)
    with pytest.raises(ValueError, match=r"net\.model_type: got 'other', needs one of"):
        select(net("other"))


def trained(mixin, model, loss, **optimizer):
    class Net(mixin, ours("modules").PredictionNetMixin, nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.loss, self.logged = model, loss, {}
            self.cfg = Cfg(optimizer=Cfg(**optimizer))

        def log(self, name, value, prog_bar):
            self.logged[name] = value

    return Net()


def test_steps_log_losses_and_accuracies():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]])
    net = trained(ours("modules").ClassificationMixin, nn.Identity(), nn.CrossEntropyLoss())
    labels = torch.tensor([[0], [1], [1], [1]])
    expected = nn.functional.cross_entropy(logits, labels.flatten())
    assert torch.equal(net.validation_step((logits, labels), 0), expected)
    assert net.logged == {"val_loss": expected, "val_acc": 0.75}
    net = trained(ours("modules").RegressionMixin, nn.Identity(), nn.functional.mse_loss)
    assert net.training_step((logits, logits + 2), 0) == 4 and net.logged == {"train_loss": 4}
    assert net.test_step((logits, logits), 0) == 0 and "test_loss" in net.logged


def test_optimizers_by_configuration():
    make = lambda **cfg: trained(ours("modules").RegressionMixin, nn.Linear(2, 1), None, **cfg)  # noqa: E731
    plain = make(name="adam", lr=0.25, scheduler=None).configure_optimizers()
    assert isinstance(plain, torch.optim.Adam) and plain.param_groups[0]["lr"] == 0.25
    (adam,), (plateau,) = make(
        name="adam", lr=0.25, scheduler="plateau", patience=1, factor=0.5
    ).configure_optimizers()
    assert plateau["reduce_on_plateau"] and plateau["monitor"] == "train_loss"
    for _ in range(4):
        plateau["scheduler"].step(1.0)
    assert adam.param_groups[0]["lr"] == 0.125
    (adam,), (falling,) = make(name="adam", lr=1.0, scheduler="exponential", gamma=0.5).configure_optimizers()
    adam.step()
    falling["scheduler"].step()
    assert adam.param_groups[0]["lr"] == 0.5 and not falling["reduce_on_plateau"]
    with pytest.raises(ValueError, match=r"optimizer\.name: got 'sgd', needs one of 'adam', 'lion'"):
        make(name="sgd").configure_optimizers()


def test_without_lightning_its_networks_say_what_to_install():
    try:
        import pytorch_lightning  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(ModuleNotFoundError, match=r"RegressionNet .*pip install pytorch-lightning"):
            ours("modules").RegressionNet(net("high_order"))
    else:
        assert ours("modules").RegressionNet(net("high_order"))(torch.rand(3, 6)).shape == (3, 4)


SCRIPT = """
import json, sys
import beside
from efficient_kan import KAN
if "without" not in sys.argv:
    from high_order_layers_torch.layers import *
    assert nn.Linear and logging and high_order_fc_layers
place = [sys.argv, sys.path[0], __name__, __file__, beside.__file__, sys.modules["__main__"].KAN is KAN]
print(json.dumps([*place, KAN.__module__]))
sys.exit(3)
"""


def test_run_is_like_python_itself(tmp_path):
    folder = tmp_path / "somewhere"
    (folder / "stand_in" / "efficient_kan").mkdir(parents=True)
    (folder / "stand_in" / "efficient_kan" / "__init__.py").write_text("class KAN: pass\n")
    (folder / "script.py").write_text(SCRIPT)
    (folder / "beside.py").touch()
    (tmp_path / "link.py").symlink_to(folder / "script.py")
    given = ["link.py", "--flag", "-x", "a b"]
    environment = {"PYTHONPATH": f"{folder / 'stand_in'}:{Path(hof.__file__).parents[1]}"}
    plain, run = (
        subprocess.run(
            [sys.executable, *command, *given, *more],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        for command, more in (([], ["without"]), (["-m", "high_order_fused", "run"], []))
    )
    assert (plain.returncode, run.returncode) == (3, 3), plain.stderr + run.stderr
    (argv, *expected, _), (own_argv, *found, where) = (json.loads(done.stdout) for done in (plain, run))
    assert own_argv == [str(tmp_path / "link.py"), *argv[1:-1]] and where == "high_order_fused.kan"
    assert found == expected and expected[0] == str(folder)


def test_run_needs_a_script_that_is_there(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "nothing.py"])
    assert stopped.value.code == 2 and "script: got 'nothing.py'" in capsys.readouterr().err


def test_a_seeded_program_has_the_originals_losses(tmp_path):
    pytest.importorskip("high_order_layers_torch.layers", reason="high-order-layers-torch is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    (tmp_path / "pytorch_lightning.py").write_text("from torch.nn import Module as LightningModule\n")
    given = [str(PROGRAMS / "high_order_layers_torch_digits.py"), "--epochs", "3"]
    here, one = str(Path(hof.__file__).parents[1]), {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, *command, *given], env={"PYTHONPATH": path, **one}, stdout=subprocess.PIPE
        )
        for command, path in (([], str(tmp_path)), (["-m", "high_order_fused", "run"], here))
    ]
    theirs, own = (json.loads(process.communicate()[0]) for process in running)
    assert len(own["losses"]) == 50 and own["losses"][-1] < 0.5 * own["losses"][0]
    assert difference(torch.tensor(own["losses"]), torch.tensor(theirs["losses"])) < 1e-3


PROGRAM = """
import efficient_kan, sys
own = efficient_kan.KAN.__module__.startswith("high_order_fused")
print('{"losses": [1.0, %s], "accuracy": 0.5, "seconds": %s}' % ((1.25, 2) if own else (1.5, 3)))
"""


def test_programs_are_compared_with_their_originals(tmp_path, monkeypatch):
    programs = pytest.importorskip("high_order_fused.benchmarks.programs", reason="rich is not installed")
    (tmp_path / "efficient_kan.py").write_text("class KAN: pass\n")
    monkeypatch.setattr(programs, "FOLDER", tmp_path / "programs")
    programs.FOLDER.mkdir()
    (programs.FOLDER / "small.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(Path(hof.__file__).parents[1]))
    result = programs.measure(1, [str(tmp_path)], [])
    small = result["programs"]["small"]
    assert small["losses_apart"] == 0.25 and small["faster"] == 1.5
    assert small["seconds"] == {"original": 3, "ours": 2}
    assert "| small | 3.00 s | 2.00 s | 2.5e-01 | 0.500 | 0.500 |" in programs.table(result, "some.json")
    (programs.FOLDER / "small.py").write_text("import nothing_of_that_name")
    lacking = programs.measure(1, [], [])["programs"]["small"]
    assert lacking == {"not_measured": "ModuleNotFoundError: No module named 'nothing_of_that_name'"}
