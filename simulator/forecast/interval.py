"""How sure a forecast is: an interval around it, from the errors of measured runs that resemble it,
and which these are.

Every run of hwdb/residuals.csv has ln(measured / predicted). A forecast weighs each by likeness
(the same device, its family, its kind; stack; kind of model; mode; format; bound by the host or
not), large groups of one source, device and stack counting less a run. The quantiles of these
weighted errors, stretched by what its class needs (hwdb/intervals.toml) so that 80 % of left-out
runs lie inside, are its interval: a weighted conformal prediction [tibshirani2019] with classes.
"""

from __future__ import annotations

import csv
import functools
import tomllib
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.simulator.forecast.result import Forecast, Near
from roofcast.simulator.times.rates import family_name
from roofcast.simulator.work.step import Step

HERE = Path(hwdb.__file__).parent
# what a difference leaves of a weight
LIKE = {
    "stack": 0.1,
    "model_kind": 0.1,
    "mode": 0.5,
    "format": 0.4,
    "host_bound": 0.1,
    "scale": 0.3,
}
# the same for the runs that are shown: first of all a like model
NEAR = {**LIKE, "model_kind": 0.03, "stack": 0.5, "scale": 0.5}
# the same device, family, maker and kind, kind; none of them
DEVICE, FAMILY, MAKER, KIND, OTHER = (1.0, 0.2, 0.03, 0.015, 0.01)
GROUP = 0.3  # a group of n runs of one source, device and stack weighs n^(1 - GROUP)
HOST_BOUND = 0.6  # a step that the host needs so much of is bound by it
LEVELS = (50, 80, 95)
KIND_OF_STEP = ("model_kind", "mode", "format")
FIELDS = (
    "device",
    "family",
    "maker",
    "kind",
    "stack",
    "model_kind",
    "mode",
    "format",
    "host_bound",
    "scale",
)


class Traits(NamedTuple):
    """What a forecast is compared with measured runs by."""

    device: str
    family: str  # of achieved shares: "ampere-gddr", "any-gpu"
    # and kind, as one maker's processors and accelerators have little in common: "NVIDIA gpu"
    maker: str
    kind: str  # of device: gpu | cpu | tpu | npu
    stack: str
    model_kind: str  # convolutional | transformer | recurrent | recommender | moe
    mode: str
    format: str  # fp32 | tf32 | 16-bit | 8-bit
    host_bound: str  # yes | no
    scale: str  # one | node | cluster


class Residuals(NamedTuple):
    """Measured runs in columns."""

    name: np.ndarray  # "resnet50, batch 256, training"
    source: np.ndarray
    traits: dict[str, np.ndarray]
    blind: np.ndarray  # of a table that no constant was fitted to
    seconds: np.ndarray
    error: np.ndarray  # ln(measured / predicted)
    crowd: np.ndarray  # runs of the same source, device and stack

    def only(self, mask) -> Residuals:
        """The rows where the mask is true."""
        return columns(
            self.name[mask],
            self.source[mask],
            {k: v[mask] for k, v in self.traits.items()},
            self.blind[mask],
            self.seconds[mask],
            self.error[mask],
        )


def columns(name, source, traits, blind, seconds, error) -> Residuals:
    """Columns as Residuals, their groups counted."""
    keys = [
        f"{s}|{d}|{k}" for s, d, k in zip(source, traits["device"], traits["stack"], strict=True)
    ]
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return Residuals(name, source, traits, blind, seconds, error, counts[inverse])


class Interval(NamedTuple):
    """Factors on the forecast between which the measured time lies, by level in percent."""

    klass: str
    factors: dict[int, tuple[float, float]]
    nearest: np.ndarray  # rows of the residuals, the most alike first


@functools.cache
def residuals() -> Residuals:
    """The shipped errors of measured runs."""
    path = HERE / "residuals.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        number = {key: np.array([float(r[key]) for r in rows]) for key in ("measured_s", "error")}
        text = {
            key: np.array([r[key] for r in rows], dtype=object)
            for key in ("name", "source", "blind", *FIELDS)
        }
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise BadInput(f"{path.name}: not a table of residuals: {error!r}") from None
    fields = {key: text[key] for key in FIELDS}
    return columns(
        text["name"],
        text["source"],
        fields,
        text["blind"] == "yes",
        number["measured_s"],
        number["error"],
    )


@functools.cache
def stretches() -> dict[str, float]:
    """Factor by class on the width of its quantiles."""
    table = tomllib.loads((HERE / "intervals.toml").read_text(encoding="utf-8"))
    return {name: float(entry["stretch"]) for name, entry in table.items()}


def traits(device: Device, step: Step, host_share: float, devices: int = 1) -> Traits:
    """Traits of a step on a device."""
    recipe = step.recipe
    word = recipe.precision.removeprefix("amp-")
    width = {"bf16": "16-bit", "fp16": "16-bit", "fp8": "8-bit", "int8": "8-bit"}.get(word, word)
    scale = "one" if devices == 1 else "node" if devices <= 8 else "cluster"
    maker = f"{device.vendor} {device.kind}"
    bound = "yes" if host_share > HOST_BOUND else "no"
    return Traits(
        device.base or device.id,
        family_name(device),
        maker,
        device.kind,
        recipe.stack.name,
        model_kind(step),
        recipe.mode,
        width,
        bound,
        scale,
    )


