"""What is asked of two pools: devices that compute prompts, and devices that decode."""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.answer import Replica
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.capacity import Room
from roofcast.simulator.serving.chain import held_of, replica
from roofcast.simulator.serving.likeness import Likeness
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.pools.transfer import Link, Transfer, between, transfer
from roofcast.simulator.serving.remember import Shared
from roofcast.simulator.work.model import Model

LOADS = ("concurrency", "rate", "offline", "trace")


class Pools(msgspec.Struct, frozen=True, kw_only=True):
    """A model whose prompts are computed on devices of their own (disaggregated serving).

    Both pools have the same model and load, that of all instances together. bandwidth: of the link
    between the pools, per device and direction [B/s]; None: that of the network between them.
    """

    prefill: Serving
    decode: Serving
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        load = self.decode.load
        if load.kind not in LOADS:
            raise BadInput(
                f"{load.kind}: a static batch is of one pool; give {', '.join(LOADS[:-1])} or"
                f" {LOADS[-1]} with two pools"
            )
        if load.output_len < 2 and load.kind != "trace":
            raise BadInput("output-len 1: the decode pool has nothing to do; give 2 or more")
        if self.bandwidth is not None and not 0 < self.bandwidth < 1e18:
            raise BadInput(
                f"transfer bandwidth {self.bandwidth:g} B/s: give one above 0, such as 50GB/s"
            )


class Pair(NamedTuple):
    """Both pools, laid out, and the link between them."""

    asked: Pools
    prefill: Replica  # an instance of each pool; cut.replicas: how many there are
    decode: Replica
    room: Room  # of a device that decodes
    passing: Room  # of a device that computes prompts
    link: Link
    sent: Transfer  # the cache of a prompt

    @property
    def load(self) -> Load:
        """The load of all instances together."""
        return self.asked.decode.load

    @property
    def devices(self) -> int:
        """Devices of both pools."""
        return self.prefill.cut.devices + self.decode.cut.devices

    @property
    def likeness(self) -> Likeness:
        """How far the pool is from measured servers that is farther."""
        return self.farther.server.likeness

    @property
    def farther(self) -> Replica:
        """An instance of that pool."""
        one, other = self.decode, self.prefill
        return one if one.server.likeness.rank >= other.server.likeness.rank else other


def pair(
    asked: Pools,
    model: Model | None = None,
    shared: tuple[Shared | None, Shared | None] = (None, None),
    longest: int | None = None,
) -> Pair:
    """Both pools. model, shared: as `chain.replica` takes them; longest: tokens of the longest
    request, of a trace. Raises BadInput for what cannot be, and says of which pool.
    """
    pools = []
    for name, one, engines in zip(
        ("prefill", "decode"), (asked.prefill, asked.decode), shared, strict=True
    ):
        try:
            of = replica(one, model, engines)
            pools.append((of, held_of(of, _load_of(name, one.load), longest)))
        except BadInput as error:
            raise BadInput(f"{name} pool: {error}") from None
    (prefill, passing), (decode, room) = pools
    need = longest or asked.decode.load.input_len + asked.decode.load.output_len
    if room.sequences(need) < 1:
        raise BadInput(f"decode pool: no room for the cache of one sequence of {need:,} tokens")
    link = between(prefill, decode, asked.bandwidth)
    sent = transfer(prefill.server, decode.server, link, asked.decode.load)
    return Pair(asked, prefill, decode, room, passing, link, sent)


def _load_of(name: str, load: Load) -> Load:
    """The load as the memory of a pool sees it: prompts alone, as a prompt leaves the prefill pool
    with its first token, or whole sequences.
    """
    return msgspec.structs.replace(load, output_len=1) if name == "prefill" else load
