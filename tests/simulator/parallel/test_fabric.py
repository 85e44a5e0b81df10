"""The network between devices: process groups on nodes, torus slices, and listed defaults."""

import numpy as np
import pytest
from looped import each

from roofcast import hwdb
from roofcast.simulator.parallel.fabric import groups, placed
from roofcast.simulator.parallel.networks import fabric_of, slice_of


def of(name: str, devices: int, system: str | None = None):
    """The network between `devices` devices, in a named system or the usual one of the device."""
    return fabric_of(hwdb.system(system) if system else None, hwdb.device(name), devices)


H100 = of("h100-sxm5", 512, "dgx-h100")


ON_NODES_OF_EIGHT = [  # size, stride, members per node, nodes
    (8, 1, 8, 1), (16, 1, 8, 2), (2, 4, 2, 1), (64, 8, 1, 64), (16, 2, 4, 4), (4, 64, 1, 4),
    (1, 1, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("size, stride, members, nodes", ON_NODES_OF_EIGHT)
def test_members_per_node_and_nodes_follow_from_size_and_stride_of_a_group(
    size, stride, members, nodes
):
    group = placed(size, stride, H100)
    assert (group.members, group.nodes) == (members, nodes)


def test_groups_of_many_layouts_at_once_equal_those_of_each_layout():
    tp, dp = np.array([1.0, 2.0, 8.0]), np.array([512.0, 128.0, 8.0])
    columns = groups(H100, tp, 1, dp, 512 / (tp * dp), ep=np.minimum(dp, 8.0))
    assert columns.tensor.members.tolist() == [1, 2, 8]
    assert columns.data.nodes.tolist() == [64, 32, 8]
    assert columns.pipeline.nodes.tolist() == [1, 2, 8]
    one = groups(H100, 2.0, 1, 128.0, 2.0, ep=8.0)
    for many, alone in zip(columns, one, strict=True):
        assert many.members[1] == alone.members and many.nodes[1] == alone.nodes


def test_a_device_without_a_system_gets_its_vendors_nodes_as_a_listed_assumption():
    fabric = of("h100-sxm5", 512)
    assert [level.size for level in fabric.levels] == [8, 512]
    assert [level.bandwidth for level in fabric.levels] == [450e9, 50e9]
    assert "DGX H100" in fabric.assumptions[0]
    assert of("h100-sxm5", 1).assumptions == ()


@pytest.mark.parametrize(
    "name, nic",
    [("a100-sxm4-80gb", 25e9), ("h100-sxm5", 50e9), ("b200-sxm", 50e9), ("v100-sxm2-16gb", 6.25e9)],
)
def test_network_bandwidth_per_device_is_its_share_of_the_nodes_nics(name, nic):
    assert of(name, 64).levels[-1].bandwidth == nic


def test_if_devices_do_not_fill_whole_racks_a_power_of_two_of_each_rack_is_used():
    fabric = of("gb200", 256)
    assert fabric.levels[0].size == 64
    assert any("64 of the 72" in text for text in fabric.assumptions)
    assert of("gb200", 144).levels[0].size == 72


def test_an_edited_link_bandwidth_of_a_device_replaces_that_of_its_system():
    device = hwdb.device("h100-sxm5", {"scale_up.bandwidth": "900 GB/s"})
    assert fabric_of(None, device, 16).levels[0].bandwidth == 900e9


@pytest.mark.parametrize(("name", "bandwidth"), [("h800-sxm5", 200e9), ("a800-sxm4-80gb", 200e9)])
def test_a_device_with_slower_links_than_its_systems_usual_device_has_its_own(name, bandwidth):
    assert of(name, 16).levels[0].bandwidth == bandwidth


@pytest.mark.parametrize("name", ["gaudi2", "a800-sxm4-80gb", "h100-sxm5"])
def test_an_edit_of_something_else_leaves_the_links_alone(name):
    edited = hwdb.device(name, {"memory.capacity": "x2"})
    assert fabric_of(None, edited, 16).levels == of(name, 16).levels


@pytest.mark.parametrize("name", ["gaudi2", "h100-sxm5", "h800-sxm5", "mi300x"])
def test_doubled_links_of_a_device_are_twice_those_of_its_node(name):
    """Of 24 ports of a Gaudi 2, 21 lead to its neighbours: of a faster one too."""
    edited = hwdb.device(name, {"scale_up.bandwidth": "x2"})
    before, after = of(name, 8).levels[0], fabric_of(None, edited, 8).levels[0]
    assert after.bandwidth == pytest.approx(2 * before.bandwidth)


def test_boards_without_nvlink_are_connected_by_the_pcie_bus_of_a_host():
    levels = [(level.topology, level.size) for level in of("l40s", 16).levels]
    assert levels == [("bus", 8), ("network", 16)]
    assert [level.topology for level in of("rtx-3090", 8).levels] == ["switch", "bus", "network"]


def test_axes_of_a_torus_slice_are_closed_where_the_pod_closes_them():
    assert slice_of(512, "3D torus 16x16x16") == ((8, True), (8, True), (8, True))
    assert slice_of(16, "2D torus 16x16") == ((4, False), (4, False))
    assert slice_of(256, "2D torus 16x16") == ((16, True), (16, True))


@pytest.mark.parametrize("devices", [1, 8, 96, 512])
@each("name", hwdb.devices())
def test_every_device_has_a_network_that_reaches_all_devices(name, devices):
    fabric = of(name, devices)
    assert fabric.levels and fabric.levels[-1].size >= devices
    assert all(level.bandwidth > 0 and level.size >= 1 for level in fabric.levels)
    sizes = [level.size for level in fabric.levels]
    assert sizes == sorted(sizes)


@each("name", hwdb.systems())
def test_every_system_has_a_network_that_reaches_all_devices(name):
    system = hwdb.system(name)
    for devices in (1, 2, int(system.count), 4 * int(system.count)):
        fabric = fabric_of(system, hwdb.device(system.device), devices)
        assert fabric.levels and fabric.levels[-1].size >= devices
