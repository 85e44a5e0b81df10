"""Recomputation as frameworks name it: what runs again, and what is kept."""

import pytest

from roofcast import predict
from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.models import resolve
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.policies import ROLES, named
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Recipe, trace

HIDDEN, HEADS, KV, WIDTH = 4096, 4096, 1024, 14336  # of Llama 3 8B
PRODUCTS = {  # multiply-adds of a token and layer
    "qkv": HIDDEN * (HEADS + 2 * KV),
    "attn_out": HEADS * HIDDEN,
    "mlp_in": 2 * HIDDEN * WIDTH,
    "mlp_out": WIDTH * HIDDEN,
}
TOKENS, LAYERS = 1024, 32


def step(how, model="llama-3-8b", name="pytorch-eager"):
    recipe = Recipe(
        mode="train",
        batch=1,
        size=TOKENS,
        precision="bf16",
        optimizer=None,
        recompute=how,
        stack=stack(name),
    )
    return trace(resolve(model), recipe)


def products_again(s):
    """FLOPs of recomputed matrix products, without attention."""
    return sum(
        k.matrix * k.count for k in s.kernels if (k.phase, k.kind) == ("recompute", "matmul")
    )


def kept(s):
    return sum(k.bytes * k.count for k in s.saved)


@pytest.mark.parametrize("name", sorted(named()))
def test_every_policy_has_a_framework_a_source_and_one_meaning(name):
    known = named()[name]
    assert known.framework and known.source
    assert bool(known.is_) != bool(known.keeps)
    assert policy(name).kind in ("keep", policy(known.is_ or "none").kind)


@pytest.mark.parametrize(
    "name",
    ["minimal", "minimal_with_context", "save_dot_except_mlp", "save_qkv_proj", "save_out_proj"],
)
def test_a_maxtext_policy_runs_the_products_again_that_it_does_not_keep(name):
    again = sum(n for role, n in PRODUCTS.items() if role not in named()[name].keeps)
    assert products_again(step(name)) == 2.0 * again * TOKENS * LAYERS


def test_torchtitan_by_op_keeps_every_second_product():
    """Query, value, gate and down are kept; key, output and up run again."""
    again = HIDDEN * KV + HEADS * HIDDEN + HIDDEN * WIDTH
    assert products_again(step("selective-ops")) == 2.0 * again * TOKENS * LAYERS


def test_more_kept_is_less_to_run_again():
    order = [
        "full",
        "save_qkv_proj",
        "save_dot_except_mlp",
        "minimal",
        "minimal_with_context",
        "none",
    ]
    steps = [step(how) for how in order]
    work = [sum(k.matrix * k.count for k in s.kernels if k.phase == "recompute") for s in steps]
    held = [kept(s) for s in steps]
    assert work == sorted(work, reverse=True) and held == sorted(held)


def test_keep_with_all_roles_runs_only_small_ops_again():
    everything = "keep:" + ",".join(ROLES)
    assert products_again(step(everything)) == 0 and policy(everything).modules == ROLES


@pytest.mark.parametrize("model", ["gpt2", "mixtral-8x7b", "deepseek-v2-lite", "gemma-2-9b"])
@pytest.mark.parametrize("how", ["minimal", "selective-ops", "save_qkv_proj"])
def test_policies_hold_for_other_families(model, how):
    full, some = step("full", model), step(how, model)
    assert 0 < products_again(some) < products_again(full) or how == "minimal"
    assert kept(full) < kept(some) < kept(step("none", model))


BAD = [
    ("minimul", "did you mean minimal"),
    ("keep:", "name parts of a layer, for example keep:qkv,attn_out"),
    ("keep:foo", "known: qkv, context"),
    ("minimal:2", "no recompute"),
]


@pytest.mark.parametrize(("how", "says"), BAD)
def test_a_wrong_policy_is_one_line_that_says_what_would_do(how, says):
    with pytest.raises(RoofcastError) as error:
        predict("llama-3-8b", device="h100", recompute=how)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_net_without_products_in_its_layers_is_refused():
    with pytest.raises(RoofcastError, match="no layers of matrix products"):
        predict("resnet50", device="h100", recompute="minimal")


def test_an_offloaded_policy_says_that_its_bytes_stay_on_the_device():
    asked = {"device": "h100", "batch": 1, "sequence": 1024, "recompute": "qkv_proj_offloaded"}
    assert any("not in host memory" in a for a in predict("llama-3-8b", **asked).assumptions)


def test_a_policy_of_results_keeps_these_and_the_residual_stream_alone():
    """Under save_qkv_proj a layer keeps its input, queries, keys and values; the sum between
    attention and MLP runs again, though the next sum reads it.
    """
    more = kept(step("save_qkv_proj")) - kept(step("full"))
    assert more == pytest.approx(2 * TOKENS * LAYERS * (HEADS + 2 * KV), rel=0.03)


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("selective:2", "every:2"),  # torchtune's and torchtitan's ac_option
        ("modules:core_attn", "selective"),  # Megatron's --recompute-modules
        ("megatron-selective", "selective"),
        ("activation_checkpointing", "full"),
    ],
)
def test_words_of_frameworks_are_ours(theirs, ours):
    a, b = step(theirs), step(ours)
    assert [k[:10] for k in a.kernels] == [k[:10] for k in b.kernels]
    assert [s[:4] for s in a.saved] == [s[:4] for s in b.saved]


def test_parts_and_layers_keep_what_they_say():
    """More of a layer, or more layers, run again: less is kept, and more is multiplied again."""
    for ladder in (
        ("none", "modules:core_attn", "modules:self_attn", "modules:self_attn,mlp", "full"),
        ("none", "modules:mlp", "modules:mlp,self_attn", "full"),
        ("none", "every:4", "selective:2", "full"),
        ("none", "block:8", "block:24", "full"),
    ):
        steps = [step(how) for how in ladder]
        kept = [sum(s.bytes * s.count for s in each.saved) for each in steps]
        again = [products_again(each) for each in steps]
        assert kept == sorted(kept, reverse=True) and again == sorted(again)
        assert kept[-1] < kept[1] < kept[0] and again[-1] > again[0] == 0


@pytest.mark.parametrize("how", ["selective:0", "selective:x", "modules:core_atn", "modules:moe"])
def test_words_that_name_nothing_are_refused(how):
    with pytest.raises(RoofcastError):
        step(how)
