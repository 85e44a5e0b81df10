"""What a software stack keeps and holds: losses, 8-bit operands, experts, gathered inputs, buckets
of gradients, tables that two pipeline stages hold.
"""

import msgspec
import pytest

from roofcast import predict
from roofcast.simulator.models import resolve
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.step import Recipe, trace
from roofcast.simulator.work.traced import Parallel

GIB = 2.0**30
H100 = {"device": "h100-sxm5", "sequence": 4096, "precision": "bf16"}


def traced(model="llama-3-8b", like="pytorch-eager", precision="bf16", tp=1, **how):
    profile = stack(like)
    made = msgspec.structs.replace(profile, implementations={**profile.implementations, **how})
    recipe = Recipe(
        mode="train",
        batch=1,
        size=1024,
        precision=precision,
        optimizer="adamw",
        recompute="none",
        stack=made,
    )
    return trace(resolve(model), recipe, Parallel(tp=tp, sp=tp > 1))


def kept(step, name):
    """Bytes that the ops with this name keep for backward."""
    return sum(s.bytes * s.count for s in step.saved if step.nodes[s.node].name.endswith(name))


# ---------------------------------------------------------------- losses
LOSSES = [
    ("composed", 4), ("fused", 2), ("chunked", 2), ("compiled", 2), ("sharded", 4), ("parallel", 4),
]  # fmt: skip
LABELS = 8 * 1024


@pytest.mark.parametrize(("loss", "bytes_per_logit"), LOSSES)
def test_bytes_of_a_logit_that_a_loss_keeps(loss, bytes_per_logit):
    """Log-probabilities in fp32; 16-bit logits; probabilities in fp32."""
    found = kept(traced(loss=loss), "loss")
    assert found == pytest.approx(bytes_per_logit * 128256 * 1024 + LABELS, abs=20)


def test_a_fused_loss_changes_memory_and_no_time():
    """Of llm-foundry: its training metrics move what the composed loss would."""
    one, other = (traced(loss=how) for how in ("composed", "fused"))

    def work(step):
        of_loss = [k for k in step.kernels if step.nodes[k.node].op == "cross_entropy"]
        return sorted((k.phase, k.kind, k.read, k.written, k.vector) for k in of_loss)

    assert work(one) == work(other)


def test_eager_fp32_cross_entropy_has_14_bytes_of_each_logit_at_once():
    """16-bit logits, fp32 logits, their difference from the maximum, and the exponential."""
    step = traced(like="nanotron")
    loss = next(i for i, n in enumerate(step.nodes) if n.op == "cross_entropy")
    live = max(
        sum(v.bytes for v in (*k.inputs, *k.outputs) if v.grad and v.kind == "activation")
        for k in step.kernels
        if k.node == loss
    )
    assert live + kept(step, "loss") == pytest.approx(14 * 128256 * 1024, rel=0.001)


def test_megatron_s_loss_passes_its_copy_of_the_logits_five_times_and_once_backward():
    """Maximum and sum read it, difference, exponential, quotient and the gradient write it too
    (mpu/cross_entropy.py); with the casts 52 bytes per logit. Maximum, sum and picked logit are
    exchanged one by one.
    """
    step = traced(loss="parallel", tp=2)
    logits = 128256 * 1024 / 2
    mine = [k for k in step.kernels if step.nodes[k.node].op == "cross_entropy"]
    assert sum(k.read + k.written for k in mine) == pytest.approx(52 * logits, rel=0.001)
    assert sum(k.kind == "loss" for k in mine) == 2
    sent = [t for t in step.traffic if step.nodes[t.node].op == "cross_entropy"]
    assert [(t.kind, t.bytes) for t in sent] == [("all_reduce", 4 * 1024)] * 3


# ---------------------------------------------------------------- layers
def test_transformer_engine_keeps_the_8_bit_cast_of_an_operand():
    """One for query, key and value; PyTorch keeps the 16-bit operand."""
    name, wide = "mlp.down_proj", 2 * 14336 * 1024 * 32
    assert kept(traced(precision="fp8"), name) == wide
    assert kept(traced(precision="fp8", linear="te"), name) == wide / 2
    assert kept(traced(precision="bf16", linear="te"), name) == wide
    asked = traced(precision="fp8", linear="te")
    assert kept(asked, "self_attn.q_proj") == 4096 * 1024 * 32 and not kept(asked, "k_proj")


def test_experts_of_megatron_do_not_keep_the_result_of_their_second_product():
    """It is weighted before that product. 8 experts per token, 32 layers of width 4096."""
    eager, grouped = (
        kept(traced("mixtral-8x7b", experts=how), "experts") for how in ("", "grouped")
    )
    assert eager - grouped == pytest.approx(2 * 2 * 4096 * 1024 * 32)


def test_gathered_inputs_that_are_kept_are_those_of_all_ranks():
    """Inputs of the products of a layer under sequence parallelism: 1 of 4 parts, or all; and they
    are gathered once, not twice.
    """
    part, whole = (traced(tp=4, gathered=how) for how in ("dropped", "kept"))
    assert kept(whole, "mlp.gate_proj") == 4 * kept(part, "mlp.gate_proj")
    gathers = [sum(t.kind == "all_gather" for t in step.traffic) for step in (part, whole)]
    assert gathers[0] > gathers[1] > 0


