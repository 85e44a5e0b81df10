"""The cross-check, from given measurements; no test depends on the speed of the local machine."""

import csv
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
from roofcast.simulator.machine.crosscheck import measure, net_list, sum_form, worker
from roofcast.simulator.machine.crosscheck import steps as crosscheck
from roofcast.simulator.machine.crosscheck.measure import Measured, Session

SHIPPED = sorted(
    (Path(__file__).parents[3] / "scenarios" / "measured" / "machines").glob("crosscheck-*.csv")
)
TORCH = [n for n in net_list.NETS if n.by == "torch"]


@pytest.fixture
def calibrated(tmp_path):
    """A calibrated device of one thread."""
    device = SHIPPED[0].parent / "intel-xeon-vm-1-2026-11-22.toml"
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
    rates = {"gemm": 1e11, "scale": 3e10, "triad": 1e10, "mm": 1.2e11, "pool": 2e8, "fork": 7e4}
    probes = {
        name: Measured(amount / rates[name], 0.01, (1.0,))
        for name, amount in measure.PROBES.items()
    }
    return Session(nets, probes, {"numpy": "2", "numba": "0.6", "torch": "2.13"}, (1.0, 1.0))


def test_the_output_of_a_worker_becomes_a_session():
    entries = [{"name": "a", "seconds": None}]
    entries += [{"name": name, "seconds": s} for s in (1.0, 1.1) for name in ("a", *measure.PROBES)]
    entries.append({"versions": {"numpy": "2"}, "load": [1, 2]})
    progress = []
    lines = [json.dumps(entry) for entry in entries]
    session = measure.read_session(lines, 3, lambda done, of: progress.append((done, of)))
    a = session.found["a"]
    assert a.seconds == pytest.approx(1.05) and a.noise == pytest.approx(0.1)
    assert set(session.probes) == set(measure.PROBES) and progress == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "ended early"),
        (['{"name": "a", "error": "no memory"}'], "a: cannot be measured: no memory"),
    ],
)
def test_a_failing_worker_is_reported_in_one_line(lines, why):
    with pytest.raises(BadInput, match=why):
        measure.read_session(lines, 1, lambda done, of: None)


def test_json_has_the_documented_keys_and_no_other(session, calibrated):
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
        frozenset(("model", "threads", "predicted_s", "measured_s", "error", "noise"))
    }
    assert len({row["model"] for row in out["training"]}) == len(net_list.NETS)


def test_on_several_threads_the_best_round_counts(session):
    """Another process that takes one of the cores stops all threads of a step."""
    found = measure.best(session)
    assert {name: each.seconds for name, each in found.found.items()} == {
        name: min(each.rounds) for name, each in session.found.items()
    }
    assert found.versions == session.versions


def test_on_several_threads_each_software_runs_apart(monkeypatch, session):
    """numba's threads sleep when they have nothing to do, PyTorch's wait, as users run them."""
    ran, told = [], []

    def worker(kind, names, rounds, progress, threads=1, waits=None):
        ran.append((kind, tuple(names), dict(waits or {})))
        for done in range(len(names) * (rounds + 1)):
            progress(done + 1, len(names) * (rounds + 1))
        return session._replace(found={n: session.found[n] for n in names})

    monkeypatch.setattr(measure, "run_worker", worker)
    found = measure.steps(net_list.NETS, 2, lambda done, of: told.append((done, of)), threads=2)
    assert set(found.found) == set(session.found) and found.probes.keys() == session.probes.keys()
    assert [waits for _, _, waits in ran] == [{}, measure.SPIN]
    assert [{n.endswith(" torch") for n in names} for _, names, _ in ran] == [{False}, {True}]
    total = 3 * len(net_list.NETS)
    assert told == [(i + 1, total) for i in range(total)]
    ran.clear()
    measure.steps(net_list.NETS, 2, threads=1)
    assert [(len(names), waits) for _, names, waits in ran] == [(len(net_list.NETS), {})]


