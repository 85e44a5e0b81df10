"""Weights as a model was released, and intervals by how near a device is to measured ones."""

import json

import pytest

from roofcast import hwdb, predict, serving
from roofcast.hwdb.formats import WIDTH, is_stored
from roofcast.simulator.models import catalog
from roofcast.simulator.models.released import released_in, told_of
from roofcast.simulator.serving import profiles
from roofcast.simulator.serving.likeness import MEASURED, OTHER, RELATIVE, Likeness, likeness
from roofcast.simulator.serving.released import release
from roofcast.simulator.serving.server import Degrees, Server
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

RELEASED = [
    name
    for name in catalog.names()
    if (path := catalog.CONFIGS / f"{name}.json").exists()
    and "quantization_config" in path.read_text(encoding="utf-8")
]
EIGHT = Degrees(tp=8)
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}


@pytest.mark.parametrize(("model", "weights"), [("minimax-m2", "fp8"), ("gpt-oss-20b", "mxfp4")])
def test_a_server_takes_the_weights_that_were_released(model, weights):
    found, same = (Server(model, "h200-sxm", EIGHT, weights=w) for w in (None, weights))
    wide = Server(model, "h200-sxm", EIGHT, weights="bf16")
    assert found.formats.weights == weights and found.formats.formats == same.formats.formats
    assert found.weight_bytes < 0.55 * wide.weight_bytes
    assert any(f"weights {weights} (not given; {model}" in line for line in found.assumptions)
    assert not any("was released" in line for line in (*same.assumptions, *wide.assumptions))


def test_all_doors_of_inference_take_the_weights_that_were_released():
    """Bytes of weights on one device: `memory --mode infer` and a server, which holds the matrices
    that MLA absorbs in 16 bits (0.15 % of DeepSeek-V3).
    """
    for name in RELEASED:
        step = predict(name, "h200-sxm", mode="infer", sequence=16)
        server = Server(name, "h200-sxm")
        assert step.memory.parameters_bytes == pytest.approx(server.weight_bytes, rel=2e-3)
        assert step.memory.parameters_bytes < 1.3 * step.parameters
        assert any(f"(not given; {name} was released in" in line for line in step.assumptions)


@pytest.mark.parametrize("name", RELEASED)
def test_bf16_weights_replace_those_that_were_released(name):
    wide = predict(name, "h200-sxm", mode="infer", sequence=16, weights="bf16")
    assert wide.memory.parameters_bytes == pytest.approx(2 * wide.parameters, rel=1e-3)
    assert any("replaced by weights in bf16" in line for line in wide.assumptions)
    assert not any("was released" in line for line in wide.assumptions)


@pytest.mark.parametrize("name", RELEASED)
def test_training_holds_shipped_models_in_its_own_format_whatever_was_released(name):
    raw = catalog.read_config(catalog.CONFIGS / f"{name}.json")
    plain = {k: v for k, v in raw.items() if k != "quantization_config"}
    for lora in (None, 8):
        found, same = (
            predict(m, "h200-sxm", sequence=16, lora=lora)
            for m in (name, catalog.from_config(name, plain))
        )
        assert found.memory == same.memory and found.step_time_s == same.step_time_s
        assert found.assumptions == same.assumptions


def test_the_experts_alone_of_kimi_k2_thinking_are_in_four_bits():
    model = catalog.resolve("moonshotai/Kimi-K2-Thinking")
    tape = model.run(Tape(precision("bf16"), training=False), 1, 16)
    held = {tape.nodes[w.node].op for w in tape.weights if is_stored(w.dtype)}
    assert held == {"experts"}
    whole = sum(w.size * w.count * WIDTH[w.dtype] for w in tape.weights)
    assert whole == pytest.approx(594e9, rel=0.01)  # the files: huggingface.co, as listed


def test_models_in_16_bits_were_not_released_in_fewer():
    model = catalog.resolve("llama-3.1-8b")
    assert release(model, "vllm").format is None and released_in(model) is None
    with pytest.raises(ValueError, match="in 16 bits"):
        told_of(model)


