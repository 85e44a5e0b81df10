"""The whole chain: Scenario -> Model -> Step -> times, memory -> Forecast. The only file that knows
every stage.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, UnknownName
from roofcast.simulator.forecast.assemble import assemble
from roofcast.simulator.forecast.diagnosis import advised
from roofcast.simulator.forecast.interval import Traits, shipped, traits_of, with_interval
from roofcast.simulator.forecast.lengths import at_longest
from roofcast.simulator.forecast.memory_error import band
from roofcast.simulator.forecast.own_runs import OwnRuns, calibrated
from roofcast.simulator.forecast.resolve import Asked, resolve
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.forecast.taught import with_cost
from roofcast.simulator.memory import held_on
from roofcast.simulator.times.dispatch import phases_of
from roofcast.simulator.times.peak import at_peak, passes_one
from roofcast.simulator.times.roofline import OpTimes, time_all
from roofcast.simulator.work.step import Step, of_one_batch, trace
from roofcast.simulator.work.traced import Parallel

if TYPE_CHECKING:
    from roofcast.simulator.forecast.assemble_parallel import Placed

SAME = 1e-9  # relative difference of two times that are the same but for rounding
SAME_TIME = "the changes leave the time of this step as it is, and so its interval"
FINITE = (  # fields of every forecast that are finite and not negative
    "step_time_s", "lower_bound_s", "forward_s", "backward_s", "update_s", "host_s",
    "samples_per_s", "mfu", "hfu", "flops_forward", "flops_backward", "bytes_forward",
    "saved_bytes", "time_to_train_s", "cost_usd", "energy_j",
)  # fmt: skip
SECANTS = 12  # most steps towards the largest batch; three or four are usual
LEAP = 64  # the largest of these steps, in batches
ANY_BATCH = 2**24  # samples; where as many fit, memory does not limit the batch


def forecast(
    scenario: Scenario, own: OwnRuns | None = None, *, assumed_stack: bool = False
) -> Forecast:
    """Forecast one step of a scenario, and the run where its length is given.

    own: measured steps of the user's, which calibrate it. The files that `scenario.runs` names are
    read by scenarios/own_runs.py, not here. assumed_stack: the scenario's stack is a guess; the
    interval is then that of frameworks which nobody named, as where no stack is given.
    """
    if scenario.campaign.get("stages"):
        from roofcast.simulator.campaign.terms import stages
        from roofcast.simulator.forecast.whole_run import in_stages

        return in_stages(scenario, stages(scenario.campaign), lambda s: forecast(s, own))
    found, t, imagined = without_interval(scenario)
    interval = shipped(t, imagined, assumed_stack or scenario.stack is None)
    if own is not None:
        found, interval = calibrated(found, t, interval, own)
    found = with_cost(with_interval(found, t, interval), scenario, forecast)
    if found.steps is None and not scenario.campaign:
        return found
    from roofcast.simulator.forecast.whole_run import with_campaign  # a step alone does without

    return with_campaign(found, scenario)


def without_interval(scenario: Scenario) -> tuple[Forecast, Traits, bool]:
    """The forecast without its interval, what it is compared with measured runs by, and whether its
    time is that of hardware that does not exist.
    """
    asked = resolve(scenario)
    found, step = timed(asked)
    _check_finite(found)
    imagined = _imagined(asked, found.step_time_s)
    if asked.device.edits and not imagined:
        found = msgspec.structs.replace(found, assumptions=(*found.assumptions, SAME_TIME))
    found = _advised(found, asked)
    return found, traits_of(found, asked.device, step), imagined


def _check_finite(found: Forecast) -> None:
    """Raises BadInput where sizes and rates are so far apart that a result is no number."""
    for field in FINITE:
        value = getattr(found, field)
        if value is not None and not 0.0 <= value < math.inf:
            raise BadInput(
                f"{found.model} on {found.device}: {field} is no number that can be; use sizes and"
                " rates that are less extreme"
            )


def _imagined(asked: Asked, step_s: float) -> bool:
    """Does the step take another time than on any device that was built? An edit of a price, of a
    capacity, or of a rate that the step does not use leaves the time as it is.
    """
    built = asked.built
    if built is None or built == asked.device:
        return built is None
    try:
        there, _ = timed(asked._replace(device=built))
    except (BadInput, UnknownName):  # the device as built cannot run it
        return True
    return abs(there.step_time_s - step_s) > SAME * step_s


def timed(asked: Asked) -> tuple[Forecast, Step]:
    """The forecast without its interval, and the step of one device."""
    if asked.layout is not None:
        return _over_devices(asked)
    step = of_one_batch(trace(asked.model, asked.recipe))
    longest = of_one_batch(trace(asked.model, asked.longest)) if asked.longest else step
    times = time_all(step, asked.device)
    phases = phases_of(step, times.seconds, asked.device)
    peak = at_peak(step, asked.device)
    held = held_on(longest, asked.device)
    found = assemble(asked, step, times, phases, peak, held, longest)
    return _explained(found, step, times, asked.device), step


def _explained(found: Forecast, step: Step, times: OpTimes, device: hwdb.Device) -> Forecast:
    """The forecast; where its MFU or HFU passes 1, why is listed as an assumption."""
    if max(found.mfu or 0.0, found.hfu or 0.0) <= 1.0:
        return found
    assumptions = (*found.assumptions, passes_one(step, times, device))
    return msgspec.structs.replace(found, assumptions=assumptions)


def _advised(found: Forecast, asked: Asked) -> Forecast:
    """The forecast without advice that was followed already."""
    training = asked.recipe.mode == "train"
    text = advised(found.diagnosis, asked.device, asked.recipe.precision, training)
    return msgspec.structs.replace(found, diagnosis=text)


def _over_devices(asked: Asked) -> tuple[Forecast, Step]:
    """The chain over several devices: one rank's micro-batch, then stages, schedule, reduction."""
    # one device does without
    from roofcast.simulator.forecast.assemble_parallel import assemble_parallel

    at = placed(asked)
    found = _explained(assemble_parallel(asked, at), at.step, at.times, asked.device)
    return found, at.step