def test_a_table_says_how_many_threads_ran(session, calibrated, tmp_path):
    rows = crosscheck.training(session, str(calibrated), 4)
    table = crosscheck_table.write(rows, session, calibrated, "a CPU, 4 threads", 4)
    lines = table.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("# Wall time, best of") for line in lines)
    found = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert {(row["cpu"], row["threads"]) for row in found} == {("a CPU", "4")}


def test_a_written_table_gives_the_same_forecasts(session, calibrated, tmp_path, capsys):
    """Written, read as `validate --runs` reads it, and forecast: the same seconds as before."""
    device = crosscheck_table.write_device(session, calibrated, tmp_path / "measured")
    record = hwdb.device(device)
    sustained = record.achieved["sustained_fp32"] * record.peak_flops["fp32"]
    assert sustained == pytest.approx(1.2e11, rel=1e-3)
    rows = crosscheck.training(session, str(device))
    table = crosscheck_table.write(rows, session, device, "a CPU")
    checked = validation.check_files([table])
    assert [c.predicted for c in checked] == pytest.approx([r.predicted_s for r in rows])
    assert [c.run.measured_s for c in checked] == pytest.approx(
        [r.measured_s for r in rows], rel=1e-5
    )
    crosscheck_text.print_crosscheck("a CPU", [], rows, [])
    assert "in the right order" in " ".join(capsys.readouterr().out.split())


# median errors of a table: of predict, of two multipliers, and share of the latter within 25 %
LIMITS = {
    "intel-1-2026-11-22": (0.08, 0.12, 0.80), "intel-1-2026-11-30": (0.08, 0.15, 0.65),
    "intel-2-2026-11-30": (0.15, 0.20, 0.60),
    "amd-1-2026-11-30": (0.08, 0.12, 0.75), "amd-2-2026-11-30": (0.15, 0.15, 0.75),
}  # fmt: skip


@pytest.mark.parametrize("table", SHIPPED, ids=lambda p: p.stem)
def test_errors_on_a_shipped_table_keep_the_documented_limits(table):
    """Nothing fitted: 25 % with arithmetic and bytes one after the other, with their causes less,
    in `predict` 8 % on one thread and 15 % on all; with two multipliers, held out, 15 %, on both
    threads of the Intel machine, whose numba nets they do not fit, 20 %.

    95 % of the pairs are in the right order. A table was measured once, so the check is exact.
    """
    judged = crosscheck_sum.judge(table)
    found = crosscheck_sum.errors(judged)
    assert len(judged.names) == len(net_list.NETS)
    maker, measured = table.stem.split("-")[1], table.stem.split("-vm-")[1]
    chain, fitted, within = LIMITS[f"{maker}-{measured}"]
    assert np.median(np.abs(found["causes"])) <= 0.25
    assert np.median(np.abs(found["zero"])) <= (0.25 if maker == "intel" else 0.35)
    assert np.median(np.abs(found["chain"])) <= chain
    assert np.median(np.abs(found["fitted"])) <= fitted
    assert np.mean(np.abs(found["fitted"]) <= 0.25) >= within
    rows = [
        crosscheck.Trained(net_list.NETS[0], p, m, 0.0)
        for p, m in zip(judged.chain, judged.measured, strict=True)
    ]
    right, pairs = crosscheck.ranked(rows)
    assert right / pairs >= 0.95


def test_padding_counts_whole_vectors_of_channels():
    """LeNet's 6 channels are padded to 16 lanes; an MLP has no convolutions and stays the same."""
    nets = [next(n for n in net_list.NETS if n.model == model) for model in ("lenet", "mlp")]
    lenet, mlp = (sum_form.counted(crosscheck.scenario(net, "i9-10940x")) for net in nets)
    assert lenet.padded > 1.2 * lenet.flops and mlp.padded == mlp.flops
    assert lenet.moved > 1.5 * lenet.bytes
    assert mlp.moved == mlp.bytes and mlp.compared == 0