def test_a_gguf_file_has_no_fp8():
    found = release(catalog.resolve("minimax-m2"), "llama.cpp")
    assert found.format == "bf16" and "which files of llama.cpp do not have" in found.said[0]


def test_a_checkpoint_says_its_format_itself_and_another_replaces_it(tmp_path):
    path = tmp_path / "config.json"
    raw = json.loads((catalog.CONFIGS / "qwen3-0.6b.json").read_text(encoding="utf-8"))
    path.write_text(json.dumps(raw | {"quantization_config": FP8}), encoding="utf-8")
    model = str(path)
    own, wide = Server(model, "h100-sxm5"), Server(model, "h100-sxm5", weights="bf16")
    assert own.formats.weights == "fp8" and own.formats.formats.precision == "fp8"
    assert wide.formats.weights == "bf16"
    plain = Server("qwen3-0.6b", "h100-sxm5")
    assert wide.weight_bytes == pytest.approx(plain.weight_bytes)
    assert wide.decode(4, 500) == pytest.approx(plain.decode(4, 500))
    assert own.weight_bytes < 0.75 * wide.weight_bytes
    stored = Server(model, "a100-sxm4-80gb")  # which has no fp8 units
    assert stored.weight_bytes == pytest.approx(own.weight_bytes)
    assert stored.formats.formats.precision == "bf16"


@pytest.mark.parametrize(
    ("device", "edits", "found"),
    [
        ("h100-sxm5", {}, MEASURED), ("h100-sxm5", {"memory.capacity": "60 GiB"}, MEASURED),
        ("h100-sxm5", {"power.cap": "400 W"}, MEASURED), ("l40s", {}, RELATIVE),
        ("mi300x", {}, OTHER), ("h100-sxm5", {"memory.bandwidth": "x4"}, "imagined"),
    ],
)  # fmt: skip
def test_the_likeness_of_a_device(device, edits, found):
    assert likeness("vllm", hwdb.device(device, edits)).device == found


def test_a_device_farther_from_measured_ones_has_no_narrower_interval():
    for software in ("server", "local"):
        near, relative, other, imagined = (
            Likeness(software, d).bounds for d in (MEASURED, RELATIVE, OTHER, "imagined")
        )
        for quantity in near:
            for wide, narrow in ((relative, near), (other, relative)):
                assert wide[quantity].low <= narrow[quantity].low
                assert wide[quantity].high >= narrow[quantity].high
        assert imagined == other
        assert other["tpot"].high - other["tpot"].low > near["tpot"].high - near["tpot"].low


def test_an_edited_device_says_that_it_is_hypothetical():
    asked = {"model": "qwen3-0.6b", "device": "h100-sxm5", "concurrency": 4}
    real, edited = serving(**asked), serving(**asked, set={"memory.bandwidth": "x4"})
    assert real.interval_class == MEASURED and "hypothetical" in edited.interval_basis
    ratios = [f.tpot_s.high / f.tpot_s.low for f in (real, edited)]
    assert ratios[1] > 1.2 * ratios[0]


def test_a_step_that_checks_drafts_streams_the_weights_and_takes_their_power():
    asked = {"model": "llama-3.1-8b", "device": "h100-sxm5", "concurrency": 8}
    plain, drafted = serving(**asked), serving(**asked, speculate=3)
    assert drafted.tokens_per_step == pytest.approx(1 + 0.7 + 0.49 + 0.343)
    assert drafted.decode_step_s > plain.decode_step_s > drafted.tpot_s.mean
    assert drafted.power_w > plain.power_w
    assert drafted.decode_bounds["draft"] == pytest.approx(0.15 / 1.15, rel=0.2)


@pytest.mark.parametrize("stack", profiles.names())
def test_a_prompt_in_a_decode_step_takes_no_less_than_alone(stack):
    """Where few sequences do not run in kernels of their own, mixed and plain steps join, too."""
    server = Server("qwen3-0.6b", "rtx-3090", stack=stack)
    assert server.mixed(2, 700, 1024) >= server.prefill(1, 1024)
