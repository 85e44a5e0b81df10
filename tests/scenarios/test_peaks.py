"""What measured peaks of memory count: workspaces of cuBLAS, slack, outputs held by a loop."""

import pytest

from roofcast.scenarios.measured.nets import read, tables
from roofcast.scenarios.measured.peaks import counted, workspaces
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario


@pytest.mark.parametrize(
    ("device", "mode", "bytes_"),
    [
        ("t4", "infer", 8_519_680),
        ("a100-sxm4-80gb", "train", 17_039_360),
        ("h100-sxm5", "train", 67_108_864),
        ("rtx-5090", "infer", 33_554_432),
        ("mi300x", "train", 268_435_456),
        ("mi250x-gcd", "infer", 33_554_432),
        ("tpu-v4", "train", 0),
        ("xeon-8480plus", "infer", 0),
        ("no such device", "infer", 0),
    ],
)
def test_workspaces_are_those_of_pytorchs_source(device, mode, bytes_):
    assert workspaces(device, mode) == bytes_


def test_kinds_of_a_peak_differ_by_what_they_count():
    f = forecast(Scenario(model="bert-base", device="t4", mode="infer", batch=16, sequence=256))
    m = f.memory
    allocated, reserved, device = (counted(f, k) for k in ("allocated", "reserved", "nvidia-smi"))
    assert allocated == m.peak_bytes - m.framework_bytes + workspaces("t4", "infer")
    assert allocated < reserved < device == m.peak_bytes
    assert m.output_bytes == 16 * 256 * 30522 * 2
    assert counted(f, "allocated", outputs_held=True) == allocated + m.output_bytes
    trained = forecast(Scenario(model="bert-base", device="t4", batch=4, sequence=256))
    assert trained.memory.output_bytes == 4 * 256 * 30522 * 2  # logits under autocast


@pytest.mark.parametrize("model", ["gpt2", "opt-125m", "llama-3.2-1b"])
def test_outputs_of_a_training_step_are_the_logits_that_the_loss_reads(model):
    """Also where the loss builds its labels first, and shifts them."""
    f = forecast(Scenario(model=model, device="a100-sxm4-80gb", precision="fp16", sequence=64))
    vocabulary = {"gpt2": 50257, "opt-125m": 50272, "llama-3.2-1b": 128256}[model]
    assert f.memory.output_bytes == 64 * vocabulary * 2


@pytest.mark.parametrize(("mode", "most"), [("infer", 0.05), ("train", 0.14)])
def test_peaks_of_a_script_that_keeps_its_outputs(mode, most):
    """Hugging Face's tables of ELECTRA: 64 rows a mode, forecast with nothing fitted to them. In
    training, the largest batches hold more than one output; why is not known.
    """
    path = next(p for p in tables() if p.name == "hf-sdpa.csv")
    rows = [r for r in read(path) if r.outputs_held and "ELECTRA" in r.source]
    rows = [r for r in rows if r.scenario.mode == mode]
    assert len(rows) == 64
    for run in rows[::7]:
        found = counted(forecast(run.scenario), "allocated", run.outputs_held)
        assert found == pytest.approx(run.peak_bytes, rel=most)
