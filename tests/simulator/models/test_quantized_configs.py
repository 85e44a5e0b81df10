"""quantization_config of a config.json: bits of weights, what is left out, how products run."""

import json

import pytest

from roofcast import predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.catalog import CONFIGS, from_config
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.storage import Scheme, covers
from roofcast.simulator.work.tape import Tape

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
MATRICES, WEIGHTS = 6_979_321_856, 8_030_261_248  # of the blocks, and of all of it
SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
}  # fmt: skip
MOE = SMALL | {
    "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "head_dim": 16,
}  # fmt: skip


def run(raw, *, training=False, policy="bf16", batch=1, size=32):
    return from_config("it", raw).run(Tape(precision(policy), training=training), batch, size)


def bytes_of(tape):
    from roofcast.hwdb.formats import WIDTH

    return sum(w.size * w.count * WIDTH[w.dtype] for w in tape.weights)


def file(tmp_path, raw):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(raw))
    return str(path)


# ------------------------------------------------------------------ quantization
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
FP8_ROWS = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}


def compressed(weights, **other):
    group = {"targets": ["Linear"], "weights": weights, **other}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


# per output row of a 4096-wide matrix: bits per weight with scales, zero points and their like
CASES = {
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4 + 20 / 128 + 32 / 4096),
    "gptq-3": ({"quant_method": "gptq", "bits": 3, "group_size": 64}, 3 + 19 / 64 + 32 / 4096),
    "gptq-8-row": ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8 + (24 + 32) / 4096),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True}, 4 + 20 / 64),
    "awq-no-zero": ({"quant_method": "awq", "w_bit": 4, "q_group_size": 128, "zero_point": False},
                    4 + 16 / 128),
    "auto-round": ({"quant_method": "auto-round", "bits": 2, "group_size": 32},
                   2 + 18 / 32 + 32 / 4096),
    "nf4": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4 + 32 / 64),
    "nf4-double": ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True},
                   4 + 8 / 64 + 32 / (64 * 256)),
    "int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8 + 32 / 4096),
    "fp8-block": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 8 + 32 / 128**2),
    "fp8-tensor": ({"quant_method": "fp8", "activation_scheme": "static"}, 8 + 32 / 4096**2),
    "fbgemm": ({"quant_method": "fbgemm_fp8"}, 8 + 32 / 4096),
    "compressed-int4": (compressed(INT4), 4 + 16 / 32),
    "compressed-fp8": (compressed(FP8_ROWS), 8 + 16 / 4096),
    "compressed-nvfp4": (compressed(NVFP4), 4 + 8 / 16 + 32 / 4096**2),
    "modelopt-fp8": ({"quant_method": "modelopt", "quant_algo": "FP8"}, 8 + 32 / 4096**2),
    "modelopt-nvfp4": ({"quant_method": "modelopt", "quant_algo": "NVFP4"},
                       4.5 + 32 / 4096**2),
    "hqq": ({"quant_method": "hqq", "quant_config": {"weight_quant_params":
             {"nbits": 4, "group_size": 64}}}, 4 + 32 / 64),
    "aqlm": ({"quant_method": "aqlm", "num_codebooks": 1, "nbits_per_codebook": 16,
              "in_group_size": 8, "out_group_size": 1}, 2 + 16 / 4096 + 2**16 * 8 * 16 / 4096**2),
    "quanto": ({"quant_method": "quanto", "weights": "int8"}, 8 + 16 / 4096),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_matrix_takes_the_bits_of_its_method(name):
    quantization, bits = CASES[name]
    square = SMALL | {"model_type": "llama", "hidden_size": 4096, "num_key_value_heads": 4}
    tape = run(square | {"quantization_config": quantization})
    q_proj = tape.nodes.index(next(n for n in tape.nodes if n.name.endswith("q_proj")))
    weight = next(w for w in tape.weights if w.node == q_proj)
    assert float(weight.dtype.removesuffix("-bit")) == pytest.approx(bits, rel=1e-9)


def test_gptq_weights_of_llama_take_5_7_gb(tmp_path):
    raw = LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}
    found = predict(file(tmp_path, raw), device="rtx-4090", mode="infer", sequence=128)
    assert found.memory.parameters_bytes == pytest.approx(5.73e9, rel=0.002)
    assert found.parameters == WEIGHTS
    assert any(f"{MATRICES:,} of {WEIGHTS:,} weights in 4.16" in a for a in found.assumptions)
    of = {row.name: row.parameters_bytes for row in found.layers}
    assert of["model.embed_tokens"] == of["lm_head"] == 2 * 128256 * 4096
    assert sum(of.values()) == pytest.approx(found.memory.parameters_bytes)


def test_bytes_of_a_step_over_one_token_fall_with_the_weights_and_products_stay_16_bit():
    plain = run(LLAMA, size=1)
    tape = run(LLAMA | {"quantization_config": {"quant_method": "awq", "bits": 4}}, size=1)
    moved, whole = (sum(k.read * k.count for k in t.kernels) for t in (tape, plain))
    assert whole - moved == pytest.approx(MATRICES * (16 - 4.15625) / 8, rel=1e-6)
    assert {k.product for k in tape.kernels if k.kind == "matmul"} == {"bf16"}


