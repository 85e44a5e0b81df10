"""Steps of servers: the kernels of each, which are timed for many steps at once, and what exchanges
and the host add to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from roofcast.hwdb.constants import kernels
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.engine import Engine
from roofcast.simulator.serving.exchange import Links, alike, between_stages, exchanges, in_turn
from roofcast.simulator.serving.formats import Served
from roofcast.simulator.serving.kinds import Point, Spent
from roofcast.simulator.serving.profiles import Profile
from roofcast.simulator.times.host import combine
from roofcast.simulator.work.generation import Forward

SENT = "exchanges"


class Spending(NamedTuple):
    """Steps, for every point: seconds by part, and joules of all devices (nan: unknown)."""

    seconds: dict[str, np.ndarray]
    joules: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Seconds of the whole step."""
        return np.asarray(sum(self.seconds.values()))


class Laid(Protocol):
    """What steps need of a server."""

    degrees: Any  # tp, pp, dp
    devices: int
    profile: Profile
    formats: Served
    links: Links
    engines: dict[str, Engine]

    @property
    def fused_experts(self) -> bool:
        """Whether experts run in fused kernels."""
        ...


class Job(NamedTuple):
    """Work of one kind at sizes, arrays of one shape [points]. Jobs with the same key are done by
    the same function.
    """

    key: tuple[Any, ...]
    run: Callable[..., Spent]
    sizes: tuple[np.ndarray, ...]


def _linear(engine: Engine, at: Point) -> Job:
    """All kernels but attention."""
    return Job((id(engine), "linear"), lambda *sizes: engine.linear(Point(*sizes)), at)


def _sent(of: Laid, made: Forward, at: Point) -> tuple[Job, ...]:
    """What the ranks of a stage exchange; none where there is one device."""
    if of.devices == 1:
        return ()

    def run(*sizes: np.ndarray) -> Spent:
        return Spent({SENT: exchanges(made, Point(*sizes), of.links, in_turn())}, {})

    return (Job((id(made), *alike(of.links)), run, at),)


class Pass(NamedTuple):
    """A step: its kernels, and what becomes of their times."""

    jobs: tuple[Job, ...]
    whole: Callable[[Sequence[Spent]], Spending]


def timed(passes: Sequence[Pass]) -> list[Spending]:
    """The parts of steps. Work of one kind is timed in one call, each size once."""
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for one in passes:
        for job in one.jobs:
            groups.setdefault(job.key, []).append(job)
    spent = {key: iter(_together(jobs)) for key, jobs in groups.items()}
    return [one.whole([next(spent[job.key]) for job in one.jobs]) for one in passes]


def _together(jobs: Sequence[Job]) -> list[Spent]:
    """Jobs of one kind."""
    if len(jobs) == 1:
        return [jobs[0].run(*jobs[0].sizes)]
    sizes = np.concatenate([np.array(job.sizes) for job in jobs], axis=1)
    order = np.lexsort(sizes)
    rising = sizes[:, order]
    new = np.concatenate([[True], np.any(rising[:, 1:] != rising[:, :-1], axis=0)])
    place = np.empty(len(order), dtype=int)
    place[order] = np.cumsum(new) - 1
    found = jobs[0].run(*rising[:, new])
    split = np.cumsum([job.sizes[0].size for job in jobs[:-1]])
    return [
        Spent(
            {part: t[at] for part, t in found.seconds.items()},
            {part: t[at] for part, t in found.joules.items()},
        )
        for at in np.split(place, split)
    ]


# ------------------------------------------------------------------ the steps
def decoding(of: Laid, sequences: ArrayLike, context: ArrayLike) -> Pass:
    """A decode step, as `Server.decoding` has it."""
    b, looks, shape = _flat(sequences, context)
    d, over = of.degrees, _overlapped(of, b)
    rows = np.maximum(b / over, 1.0)
    local = np.maximum(rows / d.dp, 1.0)
    filled = padded(local, of.profile.graphs)
    at, engine = Point(filled, filled, rows / local * filled), of.engines["decode"]
    looking = _looking(of, engine, local, np.ones_like(local), of.profile.looks * looks)

    def whole(spent: Sequence[Spent]) -> Spending:
        every = _sum(spent[0], looking.of(spent[1]))
        return _whole(of, engine.forward, at, every, spent[2:], b, shape)

    return Pass((_linear(engine, at), looking.job, *_sent(of, engine.forward, at)), whole)


