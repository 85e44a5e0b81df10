"""GPU calibration: its logic on made-up rates, and its jobs on CPU tensors; no GPU is needed."""

from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from roofcast import hwdb
from roofcast.hwdb import names
from roofcast.reports.command import main
from roofcast.simulator.machine import gpu
from roofcast.simulator.machine.sampling import Clock, Rate, sample

RATES = {
    "matmul fp32 4096": 50e12, "matmul fp32 8192": 48e12, "matmul tf32 4096": 300e12,
    "matmul tf32 8192": 360e12, "matmul bf16 4096": 600e12, "matmul bf16 8192": 700e12,
    "matmul fp16 4096": 610e12, "matmul fp16 8192": 690e12, "attention bf16": 400e12,
    "norm": 2.4e12, "elementwise": 2.8e12, "copy": 2.6e12, "launch": 2.5e5,
}  # fmt: skip


def test_a_gpu_device_file_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "this_machine", lambda name: tmp_path / f"{name}.toml")
    found = {key: Rate(value, 0.01, 6) for key, value in RATES.items()}
    text = gpu.text(gpu.Gpu("Chip", 132, 80 * 2**30), found, "today")
    (tmp_path / f"{names.THIS_GPU}.toml").write_text(text)
    device, memory = hwdb.device(names.THIS_GPU), hwdb.device(names.THIS_GPU).memory
    assert (device.kind, device.cores) == ("gpu", 132)
    assert (memory.capacity, memory.bandwidth) == (80 * 2**30, 2.8e12)
    assert device.peak_flops["tf32"] == 360e12 and device.peak_flops["bf16"].status == "measured"
    achieved = device.achieved
    assert achieved["sustained_fp32"] == pytest.approx(0.96) and achieved["sustained_bf16"] == 1
    assert achieved["stream"] == 1 and achieved["kernel_interval"] == pytest.approx(4e-6)
    result = CliRunner().invoke(main, ["predict", "gpt2", "--on", names.THIS_GPU])
    assert result.exit_code == 0, result.output


def test_without_cuda_calibrate_says_so_and_measures_the_cpu(monkeypatch):
    calls = []
    monkeypatch.setattr(gpu, "available", lambda: "no device here")
    monkeypatch.setattr(
        "roofcast.simulator.machine.calibrate.calibrate", lambda *_, **__: calls.append(1) or 1 / 0
    )
    result = CliRunner().invoke(main, ["calibrate", "--gpu"])
    first = result.stderr.splitlines()[0]
    assert first == "no device here: the CPU is measured instead" and calls == [1]


def test_a_gpu_without_calibration_names_the_command_to_run(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "this_machine", lambda name: tmp_path / f"{name}.toml")
    with pytest.raises(hwdb.BadInput, match="run: roofcast calibrate --gpu$"):
        hwdb.device(names.THIS_GPU)


@pytest.mark.torch
@pytest.mark.skipif(not find_spec("torch"), reason="torch is not installed")
def test_gpu_jobs_run_on_cpu_tensors_and_wait_for_the_device():
    import torch

    now, waits = [0.0], []

    def wait():
        waits.append(1)
        now[0] += 1e-3

    jobs = gpu.jobs(torch, "cpu", 1 / 256, wait)
    rates = sample(jobs, 5.0, Clock(*[lambda: now[0]] * 3))
    assert {job.key for job in jobs} == set(RATES) and len(waits) > len(jobs)
    assert all(rate.value > 0 and job.amount > 0 for job, rate in zip(jobs, rates, strict=True))
