"""Samples of different lengths: what padding each micro-batch to its longest sample wastes, and
packing samples into whole sequences.
"""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path

import msgspec
import numpy as np

from roofcast.hwdb import contents
from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.work.model import Model

WANTED = (
    "wanted: MEAN,MAX or MEAN,DEVIATION,MIN,MAX in tokens, for example 600,2048, or a file with a"
    " length in each line"
)
MOST = 10**9  # tokens of a sample, and samples of a file
NEWTON = 200  # half steps
PADDED = "micro-batches padded to their longest sample"
POINTS = 4096  # of a distribution that only its mean and maximum are known of


class Lengths(NamedTuple):
    """Lengths of samples [tokens], in ascending order, each as likely."""

    tokens: np.ndarray
    stated: str  # as it was given

    @property
    def mean(self) -> float:
        """Tokens of a sample on average."""
        return float(self.tokens.mean())

    @property
    def longest(self) -> int:
        """Tokens of the longest sample."""
        return int(self.tokens[-1])

    def cut(self, most: int) -> Lengths:
        """Samples truncated to `most` tokens."""
        return self._replace(tokens=np.minimum(self.tokens, most))

    def up_to(self, most: int) -> Lengths:
        """Samples of at most `most` tokens; the shortest one where all are longer."""
        kept = self.tokens[self.tokens <= most]
        return self._replace(tokens=kept if len(kept) else self.tokens[:1])

    def padded(self, samples: int) -> float:
        """Tokens of the longest of `samples` samples drawn at random, on average: what each sample
        of a micro-batch is padded to.

        >>> read("600,2048").padded(1) < read("600,2048").padded(8) < 2048
        True
        """
        n = len(self.tokens)
        shares = (np.arange(n + 1) / n) ** samples
        return float(self.tokens @ np.diff(shares))


@functools.lru_cache(64)
def read(stated: str) -> Lengths:
    """The lengths that MEAN,MAX or MEAN,DEVIATION,MIN,MAX or a file states. Raises BadInput.

    Of a few numbers the least that is known more is assumed: the distribution with the largest
    entropy [jaynes1957]. Of a mean and a maximum it is exponential, cut off at 1 and the maximum;
    of a standard deviation too it is normal, cut off at the shortest and the longest.

    >>> round(read("600,2048").mean), read("600,2048").longest
    (600, 2048)
    >>> found = read("3234.4,2547.5,91,19548")
    >>> round(found.mean, -1), round(found.up_to(2048).mean, -1)
    (3230.0, 1020.0)
    """
    four = re.fullmatch(r"\s*" + r"\s*,\s*".join([r"(\d+(?:\.\d+)?)"] * 4) + r"\s*", stated)
    if four:
        return Lengths(_normal(stated, *map(float, four.groups())), stated)
    pair = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*,\s*(\d+)\s*", stated)
    if pair:
        mean, longest = float(pair[1]), int(pair[2])
        if not 1 <= mean <= longest <= MOST:
            raise BadInput(f"lengths {quoted(stated)}: a mean from 1 to the maximum is {WANTED}")
        return Lengths(_exponential(mean, longest), stated)
    if not stated.strip() or "," in stated or not (Path(stated).suffix or Path(stated).exists()):
        raise BadInput(f"lengths {quoted(stated)}: {WANTED}")
    words = contents.text(stated, "lengths of samples", contents.LARGEST_TABLE)
    found = []
    for number, line in enumerate(words.splitlines(), 1):
        cell = line.split("#")[0].strip().rstrip(",")
        if not cell or (number == 1 and re.fullmatch(r"[A-Za-z_ ]+", cell)):  # a heading
            continue
        if not re.fullmatch(r"\d{1,9}(\.0*)?", cell) or float(cell) < 1:
            raise BadInput(f"{stated}, line {number}: {quoted(cell)} is not a length; {WANTED}")
        found.append(float(cell))
    if not found:
        raise BadInput(f"{stated}: no length in it; {WANTED}")
    return Lengths(np.sort(np.array(found)), stated)


def _exponential(mean: float, longest: int) -> np.ndarray:
    """POINTS quantiles of lengths between 1 and `longest` whose density is exponential, with this
    mean.
    """
    span = longest - 1.0
    # the last point is the longest sample itself, the others make up for it
    rest = max(1.0, (mean * POINTS - longest) / (POINTS - 1))
    share = (rest - 1.0) / span if span else 0.0
    quantile = (np.arange(POINTS) + 0.5) / POINTS
    if not 0.0 < share < 1.0:
        return np.sort(np.append(np.full(POINTS - 1, rest), float(longest)))

    def part(rate: float) -> np.ndarray:  # of the span, for a density of exp(-rate x)
        if abs(rate) < 1e-6:
            return quantile
        return -np.log1p(-quantile * -math.expm1(-rate)) / rate

    low, high = -600.0, 600.0
    for _ in range(60):
        rate = (low + high) / 2
        low, high = (rate, high) if part(rate)[:-1].mean() > share else (low, rate)
    tokens = 1.0 + span * part(rate)
    tokens[-1] = longest
    return np.sort(tokens)


