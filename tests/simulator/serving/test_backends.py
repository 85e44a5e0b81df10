"""Which software serves on which device, and what its back-ends do there."""

import msgspec
import numpy as np
import pytest

from roofcast import hwdb
from roofcast.hwdb.collective_constants import collectives
from roofcast.scenarios.measured.serving.rows import found_in
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.backends import BACKENDS, on, stack_of, usual
from roofcast.simulator.serving.chain import replica
from roofcast.simulator.serving.cores import FITTED_AT, at_common_clock, common_clock
from roofcast.simulator.serving.exchange import in_turn, summed
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.padded import padded
from roofcast.simulator.serving.profiles import names, profile
from roofcast.simulator.serving.programs import Software, few_rows
from roofcast.simulator.serving.server import Degrees, Server
from roofcast.simulator.times.roofline import rates_of


def built_for(device):
    """What a profile that is taken for a device may be of."""
    kinds = {
        "Apple gpu": "llama.cpp-metal", "AWS npu": "neuronx", "Intel Habana npu": "gaudi",
        "Google tpu": "jetstream",
    }  # fmt: skip
    return kinds.get(f"{device.vendor} {device.kind}")


@pytest.mark.parametrize("name", hwdb.devices())
def test_every_device_has_a_usual_stack_that_is_shipped(name):
    device = hwdb.device(name)
    stack = usual(device)
    assert stack in names()
    assert on(stack, device) == stack, "the usual stack is the one that runs there"
    assert (expected := built_for(device)) is None or stack == expected
    if device.kind == "cpu":
        assert stack == "llama.cpp-cpu"


@pytest.mark.parametrize(
    ("stack", "device", "runs"),
    [
        ("llama.cpp", "m3-ultra", "llama.cpp-metal"),
        ("llama.cpp-2024", "m1-max", "llama.cpp-metal"),
        ("llama.cpp", "strix-halo", "llama.cpp-rocm"),
        ("llama.cpp", "arc-b580", "llama.cpp-sycl"),
        ("llama.cpp", "epyc-9654", "llama.cpp-cpu"),
        ("llama.cpp", "gb10", "llama.cpp"),
        ("llama.cpp-vulkan", "arc-b580", "llama.cpp-vulkan"),
        ("vllm-2025", "gaudi2", "gaudi"),
        ("vllm-0.12", "trainium2", "neuronx"),
        ("vllm", "graviton4", "vllm-cpu"),
        ("vllm", "tpu-v5e", "vllm-tpu"),
        ("vllm-2024", "mi300x", "vllm-2024"),
        ("vllm-cpu", "xeon-8480", "vllm-cpu"),
        ("sglang", "xeon-8480", "sglang"),
    ],
)
def test_a_program_runs_as_its_back_end_of_the_device(stack, device, runs):
    assert on(stack, hwdb.device(device)) == runs
    assert stack_of(stack, hwdb.device(device)) == runs


def test_back_ends_are_shipped_profiles():
    for program, backends in BACKENDS.items():
        assert {program, *backends.values()} <= set(names())


def test_an_answer_says_which_back_end_it_took():
    load = Load(kind="batch", amount=1, input_len=128, output_len=16)
    asked = Serving(model="llama-3.2-1b", device="m4-max", load=load)
    assert any(t.startswith("stack llama.cpp-metal: --stack") for t in replica(asked).said)
    told = replica(msgspec.structs.replace(asked, stack="llama.cpp"))
    assert told.server.profile.name == "llama.cpp-metal"
    assert "stack llama.cpp-metal: llama.cpp as it runs on m4-max" in told.said
    own = replica(msgspec.structs.replace(asked, stack="mlx"))
    assert own.server.profile.name == "mlx"
    assert not any(text.startswith("stack ") for text in own.said)


