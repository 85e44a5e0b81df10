"""A user's own measured steps: they shift a forecast and narrow its interval.

Only steps that agree with the forecast in ALIKE count. Their errors z = ln(measured / forecast) and
the error of the forecast are one draw of the model of random effects in `interval`: they share the
effect of the source, and of the model where it is the same one, the less the more their times
differ. In units of the variance of a class,

    k(a, b) = (source + model if a, b are of one model) exp(-|ln(t_a / t_b)| / reach),  k(a, a) = 1

where models are one if their numbers of parameters differ by less than SAME_MODEL: tables name the
same model in many ways, and many models "gpt".
The shift is the best linear unbiased prediction c' K^-1 z [robinson1991], with c = k(forecast, own
steps) and K = k(own steps, own steps); the half-width shrinks by sqrt(1 - c' K^-1 c). Errors are
Student's with `degrees` degrees of freedom: the half-width also takes the factor
sqrt((degrees + q) / (degrees + n)), where q is z' K^-1 z in units of the scale and n the number of
steps, so that steps which contradict each other or the forecast narrow it less [shah2014].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from roofcast.hwdb.errors import number_of
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.forecast.interval import Interval, Traits, effects
from roofcast.simulator.forecast.limits import CAPACITY, HOST
from roofcast.simulator.forecast.result import Forecast, LayerForecast, Limit, Point

SAME_MODEL = 0.05  # relative difference of the numbers of parameters
ALIKE = ("device", "stack", "model_kind", "mode", "format", "host_bound")
# fields of a forecast that are times of the step, and those that are rates
TIMES = (
    "step_time_s", "forward_s", "backward_s", "update_s", "host_s", "between_steps_s",
    "time_to_train_s", "cost_usd", "energy_j", "uneven_stages_s", "waiting_for_host_s",
)  # fmt: skip
RATES = ("samples_per_s", "tokens_per_s", "tokens_per_s_per_device", "mfu", "hfu")
UNSCALED = (HOST, CAPACITY)  # limits whose use does not depend on it: host times are scaled too
OF_LAYERS = ("time_s", "forward_s", "backward_s", "update_s")


class Own(NamedTuple):
    """One measured step of the user's, beside its forecast."""

    traits: Traits
    parameters: float
    seconds: float  # of the forecast
    error: float  # ln(measured / forecast)


class OwnRuns(NamedTuple):
    """The user's measured steps that may resemble a forecast."""

    where: str  # names of their files
    total: int  # steps in the files
    rows: tuple[Own, ...]  # those that were forecast


class Posterior(NamedTuple):
    """What own steps say of the error of a forecast."""

    shift: float  # of ln(measured / forecast)
    bias: float  # what remains of the class's bias
    narrowing: float  # factor on the half-width


def alike(rows: Sequence[Own], t: Traits) -> list[Own]:
    """The rows that count for a forecast of these traits."""
    wanted = [getattr(t, key) for key in ALIKE]
    return [row for row in rows if [getattr(row.traits, key) for key in ALIKE] == wanted]


def covariance(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray], shares: dict[str, float]
) -> np.ndarray:
    """k(a, b) of different steps, each given by (parameters, seconds); a row per a."""
    sizes, times = (
        np.abs(np.log(x)[:, None] - np.log(y)[None, :]) for x, y in zip(a, b, strict=True)
    )
    same = sizes < math.log1p(SAME_MODEL)
    alike_in = shares["source"] + shares["model"] * same
    return np.asarray(alike_in * np.exp(-times / shares["reach"]))


def posterior(
    target: tuple[float, float], rows: Sequence[Own], found: Interval, shares: dict[str, float]
) -> Posterior:
    """What `rows` say of a forecast of `target`, its parameters and seconds; `found`: its interval.

    shares: source, model, reach, degrees of freedom, and level_80, the half-width in units of the
    scale of Student's distribution.
    """
    own = (np.array([r.parameters for r in rows]), np.array([r.seconds for r in rows]))
    here = (np.array([target[0]]), np.array([target[1]]))
    k = covariance(own, own, shares)
    np.fill_diagonal(k, 1.0)
    c = covariance(here, own, shares)[0]
    errors = np.array([r.error for r in rows])
    gain = np.linalg.solve(k, c)
    scale = found.half_width / shares["level_80"]
    q = float(errors @ np.linalg.solve(k, errors)) / scale**2
    contradiction = (shares["degrees"] + q) / (shares["degrees"] + len(rows))
    left = max(1.0 - float(c @ gain), 0.0)
    return Posterior(
        float(gain @ errors),
        found.bias * (1.0 - float(gain.sum())),
        math.sqrt(left * contradiction),
    )


def calibrated(f: Forecast, t: Traits, found: Interval, own: OwnRuns) -> tuple[Forecast, Interval]:
    """The forecast and its interval after the user's own steps; what they did is assumed."""
    rows = alike(own.rows, t)
    runs = f"{number_of(own.total, 'run')} in {own.where}"
    if not rows:
        why = f"none of your {runs} is like this step (device, stack, kind of model, mode, format)"
        return _said(f, f"{why}: not used"), found
    after = posterior((f.parameters, f.step_time_s), rows, found, shares())
    factor = math.exp(after.shift)
    narrow = Interval(found.klass, after.bias, found.half_width * after.narrowing)
    done = msgspec.structs.replace(rescaled(f, factor), own_runs=len(rows), own_factor=factor)
    width = math.expm1(narrow.half_width), math.expm1(found.half_width)
    said = (
        f"calibrated on {len(rows)} of your {runs}: times x{factor:.3g},"
        f" 80 % interval +-{100 * width[0]:.0f} % instead of +-{100 * width[1]:.0f} %"
    )
    return _said(_checked(done), said), narrow


def shares() -> dict[str, float]:
    """The numbers of `posterior`, as shipped."""
    return {name: share.value for name, share in effects().common.items()}


def rescaled(f: Forecast, factor: float) -> Forecast:
    """The forecast with all times of the step multiplied; bounds, counts and watts stay."""
    changes: dict[str, object] = {}
    for names, by in ((TIMES, factor), (RATES, 1.0 / factor)):
        for name in names:
            value = getattr(f, name)
            changes[name] = value if value is None else value * by
    exposed = {kind: s * factor for kind, s in f.exposed_communication_s.items()}
    return msgspec.structs.replace(
        f,
        **changes,
        exposed_communication_s=exposed,
        layers=tuple(_longer(layer, factor) for layer in f.layers),
        points=tuple(_longer_point(point, factor) for point in f.points),
        limits=tuple(_less_used(limit, factor) for limit in f.limits),
    )


def _less_used(limit: Limit, factor: float) -> Limit:
    """A limit of a longer step, in which a resource is busy as long as before."""
    if limit.used is None or limit.name in UNSCALED:
        return limit
    used = limit.used / factor
    return msgspec.structs.replace(limit, used=used, headroom=max(1.0 - used, 0.0))


def _longer(layer: LayerForecast, factor: float) -> LayerForecast:
    times = {name: getattr(layer, name) * factor for name in OF_LAYERS}
    return msgspec.structs.replace(layer, **times)


def _longer_point(point: Point, factor: float) -> Point:
    return msgspec.structs.replace(point, time_s=point.time_s * factor)


def _checked(f: Forecast) -> Forecast:
    """The forecast; where your runs take it beyond what can be, that is said."""
    if f.step_time_s < f.lower_bound_s:
        return _said(f, "your runs put the step below its roofline lower bound: check their times")
    return f


def _said(f: Forecast, line: str) -> Forecast:
    return msgspec.structs.replace(f, assumptions=(*f.assumptions, line))