def model_kind(step: Step) -> str:
    """What most of a net's matrix FLOPs are; a net of look-ups is a recommender."""
    flops: dict[str, float] = {}
    looked = moved = 0.0
    for k in step.kernels:
        if k.phase == "forward":
            flops[k.kind] = flops.get(k.kind, 0.0) + k.matrix * k.count
            moved += (k.read + k.written) * k.count
            looked += (k.read + k.written) * k.count if k.kind == "gather" else 0.0
    total = sum(flops.values()) or 1.0
    if any(node.op in ("moe", "router", "experts") for node in step.nodes):
        return "moe"
    if flops.get("recurrent", 0.0) > 0.2 * total:
        return "recurrent"
    if flops.get("conv", 0.0) + flops.get("depthwise", 0.0) > 0.5 * total:
        return "convolutional"
    return "recommender" if looked > 0.2 * moved else "transformer"


def likeness(t: Traits, r: Residuals, rest: dict[str, float] = LIKE) -> np.ndarray:
    """1 for a run that shares all traits, less for every difference."""
    same = {key: r.traits[key] == value for key, value in t._asdict().items()}
    far = np.where(same["maker"], MAKER, np.where(same["kind"], KIND, OTHER))
    w = np.where(
        same["device"],
        DEVICE,
        np.where(same["family"] & (not t.family.startswith("any-")), FAMILY, far),
    )
    for key, left in rest.items():
        w = w * np.where(same[key], 1.0, left)
    return w


def weights(t: Traits, r: Residuals) -> np.ndarray:
    """Likeness of each measured run, a run of a large group less."""
    return likeness(t, r) / r.crowd**GROUP


def class_of(t: Traits, r: Residuals, imagined: bool = False) -> str:
    """How far a forecast is from what was measured."""
    if imagined:
        return "imagined device"
    maker = r.traits["maker"] == t.maker
    if not maker.any():
        return "unknown maker"
    if r.blind[maker].all():
        known = (r.traits["device"] == t.device).any()
        return f"unfitted maker, {'known' if known else 'inherited'} device"
    if t.scale != "one" and not (r.traits["scale"] == t.scale).any():
        return "several devices"
    if t.model_kind == "moe":
        return "mixture of experts"
    if t.host_bound == "yes":
        return "bound by the host"
    device, stack = r.traits["device"] == t.device, r.traits["stack"] == t.stack
    if (device & stack).any():
        alike = np.all([r.traits[key] == getattr(t, key) for key in KIND_OF_STEP], axis=0)
        return (
            "known device and stack"
            if (device & stack & alike).any()
            else "known device and stack, another kind of step"
        )
    if device.any():
        return "known device, unknown stack"
    if not t.family.startswith("any-") and ((r.traits["family"] == t.family) & stack).any():
        return "known family and stack"
    if (stack & (r.traits["kind"] == t.kind)).any():
        return "inherited device, known stack"
    return "inherited device, unknown stack"


def quantiles(errors: np.ndarray, w: np.ndarray, levels) -> np.ndarray:
    """Weighted quantiles, between neighbouring errors in a straight line."""
    order = np.argsort(errors)
    e, w = errors[order], w[order]
    place = (np.cumsum(w) - 0.5 * w) / w.sum()
    return np.interp(levels, place, e)


def spread(t: Traits, r: Residuals, stretch: float, klass: str) -> Interval:
    """Factors on a forecast of these traits."""
    like = likeness(t, r)
    w = like / r.crowd**GROUP
    factors = {}
    for level in LEVELS:
        low, middle, high = quantiles(r.error, w, (0.5 - level / 200, 0.5, 0.5 + level / 200))
        factors[level] = (
            float(np.exp(min(middle - stretch * (middle - low), 0.0))),
            float(np.exp(max(middle + stretch * (high - middle), 0.0))),
        )
    return Interval(klass, factors, np.argsort(-likeness(t, r, NEAR), kind="stable")[:100])


@functools.lru_cache(maxsize=256)
def _shipped(t: Traits, imagined: bool) -> Interval:
    """The spread by the shipped residuals."""
    klass = class_of(t, residuals(), imagined)
    return spread(t, residuals(), stretches().get(klass, 2.0), klass)


def with_interval(f: Forecast, device: Device, step: Step) -> Forecast:
    """The forecast with its interval, its class and the three nearest measured runs."""
    r = residuals()
    t = traits(
        device,
        step,
        (f.host_s + f.between_steps_s) / f.step_time_s if f.step_time_s else 0.0,
        f.devices,
    )
    # somebody's chip, of which nothing was measured
    own = device.id not in hwdb.devices() and not device.achieved
    found = _shipped(t, bool(device.edits) or own)
    bounds = {
        str(level): (f.step_time_s * a, f.step_time_s * b)
        for level, (a, b) in found.factors.items()
    }
    low, high = bounds["80"]
    return msgspec.structs.replace(
        f,
        low_s=low,
        high_s=high,
        interval_class=found.klass,
        interval_s=bounds,
        nearest=nearest(f, found, r),
    )


def nearest(f: Forecast, found: Interval, r: Residuals) -> tuple[Near, ...]:
    """The three runs most alike, of the same model first, one a model."""
    mine = f"{f.model},"
    order = sorted(found.nearest, key=lambda i: not r.name[i].startswith(mine))
    chosen: dict[str, int] = {}
    for i in order:
        chosen.setdefault(r.name[i].split(",")[0], i)
    return tuple(
        Near(
            name=str(r.name[i]),
            device=str(r.traits["device"][i]),
            stack=str(r.traits["stack"][i]),
            source=str(r.source[i]),
            measured_s=float(r.seconds[i]),
            error=float(np.exp(-r.error[i]) - 1.0),
        )
        for i in list(chosen.values())[:3]
    )
