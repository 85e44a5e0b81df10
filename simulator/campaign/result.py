"""The forecast of a whole run."""

from __future__ import annotations

import msgspec


class InvoiceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the invoice; `usd` is rounded to cents, and the total is their sum."""

    what: str
    quantity: float
    unit: str
    rate_usd: float  # USD per unit
    usd: float


class Checkpoints(msgspec.Struct, frozen=True, kw_only=True):
    """What is saved, how long it takes, and how often."""

    bytes: float
    bandwidth: float  # of all devices to the storage [B/s]
    stall_s: float  # the work stops for it
    save_s: float
    every_s: float  # of work
    every_steps: float
    count: int
    chosen: str  # "given", or "shortest mean run"
    young_s: float | None = None  # None without failures
    daly_s: float | None = None
    available_s: float | None = None


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """How often the run is interrupted."""

    per_1000_node_days: float  # nodes of eight devices
    low: float  # the 80 % interval of the rate
    high: float
    hours_between: float | None  # of this run; None: none
    expected: float  # preemptions among them
    preemptions: float = 0.0  # expected, of spot capacity
    detection_s: float
    restart_s: float


class StageResult(msgspec.Struct, frozen=True, kw_only=True):
    """One of several stages. Its time, energy and cost have its share of checkpoints, failures and
    start; over the stages they add up to those of the run.
    """

    name: str
    steps: float
    step_s: float  # as the input allows
    batch: float  # samples
    sequence: int | None  # tokens
    tokens: float | None  # of the whole stage
    time_s: float
    energy_j: float | None
    cost_usd: float | None


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """A whole training run: time, energy, money. The point is the mean over failures at the
    forecast step time; low and high are the 80 % interval, the step's own among its causes.
    """

    steps: float
    step_s: float  # as the input allows; of several stages the mean
    stages: tuple[StageResult, ...] = ()  # none where the run is of one piece
    input_limited: bool = False
    devices: int
    spares: int = 0

    # where the time goes; they add up to time_s
    steps_s: float  # at the forecast step time
    slow_s: float  # steps that take longer than that
    eval_s: float
    checkpoint_s: float
    lost_s: float  # work that is done again
    detection_s: float
    wait_s: float = 0.0  # until preempted capacity is back; neither paid nor in device_hours
    restart_s: float
    start_s: float
    time_s: float

    goodput: float  # steps_s / time_s
    goodput_low: float
    goodput_high: float
    days: float
    days_low: float
    days_high: float
    days_95: float  # within which it ends with 95 % probability
    device_hours: float  # spares among them
    device_hours_low: float
    device_hours_high: float

    checkpoints: Checkpoints
    failures: Failures

    start: str | None = None  # ISO dates
    end: str | None = None
    end_low: str | None = None
    end_high: str | None = None
    end_95: str | None = None
    deadline: str | None = None
    deadline_probability: float | None = None

    energy_j: float | None = None
    energy_low_j: float | None = None
    energy_high_j: float | None = None
    energy_scope: str = ""

    invoice: tuple[InvoiceLine, ...] = ()
    cost_usd: float | None = None
    cost_low_usd: float | None = None
    cost_high_usd: float | None = None
    cost_95_usd: float | None = None
    price_date: str | None = None
