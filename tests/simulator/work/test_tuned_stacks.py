"""What stacks do differently when few weights train: adapters, exchanges, 8-bit optimizers."""

import msgspec
import pytest

from roofcast import predict
from roofcast.simulator.memory import FP32_COPIES
from roofcast.simulator.models import resolve
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.step import Recipe, trace
from roofcast.simulator.work.traced import Parallel
from roofcast.simulator.work.tuning import Tuning

LAYERS, HIDDEN, QUERIES, KEYS, WIDTH = 16, 2048, 2048, 512, 8192  # of Llama 3.2 1B
RANK = 8


def step(name, targets="attention", precision="bf16", tuned=True, tp=1):
    recipe = Recipe(
        mode="train",
        batch=1,
        size=512,
        precision=precision,
        optimizer="adamw",
        recompute="none",
        stack=stack(name),
        tuning=Tuning(rank=RANK, targets=targets) if tuned else None,
    )
    return trace(resolve("llama-3.2-1b"), recipe, Parallel(tp=tp, sp=tp > 1))


@pytest.mark.parametrize(
    "name, shared",
    [("peft-transformers", 3), ("te-nemo-2024", 1)],  # first matrices of queries, keys and values
)
def test_merged_queries_keys_and_values_share_the_first_matrix_of_an_adapter(name, shared):
    of_layer = shared * HIDDEN + QUERIES + 2 * KEYS + QUERIES + HIDDEN  # and the output's
    assert step(name).trainable_parameters == LAYERS * RANK * of_layer


def sent(s, kind, phase):
    return [(t.bytes, t.behind) for t in s.traffic if (t.kind, t.phase) == (kind, phase)]


def test_nothing_hides_the_exchanged_gradients_of_frozen_layers():
    """The product for the weight's gradient would; and no weight's gradient reads inputs again."""
    frozen, whole = step("te-nemo-2024", "mlp", tp=2), step("te-nemo-2024", tuned=False, tp=2)
    of_blocks = slice(0, 2)  # before queries, keys and values, and before the MLP
    assert [b for _, b in sent(whole, "reduce_scatter", "backward")[of_blocks]] == [False, False]
    assert [b for _, b in sent(frozen, "reduce_scatter", "backward")[of_blocks]] == [None, None]
    again = [sum(b is True for _, b in sent(s, "all_gather", "backward")) for s in (frozen, whole)]
    assert again == [0, 3]  # attention has no adapters, and those of the MLP keep what they read


@pytest.mark.parametrize("name, gathers", [("te-nemo-2023", 1), ("te-nemo-2024", 2)])
def test_nemos_adapters_gather_their_input_themselves_where_traffic_overlaps(name, gathers):
    found = step(name, "q,k,v", tp=2)
    of_layers = sum(
        t.count for t in found.traffic if (t.kind, t.phase) == ("all_gather", "forward")
    )
    assert of_layers == (1 + gathers) * LAYERS + 1  # of the MLP and of the head one


def test_nemos_adapters_of_row_parallel_layers_exchange_outputs_for_tokens():
    """Each rank computes its share of the outputs, and adds those of its own tokens."""
    whole, cut = step("te-nemo-2023", "o", tp=1), step("te-nemo-2023", "o", tp=2)
    assert cut.trainable_parameters == LAYERS * RANK * (QUERIES + HIDDEN) / 2
    assert whole.trainable_parameters == 2 * cut.trainable_parameters
    exchanged = 512 * HIDDEN // 2 * 2
    for phase in ("forward", "backward"):
        of_phase = [t for t in cut.traffic if t.phase == phase]
        told = {
            kind: [t for t in of_phase if t.kind == kind] for kind in ("all_to_all", "all_reduce")
        }
        assert all(t.bytes == exchanged for t in told["all_to_all"])
        assert sum(t.count for t in told["all_to_all"]) == LAYERS
        small = [t.count for t in told["all_reduce"] if t.bytes == 512 * RANK * 2]
        assert sum(small) == LAYERS
    flops = [sum(k.matrix * k.count for k in s.kernels) for s in (whole, cut)]
    assert flops[1] == pytest.approx(flops[0] / 2, rel=1e-6)


