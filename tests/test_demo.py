"""The demo, in its quick form: figures and pictures are written and make sense."""

import json
import sys

import pytest
import torch

from high_order_fused.demo import main
from high_order_fused.demo_training import compare_layer, threads

pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors on threads that wait for each other take several times as long on a busy machine."""
    with threads(1):
        yield


def test_quick_demo_writes_figures_and_pictures(tmp_path, capsys):
    main(["--quick", "--output", str(tmp_path)])
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["machine"]) == {"cpu", "threads", "torch", "python", "backend", "backend_detail"}
    assert set(results["networks"]) == {"KAN", "piecewise polynomial", "ReLU"}
    for network in results["networks"].values():
        assert 0.8 < network["accuracy_lowest"] <= network["accuracy"] <= network["accuracy_highest"] <= 1
        assert 23_000 < network["parameters"] < 24_000
        assert network["epoch_seconds"] > 0 and network["step_peak_bytes"] > 0
    layer = results["layer"]
    if isinstance(layer["peer"], dict):
        assert layer["difference"] < 1e-4
        assert layer["ratio"]["peak_bytes"] > 1
    else:
        assert layer["peer"] == "not measured: not installed"
    for name in ("edges.png", "accuracy.png", "speed.png"):
        picture = (tmp_path / name).read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    printed = capsys.readouterr().out
    assert "piecewise polynomial" in printed and "Wrote" in printed and "high-order-layers-torch" in printed


def test_peer_that_is_not_installed_is_not_measured(monkeypatch):
    from high_order_fused.demo_plots import speed

    for module in ("high_order_layers_torch", "high_order_layers_torch.layers"):
        monkeypatch.setitem(sys.modules, module, None)
    layer = compare_layer(torch.rand(4, 64), repeats=1)
    assert layer["peer"] == "not measured: not installed" and "ratio" not in layer
    results = {
        "machine": {"cpu": "", "threads": 1, "torch": "", "backend": ""},
        "settings": {"training_threads": 1},
        "networks": {"KAN": {"epoch_seconds": 1.0}},
        "layer": layer,
    }
    assert len(speed(results).axes) == 3


def test_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("high_order_fused.demo.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install 'high_order_fused\[demo\]'"):
        main(["--output", str(tmp_path)])


@pytest.mark.parametrize("wrong", [["--epochs", "0"], ["--seeds", "x"]])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(SystemExit):
        main(wrong)
