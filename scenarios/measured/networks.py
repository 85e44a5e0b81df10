"""The network of a measured training run, from the words that a table has for it."""

from __future__ import annotations

import re

import msgspec

from roofcast import hwdb
from roofcast.hwdb.records import System
from roofcast.scenarios.measured.architectures import names
from roofcast.scenarios.measured.cells import Row, first_match, number, text
from roofcast.simulator.parallel.networks import REFERENCE

GBIT = {"edr": 100, "hdr": 200, "ndr": 400, "xdr": 800}  # InfiniBand generation -> Gbit/s of a port
RATE = r"\s*gb(?:ps|it/s|/s)?\D*?(?:per|/|a)\s*"  # "400 Gb/s per" or "400Gbps/"
# the patterns that _part_rate tries, in this order
SEVERAL_NAMED = re.compile(r"(\d+)\s*x\D*(edr|hdr|ndr|xdr)")  # "8x HDR200"
SEVERAL = re.compile(r"(\d+)\s*x.*?(\d{2,4})\s*g(?:b|ig)")  # "4x OmniPath 100 Gb/s"
PER_DEVICE = re.compile(rf"(\d{{2,4}}){RATE}(?:gpu|device|chip|accelerator)")
PER_NODE = re.compile(rf"(\d{{2,5}})(?:/\d+)?{RATE}(?:node|server|host|instance)")
EFA = re.compile(r"efa\s*(\d{2,5})")  # AWS prints the rate of an instance


def system_of(row: Row, device: str) -> str | System | None:
    """The node or pod that a row ran on; None: the usual system of the device.

    The `system` column or a known network gives a name of hwdb. Otherwise it is the device's usual
    system, with its network cards at the rate that the row states where that differs by 10 % or
    more.
    """
    if text(row, "system"):
        return text(row, "system")
    columns = ("intra_interconnect", "inter_interconnect", "device")
    known = first_match(" ".join(text(row, column) for column in columns), names().systems)
    if known:
        return known
    usual = REFERENCE.get(device)
    if usual is None:
        return None
    system = hwdb.system(usual)
    if not system.nics or device.startswith("tpu"):
        return None
    node = number(row, "node_size") or int(system.count)
    members = int(system.count) if node > system.count else node
    stated = nic_bytes(text(row, "inter_interconnect"), members)
    usual_rate = float(system.nics.count * system.nics.bandwidth)
    if stated is None or 0.9 < stated / usual_rate < 1.1:
        return None
    bandwidth = hwdb.Figure(stated / float(system.nics.count), system.nics.bandwidth.source)
    nics = msgspec.structs.replace(system.nics, bandwidth=bandwidth)
    return msgspec.structs.replace(system, nics=nics)


def nic_bytes(words: str, node: int) -> float | None:
    """Bandwidth out of a node of `node` devices [B/s], from a table's words for its network.

    None where the words state no rate. Storage and management networks do not count.

    >>> nic_bytes("8x HDR200 InfiniBand (Selene)", 8) / 1e9, nic_bytes("InfiniBand", 8)
    (200.0, None)
    >>> nic_bytes("1600Gbps RoCE per node", 8) / 1e9
    200.0
    """
    rates = [
        _part_rate(part, node)
        for part in re.split(r"[,;]", words.lower())
        if "storage" not in part and "management" not in part
    ]
    return max((rate for rate in rates if rate), default=None)


def _part_rate(words: str, node: int) -> float | None:
    """Bandwidth of one kind of card [B/s]: a number of cards, a rate per device or per node."""
    if found := SEVERAL_NAMED.search(words):
        return int(found[1]) * GBIT[found[2]] / 8 * 1e9
    if found := SEVERAL.search(words):
        return int(found[1]) * float(found[2]) / 8 * 1e9
    if found := PER_DEVICE.search(words):
        return node * float(found[1]) / 8 * 1e9
    found = PER_NODE.search(words) or EFA.search(words)
    return float(found[1]) / 8 * 1e9 if found else None