def test_gptq_weights_are_unpacked_by_kernels_of_their_own_in_the_forward_alone():
    """Of each element 32 bits, 8 bits twice and the zero point's 8, before the last kernel."""
    tuning = Tuning(rank=RANK, weights="int4")
    asked = {"mode": "train", "batch": 1, "size": 512, "precision": "bf16", "optimizer": "adamw"}
    recipes = [
        Recipe(**asked, recompute="none", stack=stack(name), tuning=tuning)
        for name in ("ms-swift", "auto-gptq")
    ]
    plain, unpacked = (trace(resolve("llama-3.2-1b"), r, Parallel()) for r in recipes)
    moved = [sum((k.read + k.written) * k.count for k in s.kernels) for s in (plain, unpacked)]
    matrices = LAYERS * HIDDEN * (2 * QUERIES + 2 * KEYS + 3 * WIDTH)
    unpacking, again = 4 + (4 + 1) + 2 + 2, 2  # bytes of an element, beside its 4 bits
    assert moved[1] - moved[0] == pytest.approx((unpacking - again) * matrices, rel=3e-3)
    backward = [
        sum(k.count for k in s.kernels if (k.kind, k.phase) == ("dequantize", "backward"))
        for s in (plain, unpacked)
    ]
    assert backward[0] > 0 == backward[1]


@pytest.mark.parametrize("name, share", [("megatron", 0.5), ("pytorch-eager", 1.0)])
def test_transformer_engine_gathers_operands_of_8_bit_products_in_8_bits(name, share):
    wide, narrow = (step(name, precision=p, tuned=False, tp=2) for p in ("bf16", "fp8"))
    whole = 512 * HIDDEN * 2
    for phase in ("forward", "backward"):
        found = [[b for b, _ in sent(s, "all_gather", phase)][:2] for s in (wide, narrow)]
        assert found == [[whole, whole], [share * whole, share * whole]]
        reduced = [sent(s, "reduce_scatter", phase)[0][0] for s in (wide, narrow)]
        assert reduced == [whole, whole]  # sums stay in 16 bits


def test_torchao_updates_one_weight_after_another_in_fp32():
    """The weight and its two moments, at the embedding; bitsandbytes' paged ones need none."""
    asked = {"sequence": 512, "precision": "bf16", "recompute": "full", "batch": 1}
    peaks = {
        name: predict("llama-3.2-1b", "a100-sxm4-80gb", optimizer=name, stack=on, **asked).memory
        for name, on in (("adamw8bit", "torchtune-in-backward"), ("paged-adamw8bit", "torchtune"))
    }
    ao = peaks["adamw8bit"]
    assert ao.peak_moment == "optimizer step"
    assert ao.transient_bytes == FP32_COPIES * 4 * 128256 * HIDDEN
    assert peaks["paged-adamw8bit"].transient_bytes < ao.transient_bytes


def test_logits_that_a_recipe_holds_are_in_memory_in_the_backward(tmp_path):
    """torchtune until July 2024: one fp32 copy of the logits more than where it is freed."""
    freed = tmp_path / "freed.toml"
    freed.write_text(
        'like = "torchtune-2024-in-backward"\nname = "freed"\nabout = "freed"\nsource = "test"\n'
        '[implementations]\nloss = "shifted"\n'
    )
    asked = {"batch": 4, "sequence": 2048, "precision": "bf16", "recompute": "full"}
    asked |= {"model": "llama-2-7b", "device": "a100", "optimizer": "paged-adamw8bit"}
    held, other = (predict(stack=s, **asked) for s in ("torchtune-2024-in-backward", str(freed)))
    more = held.memory.activations_bytes - other.memory.activations_bytes
    assert more == 4 * 2048 * 32000 * 4
    assert held.step_time_s == other.step_time_s
    allocated = held.memory.peak_bytes - held.memory.framework_bytes
    assert allocated == pytest.approx(20.2e9, rel=0.05)  # pull request 961 of torchtune


def test_deepspeed_keeps_a_billion_weights_gathered():
    asked = {"batch": 8, "devices": 8, "zero": 3, "sequence": 512, "precision": "bf16"}
    found = predict("llama-2-7b", "a100-sxm4-80gb", stack="deepspeed-zero3", **asked)
    assert found.ranks[0].buffers_bytes == pytest.approx(2e9)


def formats(name, kind):
    """Formats in which kernels of GPT-2 under autocast return their results."""
    recipe = Recipe(
        mode="train", batch=1, size=64, precision="amp-bf16", optimizer="adamw", recompute="none",
        stack=msgspec.structs.replace(stack(name).changed("eager", None), fusion=0.0),
    )  # fmt: skip
    found = trace(resolve("gpt2"), recipe)
    forward = [k for k in found.kernels if k.phase == "forward" and k.kind == kind]
    return {v.dtype for k in forward for v in k.outputs}


def test_autocast_on_gaudi_keeps_norms_and_softmax_in_bf16():
    """Its lists differ from those of CUDA [habana-autocast]; the loss has a softmax in fp32."""
    assert formats("optimum-habana", "layer_norm") == {"bf16"}
    assert formats("pytorch-eager", "layer_norm") == {"fp32"}
    assert formats("optimum-habana", "softmax") == {"bf16", "fp32"}
    assert formats("pytorch-eager", "softmax") == {"fp32"}