def stages_of(asked: Asked) -> int:
    """Parts that the layers are distributed over."""
    return asked.layout.parallel.stages if asked.layout is not None else 1


class AnyBatch(BadInput):
    """Memory does not limit the batch."""


def step_seconds(asked: Asked) -> float:
    """Seconds of the step alone, as `timed` forecasts them."""
    if asked.layout is None:
        return timed(asked)[0].step_time_s
    return placed(asked, memory=False).outcome.step_s


def placed(asked: Asked, memory: bool = True) -> Placed:
    """One rank's step and times, and the step over all devices of a layout, with or without the
    memory of its ranks.
    """
    from roofcast.simulator.forecast.assemble_parallel import Placed
    from roofcast.simulator.parallel.layout import check
    from roofcast.simulator.parallel.networks import fabric_of
    from roofcast.simulator.parallel.step import held_by, over_devices
    from roofcast.simulator.parallel.traffic import Placement, network

    layout, device = asked.layout, asked.device
    assert layout is not None, "several devices have a layout"
    fabric = asked.fabric or fabric_of(asked.system, device, layout.devices)
    micro = msgspec.structs.replace(asked.recipe, batch=layout.micro_batch)
    whole = trace(asked.model, micro, Parallel(stages=stages_of(asked)))
    if asked.rank is not None:
        step, times = asked.rank
    else:
        step = trace(asked.model, micro, layout.parallel)
        times = time_all(step, device)
    phases = phases_of(step, times.seconds, device, waits=False)
    peak = at_peak(whole, device, layout.micro_batches * layout.dp)
    check(layout, step, asked.model.name)
    longest = whole, step
    outcome = over_devices(step, times, device, layout, fabric, memory and not asked.longest)
    if asked.longest and memory:
        micro = msgspec.structs.replace(asked.longest, batch=layout.micro_batch)
        whole_longest = trace(asked.model, micro, Parallel(stages=stages_of(asked)))
        longest = whole_longest, trace(asked.model, micro, layout.parallel)
        outcome = outcome._replace(**held_by(longest[1], device, layout, fabric))
    place = Placement(step, device, layout, network(layout, fabric))
    return Placed(whole, step, times, phases, peak, outcome, fabric, place, longest)


def largest_batch(scenario: Scenario) -> int | None:
    """The largest batch that fits the device at peak, all else equal [samples]; None where the
    capacity is unknown. Raises BadInput where any batch fits.

    Over several devices the micro-batch grows, and the number of micro-batches stays.
    """
    return largest_batches(scenario)[0]


