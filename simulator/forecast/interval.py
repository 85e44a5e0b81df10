"""How sure a forecast is: an interval around it, from the errors of measured runs that resemble
it, and the runs that resemble it most.

Every run of hwdb/residuals.csv has an error ln(measured / predicted). A forecast weighs each run
by likeness (the same device, family, maker or kind of device; stack; kind of model; mode; format;
bound by the host or not; number of devices); a run of a large group of one source, device and stack
counts less. The interval is given by the quantiles of these weighted errors, stretched by the
factor of its class (hwdb/intervals.toml) so that 80 % of left-out runs lie inside: a weighted
conformal prediction [tibshirani2019] with classes.
"""

from __future__ import annotations

import csv
import functools
import tomllib
from collections.abc import Sequence
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
# weight of a run that differs in this trait; chosen among a few settings, see docs/method.md
LIKE = {
    "stack": 0.1, "model_kind": 0.1, "mode": 0.5, "format": 0.4, "host_bound": 0.1, "scale": 0.3,
}  # fmt: skip
# the same for the runs that are shown as nearest: above all a model of the same kind
NEAR = {**LIKE, "model_kind": 0.03, "stack": 0.5, "scale": 0.5}
# weight of a run on the same device; of its family; of its maker and kind; of its kind; of another
DEVICE, FAMILY, MAKER, KIND, OTHER = 1.0, 0.2, 0.03, 0.015, 0.01
GROUP = 0.3  # n runs of one source, device and stack together weigh n^(1 - GROUP)
HOST_BOUND = 0.6  # a step is bound by the host from this fraction of host time on
UNKNOWN_STRETCH = 2.0  # of a class that intervals.toml does not have
SHOWN = 3  # nearest runs shown
CANDIDATES = 100  # nearest runs of which these are chosen
LEVELS = (50, 80, 95)
TABLES = ("embedding", "embedding_bag")  # ops that look up rows
KIND_OF_STEP = ("model_kind", "mode", "format")
FIELDS = (
    "device", "family", "maker", "kind", "stack", "model_kind", "mode", "format", "host_bound",
    "scale",
)  # fmt: skip


class Traits(NamedTuple):
    """What forecasts are compared with measured runs by."""

    device: str
    family: str  # of fitted constants: "ampere-gddr", "any-gpu"
    maker: str  # with the kind of device: "NVIDIA gpu"
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
    blind: np.ndarray  # whether no constant was fitted to its table
    seconds: np.ndarray
    error: np.ndarray  # ln(measured / predicted)
    crowd: np.ndarray  # runs of the same source, device and stack
    devices: np.ndarray  # of the run

    def only(self, mask: np.ndarray) -> Residuals:
        """The rows where the mask is true."""
        return columns(
            self.name[mask],
            self.source[mask],
            {k: v[mask] for k, v in self.traits.items()},
            self.blind[mask],
            self.seconds[mask],
            self.error[mask],
            self.devices[mask],
        )


def columns(
    name: np.ndarray,
    source: np.ndarray,
    traits: dict[str, np.ndarray],
    blind: np.ndarray,
    seconds: np.ndarray,
    error: np.ndarray,
    devices: np.ndarray,
) -> Residuals:
    """Residuals of these columns, with the size of each run's group."""
    keys = [
        f"{s}|{d}|{k}" for s, d, k in zip(source, traits["device"], traits["stack"], strict=True)
    ]
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return Residuals(name, source, traits, blind, seconds, error, counts[inverse], devices)


class Interval(NamedTuple):
    """Factors on a forecast between which the measured time lies."""

    klass: str
    factors: dict[int, tuple[float, float]]  # by level in percent
    nearest: np.ndarray  # rows of the residuals, the most similar first


@functools.cache
def residuals() -> Residuals:
    """The shipped errors of measured runs."""
    path = HERE / "residuals.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        number = {
            key: np.array([float(r[key]) for r in rows])
            for key in ("measured_s", "error", "devices")
        }
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
        number["devices"],
    )


