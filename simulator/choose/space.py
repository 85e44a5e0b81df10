"""The layouts that a model can have on so many devices: the grid of a search, and the variations
of a layout that the grid leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import msgspec

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.choices import CP_KINDS
from roofcast.simulator.choose.sieve import Traces, key_of
from roofcast.simulator.forecast.layouts import SHARED, UNCUT
from roofcast.simulator.forecast.lengths import at_longest
from roofcast.simulator.forecast.recipes import recipe_of
from roofcast.simulator.forecast.resolve import Named
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.layout import divisors
from roofcast.simulator.parallel.networks import fabric_of
from roofcast.simulator.work.step import Step, trace

Shape = dict[str, Any]  # options of a layout, as predict takes them

NARROW, WIDE = 8, 16  # largest tensor-parallel degree where links are slow, and where they are fast
TOKENS = 32768  # of a micro-batch, at most
IMAGES = 512  # samples of a micro-batch of other models, at most
PIECE = 4096  # tokens of a sample that context parallelism leaves a rank, at least
FEW_MICROS = 3
GROUPS = (4, 8, 16, 32, 64)  # sizes of a ZeRO sharding group, beside all ranks
FEW_EXPERTS = (1, 8, 64)  # degrees of expert parallelism of a coarse grid
FEW_STAGES = (1, 2, 4, 8, 16)
OFFLOADS: tuple[tuple[str, ...], ...] = (
    ("optimizer",), ("activations",), ("activations", "optimizer"),
)  # fmt: skip


class Space:
    """The layouts of a scenario's model on its device. What the scenario says of a layout holds for
    all of them.
    """

    def __init__(self, scenario: Scenario, names: Named, traces: Traces | None = None) -> None:
        self.scenario, self.names = scenario, names
        self.traces = Traces() if traces is None else traces  # of whole models, as floors.floor
        self.model = names.model
        self.trains = scenario.mode == "train"
        self.sequences = self.model.takes == "sequence"

    @cached_property
    def size(self) -> int:
        """Tokens of a sample, the longest."""
        return at_longest(self.scenario).sequence or self.model.size or 1

    @property
    def batch(self) -> int:
        """Global batch [samples]."""
        assert self.scenario.batch is not None, "a space is of a scenario with a batch"
        return self.scenario.batch

    @cached_property
    def layers(self) -> int:
        """Layers that a pipeline can be cut into; 1 where the model has none."""
        return max((b.count for b in self._traced.blocks), default=1)

    @cached_property
    def experts(self) -> bool:
        """Whether the model has experts."""
        return any(w.expert for w in self._traced.weights)

    @cached_property
    def parameters(self) -> float:
        """Parameters of the model."""
        return float(self._traced.parameters)

    @cached_property
    def _traced(self) -> Step:
        one = msgspec.structs.replace(self.scenario, batch=1, recompute="none", offload=())
        recipe, _ = recipe_of(one, self.model, self.names.device)
        key = self.names.device.kind, key_of(recipe)
        if key not in self.traces:
            self.traces[key] = trace(self.model, recipe)
        return self.traces[key]

    @cached_property
    def cut(self) -> bool:
        """Whether tensor and pipeline parallelism can cut the model."""
        return self.sequences and self.layers > 1

    def policies(self, few: bool = False) -> tuple[str, ...]:
        """Recompute policies."""
        if not self.trains:
            return ("none",)
        if self.scenario.recompute != "none":
            return (self.scenario.recompute,)
        if few:
            return ("none", "full")
        return ("none", "selective", "full") if self.cut else ("none", "full")

    def shapes(self, devices: int, few: bool = False) -> list[Shape]:
        """The grid: every tensor, pipeline, context and expert degree, ZeRO stage and micro-batch
        on so many devices, with defaults for the rest. few: powers of two, and no ZeRO 2.
        """
        found = []
        for tp, pp, cp, ep in self._degrees(devices, few):
            dp = devices // (tp * pp * cp)
            if self.batch % dp:
                continue
            micros = self._micros(self.batch // dp, few)
            for zero, micro in product(self._zeros(dp * cp, pp, few), micros):
                shape: Shape = {"devices": devices, "tp": tp, "pp": pp, "dp": dp, "cp": cp}
                shape |= {"zero": zero, "micro_batch": micro}
                if ep > 1:
                    shape["ep"] = ep
                found.append(shape)
        return [shape for shape in found if self._asked_for(shape)]

    def _asked_for(self, shape: Shape) -> bool:
        """Whether a shape is as the scenario says."""
        given = {n: getattr(self.scenario, n) for n in shape if n != "devices"}
        usual = (None, (), "none")
        return all(value in usual or shape[n] == value for n, value in given.items())

    def _degrees(self, devices: int, few: bool) -> Iterator[tuple[int, int, int, int]]:
        """tp, pp, cp, ep of the grid."""
        all_of = divisors(devices)
        tps = [d for d in all_of if d <= self.most_tensor] if self.cut else [1]
        if self.model.family in UNCUT:
            tps = [1]
        pps = [d for d in all_of if d <= self.layers]
        if not (self.cut and self.trains) or self.model.family in SHARED:
            pps = [1]
        if few:
            tps = [d for d in tps if d & (d - 1) == 0]
            pps = [d for d in pps if d in FEW_STAGES]
        cps = [d for d in all_of if d & (d - 1) == 0 and self.size // d >= PIECE]
        cps = (cps[::2] if few else cps) if self.cut else [1]
        given = self.scenario
        tps, pps = self._given(given.tp, tps), self._given(given.pp, pps)
        for tp, pp, cp in product(tps, pps, self._given(given.cp, cps or [1])):
            if devices % (tp * pp * cp):
                continue
            eps = [1]
            if self.experts:
                ranks = devices // pp
                eps = [d for d in divisors(ranks) if d & (d - 1) == 0 and d <= 64]
                eps = [d for d in eps if d in FEW_EXPERTS] if few else eps
            for ep in self._given(given.ep, eps):
                yield tp, pp, cp, ep

    @staticmethod
    def _given(value: int | None, usual: Sequence[int]) -> list[int]:
        return [value] if value is not None else list(usual)

    @cached_property
    def most_tensor(self) -> int:
        """The largest tensor-parallel degree of the grid: within the fastest links."""
        try:
            fabric = fabric_of(self.names.system, self.names.device, 64)
        except RoofcastError:
            return NARROW
        inner = fabric.levels[0] if fabric.levels else None
        fast = (
            inner is not None and inner.topology not in ("bus", "network") and inner.size > NARROW
        )
        return WIDE if fast else NARROW

    def _zeros(self, replicas: int, pp: int, few: bool) -> Sequence[int]:
        """ZeRO stages."""
        if self.scenario.zero is not None:
            return (self.scenario.zero,)
        if not self.trains or replicas == 1:
            return (0,)
        return (0, 1, 3) if few or pp > 1 else (0, 1, 2, 3)

    def _micros(self, each: int, few: bool) -> list[int]:
        """Micro-batches of a rank's samples: powers of two that divide them."""
        if self.scenario.micro_batch is not None:
            return [self.scenario.micro_batch]
        found = [d for d in divisors(each) if d & (d - 1) == 0 and d <= self.most_micro]
        if few and len(found) > FEW_MICROS:  # every other one, the smallest in any case
            return sorted({found[0], *found[::-2]})
        return found

    @property
    def most_micro(self) -> int:
        """The largest micro-batch of the grid [samples]."""
        return max(TOKENS // self.size, 1) if self.sequences else IMAGES

    def left_out(self) -> list[str]:
        """What the grid does not try, in words."""
        found = []
        if self.cut:
            found.append(f"tensor parallelism over more than {self.most_tensor} devices")
            found.append(f"micro-batches over {TOKENS:,} tokens")
            if self.size < 2 * PIECE:
                found.append(f"context parallelism (a sample has {self.size:,} tokens)")
            found.append("uneven stages")
        else:
            found.append(f"micro-batches over {IMAGES} samples")
        if self.trains:
            found.append("recompute policies other than " + ", ".join(self.policies()))
        return found

    def variations(self, shape: Shape) -> list[Shape]:
        """The layout with one of the options changed that the grid leaves at their defaults:
        schedules and virtual stages, kinds of context parallelism, sequence parallelism, sharding
        groups, gathered weights, tensor parallelism of experts, offload.
        """
        found: list[Shape] = []
        pp, dp, cp = shape["pp"], shape["dp"], shape["cp"]
        if pp > 1 and "schedule" not in shape and "vpp" not in shape:
            found += [shape | {"schedule": s} for s in ("zb-h1", "zb-v", "dualpipe")]
            chunks = [v for v in (2, 3, 4, 5, 6, 8) if pp * v <= self.layers]
            found += [shape | {"vpp": v} for v in chunks]
        if cp > 1:
            found += [shape | {"cp_kind": kind} for kind in CP_KINDS if kind != "ring"]
        if shape["tp"] > 1:
            found.append(shape | {"sp": False})
        if shape.get("ep", 1) > 1 and shape["tp"] > 1:
            found.append(shape | {"etp": 1})
        if shape["zero"]:
            groups = [n for n in divisors(dp * cp) if n in GROUPS and n < dp * cp]
            found += [shape | {"shard": n} for n in groups]
        if shape["zero"] == 3:
            found.append(shape | {"reshard": pp > 1})
        if self.trains and not self.scenario.offload:
            found += [shape | {"offload": each} for each in OFFLOADS]
        return [s for s in found if self._asked_for(s)]

    def between(self, shape: Shape) -> list[Shape]:
        """The layout with the micro-batches that the grid skips, which are no powers of two: from
        half to twice its own.
        """
        own = shape["micro_batch"]
        micros = [m for m in divisors(self.batch // shape["dp"]) if own < 2 * m and m < 2 * own]
        found = [shape | {"micro_batch": m} for m in micros if m & (m - 1) and m <= self.most_micro]
        return [s for s in found if s["micro_batch"] != own and self._asked_for(s)]

    def near(self, shape: Shape) -> list[Shape]:
        """The layout with one of the options changed that a coarse grid skips: a micro-batch twice
        or half as large or between, ZeRO 2, selective recomputation.
        """
        each = self.batch // shape["dp"]
        micros = [m for m in (2 * shape["micro_batch"], shape["micro_batch"] // 2) if m]
        found = [shape | {"micro_batch": m} for m in micros if each % m == 0]
        if shape["zero"] == 1 and shape["pp"] == 1:
            found.append(shape | {"zero": 2})
        if self.trains and self.cut and shape.get("recompute") != "selective":
            found.append(shape | {"recompute": "selective"})
        return [s for s in found if self._asked_for(s)] + self.between(shape)
