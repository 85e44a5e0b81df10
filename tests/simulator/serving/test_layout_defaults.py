"""What is decided where no layout is given, and software on devices that it is not for."""

import pytest

from roofcast.hwdb import device
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.serving.asked import Serving, degrees
from roofcast.simulator.serving.chain import replica
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.profiles import elsewhere, names, profile
from roofcast.simulator.serving.search import search


def of(**given):
    plain = {"model": "llama-3.1-8b", "device": "l40s", "load": Load(kind="offline")}
    return Serving(**(plain | given))


@pytest.mark.parametrize(
    ("given", "cut"),
    [
        ({"devices": 2}, (1, 2, 1)),
        ({"devices": 64}, (1, 32, 2)),  # 32 layers
        ({"devices": 6, "dp": 3}, (1, 2, 3)),
        ({"devices": 2, "tp": 2}, (2, 1, 1)),
        ({"devices": 4, "pp": 2}, (2, 2, 1)),
        ({}, (1, 1, 1)),
    ],
)
def test_software_that_cuts_by_layer_makes_stages_where_no_layout_is_given(given, cut):
    found = degrees(of(stack="llama.cpp", **given))
    assert (found.tp, found.pp, found.replicas) == cut
    assert degrees(of(stack="vllm", devices=2)).tp == 2


def test_degrees_that_cannot_be_are_told_by_the_model():
    for given, why in (
        ({"pp": 64}, "more stages than the 32 layers of llama-3.1-8b"),
        ({"tp": 3}, "does not divide the 32 attention heads of llama-3.1-8b; use 1, 2, 4"),
    ):
        with pytest.raises(BadInput, match=why):
            replica(of(**given))
    with pytest.raises(BadInput, match="ep 2: llama-3.1-8b has no experts"):
        search(of(devices=4, ep=2), ["l40s"])


@pytest.mark.parametrize(
    ("stack", "on", "fits"),
    [
        ("llama.cpp", "m2-ultra", "--stack llama.cpp-metal is"),
        ("llama.cpp", "mi300x", "--stack llama.cpp-rocm is"),
        ("llama.cpp", "epyc-9654", "--stack llama.cpp-cpu is"),
        ("llama.cpp-metal", "l40s", "--stack llama.cpp is"),
        ("trt-llm", "mi300x", "--stack vllm is"),
        ("vllm", "m2-ultra", "--stack llama.cpp-metal is"),
        ("vllm", "wse-3", "not for devices of Cerebras"),
        ("vllm", "gaudi3", ""),
        ("llama.cpp-vulkan", "arc-b580", ""),
    ],
)
def test_software_says_where_it_does_not_run(stack, on, fits):
    said = " ".join(elsewhere(profile(stack), device(on)))
    assert (fits in said) if fits else not said


def test_makers_of_profiles_are_makers_of_devices():
    from roofcast import hwdb

    known = {hwdb.device(name).vendor for name in hwdb.devices()} | {"cpu"}
    assert all(set(profile(name).makers) <= known for name in names())