@functools.cache
def stretches() -> dict[str, float]:
    """Factor on the width of the quantiles, by class."""
    table = tomllib.loads((HERE / "intervals.toml").read_text(encoding="utf-8"))
    return {name: float(entry["stretch"]) for name, entry in table.items()}


def traits(device: Device, step: Step, host_share: float, devices: int = 1) -> Traits:
    """Traits of a step. host_share: host time as a fraction of the step."""
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
    """Kind of a model: what most of its matrix FLOPs are for; a recommender mostly looks up."""
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
    if looked > 0.2 * moved or _mostly_tables(step):
        return "recommender"
    return "transformer"


def _mostly_tables(step: Step) -> bool:
    """Whether most weights are rows to look up, and nothing attends."""
    if any(node.op == "attention" for node in step.nodes):
        return False
    total = sum(w.size * w.count for w in step.weights)
    tables = sum(w.size * w.count for w in step.weights if step.nodes[w.node].op in TABLES)
    return tables > 0.5 * total


def likeness(t: Traits, r: Residuals, rest: dict[str, float] = LIKE) -> np.ndarray:
    """Weight of each measured run: 1 where all traits agree, less for each difference."""
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
    """Likeness of each measured run, less for a run of a large group."""
    return likeness(t, r) / r.crowd**GROUP


def class_of(t: Traits, r: Residuals, imagined: bool = False) -> str:
    """Class of a forecast: how far it is from what was measured. imagined: on no real device."""
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


def quantiles(errors: np.ndarray, w: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Weighted quantiles of the errors, linear between neighbours."""
    order = np.argsort(errors)
    e, w = errors[order], w[order]
    place = (np.cumsum(w) - 0.5 * w) / w.sum()
    return np.interp(levels, place, e)


def interval(t: Traits, r: Residuals, stretch: float, klass: str) -> Interval:
    """The interval of a forecast with these traits."""
    w = weights(t, r)
    factors = {}
    for level in LEVELS:
        low, middle, high = quantiles(r.error, w, (0.5 - level / 200, 0.5, 0.5 + level / 200))
        factors[level] = (
            float(np.exp(min(middle - stretch * (middle - low), 0.0))),
            float(np.exp(max(middle + stretch * (high - middle), 0.0))),
        )
    return Interval(klass, factors, np.argsort(-likeness(t, r, NEAR), kind="stable")[:CANDIDATES])


@functools.lru_cache(maxsize=256)
def _shipped(t: Traits, imagined: bool) -> Interval:
    """The interval by the shipped residuals."""
    klass = class_of(t, residuals(), imagined)
    return interval(t, residuals(), stretches().get(klass, UNKNOWN_STRETCH), klass)


def with_interval(f: Forecast, device: Device, step: Step, imagined: bool = False) -> Forecast:
    """The forecast with its interval, its class and the nearest measured runs.

    imagined: the time is that of hardware which does not exist, or on which nothing was measured.
    """
    r = residuals()
    host_share = (f.host_s + f.between_steps_s) / f.step_time_s if f.step_time_s else 0.0
    t = traits(device, step, host_share, f.devices)
    found = _shipped(t, imagined)
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
    """The most similar runs, of the same model first, one per model."""
    mine = f"{f.model},"
    names = r.name[found.nearest].tolist()
    near = list(zip(names, found.nearest, strict=True))
    chosen: dict[str, int] = {}
    for name, i in sorted(near, key=lambda each: not each[0].startswith(mine)):
        chosen.setdefault(name.split(",")[0], i)
    return tuple(
        Near(
            name=str(r.name[i]),
            device=str(r.traits["device"][i]),
            stack=str(r.traits["stack"][i]),
            source=str(r.source[i]),
            devices=int(r.devices[i]),
            measured_s=float(r.seconds[i]),
            error=float(np.exp(-r.error[i]) - 1.0),
        )
        for i in list(chosen.values())[:SHOWN]
    )