@pytest.mark.parametrize(
    ("text", "stack"),
    [
        ("JetStream 0.2.2 somewhere", "jetstream"), ("OpenVINO GenAI 2025.3", "openvino"),
        ("MLX 0.24", "mlx"), ("MLC LLM nightly", "mlc-llm"), ("Ollama 0.6", "llama.cpp"),
        ("NIM 1.8", "trt-llm"), ("vLLM Gaudi 0.9", "gaudi"), ("vllm-neuron 0.10", "neuronx"),
        ("vLLM CPU 0.10", "vllm-cpu"), ("TensorRT 10.11 MLPerf Inference v5.1", "trt-llm"),
        ("TensorRT 10.2.0 MLPerf Inference v4.1", "trt-llm-2024"),
        ("vLLM 0.10.1 MLPerf Inference v5.1", "vllm-2025"),
        ("llama.cpp SYCL b6000", "llama.cpp-sycl"),
        ("vllm 0.19.0 InferenceX", "vllm"), ("llama.cpp CUDA b2824 (May 2024)", "llama.cpp-2024"),
        ("optimum-habana 1.18.0", "gaudi"), ("Transformers NeuronX Neuron 2.18.0", "neuronx"),
    ],
)  # fmt: skip
def test_engines_of_tables_are_known_by_their_names(text, stack):
    assert found_in("stacks", text) == stack
    assert stack in names()


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("DGX Spark (GB10)", "gb10"), ("Apple M3 Ultra (80-core GPU)", "m3-ultra"),
        ("M4 Max 40-core GPU", "m4-max"), ("AMD Ryzen AI Max+ 395", "strix-halo"),
        ("TPU v6e-8", "tpu-v6e"), ("trn2.48xlarge", "trainium2"), ("HL-225", "gaudi2"),
        ("Jetson AGX Orin 64GB", "jetson-orin-64gb"),
        ("Jetson Orin Nano Super", "jetson-orin-nano"),
        ("Ascend 910B4", "ascend-910b"), ("H20-96GB", "h20"), ("c8g.metal-24xl", "graviton4"),
        ("Intel Core Ultra 7 258V iGPU", "arc-140v"), ("Core Ultra 7 258V", None),
        ("Raspberry Pi 5 16GB", "raspberry-pi-5"),
    ],
)  # fmt: skip
def test_devices_of_tables_are_known_by_their_names(text, device):
    assert found_in("devices", text) == device
    assert device is None or device in hwdb.devices()


# ------------------------------------------------------------------ CPUs
def test_all_cores_run_between_the_base_clock_and_the_highest():
    for name in ("xeon-8480", "i9-13900k", "core-ultra-7-155h", "graviton4", "i9-10940x"):
        device = hwdb.device(name)
        faster = common_clock(device)
        assert 1.0 <= faster <= device.clock / device.base_clock
        assert faster == pytest.approx((device.clock / device.base_clock) ** 0.5)


def test_a_library_is_as_fast_as_fitted_on_the_cpu_that_it_was_fitted_on():
    device = hwdb.device("i9-10940x")
    rates = rates_of(device, "fp32").rates
    assert device.clock / device.base_clock == pytest.approx(FITTED_AT)
    assert at_common_clock(rates, device).matrix == pytest.approx(rates.matrix)
    assert at_common_clock(rates, device).vector > 1.15 * rates.vector
    measured = rates._replace(measured=True)
    assert at_common_clock(measured, device) is measured


# ------------------------------------------------------------------ kernels of llama.cpp
def test_bytes_and_weights_limit_a_matrix_vector_kernel_apart():
    how = Software(gemv=7.0, weights=8.0)
    weights = np.array([1e9])
    assert few_rows(weights, 2.0 * weights, how) == pytest.approx(2e9 / 7.0)  # 16 bits: bytes
    assert few_rows(weights, 0.6 * weights, how) == pytest.approx(1e9 / 8.0)  # 4 bits: weights
    assert few_rows(weights, 0.6 * weights, Software(gemv=7.0)) == pytest.approx(0.6e9 / 7.0)


