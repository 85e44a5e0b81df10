"""Recomputation: what runs again, what is kept, what cannot be asked."""

import pytest

from roofcast import predict
from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.models import resolve
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Recipe, trace
from roofcast.simulator.work.traced import Parallel

LAYERS = 32


def step(how, stages=1, model="llama-3-8b"):
    recipe = Recipe(
        mode="train",
        batch=1,
        size=1024,
        precision="bf16",
        optimizer=None,
        recompute=how,
        stack=stack("pytorch-eager"),
    )
    return trace(resolve(model), recipe, Parallel(stages=stages))


def again(s):
    return sum(k.matrix * k.count for k in s.kernels if k.phase == "recompute")


def kept(s):
    return sum(k.bytes * k.count for k in s.saved)


@pytest.mark.parametrize(
    ("how", "stages", "layers"),
    [
        ("none", 1, 0),
        ("full", 1, 32),
        ("uniform:4", 1, 32),
        ("every:2", 1, 16),
        ("every:3", 1, 10),
        ("block:3", 1, 3),
        ("block:3", 4, 12),
        ("block:9", 4, 32),
        ("uniform:32", 1, 32),
    ],
)
def test_so_many_layers_run_again(how, stages, layers):
    assert again(step(how, stages)) == pytest.approx(again(step("full")) * layers / LAYERS)


def test_all_products_of_a_layer_run_again_once():
    s = step("full")
    forward = sum(
        k.matrix * k.count for k in s.kernels if k.phase == "forward" and s.nodes[k.node].layer
    )
    assert again(s) == forward


@pytest.mark.parametrize(("how", "share"), [("every:2", 0.5), ("block:8", 0.25)])
def test_the_layers_left_keep_all(how, share):
    none, full, some = (kept(step(r)) for r in ("none", "full", how))
    assert some == pytest.approx(share * full + (1 - share) * none, rel=0.01)


def test_uniform_keeps_every_nth_input_and_holds_n_layers_at_once():
    """A checkpoint a layer is 2 b s h bytes; one of four layers keeps a quarter of them
    [chen2016].
    """
    assert kept(step("full")) - kept(step("uniform:4")) == pytest.approx(
        0.75 * LAYERS * 2 * 1024 * 4096
    )
    asked = {"model": "gpt2", "device": "h100-sxm5", "batch": 32, "attention": "eager"}
    one, all_ = (predict(**asked, recompute=r).memory.peak_bytes for r in ("full", "uniform:12"))
    assert one < all_


def test_modules_named_one_by_one():
    mlp, norm, both = (step(f"modules:{m}") for m in ("mlp", "layernorm", "mlp,layernorm"))
    inside = (k for k in mlp.kernels if k.phase == "forward" and ".mlp." in mlp.nodes[k.node].name)
    assert again(mlp) == again(both) == sum(k.matrix * k.count for k in inside)
    assert again(norm) == 0
    assert (
        kept(both) < min(kept(mlp), kept(norm)) <= max(kept(mlp), kept(norm)) < kept(step("none"))
    )
    assert again(step("modules:self_attn.attention")) == again(step("selective"))


@pytest.mark.parametrize(
    "how", ["full", "selective", "every:2", "uniform:2", "block:1", "modules:mlp"]
)
def test_recomputing_takes_time_and_saves_memory(how):
    asked = {"model": "gpt2", "device": "a100-sxm4-80gb", "batch": 8, "attention": "eager"}
    plain, other = predict(**asked), predict(**asked, recompute=how)
    assert (
        other.step_time_s > plain.step_time_s
        and other.memory.activations_bytes < plain.memory.activations_bytes
    )
    assert (
        other.hfu * other.step_time_s > plain.hfu * plain.step_time_s
    )  # FLOPs of the matrix units


@pytest.mark.parametrize("how", ["every:2", "block:2", "uniform:2"])
def test_a_pipeline_recomputes_so_many_layers_of_each_stage(how):
    asked = {
        "model": "llama-3-8b",
        "device": "h100-sxm5",
        "sequence": 2048,
        "batch": 32,
        "micro_batch": 1,
        "pp": 4,
    }
    share = {"every:2": 1 / 2, "block:2": 1 / 4, "uniform:2": 1}[how]
    full, some = (predict(**asked, recompute=r).flops_recompute for r in ("full", how))
    assert some == pytest.approx(share * full)


@pytest.mark.parametrize(
    ("text", "names"),
    [("half", "full"), ("every", "every:2"), ("every:0", "at least 1"),
     ("block:x", "block:2"), ("full:2", "no number"), ("modules:", "mlp"),
     ("modules:mpl", "mlp")],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(text, names):
    with pytest.raises(RoofcastError) as error:
        predict(model="llama-3-8b", device="h100-sxm5", recompute=text)
    assert "\n" not in str(error.value) and names in str(error.value)


def test_policies_are_read_as_they_are_written():
    assert (
        policy("every:4").layers(32) == 8
        and policy("none").layers(32) == 0
        and policy("uniform:4").inputs(32) == 8
    )
