"""The whole run that a scenario describes: how many steps, at what price."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput, shortened
from roofcast.hwdb.market import RENTS, Summary, rent
from roofcast.hwdb.records import Device, System
from roofcast.hwdb.tuples import NamedTuple
from roofcast.hwdb.units import quantity
from roofcast.simulator.campaign.carbon import grid_of
from roofcast.simulator.campaign.energy import Place, place_of
from roofcast.simulator.forecast.lengths import Varied
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.step import Recipe

SPOT = "spot"  # the contract whose capacity is taken back
LONGEST = 1e24  # tokens, samples or epochs of a run


class Run(NamedTuple):
    """The whole run."""

    steps: float | None  # None where no length was given
    samples: float  # of the data that a step reads
    tokens: float | None  # of these samples, without padding; None where they are no sequences
    price: Summary | None  # USD per device-hour; None where unknown
    place: Place  # what node and site draw beside the devices
    placed: bool = False  # whether something of the place was asked for

    @property
    def price_per_hour(self) -> float | None:
        """USD per device-hour; None where unknown."""
        return self.price.median if self.price is not None else None


def run_of(
    s: Scenario,
    recipe: Recipe,
    model: Model,
    device: Device,
    system: System | None = None,
    varied: Varied | None = None,
) -> Run:
    """The run of a scenario; the price is that of hwdb/prices on demand, of spot capacity where
    preemptions are given, unless one was given. varied: samples of different lengths.
    """
    given = s.price_per_hour
    if given is None:
        spot = rent(device, SPOT) if s.campaign.get("preemptions_per_hour") else None
        price = spot or rent(device)
    else:
        price = Summary(RENTS[0], "yours", given, given, given, 1, "", True)
    grid = grid_of(s.region, s.carbon)
    place = place_of(device, system, s.pue, grid, bool(s.embodied))
    asked = s.pue is not None or grid is not None or bool(s.embodied)
    samples, tokens = float(recipe.batch), tokens_of(recipe, model)
    if varied is not None:
        samples, tokens = varied.read(recipe.batch)
    return Run(_steps(s, tokens, samples), samples, tokens, price, place, asked)


def tokens_of(recipe: Recipe, model: Model) -> float | None:
    """Tokens of one step of whole sequences; None for models that do not read sequences."""
    return recipe.batch * recipe.size if model.takes == "sequence" and recipe.size else None


def _steps(s: Scenario, tokens_per_step: float | None, samples_per_step: float) -> float | None:
    """Steps of the whole run, from tokens, or from samples and epochs."""
    if s.tokens is not None and s.samples is not None:
        raise BadInput("tokens and samples are two lengths of one run; give one")
    if s.epochs is not None and not 0 < s.epochs <= LONGEST:
        raise BadInput(f"epochs {s.epochs:g}: a positive number up to {LONGEST:g} is wanted")
    if s.tokens is not None:
        if tokens_per_step is None:
            raise BadInput("tokens: this model does not read tokens; give --samples and --epochs")
        return _count(s.tokens, "tokens") * (s.epochs or 1) / tokens_per_step
    if s.samples is not None:
        return _count(s.samples, "samples") * (s.epochs or 1) / samples_per_step
    if s.epochs is not None:
        raise BadInput("epochs without samples: how many samples has an epoch? add --samples 1.28M")
    return None


def _count(value: str | float, what: str) -> float:
    number = quantity(value, what)
    if not 0 < number <= LONGEST:
        raise BadInput(
            f"{what} {shortened(str(value))}: a positive number up to {LONGEST:g} is wanted"
        )
    return number
