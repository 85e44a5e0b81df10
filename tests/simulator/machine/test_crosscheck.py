"""The cross-check: what it computes from given measurements. No test depends on how fast this
machine is.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.reports.command import main
from roofcast.reports.pages import crosscheck as crosscheck_text
from roofcast.reports.tables import crosscheck as crosscheck_table
from roofcast.reports.tables import crosscheck_sum, validation
from roofcast.simulator.machine.crosscheck import kernels as kernel_check
from roofcast.simulator.machine.crosscheck import measure, net_list, sum_form
from roofcast.simulator.machine.crosscheck import steps as crosscheck
from roofcast.simulator.machine.crosscheck.measure import Measured, Session

SHIPPED = sorted(
    (Path(__file__).parents[3] / "scenarios" / "measured" / "machines").glob("crosscheck-*.csv")
)
TORCH = [n for n in net_list.NETS if n.by == "torch"]


@pytest.fixture
def calibrated(tmp_path):
    """A calibrated device of one thread."""
    (device,) = SHIPPED[0].parent.glob("*.toml")
    path = tmp_path / "box-1.toml"
    path.write_text(device.read_text(encoding="utf-8"), encoding="utf-8")
    return path


@pytest.fixture
def session():
    """Every net and probe at made-up times."""
    nets = {
        measure.key(n): Measured(0.1 * (1 + i), 0.02, (0.1, 0.1))
        for i, n in enumerate(net_list.NETS)
    }
    rates = {"gemm": 1e11, "scale": 3e10, "triad": 1e10, "mm": 1.2e11, "pool": 2e8}
    probes = {
        name: Measured(amount / rates[name], 0.01, (1.0,))
        for name, amount in measure.PROBES.items()
    }
    return Session(nets, probes, {"numpy": "2", "numba": "0.6", "torch": "2.13"}, (1.0, 1.0))


def test_lines_of_a_worker_become_a_session():
    said = [{"name": "a", "seconds": None}]
    said += [{"name": name, "seconds": s} for s in (1.0, 1.1) for name in ("a", *measure.PROBES)]
    heard = []
    lines = [json.dumps(s) for s in [*said, {"versions": {"numpy": "2"}, "load": [1, 2]}]]
    found = measure.gathered(lines, 3, lambda done, of: heard.append((done, of)))
    assert found.found["a"].seconds == pytest.approx(1.05) and found.found[
        "a"
    ].noise == pytest.approx(0.1)
    assert set(found.probes) == set(measure.PROBES) and heard == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "ended early"),
        (['{"name": "a", "error": "no memory"}'], "a: cannot be measured: no memory"),
    ],
)
def test_a_worker_that_fails_is_one_line(lines, why):
    with pytest.raises(BadInput, match=why):
        measure.gathered(lines, 1, lambda done, of: None)


def test_json_holds_the_named_keys_and_no_other(session, calibrated):
    rows = crosscheck.training(session, str(calibrated))
    ran = [crosscheck.Ran("gemm", "8x8x8", 1, 1.0, 2.0, 0.1)]
    out = crosscheck.to_json(ran, rows)
    assert set(out) == {"kernels", "training"}
    assert out["kernels"] == [
        {
            "op": "gemm",
            "size": "8x8x8",
            "threads": 1,
            "predicted_s": 1.0,
            "measured_s": 2.0,
            "error": -0.5,
            "noise": 0.1,
        }
    ]
    assert {frozenset(row) for row in out["training"]} == {
        frozenset(("model", "predicted_s", "measured_s", "error", "noise"))
    }
    assert len({row["model"] for row in out["training"]}) == len(net_list.NETS)


def test_a_table_says_what_was_measured(session, calibrated, tmp_path, capsys):
    """Written, read as `validate --runs` reads it, forecast: the same seconds as without the
    table.
    """
    device = crosscheck_table.write_device(session, calibrated, tmp_path / "measured")
    assert hwdb.device(device).achieved["sustained_fp32"] * hwdb.device(device).peak_flops[
        "fp32"
    ] == pytest.approx(1.2e11, rel=1e-3)
    rows = crosscheck.training(session, str(device))
    table = crosscheck_table.write(rows, session, device, "a CPU")
    checked = validation.check_files([table])
    assert [c.predicted for c in checked] == pytest.approx([r.predicted_s for r in rows])
    assert [c.run.measured_s for c in checked] == pytest.approx(
        [r.measured_s for r in rows], rel=1e-5
    )
    crosscheck_text.print_crosscheck("a CPU", [], rows, [])
    assert "ordered right" in capsys.readouterr().out


@pytest.mark.parametrize("table", SHIPPED, ids=lambda p: p.stem)
def test_shipped_table_keeps_what_docs_say(table):
    """Bars of the cross-check: nothing fitted 25 %; two multipliers on a model that is left out 12
    %, four fifths within 25 %; most pairs in order. Measured once, so exact.
    """
    judged = crosscheck_sum.judge(table)
    found = crosscheck_sum.errors(judged)
    assert len(judged.names) == len(net_list.NETS)
    assert all(np.median(np.abs(found[key])) <= 0.25 for key in ("zero", "causes", "chain"))
    assert (
        np.median(np.abs(found["fitted"])) <= 0.12
        and np.mean(np.abs(found["fitted"]) <= 0.25) >= 0.80
    )
    rows = [
        crosscheck.Trained(net_list.NETS[0], p, m, 0.0)
        for p, m in zip(judged.chain, judged.measured, strict=True)
    ]
    right, asked = crosscheck.ranked(rows)
    assert right / asked >= 0.95


def test_padding_counts_whole_vectors_of_channels():
    """LeNet's 6 channels fill 16 lanes; a net whose channels are multiples of 16 is as it was."""
    work = {
        m: sum_form.counted(
            crosscheck.scenario(next(n for n in net_list.NETS if n.model == m), "i9-10940x")
        )
        for m in ("lenet", "mlp")
    }
    assert (
        work["lenet"].padded > 1.2 * work["lenet"].flops and work["mlp"].padded == work["mlp"].flops
    )
    assert (
        work["lenet"].moved > 1.5 * work["lenet"].bytes
        and work["mlp"].moved == work["mlp"].bytes
        and work["mlp"].compared == 0
    )


