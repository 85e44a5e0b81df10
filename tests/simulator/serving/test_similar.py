"""The measured servers most like a forecast one."""

import numpy as np
import pytest

from roofcast.reports.pages.serving_nearest import words
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.chain import replica, serve
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.similar import bits_of, distance, shipped, similar, size_of


def server_of(model, device, **words):
    load = Load(kind="concurrency", amount=8, input_len=1024, output_len=256)
    return replica(Serving(model=model, device=device, load=load, **words)).server, load


def test_every_series_is_of_a_shipped_device_and_has_an_error():
    near, text, number = shipped()
    assert len(near) > 300 and sum(n.runs for n in near) > 5000
    assert all(n.errors for n in near)
    assert {n.source for n in near if n.fitted} and {n.source for n in near if not n.fitted}
    assert (number["parameters"] > 1e8).all() and (number["bits"] > 2).all()
    assert set(text["load"]) <= {"batch", "concurrency", "rate", "offline"}


@pytest.mark.parametrize(
    ("model", "device", "words"),
    [
        ("llama-3.1-70b", "h200-sxm", {"tp": 2, "weights": "fp8", "stack": "trt-llm"}),
        ("deepseek-v3", "b200-sxm", {"tp": 8, "weights": "nvfp4", "stack": "sglang"}),
        ("gpt-oss-120b", "h100-sxm5", {"tp": 4, "stack": "vllm"}),
    ],
)
def test_a_server_that_was_measured_is_its_own_nearest(model, device, words):
    found = similar(*server_of(model, device, **words))
    first = found[0]
    assert (first.model, first.device) == (model, device)
    assert first.stack.startswith(words["stack"]) and first.devices == words.get("tp", 1)
    assert len({(n.source, n.model) for n in found}) == len(found) == 3


def test_distance_grows_with_each_difference():
    """A series that differs in one more trait is farther."""
    server, load = server_of("llama-3.1-70b", "h200-sxm", tp=2, weights="fp8", stack="trt-llm")
    _, text, number = shipped()
    i = int(np.argmin(distance(server, load, text, number)))
    one = {k: v[i : i + 1].copy() for k, v in text.items()}
    numbers = {k: v[i : i + 1].copy() for k, v in number.items()}
    least = distance(server, load, one, numbers)[0]
    changes = {
        "model": "another", "device": "b200-sxm", "stack": "vllm", "load": "offline",
    }  # fmt: skip
    for name, value in changes.items():
        other = {k: np.array([value], dtype=object) if k == name else v for k, v in one.items()}
        if name == "stack":
            other["program"] = np.array(["vllm"], dtype=object)
        assert distance(server, load, other, numbers)[0] > least, name
    for name in ("replica", "bits", "least", "prompt_least"):
        far = numbers | {name: 8.0 * np.maximum(numbers[name], 1.0)}
        far |= {"most": far["least"], "prompt_most": far["prompt_least"]}
        if name in ("least", "prompt_least"):
            far[name] = far[name] + 1e6
            far[name.replace("least", "most")] = far[name]
        assert distance(server, load, one, far)[0] > least, name


def test_sizes_do_not_depend_on_the_layout():
    one, _ = server_of("llama-3.1-70b", "h200-sxm", tp=1, weights="fp8")
    many, _ = server_of("llama-3.1-70b", "h200-sxm", tp=8, weights="fp8")
    assert size_of(one)[0] == pytest.approx(70.55e9, rel=0.01)
    assert size_of(many)[0] == pytest.approx(size_of(one)[0], rel=0.01)
    assert bits_of(many) == pytest.approx(bits_of(one), rel=0.02) and 8 < bits_of(one) < 9
    assert size_of(server_of("gpt-oss-120b", "h100-sxm5")[0])[1] and not size_of(one)[1]


def test_hypothetical_devices_have_the_series_of_what_they_were_made_from():
    load = Load(kind="concurrency", amount=8, input_len=1024, output_len=256)
    asked = dict(model="llama-3-8b", device="h100-sxm5", load=load)
    edited = serve(Serving(**asked, set={"memory.bandwidth": "x4"}))
    assert edited.nearest == serve(Serving(**asked)).nearest
    assert serve(Serving(**asked), replays=None).nearest == ()


def test_a_series_in_words():
    text = words(shipped().near[0])
    assert "(AWS Neuron benchmarks; " in text and "runs): forecasts of " in text
    assert "in the median" in text and "fitted" not in text
    assert all(f"{n.model}, {n.weights} weights" in words(n) for n in shipped().near)
