"""A device with a scenario on it, as one of those that are chosen from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from roofcast.simulator.choose.floors import Floor
from roofcast.simulator.choose.offers import Offer
from roofcast.simulator.choose.space import Space
from roofcast.simulator.forecast.resolve import Named
from roofcast.simulator.forecast.scenario import Scenario


class Kind(NamedTuple):
    """One kind of device, ready to be searched."""

    offer: Offer
    names: Named
    scenario: Scenario  # on this device, with its batch
    floor: Floor
    space: Space
    counts: tuple[int, ...]


def by_memory(kinds: Iterable[Kind]) -> Iterator[Kind]:
    """Those with the most memory first, of equal ones those with a price, then the fastest."""

    def memory(kind: Kind) -> tuple[float, bool]:
        return -float(kind.names.device.memory.limit or 0.0), kind.offer.rent is None

    for _, equal in groupby(sorted(kinds, key=memory), memory):
        some = list(equal)
        yield from some if len(some) == 1 else sorted(some, key=lambda k: k.floor.run_s(1))
