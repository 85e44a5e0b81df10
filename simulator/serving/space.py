"""The layouts of a server that a search considers: tensor, pipeline and expert parallel degrees,
data-parallel attention, replicas, formats of weights and cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import msgspec

from roofcast.hwdb.errors import BadInput, number_of
from roofcast.hwdb.records import Device
from roofcast.simulator.parallel.layout import divisors
from roofcast.simulator.serving.asked import Serving, check_heads, software
from roofcast.simulator.serving.formats import served
from roofcast.simulator.serving.traces import traced
from roofcast.simulator.work.generation import Formats
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.traced import ALONE

ANY = "any"
WEIGHTS = ("bf16", "fp8", "int4")  # of "any"
CACHES = ("bf16", "fp8")
LEFT_OUT = (
    "experts either all on every rank's share of tensors (ep 1) or spread over all ranks of a"
    " stage; --ep gives another",
    "replicas of different layouts",
)
MOST = 20_000  # layouts of one search


class Shape(NamedTuple):
    """Degrees of one replica, and the number of replicas."""

    tp: int
    pp: int
    dp: int  # data-parallel attention
    ep: int
    replicas: int


def has_experts(model: Model) -> bool:
    """Whether some layers of a model have experts. Raises BadInput for one that does not generate
    text.
    """
    if model.takes != "sequence":
        raise BadInput(f"{model.name} does not generate text; give a language model")
    return any(w.expert for w in traced(model, "decode", Formats("bf16"), ALONE).weights)


def shapes(asked: Serving, devices: int, experts: bool) -> list[Shape]:
    """Every way to divide so many devices; degrees that are asked for hold for all."""
    found = []
    for tp in _of(asked.tp, devices):
        for pp in _of(asked.pp, devices // tp):
            left = devices // (tp * pp)
            for dp in divisors(left) if experts else [1]:
                for ep in _experts(asked.ep, tp * dp, experts):
                    if dp > 1 and ep == 1:
                        continue
                    replicas = left // dp
                    if asked.dp in (None, dp if ep > 1 else replicas):
                        found.append(Shape(tp, pp, dp, ep, replicas))
    return found


def _of(given: int | None, number: int) -> list[int]:
    """Degrees of a number of devices: its divisors, of those the one that is given."""
    return [d for d in divisors(number) if given in (None, d)]


def _experts(given: int | None, ranks: int, experts: bool) -> list[int]:
    if given is not None:
        return [given]
    return [1, ranks] if experts and ranks > 1 else [1]


def formats(given: str | None, of_any: Sequence[str]) -> tuple[str | None, ...]:
    """Formats from what is asked: one, several with commas, or any.

    >>> formats("fp8,int4", WEIGHTS), formats("any", CACHES), formats(None, CACHES)
    (('fp8', 'int4'), ('bf16', 'fp8'), (None,))
    """
    if given is None:
        return (None,)
    names = [name.strip() for name in given.split(",")]
    if not all(names):
        raise BadInput(f"formats {given!r}: give names with commas between, such as bf16,fp8")
    every = [each for name in names for each in (of_any if name.lower() == ANY else (name,))]
    return tuple(dict.fromkeys(every))


def check_formats(asked: Serving, device: Device) -> None:
    """Raises BadInput for a format that nobody serves."""
    for weights, kv in product(formats(asked.weights, WEIGHTS), formats(asked.kv, CACHES)):
        served(weights, kv, device)


def candidates(asked: Serving, model: Model, devices: int) -> list[Serving]:
    """What is asked, once for each layout and format. Raises BadInput where there is none, or where
    there are more than MOST.
    """
    experts = has_experts(model)
    if asked.ep is not None and asked.ep > 1 and not experts:
        raise BadInput(f"ep {asked.ep}: {model.name} has no experts; leave ep out")
    check_heads(model, asked.tp or 1, software(asked))
    ways = shapes(asked, devices, experts)
    if not ways:
        given = [
            f"{name} {value}"
            for name in ("tp", "pp", "ep", "dp")
            if (value := getattr(asked, name))
        ]
        many = number_of(devices, "device")
        raise BadInput(f"{', '.join(given)}: no layout of {many} has that")
    kinds = list(product(formats(asked.weights, WEIGHTS), formats(asked.kv, CACHES)))
    if len(ways) * len(kinds) > MOST:
        raise BadInput(
            f"{len(ways) * len(kinds):,} layouts: more than {MOST:,}; give degrees, or fewer"
            " formats"
        )
    return [
        msgspec.structs.replace(
            asked,
            devices=devices,
            tp=way.tp,
            pp=way.pp,
            ep=way.ep if way.ep > 1 else None,
            dp=way.dp if way.dp > 1 else None,
            weights=weights,
            kv=kv,
        )
        for way in ways
        for weights, kv in kinds
    ]
