"""Memory that programs can allocate: a part of the capacity, which verdicts are made by."""

import pytest
from looped import each

from roofcast import hwdb, predict
from roofcast.hwdb.errors import BadInput

GIB = 2**30
ECC = 15 / 16  # of GDDR whose check bits lie in the same memory


@each("name", hwdb.devices())
def test_programs_can_allocate_most_of_the_capacity_and_no_more(name):
    device = hwdb.device(name)
    memory = device.memory
    if memory.usable is None:
        assert memory.limit == memory.capacity
    elif device.vendor == "Apple":  # macOS keeps a quarter of the memory that a GPU shares
        assert memory.limit == memory.usable == 0.75 * memory.capacity
    else:
        assert 0.9 * memory.capacity < memory.usable < memory.capacity
        assert memory.limit == memory.usable


@pytest.mark.parametrize("name", ["t4", "l4", "a10", "a10g", "a40", "l40", "l40s"])
def test_check_bits_of_gddr_are_not_for_programs(name):
    memory = hwdb.device(name).memory
    assert memory.usable < ECC * memory.capacity


def test_another_capacity_keeps_the_share_that_programs_can_allocate(tmp_path):
    own = tmp_path / "double.toml"
    own.write_text('base = "t4"\n[memory]\ncapacity = "32 GiB"\n')
    t4 = hwdb.device("t4").memory
    for memory in (hwdb.device("t4", {"memory.capacity": "x2"}).memory, hwdb.device(own).memory):
        assert memory.capacity == 32 * GIB
        assert memory.usable / memory.capacity == pytest.approx(t4.usable / t4.capacity)


def test_both_may_be_changed_but_not_to_more_than_there_is():
    changed = {"memory.capacity": "32 GiB", "memory.usable": "31 GiB"}
    assert hwdb.device("t4", changed).memory.limit == 31 * GIB
    with pytest.raises(BadInput, match=r"memory\.usable is more than memory\.capacity"):
        hwdb.device("t4", {"memory.usable": "17 GiB"})


def test_a_step_between_the_two_does_not_fit():
    t4 = hwdb.device("t4").memory
    batch = predict("resnet50", device="t4", batch=32).largest_batch
    most = predict("resnet50", device="t4", batch=batch)
    one_more = predict("resnet50", device="t4", batch=batch + 1)
    assert most.memory.fits and not one_more.memory.fits
    assert most.memory.peak_bytes <= t4.usable < one_more.memory.peak_bytes < t4.capacity
    assert (most.memory.capacity_bytes, most.memory.installed_bytes) == (t4.usable, t4.capacity)