def padded(sequences: np.ndarray, graphs: Sequence[int]) -> np.ndarray:
    """Sequences that a captured decode step computes: those of the next larger graph, where there
    are more than the smallest of `graphs` and no more than the largest.

    >>> padded(np.array([100.0, 187.5, 5000.0]), (128, 256, 512)).tolist()
    [100.0, 256.0, 5000.0]
    """
    if not graphs:
        return sequences
    sizes = np.array([*graphs, np.inf])
    found = sizes[np.searchsorted(sizes, sequences)]
    return np.where((sequences > graphs[0]) & np.isfinite(found), found, sequences)


def prefilling(of: Laid, prompts: ArrayLike, new: ArrayLike, cached: ArrayLike = 0) -> Pass:
    """A forward of prompts, as `Server.prefilling` has it."""
    n, each, before, shape = _flat(prompts, new, cached)
    d, engine, profile = of.degrees, of.engines["prefill"], of.profile
    local = np.maximum(n / d.dp, 1.0)
    total = local * each
    parts = np.ceil(total / profile.micro_batch) if profile.micro_batch else np.ones_like(total)
    at = Point(np.minimum(local, total / parts), total / parts, n * each / parts)
    looking = _looking(of, engine, local, each, before)

    def whole(spent: Sequence[Spent]) -> Spending:
        products = _times(spent[0], parts, profile.products)
        every = _sum(products, _times(looking.of(spent[1]), 1.0, profile.attention))
        found = _whole(of, engine.forward, at, every, spent[2:], n, shape, parts)
        if d.pp == 1:
            return found
        pieces = np.maximum(np.maximum(parts, n), 1.0).reshape(shape)
        if profile.micro_batch:  # stages run dry behind every batch of micro-batches
            batch = profile.chunk_tokens / profile.micro_batch
            pieces = np.minimum(pieces, max(batch, 1.0))
        share = (pieces + d.pp - 1.0) / (pieces * d.pp)
        return Spending({k: v * share for k, v in found.seconds.items()}, found.joules)

    return Pass((_linear(engine, at), looking.job, *_sent(of, engine.forward, at)), whole)


def mixing(
    of: Laid,
    sequences: ArrayLike,
    context: ArrayLike,
    new: ArrayLike,
    cached: ArrayLike = 0,
    prompts: ArrayLike = 1,
) -> Pass:
    """A decode step with a chunk of prompts in it, as `Server.mixing` has it."""
    b, looks, tokens, before, n, shape = _flat(sequences, context, new, cached, prompts)
    over = np.maximum(_overlapped(of, b), 1.0)
    if not np.any(over > 1.0):
        return _mixed(of, b, looks, tokens, before, n, shape)
    one, plain = _mixed(of, b / over, looks, tokens, before, n, shape), decoding(of, b, looks)
    share = np.reshape(1.0 / over, shape)

    def whole(spent: Sequence[Spent]) -> Spending:
        with_it, without = one.whole(spent[: len(one.jobs)]), plain.whole(spent[len(one.jobs) :])
        seconds = {
            part: share * with_it.seconds.get(part, 0.0)
            + (1.0 - share) * np.reshape(without.seconds.get(part, np.zeros(b.shape)), shape)
            for part in dict.fromkeys((*without.seconds, *with_it.seconds))
        }
        joules = share * with_it.joules + (1.0 - share) * np.reshape(without.joules, shape)
        return Spending(seconds, joules)

    return Pass((*one.jobs, *plain.jobs), whole)


PASSES: dict[str, Callable[..., Pass]] = {
    "decode": decoding, "prefill": prefilling, "mixed": mixing,
}  # fmt: skip


def _mixed(
    of: Laid,
    b: np.ndarray,
    looks: np.ndarray,
    tokens: np.ndarray,
    before: np.ndarray,
    n: np.ndarray,
    shape: tuple[int, ...],
) -> Pass:
    """A pass of decoding sequences and a chunk of prompts together: in the micro-batches and with
    the kernels of prompts.
    """
    d, engine, profile = of.degrees, of.engines["prefill"], of.profile
    rows = b + tokens
    local = np.maximum(rows / d.dp, 1.0)
    parts = np.ceil(local / profile.micro_batch) if profile.micro_batch else np.ones_like(local)
    made = np.maximum((b + n) / d.dp, 1.0)
    at = Point(np.minimum(made, local / parts), local / parts, rows / parts)
    own = np.maximum(n / d.dp, 1.0)
    seen = of.profile.looks * looks
    one = _looking(of, of.engines["decode"], b / d.dp, np.ones_like(b), seen)
    other = _looking(of, engine, own, np.maximum(tokens / n, 2.0), before)

    def whole(spent: Sequence[Spent]) -> Spending:
        products = _times(spent[0], parts, profile.products)
        prompts = _times(other.of(spent[2]), 1.0, profile.attention)
        every = _sum(products, one.of(spent[1]), prompts)
        return _whole(of, engine.forward, at, every, spent[3:], b + n, shape, parts)

    jobs = (_linear(engine, at), one.job, other.job, *_sent(of, engine.forward, at))
    return Pass(jobs, whole)