def test_constants_are_found_where_they_are():
    """Kernels that take exactly what the formula says with c = 4: c is found, and a size left out
    is forecast.
    """
    part = kernel_check.Parts(
        np.array([1e-3, 2e-3, 5e-4]),
        np.array([1e-3, 1e-3, 2e-3]),
        np.array([1.0, 3.0, 2.0]),
        np.full(3, 1e-6),
    )
    assert kernel_check.slower(kernel_check.together(4.0, part), part) == pytest.approx(
        4.0, rel=0.02
    )


def test_kernels_are_forecast_from_a_calibrated_device(calibrated):
    device = hwdb.device(calibrated)
    points = kernel_check.points(quick=True)
    found = Session({p: Measured(1e-3, 0.01, (1e-3,)) for p in points}, {}, {}, (0.0, 0.0))
    rows = kernel_check.forecasts(found, device)
    assert len(rows) == len(points) and all(
        np.isfinite(r.predicted_s) and r.predicted_s > 0 for r in rows
    )
    assert {op for op, *_ in kernel_check.by_class(rows)} >= {"gemm", "conv", "norm"}


def test_a_kernel_is_timed(monkeypatch):
    """The worker's own code, here, on two kernels."""
    monkeypatch.setattr(measure, "SAMPLE", 1e-5)
    said = list(measure.run(["relu:4096", "gemm:64x64x64"], 1))
    assert [s["name"] for s in said[:-1]] == ["relu:4096", "gemm:64x64x64"] * 2
    assert all(s["seconds"] > 0 for s in said[2:4]) and "numba" in said[-1]["versions"]


def test_without_calibration_one_line_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["crosscheck", "--training"])
    assert (
        result.exit_code == 2
        and "roofcast calibrate" in result.stderr
        and result.stderr.count("\n") == 1
    )


@pytest.mark.torch
@pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed")
@pytest.mark.parametrize(
    "net",
    [n for n in TORCH if n.model not in ("gpt2", "bert-base", "alexnet", "neumf")],
    ids=lambda n: n.name,
)
def test_torch_nets_are_the_nets_that_are_forecast(net):
    """Weights to the last one, and the FLOPs that the importer finds in the module."""
    from roofcast import predict
    from roofcast.simulator.importers import from_torch
    from roofcast.simulator.machine.crosscheck import torch_nets

    small = net._replace(batch=2)
    module, inputs, loss = torch_nets.module_and_inputs(small)
    asked = dict(device="i9-10940x", precision="fp32", optimizer=net.optimizer)
    size = {"image": {"image": net.size}, "sequence": {"sequence": net.size}, "table": {}}[
        net.takes
    ]
    ours = predict(model=net.model, batch=2, **asked, **size)
    theirs = predict(from_torch(module, inputs, device="cpu", loss=loss), batch=2, **asked)
    assert ours.parameters == theirs.parameters == sum(p.numel() for p in module.parameters())
    assert theirs.flops_forward + theirs.flops_backward == pytest.approx(
        ours.flops_forward + ours.flops_backward, rel=0.01
    )


@pytest.mark.torch
@pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed")
@pytest.mark.parametrize("name", ["lenet", "mlp-adam", "ncf", "bilstm"])
def test_torch_nets_learn(name):
    from roofcast.simulator.machine.crosscheck import torch_nets

    step = torch_nets.build(next(n for n in TORCH if n.name == name)._replace(batch=16))
    losses = [step() for _ in range(30)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
