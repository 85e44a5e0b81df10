"""Memory over a step: PyTorch's own peaks, and laws."""

import csv
from pathlib import Path

import pytest

from roofcast import Scenario, largest_batch, predict
from roofcast.simulator.memory import held
from roofcast.simulator.models import resolve
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.step import Recipe, trace

PEAKS = list(
    csv.DictReader(
        line
        for line in (Path(__file__).parent / "oracle" / "peaks.csv").read_text().splitlines()
        if line[0] != "#"
    )
)


@pytest.mark.parametrize(
    "row",
    PEAKS,
    ids=lambda r: f"{r['name']}-{r['batch']}x{r['size']}-{r['precision']}-{r['attention']}",
)
def test_peak_is_pytorchs(row):
    """Within 6.5 %, never under: a unit's largest tensors are taken to be alive when its backward
    starts.
    """
    recipe = Recipe(
        mode="train",
        batch=int(row["batch"]),
        size=int(row["size"]),
        precision=row["precision"],
        optimizer=None,
        recompute="none",
        stack=stack("pytorch-eager").changed(row["attention"], None),
    )
    step = trace(resolve(row["name"]), recipe)
    at_peak = held(step, framework_bytes=0, slack=0)
    ratio = (at_peak.total - at_peak.parameters - step.input_bytes) / float(row["peak_bytes"])
    assert 0.999 < ratio < 1.065


def memory(**changes):
    return predict(
        **{"model": "llama-3-8b", "device": "h100-sxm5", "batch": 1, "sequence": 2048, **changes}
    ).memory


def test_states_of_a_pure_bf16_adamw_step_are_eight_bytes_a_parameter():
    m = memory()
    n = 8_030_261_248
    assert (m.parameters_bytes, m.optimizer_bytes) == (2 * n, 4 * n)


def test_amp_keeps_weights_and_states_in_fp32():
    m = memory(precision="amp-bf16")
    assert (m.parameters_bytes, m.optimizer_bytes) == (4 * 8_030_261_248, 8 * 8_030_261_248)


def test_kinds_sum_to_the_peak():
    m = memory(batch=4)
    kinds = (
        m.parameters_bytes
        + m.gradients_bytes
        + m.optimizer_bytes
        + m.activations_bytes
        + m.transient_bytes
        + m.framework_bytes
    )
    assert kinds == pytest.approx(m.peak_bytes)


def test_each_recomputation_keeps_less_than_the_one_before():
    kept = [
        memory(attention="eager", recompute=r, batch=4).activations_bytes
        for r in ("none", "selective", "full")
    ]
    assert kept[0] > kept[1] > kept[2]


def test_full_recomputation_keeps_the_input_of_each_block():
    recipe = Recipe(
        mode="train",
        batch=2,
        size=1024,
        precision="bf16",
        optimizer=None,
        recompute="full",
        stack=stack("pytorch-eager"),
    )
    step = trace(resolve("llama-3-8b"), recipe)
    handed = [s for s in step.saved if step.nodes[s.node].layer and s.kind == "activation"]
    assert sum(s.bytes * s.count for s in handed) == 32 * 2 * 1024 * 4096 * 2


def test_the_largest_batch_fits_and_the_next_does_not():
    scenario = Scenario(model="gpt2", device="rtx-3090", sequence=1024)
    n = largest_batch(scenario)
    assert n > 1
    fits = [
        predict(model="gpt2", device="rtx-3090", sequence=1024, batch=b).memory.fits
        for b in (n, n + 1)
    ]
    assert fits == [True, False]


def test_a_model_that_cannot_fit_has_no_largest_batch():
    assert largest_batch(Scenario(model="llama-3-8b", device="rtx-3090", precision="amp-bf16")) == 0


@pytest.mark.parametrize("model", ["gpt2", "resnet50"])
def test_memory_grows_with_the_batch_and_inference_needs_less(model):
    peaks = [predict(model=model, device="h100-sxm5", batch=b).memory.peak_bytes for b in (1, 2, 8)]
    assert peaks == sorted(peaks)
    assert (
        predict(model=model, device="h100-sxm5", batch=8, mode="infer").memory.peak_bytes
        < peaks[-1]
    )


def test_a_table_that_is_embedding_and_output_layer_has_a_gradient_more_of_each():
    """GPT-2's 50257 x 768 in fp32. At the start of the backward stands the output layer's gradient;
    at its end the embedding's too, and their sum, beside the gradients of all else: 2 tables more
    than the weights, where few activations are left.
    """
    recipe = Recipe(
        mode="train",
        batch=1,
        size=8,
        precision="fp32",
        optimizer=None,
        recompute="none",
        stack=stack("pytorch-eager"),
    )
    step = trace(resolve("gpt2"), recipe)
    fullest = held(step, framework_bytes=0, slack=0)
    assert fullest.gradients == step.gradient_bytes + 2 * 50257 * 768 * 4
    untied = trace(resolve("llama-3-8b"), recipe)
    assert held(untied, framework_bytes=0, slack=0).gradients == untied.gradient_bytes
