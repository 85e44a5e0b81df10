"""Repeated layers of traced modules become blocks: nothing but the grouping changes."""

import json

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra: pip install .[torch]")
import torch_layers as layered  # noqa: E402

from roofcast import hwdb, predict  # noqa: E402
from roofcast.simulator import models  # noqa: E402
from roofcast.simulator.forecast.chain import largest_batch  # noqa: E402
from roofcast.simulator.forecast.scenario import Scenario  # noqa: E402
from roofcast.simulator.importers import from_torch, torch_module  # noqa: E402
from roofcast.simulator.software.stack import stack  # noqa: E402
from roofcast.simulator.times import roofline  # noqa: E402
from roofcast.simulator.work.step import Recipe, trace  # noqa: E402

pytestmark = pytest.mark.torch
A100 = "a100-sxm4-80gb"


def step_of(model, batch, size=None, software="pytorch-eager", precision="amp-bf16", again="none"):
    recipe = Recipe(
        mode="train", batch=batch, size=size, precision=precision, optimizer="adamw",
        recompute=again, stack=stack(software),
    )  # fmt: skip
    return trace(model, recipe)


def totals(step):
    """Sums by phase over all kernels, and of what is held.

    Launches and seconds are those of forward and backward: an optimizer updates the weights of all
    layers at once.
    """
    found = {"parameters": step.parameters, "launches": 0, "seconds": 0.0}
    for k in step.kernels:
        for what in ("matrix", "vector", "special", "read", "written"):
            key = k.phase, what
            found[key] = found.get(key, 0.0) + getattr(k, what) * k.count
    for s in step.saved:
        found[s.kind] = found.get(s.kind, 0.0) + s.bytes * s.count
    seconds = roofline.time_all(step, hwdb.device(A100)).seconds
    for k, s in zip(step.kernels, seconds, strict=True):
        found["launches"] += k.count * (k.phase != "update")
        found["seconds"] += float(s) * (k.phase != "update")
    return found | {"gradients": step.gradient_bytes}


@pytest.mark.parametrize("name", layered.LAYERED)
def test_totals_are_those_of_the_layers_one_by_one(name, monkeypatch):
    make, inputs = layered.LAYERED[name]
    model = from_torch(make(), inputs)
    how = {"precision": "bf16" if "experts" in name else "amp-bf16"}
    folded = step_of(model, model.batch, model.size, **how)
    monkeypatch.setattr(torch_module, "fold", lambda tape: None)
    model = from_torch(make(), inputs)
    apart = step_of(model, model.batch, model.size, **how)
    assert len(folded.nodes) < 0.8 * len(apart.nodes) and len(folded.kernels) < len(apart.kernels)
    assert totals(folded) == pytest.approx(totals(apart), rel=1e-9)