def test_a_known_constant_is_recovered():
    """From times that follow the formula exactly with c = 4."""
    part = kernel_check.Parts(
        np.array([1e-3, 2e-3, 5e-4]),
        np.array([1e-3, 1e-3, 2e-3]),
        np.array([1.0, 3.0, 2.0]),
        np.full(3, 1e-6),
    )
    seconds = kernel_check.together(4.0, part)
    assert kernel_check.slower(seconds, part) == pytest.approx(4.0, rel=0.02)


def test_kernels_are_forecast_from_a_calibrated_device(calibrated):
    device = hwdb.device(calibrated)
    points = kernel_check.points(quick=True)
    found = Session({p: Measured(1e-3, 0.01, (1e-3,)) for p in points}, {}, {}, (0.0, 0.0))
    rows = kernel_check.forecasts(found, device)
    assert len(rows) == len(points)
    assert all(np.isfinite(r.predicted_s) and r.predicted_s > 0 for r in rows)
    assert {op for op, *_ in kernel_check.by_class(rows)} >= {"gemm", "conv", "norm"}


def test_a_kernel_ends_with_the_thread_that_has_the_most_pieces(calibrated):
    """197 rows are three blocks of 96, of which one of two threads has two; 256 columns are one
    strip; single elements are shared evenly.
    """
    roof = kernel_check.roofs(hwdb.device(calibrated))
    points = ["gemm:197x768x768", "sum_rows:64x256", "relu:4096"]
    one, two = (kernel_check.parts(points, roof, threads) for threads in (1, 2))
    assert two.memory / one.memory == pytest.approx([2 * 192 / 197, 2.0, 1.0])


def test_the_worker_times_kernels(monkeypatch):
    """The worker's code, run in this process on two kernels."""
    monkeypatch.setattr(worker, "SAMPLE", 1e-5)
    lines = list(worker.run(["relu:4096", "gemm:64x64x64"], 1))
    assert [line["name"] for line in lines[:-1]] == ["relu:4096", "gemm:64x64x64"] * 2
    assert all(line["seconds"] > 0 for line in lines[2:4]) and "numba" in lines[-1]["versions"]


def test_without_calibration_the_command_to_run_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["crosscheck", "--training"])
    assert result.exit_code == 2
    assert "roofcast calibrate" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.torch
@pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed")
@pytest.mark.parametrize(
    "net",
    [n for n in TORCH if n.model not in ("gpt2", "bert-base", "alexnet", "neumf")],
    ids=lambda n: n.name,
)
def test_torch_nets_match_the_nets_that_are_forecast(net):
    """The same number of parameters, and the FLOPs that the importer finds in the module."""
    from roofcast import predict
    from roofcast.simulator.importers import from_torch
    from roofcast.simulator.machine.crosscheck import torch_nets

    small = net._replace(batch=2)
    module, inputs, loss = torch_nets.module_and_inputs(small)
    options = dict(device="i9-10940x", precision="fp32", optimizer=net.optimizer)
    size = {} if net.takes == "table" else {net.takes: net.size}
    ours = predict(model=net.model, batch=2, **options, **size)
    theirs = predict(from_torch(module, inputs, device="cpu", loss=loss), batch=2, **options)
    assert ours.parameters == theirs.parameters == sum(p.numel() for p in module.parameters())
    assert theirs.flops_forward + theirs.flops_backward == pytest.approx(
        ours.flops_forward + ours.flops_backward, rel=0.01
    )


@pytest.mark.torch
@pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed")
@pytest.mark.parametrize("name", ["lenet", "mlp-adam", "ncf", "bilstm"])
def test_the_loss_of_torch_nets_falls(name):
    from roofcast.simulator.machine.crosscheck import torch_nets

    step = torch_nets.build(next(n for n in TORCH if n.name == name)._replace(batch=16))
    losses = [step() for _ in range(30)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
