"""The benchmarks measure what they say, and what they write can be read. No time is asserted."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("rich")

from high_order_fused.benchmarks import cli, fresh, rates, rivals, runner
from high_order_fused.benchmarks.cases import CASES, GPU_CASES, KINDS, LAYERS, Case, named
from high_order_fused.benchmarks.step import differences, forward, forward_backward

from high_order_fused import __main__ as command
from high_order_fused.compat import efficient_kan

CPU = torch.device("cpu")
TINY = Case("tiny", "continuous", 9, 3, 2, n=3, segments=4)
EVERY = (*CASES, *LAYERS, *GPU_CASES)
SAME = [
    (case, rival.name)
    for case in (*CASES, *LAYERS, *GPU_CASES[-2:])
    for rival in rivals.rivals(case)
    if rival.same
]
cases = pytest.mark.parametrize("case", (*CASES, *LAYERS), ids=lambda case: case.name)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads only wait for each other here, where tests already run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def step(case: Case, name: str) -> runner.Step:
    """Output and gradients of a contender on the case's data."""
    try:
        return forward_backward(rivals.build(case, name, CPU), *rivals.data(case, CPU))
    except rivals.NotMeasured as reason:
        pytest.skip(str(reason))


def test_every_kind_has_a_case() -> None:
    assert {case.kind for case in EVERY} == set(KINDS)
    assert len({case.name for case in EVERY}) == len(EVERY)


@cases
def test_a_case_builds_at_its_own_size(case: Case) -> None:
    layer = rivals.ours(case, CPU)
    x, cotangent = rivals.data(case, CPU)
    assert forward(layer, x).shape == cotangent.shape == case.y_shape
    assert case.y_shape[:2] == (case.batch, case.out_features)
    for rival in rivals.rivals(case):
        if not rival.same:
            assert forward(rivals.build(case, rival.name, CPU), x).shape == cotangent.shape


@pytest.mark.parametrize(("case", "name"), SAME, ids=[f"{case.name}-{name}" for case, name in SAME])
def test_rivals_that_are_the_same_function_agree(
    case: Case, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rivals, "resolve", lambda x: "some backend")  # so that the reference takes part
    found = differences(step(case.small(), name), step(case.small(), rivals.OURS))
    assert set(found) >= {"output", "gradient of x"} and len(found) >= 3
    assert max(found.values()) < 1e-5, found


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.kind != "fourier"], ids=lambda case: case.name
)
def test_ours_agrees_in_double_precision(case: Case) -> None:
    case = replace(case.small(), dtype="float64")
    name = "Cox-de Boor + GEMM" if case.kind == "kan" else "expand + GEMM"
    found = differences(step(case, name), step(case, rivals.OURS))
    assert max(found.values()) < 1e-5, found


def test_a_rival_that_is_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(case: Case, layer: torch.nn.Module, error: float = 1.0) -> torch.nn.Module:
        rival = rivals._expanded(case, layer)
        rival.get_parameter("weight").data[0, 0, 0] += error
        return rival

    def broken(case: Case, layer: torch.nn.Module) -> torch.nn.Module:
        raise RuntimeError("/a/path of somebody")

    builders = {"wrong": wrong, "nan": partial(wrong, error=float("nan")), "broken": broken}
    monkeypatch.setattr(
        rivals, "RIVALS", tuple(rivals.Rival(name, build) for name, build in builders.items())
    )
    found = {entry["name"]: entry for entry in measured(TINY)["contenders"]}
    assert {name for name, entry in found.items() if "forward" in entry} == {"ours"}
    assert "differs from ours by" in found["wrong"]["not_measured"]
    assert "differs from ours by nan" in found["nan"]["not_measured"]
    assert found["broken"]["not_measured"] == "it raised RuntimeError"


def test_a_missing_peer_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("high_order_layers_torch")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "high_order_layers_torch", None)
    found = {entry["name"]: entry for entry in measured(TINY)["contenders"]}
    assert found["high-order-layers-torch"]["not_measured"].endswith("is not installed")
    assert found["expand + GEMM"]["forward"]["ratio_to_ours"] > 0


def test_our_own_layers_are_no_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficient_kan", efficient_kan)
    with pytest.raises(rivals.NotMeasured, match="efficient_kan stands for our layers here"):
        rivals.build(named(["kan-5"])[0].small(), "efficient-kan", CPU)


def test_ours_and_the_reference_are_not_measured_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "resolve", lambda x: "reference")
    found = measured(TINY)["contenders"]
    assert found[0]["backend"] == "reference" and "not_measured" in found[1]
    monkeypatch.setattr(rivals, "resolve", lambda x: "another")
    found = measured(TINY)["contenders"]
    assert found[0]["backend"] == "another" and "forward" in found[1]
    assert set(found[1]["difference_from_ours"]) == {"output", "gradient of x", "gradient of weight"}