BLOCKS = {
    "gpt": [("h", 5, 0)],
    "alternating": [("layers", 3, 0), ("layers", 3, 1), ("layers", 3, 1)],
    "resnet": [("layer1", 3, 0), ("layer2", 1, 0), ("layer2", 3, 0)],
    "layers of experts": [("layers", 3, 0), ("layers", 1, 0)],
    "linears": [("layers", 1, 0), ("layers", 10, 0), ("layers", 1, 0)],
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_the_layers_in_order(name):
    make, inputs = layered.LAYERED[name]
    model = from_torch(make(), inputs)
    step = step_of(model, model.batch, model.size, precision="bf16")
    assert [(b.name, b.count, b.within) for b in step.blocks[1:]] == BLOCKS[name]
    at = [node.layer for node in step.nodes if node.layer]
    assert at == sorted(at)


def test_rows_have_the_names_of_the_layers_and_their_number():
    found = predict(layered.Gpt(layers=12), inputs=["2x32:int64"], device=A100)
    rows = {layer.name: layer.count for layer in found.layers}
    assert rows["h.qkv"] == rows["h.ln_1"] == 12 and len(rows) < 25
    experts = predict(layered.MixtureOfLayers(), inputs=["2x6x16"], device=A100).layers
    assert {"layers.experts.0": 16, "layers.router": 4}.items() <= {
        layer.name: layer.count for layer in experts
    }.items()


def test_layers_are_recomputed_staged_and_gathered_one_by_one(monkeypatch):
    inputs, wide = ["8x32:int64"], {"layers": 8, "width": 256}
    model = from_torch(layered.Gpt(**wide), inputs)
    all_kept, inputs_kept = (
        sum(s.bytes * s.count for s in step_of(model, 8, 32, again=how).saved)
        for how in ("none", "full")
    )
    assert inputs_kept < 0.3 * all_kept
    staged = predict(layered.Gpt(**wide), inputs=inputs, device=A100, devices=4, pp=4)
    assert staged.memory.peak_moment.startswith("stage")
    sharded = {"device": A100, "devices": 4, "zero": 3, "inputs": inputs}
    by_layer = predict(layered.Gpt(**wide), **sharded).memory
    monkeypatch.setattr(torch_module, "fold", lambda tape: None)
    at_once = predict(layered.Gpt(**wide), **sharded).memory
    layer = 12 * 256**2 * 2  # bytes of a layer's weights in bf16, without biases and norms
    assert at_once.transient_bytes - by_layer.transient_bytes > layer


def test_zero_3_gathers_submodules_of_a_module_without_layers():
    net = torch.nn.Sequential(torch.nn.Linear(512, 1024), torch.nn.Linear(1024, 256))
    whole = torch.nn.Sequential(torch.nn.Linear(512, 1536))
    held = [
        predict(m, inputs=["8x512"], device=A100, devices=2, zero=3, precision="bf16").memory
        for m in (net, whole)
    ]
    second = 1024 * 256 * 2  # bytes of the weights that are not gathered with the first ones
    assert held[1].transient_bytes - held[0].transient_bytes > 0.9 * second


CONFIG = {
    "model_type": "gpt2", "vocab_size": 128, "n_positions": 64, "n_embd": 64, "n_layer": 5,
    "n_head": 4, "activation_function": "gelu_pytorch_tanh", "resid_pdrop": 0.0,
    "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip


def test_a_compiler_fuses_the_backward_of_a_traced_module_as_of_a_named_one(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    share = {}
    for model in (models.resolve(str(tmp_path)), from_torch(layered.Gpt(), ["4x64:int64"])):
        moved = [
            sum(
                (k.read + k.written) * k.count
                for k in step_of(model, 4, 64, software).kernels
                if k.phase == "backward"
            )
            for software in ("pytorch-compiled", "pytorch-eager")
        ]
        share[model.family] = moved[0] / moved[1]
    assert share["torch"] == pytest.approx(share["gpt2"], rel=0.1)


@pytest.mark.parametrize(
    ("make", "inputs", "more"),
    [
        (layered.linears, ("4x32",), {}),
        (layered.Gpt, ("2x32:int64",), {}),
        (layered.Gpt, ("4x32:int64",), {"devices": 2, "zero": 3}),
    ],
)
def test_the_largest_batch_is_found_in_a_few_traces(make, inputs, more, monkeypatch):
    traced = []
    run = torch_module.trace
    counting = lambda *args: traced.append(1) or run(*args)  # noqa: E731
    monkeypatch.setattr(torch_module, "trace", counting)
    small = hwdb.device("rtx-3090", {"memory.capacity": "1.2 GB"})
    monkeypatch.setattr("roofcast.simulator.forecast.resolve.as_set", lambda *args: small)
    model = from_torch(make(), inputs)
    found = largest_batch(Scenario(model=model, inputs=(), device="rtx-3090", **more))
    assert len(traced) <= 2  # one, and one at the batch of a rank
    slow = model._replace(quick=None)
    assert largest_batch(Scenario(model=slow, inputs=(), device="rtx-3090", **more)) == found
    assert len(traced) > 4


def test_a_step_that_is_no_polynomial_of_the_batch_is_traced_each_time():
    class Threshold(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(8, 8)

        def forward(self, x):
            return self.a(x).relu() if len(x) in (4, 16) else self.a(self.a(x))

    model = from_torch(Threshold(), ["2x8"]).for_many_batches()
    flops = {
        batch: totals(step_of(model, batch))["forward", "matrix"] / batch
        for batch in (1, 2, 4, 8, 16, 32)
    }
    assert flops == {1: 256, 2: 256, 4: 128, 8: 256, 16: 128, 32: 256}


def test_a_compiled_run_reads_what_it_overwrites_in_place():
    class InPlace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(8, 8)

        def forward(self, x):
            y = self.a(x)
            y += x
            return y.relu_()

    step = step_of(from_torch(InPlace(), ["4x8"]), 4, None, "pytorch-compiled", "fp32")
    (fused,) = [k for k in step.kernels if k.kind == "fused" and k.phase == "forward"]
    (product,) = [k for k in step.kernels if k.kind == "matmul" and k.phase == "forward"]
    assert {v.storage for v in product.outputs} < {v.storage for v in fused.inputs}