@pytest.mark.parametrize(
    ("device", "weights", "tokens", "measured"),
    [
        ("rtx-3090", "q5_0", 512, 3655),  # pull request 7676
        ("rtx-4090", "q4_k_s", 2048, 9279),  # pull request 7860, micro-batches of 512
        ("p40", "q2_k", 2048, 768),  # pull request 7921: no matrix units
    ],
)
def test_int8_products_of_llama_cpp_are_as_its_developers_measured(
    device, weights, tokens, measured
):
    """Llama 3 8B, github ggml-org/llama.cpp; the three share one constant."""
    server = Server("llama-3-8b", device, weights=weights, stack="llama.cpp")
    assert tokens / float(server.prefill(1.0, float(tokens))) == pytest.approx(measured, rel=0.2)


def test_only_weights_of_few_bits_are_multiplied_in_int8():
    def how(weights, stack="llama.cpp", phase="prefill"):
        return Server("llama-3.2-1b", "rtx-4090", weights=weights, stack=stack).engines[phase].how

    assert how("q4_k_m").int8 > 0 and not how("q4_k_m").half
    assert how("f16").int8 == 0 and how("f16").half
    assert how("q4_k_m", phase="decode").int8 == 0
    assert how("q4_k_m", "llama.cpp-2024").int8 == 0
    assert profile("llama.cpp-rocm").int8 == profile("llama.cpp-metal").int8 == 0


# ------------------------------------------------------------------ exchanges, NeuronX
def test_ranks_of_a_full_mesh_add_up_in_one_step_where_the_software_can():
    both = [Server("llama-3-70b", d, Degrees(tp=2), stack="vllm") for d in ("mi300x", "gaudi3")]
    for server, can in zip(both, (True, False), strict=True):
        over, c = server.links, in_turn()
        size = np.array([64 * 8192 * 2.0])
        alone = over._replace(own_s=np.inf)
        faster = summed(size, over.tensor, over, c) < summed(size, over.tensor, alone, c)
        assert bool(faster[0]) is can


@pytest.mark.parametrize(("model", "heads"), [("llama-2-7b", 48), ("llama-2-70b", 72)])
def test_neuronx_pads_heads_that_do_not_divide_among_its_cores(model, heads):
    server = Server(model, "inferentia2", Degrees(tp=12), stack="neuronx")
    assert server.model.config.num_attention_heads == heads
    assert server.model.config.num_key_value_heads % 24 == 0
    plain = Server(model, "inferentia2", Degrees(tp=8), stack="vllm")
    assert 8 / 12 * plain.weight_bytes < server.weight_bytes < plain.weight_bytes


def test_a_model_that_divides_is_not_padded():
    model = Server("llama-3-8b", "trainium1").model
    assert padded(model, 8) is model
    grown = padded(model, 24)
    assert grown is not model and grown.name == model.name


def test_attention_of_a_step_covers_the_bucket():
    more = profile("neuronx")
    exact = msgspec.structs.replace(more, looks=1.0)
    step = [
        Server("llama-2-7b", "inferentia2", Degrees(tp=4), stack=p).decoding(8.0, 3000.0).seconds
        for p in (more, exact)
    ]
    assert step[0]["attention"] == pytest.approx(4 / 3 * step[1]["attention"], rel=0.05)
    assert step[0]["products"] == pytest.approx(step[1]["products"])


def test_collectives_of_trainium_are_started_by_cores_of_their_own():
    """50 us per all-reduce of 8 KB on 24 cores of Inferentia2, as its decode steps show."""
    server = Server("llama-2-7b", "inferentia2", Degrees(tp=12), stack="neuronx")
    level = server.links.fabric.levels[0]
    assert level.constants == "neuronlink-v2"
    assert collectives().networks["neuronlink-v2"].start == pytest.approx(36e-6)
    sums = server.decoding(1.0, 128.0).seconds["exchanges"] / 64
    assert float(sums) == pytest.approx(50e-6, rel=0.15)
    torus = Server("llama-2-7b", "trainium1", Degrees(tp=8), stack="neuronx").links.fabric.levels[0]
    assert (torus.topology, torus.constants) == ("torus", "neuronlink-v2")