class _Looking(NamedTuple):
    """Attention, and what its scores cost where it is not fused [s]."""

    job: Job
    scores: np.ndarray | None

    def of(self, spent: Spent) -> Spent:
        """With its scores."""
        if self.scores is None or "attention" not in spent.seconds:
            return spent
        return Spent({"attention": spent.seconds["attention"] + self.scores}, spent.joules)


def _looking(
    of: Laid, engine: Engine, sequences: np.ndarray, new: np.ndarray, cached: np.ndarray
) -> _Looking:
    """Attention of `new` tokens of each of `sequences` over `cached` ones and themselves."""
    width = np.full_like(cached, of.formats.cache)
    job = Job((id(engine), "attention"), engine.attention, (sequences, new, cached, width))
    each = of.profile.score_bytes
    if not each:
        return _Looking(job, None)
    rates = engine.rates
    scores = engine.scores(sequences, new, cached, of.profile.micro_batch)
    return _Looking(job, each * scores / (rates.stream * rates.bandwidth))


def _overlapped(of: Laid, sequences: np.ndarray) -> np.ndarray | float:
    """Micro-batches of decoding that are under way in a pipeline at once."""
    if of.degrees.pp == 1 or of.profile.cut == "layer":
        return 1.0
    return np.minimum(float(of.degrees.pp), sequences)


def _whole(
    of: Laid,
    made: Forward,
    at: Point,
    spent: Spent,
    exchanged: Sequence[Spent],
    sequences: np.ndarray,
    shape: tuple[int, ...],
    parts: np.ndarray | float = 1.0,
) -> Spending:
    """A forward with its exchanges and its host."""
    p, seconds = of.profile, dict(spent.seconds)
    for one in exchanged:
        sent = one.seconds[SENT] * parts
        if of.degrees.pp > 1:
            passed = between_stages(made, at, of.links, in_turn())
            sent = sent + of.degrees.pp * passed * parts
        seconds[SENT] = sent
    if p.expert_s and "experts" in seconds and not of.fused_experts:
        layers = sum(k.count for k in made.launches if k.kind == "expert_matmul") / 2.0
        seconds["experts"] = seconds["experts"] + p.expert_s * layers * parts
    device = np.asarray(sum(seconds.values()))
    launches = p.dispatch_s * (made.kernels + sum(s.count for s in made.sends)) * parts
    if not p.ahead:
        host = launches + np.zeros_like(device)
    else:
        host = combine(device, launches, kernels()) - device
    seconds["host"] = host + p.step_s + p.seq_s * sequences
    joules = _joules(of, spent, seconds)
    found = {part: np.reshape(t, shape) for part, t in seconds.items()}
    return Spending(found, joules.reshape(shape))


def _joules(of: Laid, spent: Spent, seconds: dict[str, np.ndarray]) -> np.ndarray:
    """Energy of all devices; nan where the power of the board is unknown."""
    board, total = of.engines["decode"].board, np.asarray(sum(seconds.values()))
    if board is None:
        return np.full(total.shape, np.nan)
    waiting = board.idle * seconds["host"]
    sending = board.communicating * seconds.get(SENT, 0.0)
    return np.asarray(of.devices * (sum(spent.joules.values()) + waiting + sending))


def _flat(*given: ArrayLike) -> tuple[Any, ...]:
    """Arrays as flat ones of one length, and their common shape."""
    arrays = [np.asarray(x, dtype=float) for x in given]
    shape = np.broadcast(*arrays).shape
    flat = (x if x.shape == shape else np.broadcast_to(x, shape) for x in arrays)
    return (*(np.ravel(x) for x in flat), shape)


def _sum(*spent: Spent) -> Spent:
    """Parts of one forward together."""
    seconds: dict[str, np.ndarray] = {}
    joules: dict[str, np.ndarray] = {}
    for one in spent:
        for part, t in one.seconds.items():
            seconds[part] = seconds.get(part, 0.0) + t
            joules[part] = joules.get(part, 0.0) + one.joules[part]
    return Spent(seconds, joules)


def _times(spent: Spent, parts: np.ndarray | float, rate: float) -> Spent:
    """So many forwards, whose products run at a fraction of their rate."""
    slow = {"products", "experts", "attention"}
    return Spent(
        {k: v * parts / (rate if k in slow else 1.0) for k, v in spent.seconds.items()},
        {k: v * parts for k, v in spent.joules.items()},
    )