def test_mxfp4_covers_the_experts_of_gpt_oss():
    raw = json.loads((CONFIGS / "gpt-oss-20b.json").read_text())
    tape = run(raw | {"quantization_config": {"quant_method": "mxfp4"}})
    held = {tape.nodes[w.node].op for w in tape.weights if w.dtype == "4.25-bit"}
    assert held == {"experts"}
    assert bytes_of(tape) == pytest.approx(13.76e9, rel=0.001)  # the checkpoint: 13.76 GB


def test_a_checkpoint_in_fp8_multiplies_in_fp8_where_the_device_does(tmp_path):
    raw = LLAMA | {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    path = file(tmp_path, raw)
    h100, a100 = (
        predict(path, device=d, mode="infer", sequence=4096)
        for d in ("h100-sxm5", "a100-sxm4-80gb")
    )
    assert (h100.precision, a100.precision) == ("fp8", "bf16")
    assert h100.memory.parameters_bytes == a100.memory.parameters_bytes
    assert any("products in fp8" in a for a in h100.assumptions)
    assert any("dequantize as they multiply, products in bf16" in a for a in a100.assumptions)


def test_a_precision_that_is_asked_for_replaces_the_storage():
    raw = LLAMA | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    tape = run(raw, policy="fp8")
    assert bytes_of(tape) == MATRICES + 2 * (WEIGHTS - MATRICES)
    assert any("replaced by precision fp8" in a for a in tape.assumptions)


def test_training_holds_whole_weights_and_says_so():
    raw = SMALL | {"model_type": "llama", "quantization_config": {"quant_method": "awq"}}
    tape = run(raw, training=True)
    assert {w.dtype for w in tape.weights} == {"bf16"}
    assert any("awq" in a and "not used in training" in a for a in tape.assumptions)


IGNORED = [  # keys of a quantization_config -> ends of the ops that are not quantized
    ({"ignore": ["lm_head", "re:.*self_attn.*"]}, {"q_proj", "k_proj", "v_proj", "o_proj"}),
    ({"ignore": [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)]}, {"q_proj"}),
    ({"modules_to_not_convert": ["model.layers.*.self_attn"]},
     {"q_proj", "k_proj", "v_proj", "o_proj"}),
    ({"modules_to_not_convert": ["q_proj"]}, {"q_proj"}),
    ({"exclude_modules": ["*.mlp.experts*"]}, {"experts"}),
    ({"ignore": ["re:.*mlp\\.experts.*"]}, {"experts"}),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "left_out"), IGNORED, ids=range(len(IGNORED)))
def test_modules_that_are_left_out_stay_whole(keys, left_out):
    raw = MOE | {"quantization_config": compressed(INT4) | keys}
    tape = run(raw)
    quantized = {"q_proj", "k_proj", "v_proj", "o_proj", "experts"} - left_out
    held = {tape.nodes[w.node].name.rpartition(".")[2] for w in tape.weights if "-bit" in w.dtype}
    assert held == quantized


def test_a_layer_that_is_left_out_of_many_keeps_its_share():
    raw = SMALL | {"model_type": "llama"}
    q = {"quant_method": "awq", "modules_to_not_convert": ["model.layers.1.mlp.up_proj"]}
    half = bytes_of(run(raw | {"quantization_config": q}))
    all_ = bytes_of(run(raw | {"quantization_config": {"quant_method": "awq"}}))
    bits = Scheme(4, 20, 128).per_weight(128, 64)
    assert half - all_ == pytest.approx(128 * 64 * (16 - bits) / 8)


@pytest.mark.parametrize("pattern", ["re:(.+)+$", "re:(.*)*x", "re:" + ".*" * 30, "re:[", "*a" * 9])
def test_a_pattern_that_could_run_for_ever_matches_nothing(pattern):
    assert not covers(pattern, "model.layers.self_attn.q_proj", "linear")


def test_a_method_that_is_not_known_is_said_and_weights_stay_whole():
    tape = run(LLAMA | {"quantization_config": {"quant_method": "exl9", "bits": 3}})
    assert bytes_of(tape) == 2 * WEIGHTS
    assert any("'exl9' is not modelled" in a for a in tape.assumptions)


WRONG = [
    {"quant_method": "gptq", "bits": -4},
    {"quant_method": "gptq", "bits": "four"},
    {"quant_method": "awq", "group_size": 1.5},
    {"quant_method": "fp8", "weight_block_size": [0, 128]},
    {"quant_method": "compressed-tensors", "config_groups": [1]},
    ["gptq"],
]


@pytest.mark.parametrize("quantization", WRONG, ids=str)
def test_wrong_values_are_refused_by_key(quantization):
    with pytest.raises(BadInput, match="key 'quantization_config"):
        from_config("it", LLAMA | {"quantization_config": quantization})
