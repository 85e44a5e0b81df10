"""The whole run of a scenario, from the forecast of its step."""

from __future__ import annotations

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.campaign.terms import terms
from roofcast.simulator.campaign.whole import Facts, whole
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.times import offload

SITE = "site"  # the widest scope of energy


def with_campaign(f: Forecast, s: Scenario) -> Forecast:
    """The forecast with its whole run; as it is in inference, and where the run has no length.

    Raises BadInput for terms of a run that cannot be.
    """
    asked = terms(s.campaign)
    if f.steps is None or f.mode != "train" or f.state_bytes is None:
        return f
    if asked.eval_tokens and f.sequence is None:
        raise BadInput("eval_tokens: this model does not read tokens; give eval_samples")
    if asked.input_tokens and f.sequence is None:
        raise BadInput("input_rate: this model does not read tokens; give samples per second")
    device = hwdb.device(s.device, s.set)
    passes = f.forward_s + f.backward_s
    facts = Facts(
        device=device,
        devices=f.devices,
        steps=f.steps,
        step_s=f.step_time_s,
        low_s=f.low_s,
        high_s=f.high_s,
        forward=f.forward_s / passes if passes > 0 else 1.0,
        samples=float(f.batch),
        tokens=float(f.batch * f.sequence) if f.sequence else None,
        state_bytes=f.state_bytes,
        host_rate=host_rate(device),
        step_j=f.step_energy_by_scope_j.get(SITE, f.step_energy_j),
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
    said = tuple(f"whole training: {line}" for line in assumed)
    return msgspec.structs.replace(f, campaign=found, assumptions=(*f.assumptions, *said))


def host_rate(device: hwdb.Device) -> float | None:
    """Copies from a device to its host [B/s]; None where the link is unknown."""
    try:
        return offload.link(device)
    except BadInput:
        return None
