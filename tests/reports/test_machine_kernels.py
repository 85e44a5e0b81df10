"""Kernels of a machine kept as a table: validated, and drawn under its measured roofs. Times are
made up, or those of a shipped table.
"""

from pathlib import Path

import pytest
from click.testing import CliRunner

from roofcast import hwdb
from roofcast.hwdb import names
from roofcast.hwdb.errors import BadInput
from roofcast.reports.command import main
from roofcast.reports.tables import kernels as kernel_table
from roofcast.simulator.machine.crosscheck import kernels as kernel_check
from roofcast.simulator.machine.crosscheck.measure import Measured, Session

FOLDER = Path(__file__).parents[2] / "scenarios" / "measured" / "machines"
SHIPPED = sorted(FOLDER.glob("kernels-*.csv"))
# error of streams, norms and softmax by the ceilings alone, and by how much two calibrations of the
# machine may differ; the neighbours of the second one were busy
BARS = {
    "kernels-intel-xeon-vm-1-2026-11-22": (0.20, 0.10),
    "kernels-intel-xeon-vm-1-2026-11-30": (0.20, 0.10),
}
DEVICE = FOLDER / "intel-xeon-vm-1-2026-11-22.toml"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A calibrated machine whose kernels take twice what its roofs allow, as a table."""
    monkeypatch.setattr(
        names,
        "this_machine",
        lambda name: tmp_path / "devices" / f"box{name.removeprefix('this-machine')}.toml",
    )
    (tmp_path / "devices").mkdir()
    for name in names.THIS_MACHINE:
        names.this_machine(name).write_text(DEVICE.read_text(encoding="utf-8"), encoding="utf-8")
    device = hwdb.device("this-machine-1")
    found = {
        p: Measured(2.0 * kernel_check.bound(p, device) + 1e-7, 0.01, (1.0,))
        for p in kernel_check.points(quick=True)
    }
    session = Session(found, {}, {"numba": "0"}, (0.0, 0.0))
    paths = {1: names.this_machine("this-machine-1"), 2: names.this_machine("this-machine")}
    return kernel_table.write({1: session, 2: session}, paths, "Box", tmp_path / "measured")


def run(*args):
    return CliRunner().invoke(main, list(args))


def test_a_table_is_read_as_it_was_written(own):
    assert kernel_table.claims(own) and not kernel_table.claims(DEVICE)
    kept = kernel_table.read(own)
    assert set(kept.sessions) == {1, 2} and len(kept.sessions[1].found) == len(
        kernel_check.points(quick=True)
    )
    written = 2.0 * kernel_check.bound("relu:4096", hwdb.device(DEVICE)) + 1e-7
    assert kept.sessions[1].found["relu:4096"].seconds == pytest.approx(written, rel=1e-4)


def test_the_start_of_threads_is_that_between_the_kernels(own, tmp_path):
    """It replaces that of the calibration in the file beside the table."""
    found = kernel_table.read(own).sessions[1].found
    session = Session(found, {"fork": Measured(7e-6, 0.02, (7e-6,))}, {}, (0.0, 0.0))
    calibrated = tmp_path / "box.toml"
    fork = 'fork_join = {value = 2e-5, source = "measured", status = "measured", where = "fork"}'
    text = Path(DEVICE).read_text(encoding="utf-8").replace("call =", f"{fork}\ncall =")
    calibrated.write_text(text, encoding="utf-8")
    table = kernel_table.write({1: session}, {1: calibrated}, "Box", tmp_path / "beside")
    beside = hwdb.device(kernel_table.read(table).devices[1])
    assert beside.achieved["fork_join"] == 7e-6
    assert hwdb.device(calibrated).achieved["fork_join"] == 2e-5


def test_validate_reads_it(own):
    result = run("validate", "--ops", str(own))
    assert result.exit_code == 0, result.output
    assert "Median error" in result.output and "wall time" in result.output


@pytest.mark.parametrize(
    ("threads", "words"), [("1", "one thread, CPU time"), ("all", "2 threads, best wall time")]
)
def test_the_roofline_of_this_machine_needs_no_model(own, tmp_path, threads, words):
    target = tmp_path / "roofs.svg"
    result = run("roofline", "--on", "this-machine", "--threads", threads, "-o", str(target))
    assert result.exit_code == 0, result.output
    assert "none of" in result.output
    drawn = target.read_text(encoding="utf-8")
    assert words in drawn and "roof (measured)" in drawn and "datasheet" not in drawn


def test_a_kernel_above_its_roof_is_told(own):
    device = hwdb.device(DEVICE)
    fast = Session(
        {"relu:4096": Measured(kernel_check.bound("relu:4096", device) / 1.3, 0.01, (1.0,))},
        {},
        {},
        (0.0, 0.0),
    )
    ((row, most),) = kernel_check.above(kernel_check.forecasts(fast, device), device)
    assert row.op == "relu" and most == pytest.approx(0.3)


def test_a_roofline_without_model_or_machine_says_what_to_do(own, tmp_path):
    assert (
        "MODEL is missing"
        in run("roofline", "--on", "h100-sxm5", "-o", str(tmp_path / "a.png")).stderr
    )
    own.unlink()
    assert (
        "roofcast crosscheck --kernels"
        in run("roofline", "--on", "this-machine", "-o", str(tmp_path / "a.png")).stderr
    )


def test_a_broken_row_is_one_line(own):
    own.write_text(
        own.read_text(encoding="utf-8") + "relu,4096,1,x.toml,fast,0,1,1,1,c,d\n", encoding="utf-8"
    )
    with pytest.raises(BadInput, match="threads, seconds and noise must be numbers"):
        kernel_table.read(own)


@pytest.mark.parametrize("table", SHIPPED, ids=lambda path: path.stem)
def test_shipped_kernels_keep_the_bars(table):
    """One constant an op: median 12 %, products 20 %; ceilings alone, streams, norms and softmax:
    20 %, 30 beside busy neighbours; no kernel above its roof by more than two calibrations differ.
    Measured once, so exact.
    """
    streams, drift = BARS[table.stem]
    (_, _, rows, bare), *_ = kernel_table.check(table)
    own = sorted(abs(row.error) for row in kernel_check.checked(rows))
    assert own[len(own) // 2] <= 0.12
    errors, plain = (
        {op: error for op, _, error, _ in kernel_check.by_class(each)} for each in (rows, bare)
    )
    assert errors["gemm"] <= 0.20
    assert max(plain[op] for op in ("stream", "elementwise", "norm", "softmax")) <= streams
    device = hwdb.device(kernel_table.read(table).devices[1])
    assert all(share <= max(row.noise, drift) for row, share in kernel_check.above(rows, device))
