"""Devices that run compiled programs: their default stack, the launch of a program, and the
arithmetic of fp32 products.
"""

import msgspec
import pytest
from looped import each

from roofcast import hwdb, predict
from roofcast.hwdb.constants import kernels
from roofcast.simulator.forecast.recipes import default_stack
from roofcast.simulator.software.stack import stack
from roofcast.simulator.times.dispatch import between_steps, program

STACKS = {  # kind of device, vendor -> the stack that it is used with
    ("tpu", "Google"): "jax-xla", ("npu", "AWS"): "neuron", ("npu", "Intel Habana"):
    "optimum-habana", ("npu", "Huawei"): "pytorch-eager", ("npu", "Cambricon"): "pytorch-eager",
    ("npu", "Cerebras"): "compiled-graph", ("npu", "SambaNova"): "compiled-graph",
    ("npu", "Groq"): "compiled-graph", ("npu", "Graphcore"): "compiled-graph",
    ("npu", "Tenstorrent"): "compiled-graph", ("npu", "Meta"): "compiled-graph",
    ("npu", "Microsoft"): "compiled-graph",
}  # fmt: skip
TPUS = [name for name in hwdb.devices() if hwdb.device(name).kind == "tpu"]


@each("name", hwdb.devices())
def test_the_default_stack_is_the_one_that_a_device_is_used_with(name):
    device = hwdb.device(name)
    if device.kind in ("gpu", "cpu"):
        assert default_stack(device) == "pytorch-eager"
    else:
        assert default_stack(device) == STACKS[device.kind, device.vendor]


@pytest.mark.parametrize("name", ["wse-3", "wse-2", "sn40l", "groq-lpu", "ipu-bow"])
def test_a_dataflow_chip_is_not_bound_by_launches_of_kernels(name):
    f = predict("gpt2", name, batch=8, sequence=512)
    alone = kernels().matmul.in_steps_others * f.step_time_s  # kernels of it, outside steps
    assert alone < 5.0 * f.lower_bound_s and f.host_s < 1e-3
    assert "stack compiled-graph (not given)" in f.assumptions


@pytest.mark.parametrize("name", TPUS)
def test_no_step_is_shorter_than_the_launch_of_its_program(name):
    device, profile = hwdb.device(name), stack("jax-xla")
    launch = program(profile, device, kernels())
    small = predict("lenet", name, batch=1, mode="infer")
    assert small.step_time_s >= launch > 100e-6
    assert small.host_s == pytest.approx(launch)
    parts = small.forward_s + small.between_steps_s
    assert small.step_time_s == pytest.approx(parts)
    large = predict("bert-base", name, batch=64)
    assert large.between_steps_s < 1e-4 * large.step_time_s


def test_a_launch_of_125_us_beside_a_tpu_v7_as_measured():
    assert program(stack("jax-xla"), hwdb.device("tpu-v7"), kernels()) == pytest.approx(
        125e-6, rel=0.01
    )


def test_the_launch_hides_behind_a_step_that_takes_longer():
    device, c = hwdb.device("tpu-v5p"), kernels()
    profile = msgspec.structs.replace(stack("jax-xla"), program_s=1e-3)
    launch = program(profile, device, c)
    exposed = [float(between_steps(profile, device, c, t)) for t in (0.0, launch, 10 * launch)]
    assert exposed[0] == pytest.approx(launch)
    assert exposed[0] > exposed[1] > exposed[2] >= 0.0 and exposed[2] < 1e-6 * launch


def test_several_devices_wait_for_the_launch_as_one_does():
    one = predict("gpt2", "tpu-v5e", batch=1, sequence=16, mode="infer")
    two = predict("gpt2", "tpu-v5e", batch=2, sequence=16, mode="infer", devices=2)
    assert two.between_steps_s == pytest.approx(one.between_steps_s, rel=0.01)
    assert two.host_s == pytest.approx(one.host_s)


@pytest.mark.parametrize("name", TPUS)
@pytest.mark.parametrize("model", ["bert-base", "resnet50"])
def test_an_fp32_product_on_a_tpu_is_one_bf16_pass_over_fp32_operands(name, model):
    wide, narrow = (predict(model, name, batch=32, precision=p) for p in ("fp32", "bf16"))
    assert 1.0 < wide.step_time_s / narrow.step_time_s < 2.2
    assert wide.mfu < 1.0 and wide.bytes_forward > 1.5 * narrow.bytes_forward
    assert any("run as one bf16 pass" in line for line in wide.assumptions)
    assert not any("run as one bf16 pass" in line for line in narrow.assumptions)


def test_fp32_products_of_devices_that_multiply_fp32_are_not_bf16_passes():
    for name in ("a100", "trainium1", "ipu-bow", "i9-10940x"):
        f = predict("gpt2", name, batch=2, precision="fp32")
        assert not any("bf16 pass" in line for line in f.assumptions)


LAZY = {"model": "llama-7b", "device": "gaudi2", "lora": 8, "lora_targets": "q_proj,v_proj"}


@pytest.mark.parametrize("devices", [1, 8])
def test_a_lazy_step_that_logs_shows_the_recording_of_one_micro_batch(devices):
    """The others hide behind it, so that four micro-batches add as much as one."""

    def longer(micro_batches, **how):
        asked = LAZY | {"devices": devices, "batch": 4 * devices * micro_batches, **how}
        asked["micro_batch"] = 4
        plain, logging = (
            predict(**asked, stack=f"optimum-habana{end}") for end in ("", "-logging")
        )
        return logging.step_time_s - plain.step_time_s, plain.host_s / micro_batches

    more, host = longer(1, sequence=512)
    assert more == pytest.approx(host, rel=0.1)  # the device takes longer than the host
    assert longer(4, sequence=512)[0] == pytest.approx(more, rel=0.02)
    short, host = longer(1, sequence=8)  # the host takes longer
    assert 0.0 < short < 0.5 * host


def test_a_stack_that_records_adds_what_host_and_device_hide_of_each_other():
    device, c = hwdb.device("gaudi2"), kernels()
    recording, plain = stack("optimum-habana-logging"), stack("optimum-habana")
    assert between_steps(recording, device, c, 1.0, 0.25) == 0.25
    assert between_steps(plain, device, c, 1.0, 0.25) == between_steps(recording, device, c) == 0.0
    assert between_steps(recording, hwdb.device("xeon-8480"), c, 1.0, 0.25) == 0.0
