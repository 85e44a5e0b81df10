"""Seconds and joules of one forward with a cache, for arrays of batches and contexts at once.

Kernels are those of `work.generation`; the formulas are those of a training step, with tiles for
few rows. Kernels of one kind and format are computed in one call, on arrays of kernels x points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import Kernels
from roofcast.hwdb.constants import kernels as constants
from roofcast.hwdb.formats import WIDTH
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.converted import copies, in_half, kept
from roofcast.simulator.serving.cores import at_common_clock
from roofcast.simulator.serving.experts import blocked, busiest, experts_met
from roofcast.simulator.serving.kinds import Kinds, Point, Spent
from roofcast.simulator.serving.programs import LIBRARY, Software, few_rows
from roofcast.simulator.times.attention import SHORT, attention
from roofcast.simulator.times.matmul import matmul
from roofcast.simulator.times.power import Energy, at_clocks, board_of, clocks, held_from
from roofcast.simulator.times.rates import Rates
from roofcast.simulator.times.roofline import computed_in, rates_of
from roofcast.simulator.times.stream import class_of, stream
from roofcast.simulator.work.generation import Forward, Launch

DOTS = 4.0  # products of int8 by vector units, per one of fp32: VNNI, SDOT
HEIGHT = 128.0  # rows of a tile, each of which widens the weights that it multiplies
FEW = 8.0  # rows up to which software multiplies a matrix by vectors
PARTS = ("products", "experts", "attention", "streams")


Seconds = Callable[[Rates, np.ndarray, Any], np.ndarray]
"""Seconds of kernels at rates; of all kernels and points, laid out flat, or of some places; at
shares of the clock of the rates, the first axis, or at 1.0.
"""


class Clocked(NamedTuple):
    """Kernels at the highest clock: seconds [kernels, points], energies."""

    seconds: np.ndarray
    slower: Callable[[np.ndarray], np.ndarray]  # places -> seconds at all clocks [clocks, places]
    energy: Energy
    count: np.ndarray  # type: ignore[assignment]  # [kernels]
    part: str
    more: np.ndarray | float = 0.0  # joules that take no time [kernels, points]


class Engine:
    """A rank's forward on a device."""

    def __init__(
        self,
        forward: Forward,
        device: Device,
        sixteen: str = "bf16",
        *,
        how: Software = LIBRARY,
        ranks: int = 1,
        c: Kernels | None = None,
    ):
        """sixteen: format of activations; ranks: that hold different experts, of which the slowest
        is waited for.
        """
        self.c = c or constants()
        if how.start:  # threads that wait in a loop
            self.c = msgspec.structs.replace(
                self.c, cpu=msgspec.structs.replace(self.c.cpu, start_most=how.start)
            )
        self.forward, self.device, self.how = forward, device, how
        self.sixteen, self.above, self.held = sixteen, busiest(ranks), kept(device)
        self.ranks = float(ranks)
        self.board = board_of(device, self.c.power)
        self.clock = clocks(self.c.power) if self.board else np.ones(1)
        groups: dict[tuple[str, str], list[Launch]] = {}
        for k in forward.launches:
            if k.kind == "cached_attention":
                continue
            known = k.kind if k.kind in ("matmul", "expert_matmul") else "stream"
            groups.setdefault((known, k.product if known != "stream" else ""), []).append(k)
        self.groups = {key: Kinds(ks) for key, ks in groups.items()}
        attentions = [k for k in forward.launches if k.kind == "cached_attention"]
        self.attentions = Kinds(attentions) if attentions else None
        self._resolved: dict[str, tuple[Rates, tuple[str, ...]]] = {}
        products = {product for kind, product in groups if kind != "stream"}
        self.assumptions = tuple(
            dict.fromkeys(text for product in products for text in self._rates(product)[1])
        )

    def _rates(self, product: str) -> tuple[Rates, tuple[str, ...]]:
        if product not in self._resolved:
            found = rates_of(self.device, computed_in(product, self.device))
            if self.device.kind == "cpu":
                # weights, packed when they were loaded, are streamed once, by all cores
                own = at_common_clock(found.rates, self.device)
                found = found._replace(rates=own._replace(measured=True, packs=False))
            self._resolved[product] = found
        return self._resolved[product]

    @property
    def rates(self) -> Rates:
        """Rates of the device for products of activations."""
        rates = self._rates(self.sixteen)[0]
        if self.how.vector == "all":
            return self._rates("fp32")[0]._replace(width=rates.width)
        return rates

    def linear(self, at: Point) -> Spent:
        """All but attention."""
        found = []
        for (kind, product), ks in self.groups.items():
            if kind == "stream":
                found.append(self._streams(ks, at))
            elif kind == "matmul":
                found.append(self._products(ks, product, at))
            else:
                found.append(self._experts(ks, product, at))
        return self._held(found)

    def _multiplies(self, product: str) -> Rates:
        """Rates of products with weights."""
        rates = self._rates(product)[0]
        if rates.kind == "cpu" and self.how.dots:
            return rates._replace(matrix=DOTS * rates.vector, sustained=self.how.dots)
        if rates.kind != "gpu":
            return rates
        if self.how.vector:
            return self._rates("fp32")[0]._replace(width=rates.width)
        if self.how.int8:
            rate = self.how.int8 * rates.vector
            return rates._replace(matrix=rate, sustained=1.0, fed=1.0)
        return in_half(rates, self.c) if self.how.half else rates

    def _products(self, ks: Kinds, product: str, at: Point) -> Clocked:
        rates = self._multiplies(product)
        rows, matrix, vector, moved = (ks.at(field, at) for field in _FIELDS)
        batch, m, n, k = (ks.size(i) for i in range(4))
        m, batch = (np.where(np.isnan(x), rows, x) for x in (m, batch))
        weights = ks.weights
        width = max(rates.width, WIDTH.get(product, 4))
        held_bytes = weights / np.maximum(batch * n * k, 1e-30)
        stored = np.where(held_bytes > 0, np.minimum(held_bytes, width), width)
        sizes = (m, n + 0 * m, k + 0 * m, batch)
        slow = self.how.fp4 if product == "fp4" and rates.format == "fp4" else 1.0
        seconds = self._multiplied(sizes, width, (weights + moved) / slow, stored)
        return self._clocked(ks, seconds, rates, (matrix, vector, weights + moved), "products")

    def _experts(self, ks: Kinds, product: str, at: Point) -> Clocked:
        rates = self._multiplies(product)
        experts, share, n, k = (ks.size(i) for i in range(4))
        rows = experts * share * at.everywhere  # on this rank
        mean = experts_met(experts, share, at.everywhere)
        # of the rank with the most: each expert is met or not, by itself [binomial]
        more = self.above * np.sqrt(mean * np.maximum(1.0 - mean / experts, 0.0))
        hit = np.minimum(mean + more, experts)
        own = ks.at("rows", at)
        scale = rows / np.maximum(own, 1e-30)
        matrix, vector, moved = (scale * ks.at(field, at) for field in _FIELDS[1:])
        weights = hit / experts * ks.weights
        width = max(rates.width, WIDTH.get(product, 4))
        stored = np.minimum(weights / (hit * n * k), width)
        traffic = weights + moved
        sizes = (rows / np.maximum(hit, 1e-30), n + 0 * hit, k + 0 * hit, hit)
        plain = self._multiplied(sizes, width, traffic, stored, spread=True)
        if not self.how.aligned:

            def grouped(rates: Rates, places: np.ndarray, clock: Any) -> np.ndarray:
                return plain(self._grouped(rates), places, clock)

            work = matrix, vector, traffic
            return self._clocked(ks, grouped, rates, work, "experts")
        block = float(self.how.aligned)
        filled = blocked(self.ranks * rows, experts, block)
        scale = filled / np.maximum(rows, 1e-30)
        matrix, traffic = matrix * scale, weights + moved * scale
        stored = np.minimum(weights * block / (filled * n * k), width)
        sizes = (block + 0 * filled, sizes[1], sizes[2], filled / block)
        whole = self._multiplied(sizes, width, traffic, stored)

        def aligned(rates: Rates, places: np.ndarray, clock: Any) -> np.ndarray:
            """What grouped products take beyond plain ones is of the rows that are, not of all."""
            slow, own = (plain(r, places, clock) for r in (self._grouped(rates), rates))
            return whole(rates, places, clock) + np.maximum(slow - own, 0.0)

        return self._clocked(ks, aligned, rates, (matrix, vector, traffic), "experts")

    def _grouped(self, rates: Rates) -> Rates:
        """Rates of products of experts."""
        slower = self.how.grouped
        return rates._replace(sustained=slower * rates.sustained, feed=slower * rates.feed)

    def _multiplied(
        self,
        sizes: tuple[np.ndarray, ...],
        width: float,
        traffic: np.ndarray,
        stored: np.ndarray,
        spread: bool = False,
    ) -> Seconds:
        """Seconds of products; spread: of experts, whose rows differ."""
        shape = sizes[0].shape
        flat = [_spread(x, shape).ravel() for x in (*sizes, traffic, stored)]

        def seconds(rates: Rates, places: np.ndarray, clock: Any) -> np.ndarray:
            m, n, k, batch, moved, stored = (x[places] for x in flat)
            copied: np.ndarray | float = 0.0
            if self.how.half:
                copied = copies(m, n, k * batch, stored, self.held)
                copied = copied / (rates.stream * rates.bandwidth)
                moved, stored = moved + (width - stored) * batch * n * k, width
                inside: Any = width * m * k <= self.held  # rows that stay on chip are read once
                footprint: Any = np.where(inside, np.inf, rates.footprint)
                rates = rates._replace(footprint=footprint)
            found = matmul(
                m, n, k, batch, width, max(width, 2.0), rates, self.c, moved=moved, few=True,
                held=stored, clock=clock, spread=spread,
            )  # fmt: skip
            if self.how.stream != 1.0:
                found = np.where(m <= FEW, found / self.how.stream, found)
            found = found + copied
            if self.how.converts and rates.kind == "gpu":
                lanes = 0.5 * rates.vector * clock  # instructions per second: a lane's do two FLOP
                again = np.where(stored < width, np.ceil(m / HEIGHT), 0.0)
                found = found + self.how.converts * batch * n * k * again / lanes
            if self.how.gemv and rates.kind == "gpu":
                slow = few_rows(n * k * batch, moved, self.how) / (
                    rates.cores * rates.clock * clock
                )
                found = np.where(m <= FEW, np.maximum(found, slow), found)
            return found

        return seconds

    def _streams(self, ks: Kinds, at: Point) -> Clocked:
        rates = self._rates("fp32")[0]
        sizes = [ks.at(field, at) for field in ("vector", "special", "moved")]
        if self.how.gathers:
            mine = np.array([[k.op == "experts"] for k in ks.launches])
            scale = np.where(mine, at.everywhere / np.maximum(at.tokens, 1e-30), 1.0)
            sizes = [scale * size for size in sizes]
        vector, special, moved = sizes
        points = moved.shape[1]
        own = class_of(ks.classes, self.c).of(np.repeat(np.arange(len(ks.classes)), points))

        def seconds(rates: Rates, places: np.ndarray, clock: Any) -> np.ndarray:
            bytes_, flops, functions = (x.ravel()[places] for x in (moved, vector, special))
            at = at_clocks(rates, clock)
            return stream(own.of(places), bytes_, flops, functions, at, self.c)

        return self._clocked(
            ks, seconds, rates, (0 * moved, vector + 2 * special, moved), "streams"
        )

    def scores(
        self, sequences: ArrayLike, new: ArrayLike, cached: ArrayLike, micro: int
    ) -> np.ndarray:
        """Scores of attention of all layers, masked ones too, in micro-batches of so many tokens:
        each looks back on those before it.
        """
        launches = self.attentions.launches if self.attentions else []
        heads = sum(k.count * k.shape[1] for k in launches)
        new = np.asarray(new, dtype=float)
        once = np.minimum(new, micro) if micro else new
        columns = np.asarray(cached) + 0.5 * (new + once)
        return np.asarray(heads * np.asarray(sequences) * new * columns)

    def attention(
        self, sequences: ArrayLike, new: ArrayLike, cached: ArrayLike, width: ArrayLike
    ) -> Spent:
        """Attention of `new` tokens of each of `sequences` over themselves and `cached` tokens,
        arrays [points]; width: bytes of an element of the cache.
        """
        given = (np.asarray(x, dtype=float) for x in (sequences, new, cached, width))
        sequences, new, cached, width = np.broadcast_arrays(*given)
        if self.attentions is None:
            return Spent({}, {})
        ks, one = self.attentions, new == 1.0
        heads, groups = (ks.size(i) for i in (1, 2))
        reach, dim_k, dim_v, latent, source = (ks.size(i) for i in range(4, 9))
        dim = 0.5 * (dim_k + dim_v)
        bytes_of = np.where(latent > 0, 0.5 * dim_k / dim, 1.0)  # keys and values are the same
        packed = heads / groups  # heads of a group are rows of one block in decoding
        blocks = np.ceil(packed / SHORT)
        columns = np.where(source > 0, source, cached + new)
        seen = np.where(one, np.minimum(columns, reach), columns)
        sizes = (
            sequences, np.where(one, groups * blocks, heads), groups * bytes_of,
            np.where(one, packed / blocks, new), seen, dim, ~one & (source == 0), width,
        )  # fmt: skip
        flat = [_spread(x, seen.shape).ravel() for x in sizes]
        window = _spread(np.where(one, np.inf, reach), seen.shape).ravel()

        def seconds(rates: Rates, places: np.ndarray, clock: Any) -> np.ndarray:
            some = [x[places] for x in flat]
            return attention(
                some[0], some[1], some[2], some[3], some[4], some[5], some[6], some[7],
                at_clocks(rates, clock), self.c, window=window[places],
            )  # fmt: skip

        visible = np.minimum(np.where(one, seen, cached + 0.5 * new), reach)
        pairs = sequences * heads * new * visible
        moved = (
            width * sequences * (np.minimum(seen, reach + new) * sizes[2] + new * heads) * 2 * dim
        )
        work = (4 * pairs * dim, 6 * pairs, moved)
        clocked = self._clocked(ks, seconds, self.rates, work, "attention", cached=True)
        return self._held([clocked])

    def _clocked(
        self,
        ks: Kinds,
        seconds: Seconds,
        rates: Rates,
        work: tuple[np.ndarray, np.ndarray, np.ndarray],
        part: str,
        cached: bool = False,
    ) -> Clocked:
        """Kernels with their energy; work: FLOPs of matrix and vector units, and bytes."""
        shape = work[2].shape
        energy, more = Energy(np.zeros(shape), np.zeros(shape)), np.zeros(shape)
        if self.board:
            matrix, vector, moved = (_spread(x, shape) for x in work)
            flop = self.board.matrix[rates.format] if rates.tensor else self.board.vector
            byte = self.board.byte
            energy = Energy(flop * matrix + self.board.vector * vector, byte * moved)
            # fitted to watts of decoding; measured times say that it does not slow the board down
            more = (self.board.cached - byte) * moved if cached else more
        highest = _spread(seconds(rates, _ALL, 1.0), (work[2].size,)).reshape(shape)
        return Clocked(
            highest,
            lambda places: seconds(rates, places, self.clock[:, None]),
            energy,
            ks.count,
            part,
            more,
        )

    def _at_limit(self, found: list[Clocked]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Seconds and joules of kernels under the power limit of the board, all at once."""
        if not self.board or not found:
            return [(one.seconds, np.zeros(one.seconds.shape)) for one in found]
        ends = np.cumsum([one.seconds.size for one in found])

        def slower(places: np.ndarray) -> np.ndarray:
            cuts = np.searchsorted(places, ends).tolist()
            starts = zip([0, *cuts], cuts, [0, *ends.tolist()], found, strict=False)
            times = [one.slower(places[i:j] - first) for i, j, first, one in starts if j > i]
            return np.concatenate(times, axis=1)

        own = [(one.seconds, one.energy.switching, one.energy.memory) for one in found]
        highest, switching, memory = (
            np.concatenate([x.ravel() for x in every]) for every in zip(*own, strict=True)
        )
        at = held_from(highest, slower, Energy(switching, memory), self.board, self.c.power)
        parts = zip(np.split(at.seconds, ends[:-1]), np.split(at.joules, ends[:-1]), strict=True)
        each = []
        for one, both in zip(found, parts, strict=True):
            t, used = (x.reshape(one.seconds.shape) for x in both)
            each.append((t, np.maximum(np.minimum(used + one.more, self.board.limit * t), used)))
        return each

    def _held(self, found: list[Clocked]) -> Spent:
        """Kernels under the power limit of the board, summed by part."""
        seconds: dict[str, np.ndarray] = {}
        joules: dict[str, np.ndarray] = {}
        for one, (t, used) in zip(found, self._at_limit(found), strict=True):
            part = one.part
            seconds[part] = seconds.get(part, 0.0) + one.count @ t
            joules[part] = joules.get(part, 0.0) + one.count @ used
        return Spent(seconds, joules)


def _spread(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array in this shape, as `np.broadcast_to` gives it."""
    return x if x.shape == shape else np.broadcast_to(x, shape)


_FIELDS = ("rows", "matrix", "vector", "moved")
_ALL: Any = slice(None)
