"""The whole run of a scenario, from the forecast of its step."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.simulator.campaign.terms import Stage, Terms, stages, terms
from roofcast.simulator.campaign.whole import Facts, Part, whole
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.times import offload

SITE = "site"  # the widest scope of energy
OF_RUN = "whole training: "  # how assumptions on it begin
SUMS = ("steps", "time_to_train_s", "cost_usd", "energy_j", "carbon_kg", "embodied_kg")


def with_campaign(f: Forecast, s: Scenario) -> Forecast:
    """The forecast with its whole run; as it is in inference, and where the run has no length.

    Raises BadInput for terms of a run that cannot be.
    """
    asked = terms(s.campaign)
    if f.steps is None or f.mode != "train" or f.state_bytes is None:
        return f
    return _with(f, s, asked, (_part(f),))


def of_first_stage(s: Scenario) -> Scenario:
    """The scenario of the step that the forecast of a run in stages shows; of another, itself."""
    given = stages(s.campaign)
    if not given:
        return s
    return msgspec.structs.replace(s, campaign={}, **given[0].changes())


def in_stages(
    s: Scenario, given: tuple[Stage, ...], forecast_of: Callable[[Scenario], Forecast]
) -> Forecast:
    """The forecast of a run in stages: the step is that of the first, and the figures of the run
    are sums over the stages.

    forecast_of: of a scenario without a table `campaign`. Raises BadInput for stages that cannot
    be.
    """
    if s.tokens is not None or s.samples is not None or s.epochs is not None:
        raise BadInput(
            "the stages of the run have lengths, and so has the run; leave tokens, samples and"
            " epochs of the run out"
        )
    asked, parts = terms(s.campaign), []
    spot = {"preemptions_per_hour": asked.preemptions_per_hour}  # sets the price
    bare = msgspec.structs.replace(s, campaign=spot if asked.preemptions_per_hour else {})
    for number, stage in enumerate(given, 1):
        try:
            parts.append(forecast_of(msgspec.structs.replace(bare, **stage.changes())))
        except RoofcastError as error:
            raise type(error)(f"stage {number}: {error}") from None
    first = parts[0]
    if first.mode != "train" or first.state_bytes is None:
        raise BadInput("stages are those of a training; leave them out in inference")
    if len({f.devices for f in parts}) > 1:
        raise BadInput("the stages run on different numbers of devices; give --devices")
    sums = {name: _sum(getattr(f, name) for f in parts) for name in SUMS}
    by_scope = {
        scope: sum(f.energy_by_scope_j[scope] for f in parts) for scope in first.energy_by_scope_j
    }
    whole_run = msgspec.structs.replace(
        first, campaign=None, energy_by_scope_j=by_scope, **sums,
        assumptions=tuple(line for line in first.assumptions if not line.startswith(OF_RUN)),
    )  # fmt: skip
    each = (_part(f, stage.name) for f, stage in zip(parts, given, strict=True))
    return _with(whole_run, s, asked, tuple(each))


def _sum(values: Iterable[float | None]) -> float | None:
    each = list(values)
    return None if None in each else sum(v for v in each if v is not None)


def _part(f: Forecast, name: str = "") -> Part:
    """What a forecast says of its stage, or of the run."""
    passes = f.forward_s + f.backward_s
    return Part(
        steps=f.steps or 0.0,
        step_s=f.step_time_s,
        low_s=f.low_s,
        high_s=f.high_s,
        forward=f.forward_s / passes if passes > 0 else 1.0,
        samples=f.samples_read,
        tokens=f.tokens_read,
        batch=float(f.batch),
        step_j=f.step_energy_by_scope_j.get(SITE, f.step_energy_j),
        sequence=f.sequence,
        name=name,
    )


def _with(f: Forecast, s: Scenario, asked: Terms, parts: tuple[Part, ...]) -> Forecast:
    """The forecast with the whole run that these parts are of."""
    if asked.eval_tokens and f.sequence is None:
        raise BadInput("eval_tokens: this model does not read tokens; give eval_samples")
    if asked.input_tokens and f.sequence is None:
        raise BadInput("input_rate: this model does not read tokens; give samples per second")
    device = hwdb.device(s.device, s.set)
    facts = Facts(
        device=device,
        devices=f.devices,
        parts=parts,
        state_bytes=f.state_bytes or 0.0,
        host_rate=host_rate(device),
        power_scope=SITE if SITE in f.step_energy_by_scope_j else f.power_scope,
        price=f.price_usd_per_hour,
        price_given=s.price_per_hour is not None,
    )
    found, assumed = whole(facts, asked)
    if found is None:
        raise BadInput(
            f"the run never ends: failures come sooner than the next checkpoint of {f.model} on"
            f" {f.devices:,} {f.device}; lower failure_rate, save more often or faster"
        )
    said = tuple(f"{OF_RUN}{line}" for line in assumed)
    return msgspec.structs.replace(f, campaign=found, assumptions=(*f.assumptions, *said))


def host_rate(device: hwdb.Device) -> float | None:
    """Copies from a device to its host [B/s]; None where the link is unknown."""
    try:
        return offload.link(device)
    except BadInput:
        return None
