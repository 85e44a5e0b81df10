"""`roofcast plan`: the model size and tokens that a budget buys best.

A budget in FLOP has its optimum from the scaling law alone; one in dollars or device-days by the
device-seconds that a token of each size costs here: the fastest layout that fits, by the formulas
of predict. Tokens that the model will read and write in use are paid from the same budget, which
makes smaller models better that are trained longer [sardana2024]:

    minimise L(N, D)   subject to   D train(N) + D_use use(N) = budget

train and use: FLOP, or device-seconds, of a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.campaign.budget import DAY, MOST_DEVICES, Budget, budget_of
from roofcast.simulator.campaign.scaling_law import INFER, PRINTED, REFIT, TRAIN, Law
from roofcast.simulator.campaign.shapes import Shape, shape_of
from roofcast.simulator.choose.choosing import Chooser, Kind
from roofcast.simulator.choose.offers import offer
from roofcast.simulator.choose.wanted import Wanted
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario

GRID = 400  # sizes among which the best is looked for
SIZES = (0.2, 0.5, 1.0, 2.0, 5.0)  # of the law's optimum, whose steps are forecast
REACH = 20.0  # sizes are looked for within this factor of the law's optimum
GUESS = 0.4  # MFU from which a budget's FLOP are guessed, before steps are forecast
GROWN = 8  # times as many devices as wanted are tried where the model does not fit


class Size(NamedTuple):
    """A model size on a device, as forecast."""

    shape: Shape
    devices: int
    device_s: float  # device-seconds of a token in training
    use_s: float  # of a token in use: the forward pass
    options: dict[str, Any]
    why: str = ""  # so many devices


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a budget buys on one kind of device. SI units and USD; None where not known."""

    device: str
    devices: int
    why: str  # so many devices
    family: str
    config: dict[str, Any]  # of the model, as a config.json holds it
    sequence: int  # tokens
    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    parameters: float
    tokens: float
    tokens_per_parameter: float
    training_flop: float  # 6 N D
    loss: float  # nats per token
    loss_low: float  # 80 %, by the standard errors of the law
    loss_high: float
    optimal_loss: float  # of the same training FLOP at the law's optimum
    optimal_parameters: float
    optimal_low: float  # 80 %, by the standard errors of the law
    optimal_high: float
    over_trained: float  # tokens per parameter over those of the optimum
    inference_tokens: float
    batch: int  # sequences
    options: dict[str, Any]  # layout, as predict takes it
    step_time_s: float
    mfu: float | None
    time_s: float
    time_low_s: float | None
    time_high_s: float | None
    cost_usd: float | None
    price_usd_per_hour: float | None
    price_given: bool
    inference_usd: float | None
    energy_by_scope_j: dict[str, float]


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of roofcast plan."""

    budget: str
    law: str
    plans: tuple[Plan, ...]  # the least loss first
    refuted: dict[str, float]  # what the printed law would say: parameters, tokens
    assumptions: tuple[str, ...]


def plan(
    budget: str,
    devices: Sequence[str] = (),
    family: str = "llama",
    inference_tokens: float = 0.0,
    days: float = 90.0,
    sequence: int = 4096,
    price_per_hour: float | None = None,
) -> Planned:
    """The model and tokens that a budget buys best on each of these devices.

    days: the longest training, which sets the number of devices; ignored where the budget says it.
    Raises BadInput or UnknownName for what cannot be.
    """
    asked = budget_of(budget)
    shape_of(family, 1e9)
    if not 0 <= inference_tokens <= 1e20:
        raise BadInput(f"inference tokens {inference_tokens:g}: from 0 to 1e20 are wanted")
    if not 0 < days < 1e5:
        raise BadInput(f"days {days:g}: a positive number of days is wanted")
    if asked.device and devices and tuple(devices) != (asked.device,):
        raise BadInput(f"budget {budget}: names its device; leave --on out")
    names = [asked.device] if asked.device else list(devices) or ["h100-sxm5"]
    planner = Planner(asked, family, inference_tokens, days, sequence, price_per_hour)
    plans = [planner.on(hwdb.device(name).typed) for name in dict.fromkeys(names)]
    plans.sort(key=lambda p: (round(p.loss, 6), p.cost_usd or math.inf))
    n, d = PRINTED.optimum(plans[0].training_flop)
    said = [
        f"loss: {REFIT.name}, a fit to models of 44 million to 16 billion parameters on web text;"
        " other data have another law, and larger models are extrapolated",
        f"shapes: the pattern of {family}; batch as DeepSeek fitted to the compute of a run",
        "time: steps alone, without failures, evaluation and checkpoints",
    ]
    if inference_tokens:
        said.append("use: a token costs the forward pass, as in offline serving of long batches")
    if not devices and not asked.device:
        said.append("device h100-sxm5 (not given)")
    return Planned(
        budget=budget, law=REFIT.name, plans=tuple(plans), assumptions=tuple(said),
        refuted={"parameters": n, "tokens": d, "tokens_per_parameter": d / n},
    )  # fmt: skip


class Planner(NamedTuple):
    """What is planned, on any device."""

    budget: Budget
    family: str
    inference_tokens: float
    days: float
    sequence: int
    price: float | None
    law: Law = REFIT

    def on(self, device: str) -> Plan:
        """The plan on one kind of device."""
        price = self._price(device)
        seconds = self._device_seconds(device, price)
        if seconds is None:
            return self._by_flop(device, price)
        flop = seconds * GUESS * _peak(device)
        center, _ = self.law.optimum(flop)
        sizes = [
            s for r in SIZES if (s := self._size(device, center * r, seconds=seconds)) is not None
        ]
        if not sizes:
            raise BadInput(
                f"{device}: no model near {center:.3g} parameters fits on the devices that the"
                " budget pays for; give another device, or more days"
            )
        best = self._best(sizes, seconds, center)
        found = self._size(device, best, seconds=seconds) or min(
            sizes, key=lambda s: abs(math.log(s.shape.parameters / best))
        )
        tokens = (seconds - self.inference_tokens * found.use_s) / found.device_s
        return self._plan(device, found, tokens, price)

    def _by_flop(self, device: str, price: float | None) -> Plan:
        """The plan of a budget in FLOP."""
        flop = self.budget.flop
        assert flop is not None, "the other budgets have device-seconds"
        n = self._best_by_flop(flop)
        shape = shape_of(self.family, n)
        tokens = (flop / shape.parameters - INFER * self.inference_tokens) / TRAIN
        seconds = TRAIN * shape.parameters * tokens / (GUESS * _peak(device))
        found = self._size(device, n, seconds=seconds, tokens=tokens)
        if found is None:
            raise BadInput(
                f"{device}: {shape.parameters:.3g} parameters do not fit on the devices that finish"
                f" in {self.days:g} days; give another device, or more days"
            )
        return self._plan(device, found, tokens, price)

    def _best_by_flop(self, flop: float) -> float:
        """Parameters of the least loss, use paid from the same FLOP."""
        n0, _ = self.law.optimum(flop)
        if not self.inference_tokens:
            return n0
        n = n0 * np.geomspace(1e-4, 1.0, GRID * 4)
        tokens = (flop / n - INFER * self.inference_tokens) / TRAIN
        return self._least(n, tokens)

    def _best(self, sizes: Sequence[Size], seconds: float, center: float) -> float:
        """Parameters of the least loss for so many device-seconds, costs of a token interpolated
        between the sizes that were forecast.
        """
        x = np.log([s.shape.parameters for s in sizes])
        train = np.log([s.device_s for s in sizes])
        use = np.log([s.use_s for s in sizes])
        n = center * np.geomspace(1.0 / REACH, REACH, GRID)
        cost, used = (np.exp(_extended(np.log(n), x, y)) for y in (train, use))
        return self._least(n, (seconds - self.inference_tokens * used) / cost)

    def _least(self, n: np.ndarray, tokens: np.ndarray) -> float:
        paid = tokens > 0
        if not paid.any():
            raise BadInput(
                f"the budget does not pay for {self.inference_tokens:.3g} tokens of use, let alone"
                " for training; give a larger budget, or fewer --inference-tokens"
            )
        loss = self.law.e + self.law.a / n[paid] ** self.law.alpha
        loss = loss + self.law.b / tokens[paid] ** self.law.beta
        return float(n[paid][np.argmin(loss)])

    def _price(self, device: str) -> float | None:
        """USD per device-hour: given, else the median rent on demand."""
        if self.price is not None:
            return self.price
        rent = offer(hwdb.device(device), Wanted()).rent
        return rent.median if rent is not None else None

    def _device_seconds(self, device: str, price: float | None) -> float | None:
        """Device-seconds of the budget; None where it is in FLOP."""
        if self.budget.devices is not None and self.budget.days is not None:
            return self.budget.devices * self.budget.days * DAY
        if self.budget.usd is None:
            return None
        if not price:
            raise BadInput(f"{device}: no price is known; give --price in USD per device-hour")
        return self.budget.usd / price * 3600.0

    def _size(
        self, device: str, parameters: float, seconds: float, tokens: float | None = None
    ) -> Size | None:
        """A size on the devices that the budget gives, or that finish in time; None where it does
        not fit on them.
        """
        shape = shape_of(self.family, parameters)
        count = tokens or seconds * GUESS * _peak(device) / (TRAIN * shape.parameters)
        scenario = Scenario(
            model=shape.model(self.sequence),  # type: ignore[arg-type]  # as predict takes one
            device=device, tokens=max(count, float(self.sequence)), sequence=self.sequence,
        )  # fmt: skip
        chooser = Chooser(scenario, [device], Wanted(devices=MOST_DEVICES, goal="time"))
        kind = next(iter(chooser.kinds.values()))
        found = None
        for n in self._counts(kind, seconds):
            points = chooser.search(kind, [n])
            if points:
                batch = kind.scenario.batch
                assert batch is not None, "the chooser decides the batch"
                each = points[0].step_s * n / (batch * self.sequence)
                options = {**points[0].options, "batch": batch}
                found = Size(shape, n, each, each * INFER / TRAIN, options, self._why())
                if tokens is None or tokens * each <= n * self.days * DAY:
                    return found
        return found

    def _why(self) -> str:
        """Why so many devices."""
        if self.budget.devices is not None:
            return "of the budget"
        return (
            "the fewest, in powers of two, on which the model fits and that finish within"
            f" {self.days:g} days (--days)"
        )

    def _counts(self, kind: Kind, seconds: float) -> list[int]:
        """Numbers of devices to try: the budget's; else the fewest that finish in time, and more
        where the model does not fit on these.
        """
        if self.budget.devices is not None:
            return [self.budget.devices]
        wanted = max(seconds / (self.days * DAY), 1.0)
        n = 1
        while n < wanted:
            n *= 2
        if self.budget.flop is not None:  # the time is only guessed here: fewer may do
            n = max(n // 2, 1)
        most = max(GROWN * n, 4096 if n <= 512 else 0)
        capacity = kind.names.device.memory.limit
        found = []
        while n <= most:
            found += [n] if kind.floor.fits(n, capacity) else []
            n *= 2
        return found

    def _plan(self, device: str, found: Size, tokens: float, price: float | None) -> Plan:
        shape, n = found.shape, found.devices
        done = self._forecast(device, found, tokens, price)
        flop = TRAIN * shape.parameters * tokens
        best, d = self.law.optimum(flop)
        low, high = self.law.interval(flop)
        worst = self.law.loss_interval(shape.parameters, tokens)
        steps, hours = done.steps or 0.0, self.inference_tokens * found.use_s / 3600.0
        ratio = tokens / shape.parameters
        return Plan(
            device=device, devices=n, why=found.why, family=self.family,
            config=shape.config(self.sequence), sequence=self.sequence,
            layers=shape.depth, width=shape.width,
            heads=shape.heads, kv_heads=shape.keys, feed_forward=shape.feed,
            vocabulary=shape.vocabulary, parameters=shape.parameters, tokens=tokens,
            tokens_per_parameter=ratio,
            training_flop=flop, loss=self.law.loss(shape.parameters, tokens),
            loss_low=worst[0], loss_high=worst[1],
            optimal_loss=self.law.loss(best, d), optimal_parameters=best,
            optimal_low=low, optimal_high=high,
            over_trained=ratio / (d / best), inference_tokens=self.inference_tokens,
            batch=done.batch, options={k: v for k, v in found.options.items() if k != "batch"},
            step_time_s=done.step_time_s, mfu=done.mfu, time_s=done.time_to_train_s or 0.0,
            time_low_s=done.low_s * steps if done.low_s else None,
            time_high_s=done.high_s * steps if done.high_s else None,
            cost_usd=done.cost_usd, price_usd_per_hour=price, price_given=self.price is not None,
            inference_usd=hours * price if price and hours else None,
            energy_by_scope_j=done.energy_by_scope_j,
        )  # fmt: skip

    def _forecast(self, device: str, found: Size, tokens: float, price: float | None) -> Forecast:
        """The run in full, with its interval."""
        return forecast(
            Scenario(
                model=found.shape.model(self.sequence),  # type: ignore[arg-type]
                device=device,
                sequence=self.sequence,
                tokens=tokens,
                price_per_hour=price,
                **found.options,
            )  # fmt: skip
        )


def _peak(device: str) -> float:
    """The 16-bit peak of a device, else its fp32 [FLOP/s]."""
    rates = hwdb.device(device).peak_flops
    for name in ("bf16", "fp16", "fp32"):
        if rates.get(name):
            return float(rates[name])
    raise BadInput(f"{device}: no rate of matrix products is known")


def _extended(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Linear between the points, and with the slope of 1 beyond them."""
    inner = np.interp(at, x, y)
    return inner + np.minimum(at - x[0], 0.0) + np.maximum(at - x[-1], 0.0)
