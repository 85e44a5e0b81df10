"""What a user says of a whole run: the table `campaign` of a scenario, checked and in SI units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.strict import checked
from roofcast.hwdb.units import check_has_unit, quantity

UNITS = {
    "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
    "year": 365.25 * 86400.0, "years": 365.25 * 86400.0,
}  # fmt: skip
LONGEST = 100 * 365.25 * 86400.0  # seconds
HOUR = 3600.0
MOST = 1e15


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stage of the schedule: its length, and what differs from the scenario."""

    name: str = ""
    tokens: str | float | None = None
    samples: str | float | None = None
    sequence: int | None = None
    image: int | None = None
    batch: int | None = None
    micro_batch: int | None = None
    recompute: str | None = None
    tp: int | None = None
    pp: int | None = None
    cp: int | None = None
    zero: int | None = None

    def changes(self) -> dict[str, Any]:
        """The fields of a scenario that this stage sets."""
        given = {name: getattr(self, name) for name in self.__struct_fields__ if name != "name"}
        return {name: value for name, value in given.items() if value is not None}


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `campaign`, as written."""

    stages: list[Stage] = []

    start: str | None = None  # ISO date
    deadline: str | float | None = None  # ISO date, or a duration
    eval_every: int | None = None  # steps
    eval_tokens: str | float | None = None  # of one evaluation
    eval_samples: str | float | None = None
    checkpoint_every: int | str | None = None  # steps, or a duration
    checkpoint_bandwidth: str | float | None = None  # B/s, of all devices together
    checkpoint_async: bool = False
    failure_rate: float | None = None  # per 1000 node-days, nodes of eight devices
    detection: str | float | None = None  # duration
    restart: str | float | None = None
    cluster_age: str | float | None = None  # duration, when the run starts
    preemptions_per_hour: float | None = None  # of the whole run, on spot capacity
    wait: str | float | None = None  # duration until preempted capacity is back, in the mean
    spares: int = 0  # devices
    slow_steps: str | float | None = None  # fraction
    input_rate: str | float | None = None  # samples/s or tokens/s, of a node of eight devices
    owned: bool = False
    price_date: str | None = None  # ISO date


class Terms(NamedTuple):
    """The same in SI units; None: a default."""

    start: date | None
    deadline_s: float | None  # from the start
    eval_every: int | None
    eval_tokens: float | None
    eval_samples: float | None
    every_steps: int | None
    every_s: float | None
    bandwidth: float | None
    asynchronous: bool
    failure_rate: float | None
    detection_s: float | None
    restart_s: float | None
    cluster_age_s: float | None
    preemptions_per_hour: float
    wait_s: float
    spares: int
    slow: float | None
    input_samples: float | None  # per second and node
    input_tokens: float | None
    owned: bool
    price_date: date | None


def terms(raw: Mapping[str, object], where: str = "campaign") -> Terms:
    """The terms of a run. Raises BadInput, one line, for what cannot be."""
    a = checked(Asked, {str(key): value for key, value in raw.items()}, where)
    start = _date(a.start, f"{where}: start")
    _check_counts(a, where)
    steps, seconds = _every(a.checkpoint_every, f"{where}: checkpoint_every")
    samples, tokens = _rate(a.input_rate, f"{where}: input_rate")
    return Terms(
        start=start,
        deadline_s=_deadline(a.deadline, start, f"{where}: deadline"),
        eval_every=a.eval_every,
        eval_tokens=_positive(a.eval_tokens, f"{where}: eval_tokens", "tokens"),
        eval_samples=_positive(a.eval_samples, f"{where}: eval_samples", "samples"),
        every_steps=steps,
        every_s=seconds,
        bandwidth=_positive(a.checkpoint_bandwidth, f"{where}: checkpoint_bandwidth", "B/s"),
        asynchronous=a.checkpoint_async,
        failure_rate=a.failure_rate,
        detection_s=_seconds(a.detection, f"{where}: detection"),
        restart_s=_seconds(a.restart, f"{where}: restart"),
        cluster_age_s=_seconds(a.cluster_age, f"{where}: cluster_age", "200 days"),
        preemptions_per_hour=a.preemptions_per_hour or 0.0,
        wait_s=_seconds(a.wait, f"{where}: wait") or 0.0,
        spares=a.spares,
        slow=_share(a.slow_steps, f"{where}: slow_steps"),
        input_samples=samples,
        input_tokens=tokens,
        owned=a.owned,
        price_date=_date(a.price_date, f"{where}: price_date"),
    )


def stages(raw: Mapping[str, object], where: str = "campaign") -> tuple[Stage, ...]:
    """The stages of the schedule; none where the run is of one piece. Raises BadInput."""
    if not raw.get("stages"):
        return ()
    found = checked(Asked, {str(key): value for key, value in raw.items()}, where).stages
    for number, stage in enumerate(found, 1):
        if (stage.tokens is None) == (stage.samples is None):
            raise BadInput(f"{where}: stage {number} has no length: give its tokens or samples")
    return tuple(found)


def _check_counts(a: Asked, where: str) -> None:
    if a.eval_every is not None and not 1 <= a.eval_every <= MOST:
        raise BadInput(f"{where}: eval_every {a.eval_every}: a number of steps of 1 or more")
    if a.eval_tokens is not None and a.eval_samples is not None:
        raise BadInput(f"{where}: eval_tokens and eval_samples are two sizes of one evaluation")
    sized = a.eval_tokens is not None or a.eval_samples is not None
    if sized and a.eval_every is None:
        raise BadInput(f"{where}: how often is it evaluated? add eval_every, in steps")
    if a.eval_every is not None and not sized:
        raise BadInput(
            f"{where}: eval_every without eval_tokens or eval_samples: how much is read?"
        )
    if not 0 <= a.spares <= MOST:
        raise BadInput(f"{where}: spares {a.spares}: a number of devices, 0 or more")
    often = a.preemptions_per_hour
    if often is not None and not 0.0 <= often <= MOST:
        raise BadInput(
            f"{where}: preemptions_per_hour {often:g}: preemptions of the run per hour, 0 or more,"
            " for example 0.05"
        )
    if a.wait is not None and not often:
        raise BadInput(
            f"{where}: wait: how often is the run preempted? add preemptions_per_hour, for example"
            " 0.05"
        )
    rate = a.failure_rate
    if rate is not None and not 0.0 <= rate <= MOST:
        raise BadInput(
            f"{where}: failure_rate {rate:g}: failures per 1000 node-days, 0 or more, for example 4"
        )


def _date(text: str | None, what: str) -> date | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        raise BadInput(
            f"{what} {quoted(text, 40)}: a date is wanted, for example 2027-03-01"
        ) from None


def _deadline(value: str | float | None, start: date | None, what: str) -> float | None:
    """Seconds from the start."""
    if value is None:
        return None
    if not (isinstance(value, str) and re.match(r"\d{4}-\d", value)):
        seconds = _seconds(value, what, "30d", HOUR)
        if not seconds:
            raise BadInput(f"{what} {value}: no time is left; give a later one")
        return seconds
    end = _date(value, what)
    if start is None:
        raise BadInput(f"{what} {value}: from when on? add start, a date")
    assert end is not None
    if end <= start:
        raise BadInput(f"{what} {value}: not after the start on {start}; give a later one")
    return (end - start) / timedelta(seconds=1)


def _seconds(
    value: str | float | None, what: str, such: str = "10 min", least: float = 0.0
) -> float | None:
    """A duration: "10 min", "3 h"; a bare number, which is no text, is seconds, of `least`."""
    if value is None:
        return None
    try:
        check_has_unit(value, "s", such.lstrip("0123456789"), least)
    except BadInput as error:
        raise BadInput(f"{what}: {error}") from None
    found = re.fullmatch(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*([a-z]+)\s*", str(value))
    try:
        if found and found[2] in UNITS:
            number = float(found[1]) * UNITS[found[2]]
        else:
            number = quantity(value, "s")
    except (BadInput, ValueError):
        number = -1.0
    if not 0.0 <= number <= LONGEST:
        raise BadInput(f"{what} {quoted(value, 40)}: a duration is wanted, for example {such}")
    return number


def _every(value: int | str | None, what: str) -> tuple[int | None, float | None]:
    """Steps, or seconds."""
    if value is None:
        return None, None
    if isinstance(value, int) or value.strip().isdigit():
        if not 1 <= int(value) <= MOST:
            raise BadInput(f"{what} {value}: a number of steps, 1 or more, or a time such as 1 h")
        return int(value), None
    seconds = _seconds(value, what)
    if not seconds:
        raise BadInput(f"{what} {value}: a number of steps, 1 or more, or a time such as 1 h")
    return None, seconds


def _positive(value: str | float | None, what: str, unit: str) -> float | None:
    if value is None:
        return None
    try:
        number = quantity(value, unit)
    except BadInput as error:
        raise BadInput(f"{what}: {error}") from None
    if not 0.0 < number <= 1e30:
        raise BadInput(f"{what} {quoted(value, 40)}: a positive number is wanted")
    return number


def _share(value: str | float | None, what: str) -> float | None:
    if value is None:
        return None
    try:
        number = quantity(value, "1")
    except BadInput:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise BadInput(f"{what} {quoted(value, 40)}: a fraction up to 1 is wanted, for example 2 %")
    return number


def _rate(value: str | float | None, what: str) -> tuple[float | None, float | None]:
    """Samples per second, or tokens per second."""
    if value is None:
        return None, None
    text = str(value).strip()
    number = re.sub(r"\s*(samples|images|sequences|tokens)?\s*(/s|per second)?$", "", text)
    unit = "tokens" if "tok" in text else "samples"
    try:
        rate = _positive(number, what, unit)
    except BadInput:
        raise BadInput(
            f"{what} {quoted(value, 40)}: a positive rate is wanted, for example 9000 samples/s or"
            " 5M tokens/s"
        ) from None
    return (None, rate) if unit == "tokens" else (rate, None)