# ---------------------------------------------------------------- ranks
def test_the_last_stage_of_a_pipeline_has_a_copy_of_a_tied_table():
    """gpt2: 50257 x 768 weights that embed tokens, and give the logits."""
    asked = {**H100, "model": "gpt2", "sequence": 1024, "batch": 8, "devices": 4, "pp": 4}
    first, *_, last = predict(**asked, stack="megatron").ranks
    positions, norm = 1024 * 768, 2 * 768
    assert first.parameters_bytes - last.parameters_bytes == 2 * (positions - norm)


def test_buckets_of_data_parallel_gradients_are_two_bytes_per_weight():
    asked = {**H100, "model": "llama-3-8b", "stack": "nanotron", "tp": 4, "batch": 8, "zero": 1}
    alone, several = (predict(**asked, devices=n).ranks[0] for n in (4, 8))
    assert alone.buffers_bytes == 0.0
    assert several.buffers_bytes == several.parameters_bytes


def test_16_bit_gradients_are_widened_for_the_update_alone():
    """NeMo's: 2 bytes per weight instead of 4. Where hardly anything else is held, the update's
    fp32 copy of the shard is the peak.
    """
    asked = {**H100, "model": "llama-3-8b", "devices": 8, "tp": 8, "batch": 1, "zero": 1}
    wide = predict(**asked, stack="megatron").memory
    narrow = predict(**asked, stack="te-nemo-2024").memory
    assert narrow.gradients_bytes == wide.gradients_bytes / 2
    assert narrow.peak_bytes < wide.peak_bytes
    short = {**asked, "sequence": 16}
    least = predict(**short, stack="te-nemo-2024").memory
    assert least.transient_bytes == pytest.approx(2 * least.gradients_bytes, rel=0.05)


def test_a_stage_of_nanotron_ends_with_the_layer_that_passes_its_share_of_the_work():
    """Llama-like with 16 layers of 67 million weights and a head of four times that: 11 and 5."""
    config = {
        "model_type": "llama", "vocab_size": 131072, "hidden_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": 8192,
        "tie_word_embeddings": True,
    }  # fmt: skip
    from roofcast.simulator.models import from_config

    model = from_config("llama-1b", config, "test")
    asked = {**H100, "model": model, "batch": 8, "devices": 2, "pp": 2, "micro_batch": 1}
    assert [r.layers for r in predict(**asked, stack="nanotron").ranks] == [11, 5]
    assert [r.layers for r in predict(**asked, stack="megatron").ranks] == [8, 8]


# ---------------------------------------------------------------- verdicts
def test_a_peak_near_the_capacity_is_said_to_be_open():
    from roofcast.reports.pages.memory import verdict

    asked = {"model": "llama-3-8b", "device": "h100-sxm5", "precision": "bf16", "batch": 1}
    forecast = predict(**asked, sequence=2048, optimizer="sgd")
    m = forecast.memory
    assert m.low_bytes < m.peak_bytes < m.high_bytes and "measured" not in verdict(forecast)
    basis = f"{m.low_bytes / m.peak_bytes:.2f} to {m.high_bytes / m.peak_bytes:.2f}"
    for capacity, fits, word in ((1.05, True, "may fit: "), (0.98, False, "may not fit: ")):
        size = capacity * m.peak_bytes
        near = msgspec.structs.replace(m, capacity_bytes=size, fits=fits)
        said = verdict(msgspec.structs.replace(forecast, memory=near))
        assert f"as measured peaks were {basis} times their forecast" in said
        assert said.startswith(word)


def test_inference_has_a_band_of_its_own():
    """From programs that generate text, which need more beyond their forecast than training."""
    train, infer = (predict("gpt2", device="h100-sxm5", mode=m).memory for m in ("train", "infer"))
    assert infer.low_bytes < infer.peak_bytes < infer.high_bytes
    assert infer.high_bytes / infer.peak_bytes > train.high_bytes / train.peak_bytes


# ---------------------------------------------------------------- biases of experts
def test_a_loop_over_experts_adds_their_biases_in_fp32():
    """Megatron-Core: b * p, the sum, concatenation and a cast move 28 bytes per element of the
    second product's result; their backward 40. No fusion takes them.
    """
    rows, width, layers = 1024 * 4, 2880, 24
    looped, composed = (traced("gpt-oss-20b", "megatron", expert_bias=how) for how in HOWS)
    for phase, moved in (("forward", 28), ("backward", 40)):
        sums = [
            sum(
                (k.read + k.written) * k.count
                for k in s.kernels
                if k.kind == "fused"
                and k.phase == phase
                and s.nodes[k.node].op == "experts"
                and k.vector == rows * width
            )
            for s in (looped, composed)
        ]
        assert sums[0] - sums[1] == pytest.approx(moved * rows * width * layers)


HOWS = ("loop", "composed")
