"""Memory over a step: peaks measured in PyTorch, and laws."""

import csv
from pathlib import Path

import pytest

from roofcast import Scenario, largest_batch, predict
from roofcast.simulator.forecast import chain
from roofcast.simulator.memory import held
from roofcast.simulator.models import resolve
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.step import Recipe, trace

TABLE = (Path(__file__).parent / "oracle" / "peaks.csv").read_text().splitlines()
PEAKS = list(csv.DictReader(line for line in TABLE if line[0] != "#"))
LLAMA_PARAMETERS = 8_030_261_248  # Llama 3 8B


def recipe(batch, size, **changes):
    """A training recipe without optimizer under eager PyTorch, with some settings changed."""
    settings = {"precision": "fp32", "recompute": "none", "stack": stack("pytorch-eager")}
    settings |= {"mode": "train", "optimizer": None, **changes}
    return Recipe(batch=batch, size=size, **settings)


def row_id(row):
    return f"{row['name']}-{row['batch']}x{row['size']}-{row['precision']}-{row['attention']}"


@pytest.mark.parametrize("row", PEAKS, ids=row_id)
def test_peak_memory_is_at_most_6_5_percent_above_pytorchs_and_never_below(row):
    """A unit's largest tensors are taken to exist when its backward starts, hence the excess."""
    eager = stack("pytorch-eager").changed(row["attention"], None)
    batch, size = int(row["batch"]), int(row["size"])
    step = trace(resolve(row["name"]), recipe(batch, size, precision=row["precision"], stack=eager))
    at_peak = held(step, framework_bytes=0, slack=0)
    ratio = (at_peak.total - at_peak.parameters - step.input_bytes) / float(row["peak_bytes"])
    assert 0.999 < ratio < 1.065


def memory(**changes):
    """Memory of a training step of Llama 3 8B on an H100, with some fields changed."""
    step = {"model": "llama-3-8b", "device": "h100-sxm5", "batch": 1, "sequence": 2048}
    return predict(**{**step, **changes}).memory


def test_pure_bf16_adamw_holds_2_bytes_of_weights_and_4_of_moments_per_parameter():
    m, n = memory(), LLAMA_PARAMETERS
    assert (m.parameters_bytes, m.optimizer_bytes) == (2 * n, 4 * n)


def test_mixed_precision_keeps_weights_and_optimizer_states_in_fp32():
    m, n = memory(precision="amp-bf16"), LLAMA_PARAMETERS
    assert (m.parameters_bytes, m.optimizer_bytes) == (4 * n, 8 * n)


def test_kinds_of_memory_sum_to_the_peak():
    m = memory(batch=4)
    kinds = ("parameters", "gradients", "optimizer", "activations", "transient", "framework")
    assert sum(getattr(m, f"{kind}_bytes") for kind in kinds) == pytest.approx(m.peak_bytes)


def test_full_recomputation_keeps_less_than_selective_and_selective_less_than_none():
    kept = [
        memory(attention="eager", recompute=r, batch=4).activations_bytes
        for r in ("none", "selective", "full")
    ]
    assert kept[0] > kept[1] > kept[2]


def test_full_recomputation_keeps_only_the_input_of_each_layer():
    """32 layers, batch 2, 1024 tokens, hidden size 4096, 2 bytes per element."""
    step = trace(resolve("llama-3-8b"), recipe(2, 1024, precision="bf16", recompute="full"))
    kept = [s for s in step.saved if step.nodes[s.node].layer and s.kind == "activation"]
    assert sum(s.bytes * s.count for s in kept) == 32 * 2 * 1024 * 4096 * 2


def test_the_largest_batch_fits_in_memory_and_one_sample_more_does_not():
    asked = {"model": "gpt2", "device": "rtx-3090", "sequence": 1024}
    n = largest_batch(Scenario(**asked))
    assert n > 1
    assert [predict(**asked, batch=b).memory.fits for b in (n, n + 1)] == [True, False]


PEAKS = {  # bytes at peak by batch, as steps have them
    "linear": lambda n: 5e6 + 3e4 * n,
    "update above": lambda n: max(9e8 + 8 * n, 1e8 + 7e5 * n),
    "update above, until late": lambda n: max(9.99e8 + n, 3e2 * n),
    "squares": lambda n: 1e7 + 2e3 * n + 5.0 * n * n,
    "three pieces": lambda n: max(2e8, 1e8 + 1e5 * n, 3e6 * n - 5e8),
    "barely one": lambda n: 6e8 * n,
}


@pytest.mark.parametrize("name", PEAKS)
def test_the_largest_batch_is_found_in_few_steps(name):
    asked, capacity = [], 1e9
    known = {8: PEAKS[name](8)}

    def peak(n):
        if n not in known:
            asked.append(n)
            known[n] = PEAKS[name](n)
        return known[n]

    near = chain._near(peak, known, capacity)
    found = chain._most(lambda n: peak(n) <= capacity, Scenario(model="gpt2", device="a100"), near)
    assert PEAKS[name](found) <= capacity < PEAKS[name](found + 1)
    assert len(asked) <= 14


def test_the_largest_batch_of_a_model_that_does_not_fit_is_zero():
    assert largest_batch(Scenario(model="llama-3-8b", device="rtx-3090", precision="amp-bf16")) == 0


@pytest.mark.parametrize("model", ["gpt2", "resnet50"])
def test_memory_grows_with_the_batch_and_inference_needs_less(model):
    peaks = [predict(model=model, device="h100-sxm5", batch=b).memory.peak_bytes for b in (1, 2, 8)]
    inference = predict(model=model, device="h100-sxm5", batch=8, mode="infer")
    assert peaks == sorted(peaks)
    assert inference.memory.peak_bytes < peaks[-1]


def test_a_table_used_as_embedding_and_output_layer_holds_two_more_gradients_at_peak():
    """GPT-2's table of 50257 x 768 in fp32, with few activations left at the end of the backward.

    The output layer's gradient exists from the start of the backward; at its end the embedding's
    gradient and the sum of both exist beside all other gradients. A model with two separate tables
    holds one gradient per weight.
    """
    tied = trace(resolve("gpt2"), recipe(1, 8))
    at_peak = held(tied, framework_bytes=0, slack=0)
    assert at_peak.gradients == tied.gradient_bytes + 2 * 50257 * 768 * 4
    untied = trace(resolve("llama-3-8b"), recipe(1, 8))
    assert held(untied, framework_bytes=0, slack=0).gradients == untied.gradient_bytes


POLICIES = ("full", "uniform:2", "uniform:3", "uniform:12", "every:2", "block:1", "selective")


@pytest.mark.parametrize(
    ("model", "size"), [("wav2vec2-base", 160_000), ("bert-base", 512), ("gpt2", 512)]
)
@pytest.mark.parametrize("policy", POLICIES)
def test_recomputation_never_raises_the_peak_by_more_than_the_input_of_a_layer(model, size, policy):
    peaks = []
    for recompute in ("none", policy):
        step = trace(resolve(model), recipe(4, size, precision="bf16", recompute=recompute))
        peaks.append(held(step, framework_bytes=0, slack=0).total)
    assert peaks[1] <= peaks[0] + max(block.carried for block in step.blocks)