def _normal(stated: str, mean: float, deviation: float, least: float, most: float) -> np.ndarray:
    """POINTS quantiles of lengths from `least` to `most` whose density is exp(a x + b x^2), with
    this mean and standard deviation. Raises BadInput where no such lengths exist.
    """
    if not 1 <= least <= mean <= most <= MOST:
        raise BadInput(f"lengths {quoted(stated)}: MEAN lies between MIN and MAX; {WANTED}")
    if deviation**2 >= (mean - least) * (most - mean):
        raise BadInput(
            f"lengths {quoted(stated)}: no lengths from {least:g} to {most:g} with this mean"
            f" deviate by {deviation:g}; {WANTED}"
        )
    if not deviation:
        return np.full(POINTS, mean)
    tokens = np.linspace(least, most, 4 * POINTS)
    x = (tokens - mean) / deviation  # wanted: a mean of 0 and a mean square of 1
    powers, wanted = np.stack([x, x * x]), np.array([0.0, 1.0])
    at = np.array([0.0, -0.5])

    def weights(of: np.ndarray) -> np.ndarray:
        exponent = of @ powers
        found = np.exp(exponent - exponent.max())
        return found / found.sum()

    for _ in range(NEWTON):
        p = weights(at)
        off = powers @ p - wanted
        if np.abs(off).max() < 1e-9:
            break
        spread = (powers * p) @ powers.T - np.outer(powers @ p, powers @ p)
        at = at - 0.5 * np.linalg.solve(spread, off)
    below = np.cumsum(weights(at))
    found = np.interp((np.arange(POINTS) + 0.5) / POINTS, below, tokens)
    found[-1] = most
    return found


def at_longest(s: Scenario) -> Scenario:
    """The scenario of whole sequences that need as much memory: of the longest sample."""
    varied = varied_of(s)
    if varied is None:
        return s
    return msgspec.structs.replace(s, lengths=None, packing=None, sequence=varied.longest)


def check_lengths(s: Scenario, model: Model) -> None:
    """Raises BadInput for lengths of samples that have none."""
    given = "packing" if s.lengths is None else f"lengths {s.lengths}"
    if model.takes != "sequence" and (s.lengths is not None or s.packing is not None):
        raise BadInput(
            f"{given}: {model.name} reads {model.takes}s, which have no lengths; leave it out"
        )


def varied_of(s: Scenario) -> Varied | None:
    """How the samples of a scenario fill its micro-batches; None where all have one length. Raises
    BadInput for packing without lengths.
    """
    if s.lengths is None:
        if s.packing:
            raise BadInput("packing: of samples of which lengths? give --lengths MEAN,MAX too")
        return None
    lengths = read(s.lengths)
    longest = min(lengths.longest, s.sequence or lengths.longest)  # truncated
    return Varied(lengths.cut(longest), longest, bool(s.packing))


class Varied(NamedTuple):
    """Samples of different lengths in the sequences of a micro-batch: each in one that is padded to
    the longest of them, or packed into sequences of the longest one's length.
    """

    lengths: Lengths  # truncated
    longest: int
    packing: bool

    def size(self, micro: int, pieces: int = 1) -> int:
        """Tokens of each of `micro` sequences on average, padding included; a multiple of the
        pieces that ranks cut a sequence into.

        >>> of = Varied(read("400,2048"), 2048, False)
        >>> of.size(1), of.size(4), of.size(4, 32), of._replace(packing=True).size(4)
        (400, 816, 832, 2048)
        """
        if self.packing:
            return self.longest
        whole = max(1, round(self.lengths.padded(micro)))
        return min(-(-whole // pieces) * pieces, self.longest)

    def read(self, batch: int) -> tuple[float, float]:
        """Samples, and tokens of them, that a step of `batch` sequences reads, on average. Packed
        sequences are taken as full.
        """
        mean = self.lengths.mean
        if self.packing:
            return batch * self.longest / mean, float(batch * self.longest)
        return float(batch), batch * mean

    def padding(self, size: int) -> float:
        """Share of the tokens that is padding, in sequences of `size` tokens."""
        return 0.0 if self.packing else max(1.0 - self.lengths.mean / size, 0.0)

    def in_short(self) -> str:
        """What is known of the samples, and how micro-batches hold them."""
        mean, longest = f"{self.lengths.mean:,.0f}", f"{self.longest:,}"
        how = f"packed into sequences of {longest}, which are taken as full"
        if not self.packing:
            how = PADDED
        return f"lengths {self.lengths.stated}: {mean} tokens on average, at most {longest}; {how}"

    def said(self, micro: int, size: int) -> list[str]:
        """What padding wastes and packing would, in sentences; of micro-batches of `micro` in
        sequences of `size` tokens.
        """
        if self.packing:
            waste = max(1.0 - self.lengths.mean / self.lengths.padded(micro), 0.0)
            return [
                f"{self.in_short()}; padding micro-batches of {micro} instead would waste"
                f" {100 * waste:.0f} % of the tokens",
                "packed samples attend to each other's tokens as one sequence would",
            ]
        short, share = self.in_short(), f"{100 * self.padding(size):.0f} % of the tokens"
        if micro == 1:
            first = short.replace(PADDED, "micro-batches of one sample need no padding")
        else:
            first = short.replace("micro-batches", f"micro-batches of {micro}")
            first += f", {size:,} tokens on average: {share} are padding, which --packing avoids"
        return [
            first,
            "memory and what is saved are those of a micro-batch of the longest samples; time,"
            " FLOPs, traffic and MFU those of the mean one, padding included; rates count the"
            " tokens of samples",
        ]
