"""Recomputation: what runs again, what is kept, and which policies are rejected."""

import msgspec
import pytest

from roofcast import predict
from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.models import resolve
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Recipe, trace
from roofcast.simulator.work.traced import Parallel

LAYERS = 32


def step(how, stages=1, model="llama-3-8b", software="pytorch-eager", prunes=None):
    of = stack(software)
    recipe = Recipe(
        mode="train",
        batch=1,
        size=1024,
        precision="bf16",
        optimizer=None,
        recompute=how,
        stack=of if prunes is None else msgspec.structs.replace(of, prunes=prunes),
    )
    return trace(resolve(model), recipe, Parallel(stages=stages))


def again(s):
    return sum(k.matrix * k.count for k in s.kernels if k.phase == "recompute")


def kept(s):
    return sum(k.bytes * k.count for k in s.saved)


@pytest.mark.parametrize("software", ["jax-xla", "fsdp-torchtitan", "fsdp-eager"])
def test_software_that_prunes_does_not_compute_the_last_product_of_a_layer_again(software):
    """Its result is the kept input of the next layer; all that leads to products is made again."""
    less, whole = (step("full", software=software, prunes=prunes) for prunes in (True, False))
    assert stack(software).prunes and not stack("fsdp-eager-2023").prunes
    down = sum(
        k.matrix * k.count
        for k in whole.kernels
        if k.phase == "recompute" and "down_proj" in whole.nodes[k.node].name
    )
    assert down > 0 and again(less) == again(whole) - down
    assert kept(less) == kept(whole)


@pytest.mark.parametrize("how", ["full", "every:2", "selective", "keep:qkv"])
@pytest.mark.parametrize("model", ["llama-3-8b", "gemma-2-9b", "mixtral-8x7b", "t5-base", "gpt2"])
def test_what_is_pruned_is_read_by_nothing(model, how):
    """All that backward reads is made again as without pruning, and all that leads to it."""
    less, whole = (step(how, model=model, prunes=prunes) for prunes in (True, False))
    runs, all_runs = ([k for k in s.kernels if k.phase == "recompute"] for s in (less, whole))
    made, all_made = ({v.storage for k in of for v in k.outputs} for of in (runs, all_runs))
    there, within = {s.storage for s in less.saved}, {k.node for k in all_runs}
    wanted = {
        s.storage
        for s in less.counted
        if s.behind is None and (s.node in within or s.storage not in there)
    }
    assert runs and wanted & made == wanted & all_made
    assert all(v.storage in made for k in runs for v in k.inputs if v.storage in all_made)


def test_pytorch_stops_a_checkpoint_where_backward_has_all_it_needs():
    """PyTorch itself: of the two products of a block, the second is not computed again."""
    torch = pytest.importorskip("torch")
    from torch.utils.checkpoint import checkpoint
    from torch.utils.flop_counter import FlopCounterMode

    up, down = torch.nn.Linear(8, 32, bias=False), torch.nn.Linear(32, 8, bias=False)
    x = torch.ones(4, 8, requires_grad=True)
    product = 2 * 4 * 8 * 32
    for reentrant, products in ((False, 2 + 1 + 4), (True, 2 + 2 + 4)):
        with FlopCounterMode(display=False) as counter:
            block = checkpoint(lambda t: x + down(up(t).relu()), x, use_reentrant=reentrant)
            block.sum().backward()
        assert counter.get_total_flops() == products * product


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
def test_number_of_layers_that_run_again(how, stages, layers):
    assert again(step(how, stages)) == pytest.approx(again(step("full")) * layers / LAYERS)


def test_all_products_of_a_layer_run_again_once():
    s = step("full")
    of_layers = (k for k in s.kernels if k.phase == "forward" and s.nodes[k.node].layer)
    assert again(s) == sum(k.matrix * k.count for k in of_layers)


ALTERNATING = ("gemma-2-9b", "gemma-3-12b", "gpt-oss-20b", "llama-4-scout", "mamba-130m")


@pytest.mark.parametrize("model", ALTERNATING)
def test_layers_that_alternate_all_run_again(model):
    """Layers of two kinds, or a first layer in another format, are one row of layers."""
    s = step("full", model=model)
    of_layers = (k for k in s.kernels if k.phase == "forward" and s.nodes[k.node].layer)
    assert again(s) == sum(k.matrix * k.count for k in of_layers)


def times_again(how, model="gemma-2-9b", stages=1):
    """How often the down projection of each kind of layer runs again."""
    s = step(how, stages, model)
    return sorted(
        k.count
        for k in s.kernels
        if k.phase == "recompute" and s.nodes[k.node].name.endswith("down_proj")
    )


