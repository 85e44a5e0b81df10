"""Where groups lie: node borders, slices of a torus, defaults that are said."""

import numpy as np
import pytest

from roofcast import hwdb
from roofcast.simulator.parallel.fabric import groups, placed
from roofcast.simulator.parallel.networks import fabric_of, slice_of


def of(name: str, devices: int, system: str | None = None):
    return fabric_of(hwdb.system(system) if system else None, hwdb.device(name), devices)


H100 = of("h100-sxm5", 512, "dgx-h100")


@pytest.mark.parametrize(
    "size, stride, members, nodes",
    [
        (8, 1, 8, 1),
        (16, 1, 8, 2),
        (2, 4, 2, 1),
        (64, 8, 1, 64),
        (16, 2, 4, 4),
        (4, 64, 1, 4),
        (1, 1, 1, 1),
    ],
)
def test_a_group_is_counted_by_node(size, stride, members, nodes):
    group = placed(size, stride, H100)
    assert (group.members, group.nodes) == (members, nodes)


def test_groups_broadcast_over_layouts():
    tp, dp = np.array([1.0, 2.0, 8.0]), np.array([512.0, 128.0, 8.0])
    every = groups(H100, tp, 1, dp, 512 / (tp * dp), ep=np.minimum(dp, 8.0))
    assert every.tensor.members.tolist() == [1, 2, 8]
    assert every.data.nodes.tolist() == [64, 32, 8]
    assert every.pipeline.nodes.tolist() == [1, 2, 8]
    one = groups(H100, 2.0, 1, 128.0, 2.0, ep=8.0)
    for many, alone in zip(every, one, strict=True):
        assert many.members[1] == alone.members and many.nodes[1] == alone.nodes


def test_a_device_without_a_system_gets_its_makers_nodes_and_says_so():
    fabric = of("h100-sxm5", 512)
    assert [level.size for level in fabric.levels] == [8, 512]
    assert [level.bandwidth for level in fabric.levels] == [450e9, 50e9]
    assert "DGX H100" in fabric.assumptions[0]
    assert of("h100-sxm5", 1).assumptions == ()


@pytest.mark.parametrize(
    "name, nic",
    [("a100-sxm4-80gb", 25e9), ("h100-sxm5", 50e9), ("b200-sxm", 50e9), ("v100-sxm2-16gb", 6.25e9)],
)
def test_the_part_of_the_nics_a_device_has(name, nic):
    assert of(name, 64).levels[-1].bandwidth == nic


def test_a_rack_that_does_not_divide_is_used_by_powers_of_two():
    fabric = of("gb200", 256)
    assert fabric.levels[0].size == 64 and any(
        "64 of the 72" in words for words in fabric.assumptions
    )
    assert of("gb200", 144).levels[0].size == 72


def test_a_faster_link_of_an_imagined_device_is_taken():
    device = hwdb.device("h100-sxm5", {"scale_up.bandwidth": "900 GB/s"})
    assert fabric_of(None, device, 16).levels[0].bandwidth == 900e9


def test_boards_without_fast_links_share_a_host():
    fabric = of("l40s", 16)
    assert [(level.topology, level.size) for level in fabric.levels] == [
        ("bus", 8),
        ("network", 16),
    ]
    assert [level.topology for level in of("rtx-3090", 8).levels] == ["switch", "bus", "network"]


def test_slices_of_a_torus_join_their_ends_where_the_machine_does():
    assert slice_of(512, "3D torus 16x16x16") == ((8, True), (8, True), (8, True))
    assert slice_of(16, "2D torus 16x16") == ((4, False), (4, False))
    assert slice_of(256, "2D torus 16x16") == ((16, True), (16, True))


@pytest.mark.parametrize("name", hwdb.devices())
@pytest.mark.parametrize("devices", [1, 8, 96, 512])
def test_every_device_has_a_fabric(name, devices):
    fabric = of(name, devices)
    assert fabric.levels and fabric.levels[-1].size >= devices
    assert all(level.bandwidth > 0 and level.size >= 1 for level in fabric.levels)
    sizes = [level.size for level in fabric.levels]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("name", hwdb.systems())
def test_every_system_has_a_fabric(name):
    system = hwdb.system(name)
    for devices in (1, 2, int(system.count), 4 * int(system.count)):
        fabric = fabric_of(system, hwdb.device(system.device), devices)
        assert fabric.levels and fabric.levels[-1].size >= devices
