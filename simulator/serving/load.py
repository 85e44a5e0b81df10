"""What a server is asked: how many requests come when, and how long they are."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from roofcast.hwdb.contents import LARGEST_TABLE, text
from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.tuples import NamedTuple

KINDS = ("batch", "concurrency", "rate", "offline", "trace")
LONGEST = 10_000_000  # tokens of a request
MOST = 10_000_000  # users, sequences, requests of a trace
TRACE = ("time", "input", "output")  # columns of a trace: seconds, tokens, tokens


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A load, and the length of its requests [tokens].

    kind: "batch" (a static batch of `amount` prompts, started together), "concurrency" (a closed
    loop of `amount` users, each with one request under way), "rate" (`amount` requests per second,
    arriving at random), "offline" (all requests queued; the batch is what fits) or "trace".
    """

    kind: str
    amount: float = 1.0
    input_len: int = 1024
    output_len: int = 512
    # share of the tokens of a prompt that are in the cache already: a prefix shared by requests
    cached: float = 0.0
    requests: int | None = None  # that are replayed; default: enough for a p99
    spread: float = 0.1  # lengths lie within this share around the mean, evenly; not of a trace
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadInput(f"load {quoted(self.kind)}: known: {', '.join(KINDS)}")
        for name in ("input_len", "output_len"):
            value = getattr(self, name)
            if not 1 <= value <= LONGEST:
                raise BadInput(
                    f"{name.replace('_', '-')} {value}: a request has from 1 to {LONGEST:,} tokens"
                )
        if not (math.isfinite(self.amount) and 0 < self.amount <= MOST):
            raise BadInput(f"{self.kind} {self.amount:g}: give a number above 0, up to {MOST:g}")
        if self.kind in ("batch", "concurrency") and self.amount < 1:
            raise BadInput(f"{self.kind} {self.amount:g}: give 1 or more")
        if not 0 <= self.cached < 1:
            raise BadInput(f"prefix share {self.cached:g}: give 0 to below 1, for example 0.5")
        if not 0 <= self.spread < 1:
            raise BadInput(f"spread {self.spread:g}: give 0 to below 1, for example 0.1")
        if self.requests is not None and not 1 <= self.requests <= MOST:
            raise BadInput(f"requests {self.requests}: give 1 to {MOST:,}")

    @property
    def hit(self) -> int:
        """Tokens of a prompt that are in the cache already; at least one token is computed."""
        return min(int(self.cached * self.input_len), self.input_len - 1)

    @property
    def new(self) -> int:
        """Tokens of a prompt that are computed."""
        return self.input_len - self.hit

    @property
    def context(self) -> float:
        """Mean tokens that a sequence looks back on while it is decoded."""
        return self.input_len + self.output_len / 2


class Requests(NamedTuple):
    """Requests in the order of their arrival."""

    arrival: np.ndarray  # seconds; of a closed loop all 0: each user waits for the answer
    input: np.ndarray  # tokens of the prompts
    output: np.ndarray  # tokens of the answers, with the first
    cached: np.ndarray  # tokens of the prompts that are in the cache already


def requests(load: Load, count: int, draw: int = 0) -> Requests:
    """`count` requests of a load, the same for the same seed and draw.

    Lengths, and times between arrivals, are drawn one from each of `count` equally probable parts
    of their distribution, in random order (stratified sampling): a replay of 600 such requests
    knows its mean values as well as one of 1,200 independent ones.
    """
    random = np.random.default_rng((load.seed, draw))

    def evenly() -> np.ndarray:
        """From 0 to 1."""
        return np.asarray((random.permutation(count) + random.random(count)) / count)

    lengths = [
        np.maximum(np.rint(mean * (1.0 + load.spread * (2.0 * evenly() - 1.0))), 1)
        for mean in (load.input_len, load.output_len)
    ]
    gaps = -np.log1p(-evenly()) / load.amount if load.kind == "rate" else np.zeros(count)
    cached = np.minimum(np.floor(load.cached * lengths[0]), lengths[0] - 1)
    return Requests(np.cumsum(gaps), *(v.astype(np.int64) for v in (*lengths, cached)))


def read_trace(path: str | Path, cached: float = 0.0) -> Requests:
    """The requests of a CSV with the columns time [s], input and output [tokens].

    Rows may stand in any order. Raises BadInput with the line of the first row that is none.
    """
    where = Path(path)
    body = text(where, f"a trace with the columns {', '.join(TRACE)}", LARGEST_TABLE)
    reader = csv.DictReader(io.StringIO(body, newline=""))
    try:
        names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise BadInput(f"{path}: not a CSV ({error})") from None
    missing = [name for name in TRACE if name not in names]
    if missing:
        raise BadInput(
            f"{path}: no column {missing[0]!r}; a trace has the columns {', '.join(TRACE)}"
        )
    reader.fieldnames = names
    rows = list(_rows(reader, path))
    if not rows:
        raise BadInput(f"{path}: no requests; give rows of {', '.join(TRACE)}")
    table = np.array(sorted(rows))
    lengths = table[:, 1:].astype(np.int64)
    hit = np.minimum(np.floor(cached * lengths[:, 0]), lengths[:, 0] - 1).astype(np.int64)
    return Requests(table[:, 0] - table[0, 0], lengths[:, 0], lengths[:, 1], hit)


def _rows(reader: csv.DictReader[str], path: str | Path) -> Any:
    """The three numbers of each row."""
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            yield tuple(_number(row, name, where) for name in TRACE)
            if reader.line_num > MOST:
                raise BadInput(f"{path}: more than {MOST:,} requests")
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: not a row of a CSV ({error})") from None


def _number(row: dict[str, Any], name: str, where: str) -> float:
    """A cell of a trace."""
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = math.nan
    least, most = (0.0, 1e12) if name == "time" else (1.0, float(LONGEST))
    if not least <= value <= most:
        raise BadInput(
            f"{where}: {name} {quoted(row[name])}: a number from {least:g} to {most:g} is wanted"
        )
    return value


def of_trace(found: Requests, cached: float, seed: int = 0) -> Load:
    """The load with the mean lengths of a trace; its amount is the mean rate [requests/s]."""
    span = float(found.arrival[-1]) * len(found.arrival) / max(len(found.arrival) - 1, 1)
    return Load(
        kind="trace",
        amount=min(len(found.arrival) / span, MOST) if span > 0 else float(len(found.arrival)),
        input_len=max(int(round(float(found.input.mean()))), 1),
        output_len=max(int(round(float(found.output.mean()))), 1),
        cached=cached,
        requests=len(found.arrival),
        spread=0.0,
        seed=seed,
    )


def percentiles(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """p50, p90, p99: the least value that this share of the requests does not exceed."""
    found = np.percentile(np.asarray(values, float), (50, 90, 99), method="inverted_cdf")
    return float(found[0]), float(found[1]), float(found[2])
