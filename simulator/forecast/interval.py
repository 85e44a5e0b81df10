"""How sure a forecast is: an interval around it from the errors of left-out measured runs, and the
measured runs that resemble it most.

A model of random effects. The error ln(measured / forecast) of a step is

    bias + effect of the source + effect of its model + rest

where a source is one publication, or one user: its machines, software and habits. bias and the
half-width of the sum depend on the class of the forecast (`class_of`): how far it is from what was
measured. They come from runs that were forecast without their source, family of devices or stack
(hwdb/residuals.csv), every source with the same weight [hedges1985], so that the forecast for an
unseen source is as wide as unseen sources have been; steps other than the training of transformers
(`is_net`) are wider by one factor. The shares that the three effects have of the
variance are the same in all classes (hwdb/intervals.toml); `own_runs` needs them.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import msgspec
import numpy as np

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.records import Device
from roofcast.hwdb.strict import load
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.forecast.result import Forecast, Near
from roofcast.simulator.times.rates import family_name
from roofcast.simulator.work.step import Step

HERE = Path(hwdb.__file__).parent
HOST_BOUND = 0.6  # a step is bound by the host from this fraction of host time on
SHOWN = 3  # nearest runs shown
CANDIDATES = 100  # nearest runs of which these are chosen
LEVELS = (50, 80, 95)
TABLES = ("embedding", "embedding_bag")  # ops that look up rows
IMAGINED = "imagined device"
UNSTATED = "no stack stated"
FIELDS = (
    "device", "family", "maker", "kind", "stack", "model_kind", "mode", "format", "host_bound",
    "scale",
)  # fmt: skip
# of two measured runs, the nearer agrees in the first of these traits in which they differ
NEAR = ("model_kind", "device", "family", "maker", "host_bound", "mode", "format", "stack",
        "scale", "kind")  # fmt: skip
# columns of hwdb/residuals.csv: the error of the forecast as it is, and left out in three ways
WAYS = {
    "source": "constants fitted without the run's source",
    "device": "constants fitted without every device of the run's family",
    "software": "stack replaced by the default, as of a framework without a profile",
}


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
    devices: np.ndarray  # of the run
    parameters: np.ndarray  # of the model
    error: np.ndarray  # ln(measured / forecast)
    left_out: dict[str, np.ndarray]  # the same by each of WAYS; NaN where that way does not exist


class Effect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Errors of one class of forecasts, as ln(measured / forecast)."""

    bias: float  # middle of the interval
    half_width: float  # of the interval that holds 80 %
    source: str


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number that holds for all classes."""

    value: float
    source: str


class Effects(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """hwdb/intervals.toml."""

    common: dict[str, Share]
    classes: dict[str, Effect]

    def level(self, level: int) -> float:
        """Half-width of an interval of 50, 80 or 95 %, as a multiple of that of 80 %."""
        return 1.0 if level == 80 else self.common[f"level_{level}"].value


class Interval(NamedTuple):
    """Where ln(measured / forecast) lies."""

    klass: str
    bias: float
    half_width: float  # at 80 %

    def factors(self) -> dict[int, tuple[float, float]]:
        """Factors on a forecast between which the measured time lies, by level in percent. The
        forecast itself is always inside.
        """
        found = {}
        for level in LEVELS:
            half = self.half_width * effects().level(level)
            low, high = min(self.bias - half, 0.0), max(self.bias + half, 0.0)
            found[level] = (float(np.exp(low)), float(np.exp(high)))
        return found


@functools.cache
def residuals() -> Residuals:
    """The shipped errors of measured runs."""
    path = HERE / "residuals.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return columns(list(csv.DictReader(line for line in file if not line.startswith("#"))))
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise BadInput(f"{path.name}: not a table of residuals: {error!r}") from None


def columns(rows: list[dict[str, str]]) -> Residuals:
    """The rows of hwdb/residuals.csv in columns."""

    def texts(key: str) -> np.ndarray:
        return np.array([row[key] for row in rows], dtype=object)

    def numbers(key: str) -> np.ndarray:
        return np.array([float(row[key] or "nan") for row in rows])

    return Residuals(
        texts("name"),
        texts("source"),
        {key: texts(key) for key in FIELDS},
        texts("blind") == "yes",
        numbers("measured_s"),
        numbers("devices"),
        numbers("parameters"),
        numbers("error"),
        {way: numbers(f"without_{way}") for way in WAYS},
    )


@functools.cache
def effects() -> Effects:
    """The shipped effects."""
    path = HERE / "intervals.toml"
    try:
        return msgspec.convert(load(path, "the errors of forecasts"), Effects)
    except msgspec.ValidationError as error:
        raise BadInput(f"{path.name}: {error}") from None


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


def traits_of(f: Forecast, device: Device, step: Step) -> Traits:
    """Traits of a forecast step."""
    host_share = (f.host_s + f.between_steps_s) / f.step_time_s if f.step_time_s else 0.0
    return traits(device, step, host_share, f.devices)


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


def class_of(t: Traits, r: Residuals, imagined: bool = False, unstated: bool = False) -> str:
    """Class of a forecast: how far it is from the runs that constants could be fitted to.

    imagined: the time is that of hardware that does not exist, or on which nothing was measured;
    unstated: the stack is a default, that of a framework which nobody named. Runs that are kept for
    blind tests make nothing known.
    """
    if imagined:
        return IMAGINED
    known = {key: (r.traits[key] == value) & ~r.blind for key, value in t._asdict().items()}
    if unstated and known["maker"].any():
        return UNSTATED
    if t.model_kind == "moe":
        return "mixture of experts"
    if t.host_bound == "yes":
        return "bound by the host"
    if known["device"].any():
        alike = np.all([known[k] for k in ("device", "stack", "model_kind", "mode")], axis=0)
        return "known device and stack" if alike.any() else "known device, another stack"
    if not t.family.startswith("any-") and known["family"].any():
        return "known family"
    return "inherited device" if known["maker"].any() else "unfitted maker"


def is_net(t: Traits) -> bool:
    """Whether a step is none of those that constants of training steps are fitted to: training of
    transformers and mixtures of experts.
    """
    return t.model_kind not in ("transformer", "moe") or t.mode != "train"


@functools.lru_cache(maxsize=256)
def shipped(t: Traits, imagined: bool = False, unstated: bool = False) -> Interval:
    """The interval of a forecast with these traits, before any run of the user's own. imagined,
    unstated: as `class_of` takes them.
    """
    klass = class_of(t, residuals(), imagined, unstated)
    effect = effects().classes[klass]
    wider = effects().common["nets"].value if is_net(t) else 1.0
    return Interval(klass, effect.bias, effect.half_width * wider)


def with_interval(f: Forecast, t: Traits, found: Interval) -> Forecast:
    """The forecast with its interval, its class and the nearest measured runs."""
    bounds = {
        str(level): (f.step_time_s * a, f.step_time_s * b)
        for level, (a, b) in found.factors().items()
    }
    low, high = bounds["80"]
    return msgspec.structs.replace(
        f,
        low_s=low,
        high_s=high,
        interval_class=found.klass,
        interval_s=bounds,
        nearest=nearest(f, t, residuals()),
    )


@functools.lru_cache(maxsize=256)
def _order(t: Traits) -> np.ndarray:
    """The CANDIDATES of the shipped runs, the most similar first."""
    r = residuals()
    differs = [r.traits[key] != getattr(t, key) for key in reversed(NEAR)]
    return np.lexsort(differs)[:CANDIDATES]


def nearest(f: Forecast, t: Traits, r: Residuals) -> tuple[Near, ...]:
    """The most similar runs, of the same model first, one per model."""
    mine, order = f"{f.model},", _order(t)
    names = r.name[order].tolist()
    near = list(zip(names, order, strict=True))
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
            unread=bool(r.blind[i]),
        )
        for i in list(chosen.values())[:SHOWN]
    )
