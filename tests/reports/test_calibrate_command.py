"""roofcast calibrate: its output and the files it writes, with a made-up measurement."""

import pytest
from click.testing import CliRunner

from roofcast.hwdb import names
from roofcast.reports.command import main
from roofcast.simulator.machine import calibrate as machine
from roofcast.simulator.machine.device_file import text
from roofcast.simulator.machine.host import Cache, Host
from roofcast.simulator.machine.sampling import Rate

HOST = Host(
    "Chip X", "Acme", "x86_64", "Linux 6", 2, 2, {"l1": Cache(32768, 2)}, 2**33, 2e9, ("avx2",)
)
KEYS = {
    "fma32": 1e11, "fma64": 5e10, "gemm 512": 8e10, "exp": 3e9,
    "l1 read": 2e11, "l1 triad": 1e11, "memory read": 1e10, "memory triad": 9e9,
}  # fmt: skip


def made_up(differ):
    rates = {key: Rate(value, differ, 6) for key, value in KEYS.items()}
    files = {name: text(HOST, rates, name.endswith("1"), "today") for name in names.THIS_MACHINE}
    return machine.Calibration(HOST, rates, rates, files)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command on a machine of that noise, its files under tmp_path/own."""
    monkeypatch.setattr(names, "this_machine", lambda name: tmp_path / "own" / f"{name}.toml")

    def call(*args, differ=0.02, calibrate=None):
        monkeypatch.setattr(machine, "calibrate", calibrate or (lambda *_, **__: made_up(differ)))
        return CliRunner().invoke(main, [*args])

    return call


def test_it_saves_two_devices_for_every_command(run, tmp_path):
    result = run("calibrate")
    assert result.exit_code == 0, result.output
    assert (
        "100 GFLOP/s" in result.output
        and "--on this-machine-1" in result.output
        and "2.0 %" in result.output
    )
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == [
        "this-machine-1.toml",
        "this-machine.toml",
    ]
    for name in names.THIS_MACHINE:
        assert run("devices", "show", name).exit_code == 0
        assert run("predict", "gpt2", "--on", name).exit_code == 0
    picture = tmp_path / "gpt2.png"
    assert run("roofline", "gpt2", "--on", "this-machine", "-o", str(picture)).exit_code == 0
    assert picture.stat().st_size > 10_000


def test_a_noisy_machine_is_reported(run):
    assert "too noisy to trust" in run("calibrate", differ=0.4).output


def test_a_file_that_cannot_be_written_is_printed(run, tmp_path):
    (tmp_path / "own").write_text("a file where the folder should be")
    result = run("calibrate")
    assert result.exit_code == 0
    assert (
        f"{tmp_path / 'own' / 'this-machine.toml'}: cannot be written; its content would be"
        in result.output
    )
    assert "[peak_flops]" in result.output


def test_an_interrupt_leaves_nothing(run, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    result = run("calibrate", calibrate=interrupted)
    assert result.exit_code == 130 and not (tmp_path / "own").exists()


def test_a_forecast_before_calibration_names_the_command(run):
    result = run("predict", "gpt2", "--on", "this-machine")
    assert result.exit_code == 2 and "run: roofcast calibrate" in result.stderr
