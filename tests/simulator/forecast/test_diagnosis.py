"""The diagnosis names what costs most first, on one device and over several."""

import re

import pytest

from roofcast import predict

H100 = {"device": "h100-sxm5"}
CARDS = {"device": "rtx-4090", "batch": 8, "devices": 8}
CASES = {
    "network": {"model": "gpt2-xl", **CARDS, "sequence": 256},
    "sharded weights": {"model": "gpt2-xl", **CARDS, "zero": 3},
    "bubble": {"model": "llama-3-8b", **H100, "tp": 8, "pp": 8, "batch": 2},
    "compute": {"model": "llama-3-8b", **H100, "dp": 8, "batch": 16, "zero": 1},
    "optimizer": {"model": "llama-3-8b", **H100, "batch": 1, "sequence": 32},
    "small": {"model": "mlp", **H100, "batch": 8},
    "between steps": {"model": "resnet50", "device": "a100", "stack": "tensorflow", "batch": 2},
}  # fmt: skip
LEADING = {  # the largest loss of a case, which must come first
    "network": "lost to the reduction of gradients",
    "sharded weights": "lost to gathering sharded weights",
    "bubble": "lost to the pipeline bubble",
    "optimizer": "is the optimizer",
    "between steps": "is host time between steps",
}


@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_diagnosis_are_in_the_order_of_their_size(case):
    text = re.sub(r"\([^)]*\)", "", predict(**CASES[case]).diagnosis)
    parts = [float(p) for p in re.findall(r"(\d+) %(?: of the step)? (?:is|are)", text)]
    assert parts and parts == sorted(parts, reverse=True), text


@pytest.mark.parametrize("case", LEADING)
def test_the_largest_loss_comes_first(case):
    text = predict(**CASES[case]).diagnosis
    assert LEADING[case] in re.split(r"[;.] ", text)[0], text
    assert "bound by" in text and text.endswith(".")


def test_a_lesser_loss_comes_after_the_limit():
    text = predict("llama-3-8b", **H100, tp=8, batch=2).diagnosis
    assert text.index("bound by") < text.index("lost to")
