"""What a forecast of serving is asked, and the layout that it decides."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from roofcast.hwdb.errors import BadInput, number_of
from roofcast.hwdb.lookup import as_set
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.models.catalog import resolve
from roofcast.simulator.parallel.layout import divisors
from roofcast.simulator.serving.backends import stack_of
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.profiles import Profile, profile
from roofcast.simulator.work.model import Model

LAYERS = ("num_hidden_layers", "n_layer", "n_layers")  # names in configurations
NODE = 8  # devices over which tensors are cut where no layout is given, at most
DEGREES = ("devices", "tp", "pp", "ep", "dp", "replicas")


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """A model served on devices under a load. What is left out gets a default that is listed."""

    model: str
    device: str
    load: Load
    set: dict[str, str | float | int] = {}  # edits of the device
    system: str | None = None  # node or pod; default: the usual one of the device
    devices: int | None = None  # default: tp x pp x dp
    tp: int | None = None  # tensor parallel
    pp: int | None = None  # pipeline stages
    ep: int | None = None  # expert parallel
    dp: int | None = None  # with experts: data-parallel attention; else replicas
    weights: str | None = None  # format of the weights; default: the checkpoint's
    kv: str | None = None  # format of the cache
    stack: str | None = None  # serving software
    speculate: int = 0  # tokens drafted per step
    acceptance: float | None = None  # probability that a drafted token is kept
    price_per_hour: float | None = None  # USD per device-hour

    def __post_init__(self) -> None:
        for name in ("devices", "tp", "pp", "ep", "dp"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 10**6:
                raise BadInput(f"{name} {value}: give a whole number from 1 to 1,000,000")
        for name in ("weights", "kv", "stack", "system"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise BadInput(f"{name} is empty; leave it out for the default")


class Degrees(NamedTuple):
    """The layout of one replica, and the number of replicas."""

    tp: int
    pp: int
    ep: int
    dp: int  # data-parallel attention within a replica
    replicas: int
    said: tuple[str, ...]

    @property
    def devices(self) -> int:
        """All devices."""
        return self.tp * self.pp * self.dp * self.replicas


def degrees(asked: Serving) -> Degrees:
    """The layout: what is given, then tensor parallelism within a node, then replicas.

    Raises BadInput where the devices cannot be divided.
    """
    pp, ep = asked.pp or 1, asked.ep or 1
    joined = asked.dp if asked.dp and ep > 1 else 1  # attention's, with experts over all ranks
    said: tuple[str, ...] = ()
    tp = asked.tp
    if tp is None and asked.pp is None and ep == 1 and _by_layer(asked):
        tp, pp = 1, _stages(asked, max((asked.devices or 1) // (asked.dp or 1), 1))
        if pp > 1:
            layers = "layers cut over the devices, as this software does by default"
            said = (f"pp {pp}: {layers}; --tp or --pp gives another",)
    if tp is None:
        tp = 1
        left = (asked.devices or 1) // (pp * (asked.dp or 1))
        if asked.devices and left > 1:
            tp = _tensor(asked, left)
            cut = "tensors cut over the devices of a node" if tp > 1 else f"{left} divide no heads"
            said = (f"tp {tp}: {cut}; --tp gives another",)
    one = tp * pp * joined
    devices = asked.devices or one * (asked.dp or 1 if joined == 1 else 1)
    if devices % one:
        raise BadInput(
            f"devices {devices}: not a multiple of the {one} of one replica"
            f" (tp {tp} x pp {pp}{f' x dp {joined}' if joined > 1 else ''})"
        )
    replicas = devices // one
    if asked.dp and joined == 1 and replicas != asked.dp:
        raise BadInput(
            f"dp {asked.dp}: {number_of(devices, 'device')} at tp {tp} x pp {pp}"
            f" {'makes' if devices == 1 else 'make'} {number_of(replicas, 'replica')}; leave dp or"
            " devices out"
        )
    if replicas > 1:
        said = (*said, f"{replicas:,} replicas, each with its part of the load")
    if ep > tp * joined or (tp * joined) % ep:
        raise BadInput(
            f"ep {ep}: has to divide the {number_of(tp * joined, 'rank')} of a stage (tp x dp);"
            " give tp or dp"
        )
    return Degrees(tp, pp, ep, joined, replicas, said)


def _by_layer(asked: Serving) -> bool:
    """Whether the software cuts a model layer by layer where no layout is given."""
    return software(asked).cut == "layer"


def software(asked: Serving) -> Profile:
    """The profile that serves on the device."""
    return profile(stack_of(asked.stack, as_set(asked.device, asked.set)))


def _stages(asked: Serving, devices: int) -> int:
    """The most stages of equal numbers of devices that the layers of the model make."""
    layers = layers_of(resolve(asked.model))
    return max(d for d in divisors(devices) if layers is None or d <= layers)


def layers_of(model: Model) -> int | None:
    """Layers of a model, as far as its configuration says."""
    found = (getattr(model.config, name, None) for name in LAYERS)
    return next((n for n in found if isinstance(n, int)), None)


def check_heads(model: Model, tp: int, of: Profile) -> None:
    """Raises BadInput where the attention heads of a model are not cut over so many ranks, and the
    software does not pad them.
    """
    if of.pads:
        return
    heads = getattr(model.config, "num_attention_heads", None)
    if isinstance(heads, int) and heads > 0 and heads % tp:
        near = ", ".join(str(n) for n in divisors(heads) if n < 2 * tp)
        raise BadInput(
            f"tp {tp}: does not divide the {heads} attention heads of {model.name}; use {near}"
        )


def _tensor(asked: Serving, left: int) -> int:
    """The largest degree that divides the devices that are left and the heads of the model."""
    heads = getattr(resolve(asked.model).config, "num_attention_heads", None)
    fitting = [
        d
        for d in divisors(left)
        if d <= NODE and not (isinstance(heads, int) and heads > 0 and heads % d)
    ]
    return max(fitting)


SLO = ("ttft", "tpot", "e2e")  # what a service level may limit
SHARES = (50, 90, 99)  # percent of requests that have to hold it
PERCENTILE = 90


class Level(NamedTuple):
    """A service level: seconds that a percentage of the requests may take."""

    limits: Mapping[str, float]
    percent: int = PERCENTILE

    def words(self) -> str:
        """The level as a person writes it."""
        parts = [f"{name} {1000 * value:g} ms" for name, value in self.limits.items()]
        return f"{', '.join(parts)} for {self.percent} % of the requests"
