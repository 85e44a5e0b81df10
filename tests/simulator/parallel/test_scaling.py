"""How a step under ZeRO-3 changes with the number of devices, the work of each being the same."""

import numpy as np
import pytest

from roofcast import predict
from roofcast.hwdb.collective_constants import collectives
from roofcast.hwdb.lookup import device
from roofcast.simulator.parallel.collectives import all_gather, all_reduce
from roofcast.simulator.parallel.fabric import placed
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.parallel.traffic import beside, joined, largest_of, sharded_pass

C = collectives()
DEVICES = (8, 16, 32, 64, 256, 1024, 8192)
ASKED = [
    {"model": "llama-2-7b", "device": "h100-sxm5", "sequence": 4096},
    {"model": "llama-2-7b", "device": "a100-sxm4-80gb", "stack": "fsdp-eager", "sequence": 2048},
    {"model": "llama-3-8b", "device": "h100-sxm5", "stack": "fsdp-torchtitan", "sequence": 8192},
    {
        "model": "gpt2-xl",
        "device": "mi300x",
        "stack": "pytorch-eager",
        "sequence": 1024,
        "micro_batch": 8,
    },
    {"model": "llama-65b", "device": "b200-sxm", "stack": "te-nemo-2024", "sequence": 2048},
    {
        "model": "bert-large",
        "device": "v100-sxm2-32gb",
        "precision": "fp16",
        "sequence": 512,
        "micro_batch": 16,
    },
]


def weak(zero, **asked):
    """Forecasts on ever more devices, one micro-batch on each."""
    each = asked.pop("micro_batch", 1)
    return [predict(**asked, dp=n, zero=zero, micro_batch=each, batch=each * n) for n in DEVICES]


# ---------------------------------------------------------------- collectives between nodes
def test_a_gather_over_nodes_is_one_ring_of_all_ranks():
    """2047 steps, 255 of them over the network (NVIDIA/nccl, src/graph/tuning.cc); an all-reduce
    can take a tree.
    """
    fabric = fabric_of(None, device("h100-sxm5"), 2048)
    group, near, far = placed(2048, 1, fabric), C.networks["hopper"], C.networks["network"]
    least = near.start + 255 * far.hop + (2047 - 255) * near.hop
    assert all_gather(1.0, group, fabric, C) == pytest.approx(least, rel=1e-2)
    assert all_reduce(1.0, group, fabric, C) < least / 10


def test_nearly_all_of_a_gather_between_two_nodes_crosses_the_network():
    """15/16 of it, through 8 NICs of 50 GB/s of which 80 % are reached."""
    fabric = fabric_of(None, device("h100-sxm5"), 16)
    size = 32e9
    network = size * 15 / 16 / 8 / (0.8 * 50e9)
    assert all_gather(size, placed(16, 1, fabric), fabric, C) == pytest.approx(network, rel=0.02)


# ---------------------------------------------------------------- how a layer hides its exchange
def test_traffic_takes_from_the_compute_that_it_hides_behind():
    assert beside(1.0, 0.5, 1e6, 0.2) == pytest.approx(1.1)
    assert beside(1.0, 3.0, 1e6, 0.2) == pytest.approx(3.0)
    assert beside(1.0, 0.5, 1.0, 0.2) == joined(1.0, 0.5, 1.0) == 1.5  # nothing is hidden


def test_the_first_gather_and_the_last_scatter_hide_behind_nothing(place):
    at = place(**ASKED[0], dp=8, zero=3, micro_batch=1, batch=8).at
    steady = float(sharded_pass(at, 1.0, 0.2, 0.0, 0, "forward"))
    first = float(sharded_pass(at, 1.0, 0.2, 0.0, 32, "forward"))
    assert 32 * (first - steady) == pytest.approx(0.2 + 1.0 - steady)

    def backward(gather, scatter, first):
        return float(sharded_pass(at, 1.0, gather, scatter, first, "backward"))

    more = backward(0.2, 0.4, 32) - backward(0.2, 0.4, 0)
    assert 32 * more == pytest.approx(backward(0.2, 0.0, 0) + 0.4 - backward(0.6, 0.0, 0))
    # frozen weights have no gradients: their gather is not the last send of the backward
    assert backward(0.2, 0.0, 32) == backward(0.2, 0.0, 0)


def test_the_slowest_of_many_nodes_is_the_largest_of_as_many_normal_numbers():
    """Expected values from tables: 1 / sqrt(pi) for 2, then 1.0294, 1.4236, 2.7."""
    expected = {1: 0.0, 2: np.pi**-0.5, 4: 1.0294, 8: 1.4236, 16: 1.766}
    for n, largest in expected.items():
        assert float(largest_of(n)) == pytest.approx(largest, abs=0.03)


# ---------------------------------------------------------------- laws of whole steps
@pytest.mark.parametrize("asked", ASKED, ids=lambda a: f"{a['model']}-{a['device']}")
def test_under_zero_3_more_devices_never_make_a_step_of_the_same_work_faster(asked):
    """Except for the update, of which each rank does a smaller part."""
    forecasts = weak(3, **asked)
    times = [f.step_time_s - f.update_s for f in forecasts]
    assert times == sorted(times)
    assert forecasts[-1].tokens_per_s_per_device < 0.9 * forecasts[0].tokens_per_s_per_device


@pytest.mark.parametrize("asked", ASKED, ids=lambda a: f"{a['model']}-{a['device']}")
def test_zero_3_gains_at_most_what_zero_1_leaves_exposed(asked):
    """It sends half as much more, in every layer, where compute may hide it."""
    for one, three in zip(weak(1, **asked), weak(3, **asked), strict=True):
        assert three.step_time_s >= one.step_time_s - one.exposed_communication_s["data"]
