"""The cache of a prompt on its way from the pool that computed it to the pool that decodes.

Every rank that decodes receives what it holds of the sequence: heads that several ranks share, and
latents, come to each of them. The ranks of one instance send side by side, and so the slower side
sets the rate.

    wire = bytes / min(senders x send, receivers x receive)

What of it is exposed depends on the software: it sends behind the whole prompt (vLLM's NIXL
connector reads it then), behind each chunk (SGLang) or behind each layer. With n pieces, computed
in P seconds,

    exposed = start + wire / n + max(0, (n - 1) (wire / n - P / n))
"""

from __future__ import annotations

import math

from roofcast.hwdb.collective_constants import Collectives, collectives
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.answer import Replica
from roofcast.simulator.serving.capacity import BLOCK
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.protocol import Numbers
from roofcast.simulator.serving.server import Server

FAR = 100_000  # devices, which no node or rack joins


class Link(NamedTuple):
    """What joins the pools, per device and direction."""

    name: str
    send: float  # B/s that a device of the prefill pool reaches
    receive: float  # B/s that a device of the decode pool reaches
    start: float  # seconds of an empty message
    said: tuple[str, ...]


class Transfer(NamedTuple):
    """The cache of one prompt."""

    bytes: float  # to all ranks together
    wire: float  # seconds of its bytes, alone on the link
    start: float
    pieces: int  # in which it is sent
    each_sender: float  # seconds for which it holds the link of an instance, all its devices
    each_receiver: float

    def exposed(self, prefill_s: Numbers) -> Numbers:
        """Seconds behind the last pass of a prompt that takes `prefill_s`."""
        piece = self.wire / self.pieces
        hidden = prefill_s / self.pieces
        return self.start + piece + (self.pieces - 1) * _positive(piece - hidden)


def _positive(value: Numbers) -> Numbers:
    return (value + abs(value)) / 2.0


def between(prefill: Replica, decode: Replica, given: float | None = None) -> Link:
    """The link between two pools: the fast one that joins all their devices, where they are of one
    kind and there is one; else the network between nodes. given: another bandwidth per device and
    direction [B/s].
    """
    c = collectives()
    total = prefill.cut.devices + decode.cut.devices
    same = prefill.device == decode.device and prefill.asked.system == decode.asked.system
    if same and given is None:
        fabric = decode.server.fabric_of(total)
        inner = fabric.levels[0]
        if inner.size >= total and inner.topology != "network":
            share = (
                c.kinds.pair if inner.topology == "switch" else c.networks[inner.constants].share
            )
            speed = share * inner.bandwidth * _to_one(inner.topology, inner.size)
            start = c.networks[inner.constants].start
            said = f"the cache passes over the links of a {inner.name}, which joins both pools"
            return Link(inner.name, speed, speed, start, (_at(said, speed),))
    send, receive = (_far(one.server, c, given) for one in (prefill, decode))
    name = "the network between nodes" if given is None else "the link that is given"
    said = _at(f"the cache passes over {name}", min(send, receive))
    return Link(name, send, receive, c.kinds.pair_far_start, (said,))


def _at(said: str, speed: float) -> str:
    return f"{said}, {speed / 1e9:.4g} GB/s per device and direction as achieved"


def _to_one(topology: str, size: float) -> float:
    """Fraction of a device's bandwidth that leads to one other device."""
    return 1.0 / max(size - 1.0, 1.0) if topology == "mesh" else 1.0


def _far(server: Server, c: Collectives, given: float | None) -> float:
    """B/s of a device to another node."""
    bandwidth = server.fabric_of(FAR).levels[-1].bandwidth if given is None else given
    return float(c.kinds.pair_far * bandwidth)


def transfer(prefill: Server, decode: Server, link: Link, load: Load) -> Transfer:
    """The cache of a prompt of this load, in whole blocks."""
    tokens = BLOCK * math.ceil(load.input_len / BLOCK)
    d, p = decode.degrees, prefill.degrees
    receivers, senders = d.tp * d.pp, p.tp * p.pp
    bytes_ = receivers * float(decode.cache_bytes(tokens))
    speed = min(senders * link.send, receivers * link.receive)
    return Transfer(
        bytes_,
        bytes_ / speed,
        link.start,
        _pieces(prefill, load),
        bytes_ / (prefill.devices * link.send),
        bytes_ / (decode.devices * link.receive),
    )


def _pieces(prefill: Server, load: Load) -> int:
    """Pieces in which the cache is sent, one behind the other."""
    when = prefill.profile.transfer
    chunks = math.ceil(load.new / max(int(prefill.chunk_tokens), 1))
    if when == "prompt":
        return 1
    if when == "chunk":
        return chunks
    made = prefill.engines["prefill"].forward
    return chunks * max(sum(k.count for k in made.launches if k.kind == "cached_attention"), 1)