def test_every_second_of_layers_that_alternate_are_those_of_one_kind():
    # gemma-2-9b: 42 layers, local and global attention in turn
    assert times_again("full") == times_again("uniform:3") == [21, 21]
    assert times_again("every:2") == [21]
    assert times_again("every:3") == [7, 7]
    assert times_again("block:5") == [2, 3]
    assert times_again("block:5", stages=2) == [5, 5]  # the second stage starts with a global one
    assert times_again("block:42") == [21, 21]


def test_uniform_keeps_every_nth_input_of_layers_that_alternate():
    s = step("uniform:3", model="gemma-2-9b")
    inputs = [k.count for k in s.saved if k.storage < 0 and k.kind == "activation"]
    assert sum(inputs) == 14


@pytest.mark.parametrize(("how", "share"), [("every:2", 0.5), ("block:8", 0.25)])
def test_layers_that_are_not_recomputed_keep_everything(how, share):
    none, full, some = (kept(step(r)) for r in ("none", "full", how))
    assert some == pytest.approx(share * full + (1 - share) * none, rel=0.01)


def test_uniform_keeps_every_nth_input_and_holds_n_layers_at_once():
    """A checkpoint per layer is 2 b s h bytes; uniform:4 keeps a quarter of them [chen2016]."""
    checkpoint = 2 * 1024 * 4096
    saved = kept(step("full")) - kept(step("uniform:4"))
    assert saved == pytest.approx(0.75 * LAYERS * checkpoint)
    asked = {"model": "gpt2", "device": "h100-sxm5", "batch": 32, "attention": "eager"}
    one, all_ = (predict(**asked, recompute=r).memory.peak_bytes for r in ("full", "uniform:12"))
    assert one < all_


def test_modules_recomputes_the_named_parts_of_each_layer():
    mlp, norm, both = (step(f"modules:{m}") for m in ("mlp", "layernorm", "mlp,layernorm"))
    inside = (k for k in mlp.kernels if k.phase == "forward" and ".mlp." in mlp.nodes[k.node].name)
    assert again(mlp) == again(both) == sum(k.matrix * k.count for k in inside)
    assert again(norm) == 0
    assert kept(both) < min(kept(mlp), kept(norm))
    assert max(kept(mlp), kept(norm)) < kept(step("none"))
    assert again(step("modules:self_attn.attention")) == again(step("selective"))


@pytest.mark.parametrize(
    "how", ["full", "selective", "every:2", "uniform:2", "block:1", "modules:mlp"]
)
def test_recomputing_takes_time_and_saves_memory(how):
    asked = {"model": "gpt2", "device": "a100-sxm4-80gb", "batch": 8, "attention": "eager"}
    plain, other = predict(**asked), predict(**asked, recompute=how)
    assert other.step_time_s > plain.step_time_s
    assert other.memory.activations_bytes < plain.memory.activations_bytes
    matrix_flops = [f.hfu * f.step_time_s for f in (plain, other)]
    assert matrix_flops[1] > matrix_flops[0]


@pytest.mark.parametrize("how", ["every:2", "block:2", "uniform:2"])
def test_number_of_layers_that_each_pipeline_stage_recomputes(how):
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
def test_invalid_policies_are_rejected_in_one_line(text, names):
    with pytest.raises(RoofcastError) as error:
        predict(model="llama-3-8b", device="h100-sxm5", recompute=text)
    assert "\n" not in str(error.value) and names in str(error.value)


def test_policies_are_parsed():
    assert list(policy("every:4").layers(32)) == [3, 7, 11, 15, 19, 23, 27, 31]
    assert not policy("none").layers(32)
    assert sum(map(policy("uniform:4").keeps_input, range(32))) == 8


def test_discarded_parts_are_made_again_for_the_ops_that_read_them():
    """MaxText's minimal_with_context: of the norms, the rotary embedding and the activation nothing
    is kept, the inputs of the products behind them neither; what the products give is.
    """
    parts = "norm,rotary,act_fn"
    modules, discard = (step(f"{kind}:{parts}") for kind in ("modules", "discard"))

    def of(s, name):
        return sum(k.bytes * k.count for k in s.saved if s.nodes[k.node].name.endswith(name))

    for name in ("mlp.down_proj", "mlp.gate_proj", "self_attn.q_proj"):
        assert of(modules, name) > 0.0 == of(discard, name)
    assert kept(discard) < kept(modules) and again(discard) == 0.0
    assert [k for k in discard.kernels if k.phase == "recompute"]