def test_a_run_writes_a_stamp_ratios_and_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "named", lambda names, _: (replace(TINY, name=names[0]),))
    output = tmp_path / "new" / "result.json"
    command.main(["bench", "--quick", "--cases", "kan-5", "--rounds", "2", "--output", str(output)])
    result = json.loads(output.read_text())
    assert {"date", "device", "cpu", "cores", "threads", "torch", "high_order_fused", "native"} <= set(
        result["stamp"]
    )
    assert str(Path.home()) not in output.read_text() and str(tmp_path) not in output.read_text()
    (case,) = result["cases"]
    ours = case["contenders"][0]
    assert case["case"]["name"] == "kan-5" and case["gemm_gflops"] > 0
    assert ours["name"] == "ours" and ours["forward"]["ratio_to_ours"] == 1
    assert all(
        entry["forward_backward"]["median_ms"] > 0 for entry in case["contenders"] if "forward" in entry
    )
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "ours (" in capsys.readouterr().out


def test_a_killed_case_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = runner.measure

    def measure(case: Case, *others: Any, **named: Any) -> dict[str, Any]:
        if case.name == "large":
            fresh.call(os._exit, 1)
        return usual(case, *others, **named)

    monkeypatch.setattr(runner, "measure", measure)
    small, large = replace(TINY, name="small"), replace(TINY, name="large")
    monkeypatch.setattr(
        cli, "named", lambda names, _: tuple({"small": small, "large": large}[n] for n in names)
    )
    output = tmp_path / "result.json"
    with pytest.raises(SystemExit, match="killed: large"):
        cli.main(["--quick", "--cases", "large", "small", "--output", str(output)])
    assert [entry["case"]["name"] for entry in json.loads(output.read_text())["cases"]] == ["small"]
    with pytest.raises(RuntimeError, match=r"nothing was measured: .* large"):
        cli.main(["--quick", "--cases", "large", "--output", str(output)])


def test_samples_of_several_processes_are_put_together() -> None:
    settings = runner.Settings(rounds=3, budget=0.0, memory=False, processes=2)
    ticks: list[str] = []
    found = runner.measure(TINY, settings, CPU, ticks.append, apart=True)
    timed = [entry for entry in found["contenders"] if "forward" in entry]
    assert len(timed) > 1 and all(entry["forward"]["samples"] == 2 * 2 for entry in timed)
    assert len(ticks) == runner.ticks([TINY], settings, CPU)


def test_samples_need_every_process() -> None:
    def one(**samples: list[float]) -> runner.Measured:
        timed = {name: {"forward": runner.Samples(1, seconds)} for name, seconds in samples.items()}
        untimed = {"not_measured": "why"}
        entries = [{"name": name} | ({} if name in timed else untimed) for name in ("ours", "x", "y")]
        return runner.Measured(entries, timed, runner.Samples(1, [1.0]), 1)

    found = one(ours=[1.0], x=[2.0])
    found.add(one(ours=[3.0], y=[4.0]))
    assert found.samples == {"ours": {"forward": runner.Samples(1, [1.0, 3.0])}}
    assert [entry.get("not_measured") for entry in found.entries] == [None, "why", "why"]


def sampled(rounds: int, budget: float) -> rates.Sampled:
    return {"one": [1.0] * rounds, "two": [2.0, 3.0, 4.0]}


def test_a_part_of_the_rates_is_of_medians_of_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "PARTS", {"part": (sampled, lambda seconds: seconds)})
    found = rates.measure(runner.Settings(rounds=3, processes=2), lambda part: None)
    assert found["part"] == {"one": 1.0, "two": 3.0} and found["processes"] == 2


def test_peak_memory_comes_from_another_process() -> None:
    peak = runner.peak(replace(TINY, batch=2**15), "expand + GEMM", CPU)
    expanded = 2**15 * 3 * 9 * 4 / 2**20  # batch, in, K, bytes
    assert peak.how and (peak.mib is None or expanded < peak.mib < 20 * expanded)


def elsewhere(number: int, tell: fresh.Tell) -> tuple[int, int]:
    for text in ("one", "two"):
        tell(text)
    return os.getpid(), torch.get_num_threads() + 1 // number


def test_calls_in_a_process_of_their_own() -> None:
    """On as many threads as here, with what they tell in order, and what they raise."""
    told: list[str] = []
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        pid, threads = fresh.call(elsewhere, 2, tell=told.append)
        with pytest.raises(ZeroDivisionError):
            fresh.call(elsewhere, 0, tell=told.append)
    finally:
        torch.set_num_threads(before)
    assert pid != os.getpid() and threads == 3 and told == ["one", "two"] * 2


def test_info_names_every_backend(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["info"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("reference", "cpu", "triton", "cuda", torch.__version__))


def test_a_missing_extra_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(argv: list[str]) -> None:
        raise ModuleNotFoundError("No module named 'rich'", name="rich")

    monkeypatch.setitem(command.COMMANDS, "bench", without)
    with pytest.raises(
        SystemExit, match=r"^rich is not installed: pip install 'high_order_fused\[bench\]' brings it$"
    ):
        command.main(["bench"])


def test_cases_are_picked_by_name() -> None:
    assert named(None) == CASES
    assert [case.name for case in named(["kan-5", "polynomial-9"])] == ["kan-5", "polynomial-9"]
    with pytest.raises(ValueError, match="cases: got 'kan-6', needs some of continuous-5, "):
        named(["kan-6"])


def measured(case: Case) -> dict[str, list[dict[str, dict[str, float]]]]:
    """The result of a short run of one case."""
    return runner.measure(case, runner.Settings(rounds=2, budget=0.0, memory=False), CPU, lambda text: None)