def largest_batches(scenario: Scenario) -> tuple[int | None, int | None]:
    """The largest batch whose forecast peak fits, and the largest that fits even where memory is as
    far above its forecast as one run in ten was measured to be [samples].
    """
    scenario = at_longest(scenario)
    asked = resolve(scenario)
    device, layout = asked.device, asked.layout
    capacity = device.memory.limit
    if capacity is None:
        return None, None
    above = band(1.0, scenario.mode)[1] or 1.0
    model = asked.model.for_many_batches()  # a module is traced at a few of them
    if layout is not None:
        parts = layout.micro_batches * layout.dp

        @functools.cache
        def peak_of_all(micro: int) -> float:
            wanted = msgspec.structs.replace(
                scenario, model=model, inputs=(), batch=micro * parts, micro_batch=micro
            )
            return forecast(wanted).memory.peak_bytes

        micro = _most(lambda n: peak_of_all(n) <= capacity, scenario)
        surely = _most(lambda n: above * peak_of_all(n) <= capacity, scenario, micro)
        return parts * micro, parts * surely

    peaks: dict[int, float] = {}  # batch -> bytes

    def peak(batch: int) -> float:
        if batch not in peaks:
            recipe = msgspec.structs.replace(asked.recipe, batch=batch)
            peaks[batch] = held_on(trace(model, recipe), device).total
        return peaks[batch]

    peak(max(asked.recipe.batch, 2))
    near = _near(peak, peaks, float(capacity))
    batch = _most(lambda n: peak(n) <= capacity, scenario, near)
    near = _near(peak, peaks, capacity / above)
    return batch, _most(lambda n: above * peak(n) <= capacity, scenario, near)


def _near(peak: Callable[[int], float], known: Mapping[int, float], capacity: float) -> int:
    """A batch near the largest that fits: memory grows with it in pieces, each about linear or
    steeper than the one before.

    known: the peaks of the batches that were asked for so far. Between one that fits and one that
    does not, the line through both ends below the capacity, the line through the last two that fit
    beyond it; where that is no closer, the geometric mean is tried.
    """
    if peak(1) > capacity:
        return 2
    for step in range(SECANTS):
        below = sorted(n for n in known if known[n] <= capacity)
        above = min((n for n in known if known[n] > capacity), default=None)
        last = below[-1]
        if last >= ANY_BATCH or (above is not None and above - last == 1):
            break
        beyond = above is None or (step % 2 == 1 and len(below) > 1)
        a, b = below[-2:] if beyond or above is None else (last, above)
        slope = (known[b] - known[a]) / (b - a)
        found = LEAP * last
        if slope * (found - last) > capacity - known[last]:
            found = int(last + (capacity - known[last]) / slope)
        if above is not None and found >= above:
            found = math.isqrt(last * above)
        peak(min(max(found, last + 1), ANY_BATCH))
    return max(last, 2)


def with_largest_batch(found: Forecast, scenario: Scenario) -> Forecast:
    """The forecast with the largest batch that fits; None where capacity does not limit it."""
    if found.memory.capacity_bytes is None:
        return found
    said = found.assumptions
    try:
        most, surely = largest_batches(scenario)
    except AnyBatch:
        most = surely = None
    except BadInput as error:  # a module that does not run at another batch
        most, surely, said = None, None, (*said, f"largest batch: not known ({error})")
    memory = msgspec.structs.replace(found.memory, largest_batch=most, largest_batch_surely=surely)
    return msgspec.structs.replace(found, memory=memory, assumptions=said)


def _most(fits: Callable[[int], bool], scenario: Scenario, near: int = 2) -> int:
    """The largest number that fits; 0 where not even 1 does. `near`: where it may be."""
    if not fits(1):
        return 0
    low, high, by = 1, max(near, 2), 1
    while fits(high):
        low, high, by = high, high + by, 2 * by
        if low >= ANY_BATCH:
            raise AnyBatch(
                f"{scenario.model}: any batch fits {scenario.device}; memory does not limit it"
            )
    by = 1
    while low == 1 and high - by > 1:  # none that fits is known: go down from there
        if fits(high - by):
            low = high - by
        else:
            high, by = high - by, 2 * by
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
