"""What `roofcast assign` is asked: a file of trainings, and a file of the devices there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, quoted, unknown
from roofcast.hwdb.market import Summary, rent
from roofcast.hwdb.names import is_path, placed
from roofcast.hwdb.strict import checked, load
from roofcast.hwdb.units import check_has_unit
from roofcast.simulator.choose.amounts import limit
from roofcast.simulator.forecast.scenario import Scenario

OWN = ("name", "deadline", "priority")  # keys of a job that are not of its scenario
# keys of a scenario that the assignment decides, or the pool
DECIDED = (
    "device", "devices", "system", "set", "price_per_hour", "runs", "tp", "sp", "pp", "vpp",
    "stages", "dp", "cp", "cp_kind", "ep", "etp", "zero", "shard", "reshard", "schedule",
    "micro_batch",
)  # fmt: skip
MOST_JOBS, MOST_KINDS, MOST_DEVICES = 200, 64, 10**6
LARGEST = 1e6  # of a priority
LATEST = 1e12  # seconds: of a deadline
HOUR = 3600.0


class Job(NamedTuple):
    """A training, its deadline and its priority."""

    name: str
    scenario: Scenario  # its device is not read
    deadline_s: float | None  # from now
    priority: float


class Pooled(NamedTuple):
    """Devices of one kind in the pool."""

    device: hwdb.Device
    devices: int  # how many there are
    per_node: int | None  # None: as usual for the device
    usd_per_hour: float | None  # of one device; None: unknown
    price: Summary | None  # what that is the price of


def read_jobs(path: str | Path) -> tuple[Job, ...]:
    """The jobs of a file: tables [[jobs]]. Raises BadInput or UnknownName."""
    place = Path(path)
    tree = load(place, "jobs: a table [[jobs]] for each", "jobs")
    tables = tree.get("jobs")
    if not isinstance(tables, list) or not tables or set(tree) != {"jobs"}:
        raise BadInput(f"{path}: wanted tables [[jobs]], each with a model and a length")
    if len(tables) > MOST_JOBS:
        raise BadInput(f"{path}: {len(tables):,} jobs; one plan holds {MOST_JOBS} at most")
    found = [_job(table, i, place) for i, table in enumerate(tables, 1)]
    names = [job.name for job in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"{path}: two jobs are called {quoted(twice)}; give each its own name")
    return tuple(found)


def _job(table: Any, number: int, path: Path) -> Job:
    where = f"{path}: job {number}"
    if not isinstance(table, dict):
        raise BadInput(f"{where}: wanted a table, found {quoted(table)}")
    model = table.get("model")
    if not isinstance(model, str) or not model.strip():
        raise BadInput(f'{where}: no model; give one, for example model = "llama-2-7b"')
    name = table.get("name", f"{number} {Path(model).name}")
    if not isinstance(name, str) or not name.strip():
        raise BadInput(f"{where}: name {quoted(name)}: a text is wanted")
    where = f"{path}: job {quoted(name)}"
    known = [key for key in Scenario.__struct_fields__ if key not in DECIDED]
    for key in table:
        if key in DECIDED:
            raise BadInput(f"{where}: {key} is decided by the plan; leave it out")
        if key not in (*OWN, *known):
            raise BadInput(f"{where}: {unknown('key', key, (*OWN, *known), '')}")
    asked = {key: value for key, value in table.items() if key not in OWN}
    if is_path(model) and not Path(model).is_absolute():
        asked["model"] = str(path.parent / model)
    scenario = checked(Scenario, {**asked, "device": ""}, where)
    if scenario.tokens is None and scenario.samples is None:
        raise BadInput(f'{where}: how long is it? give tokens = "20B", or samples and epochs')
    return Job(name, scenario, _deadline(table, where), _priority(table, where))


def _deadline(table: dict[str, Any], where: str) -> float | None:
    value = table.get("deadline")
    if value is None:
        return None
    seconds = 0.0
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            check_has_unit(value, "s", "d", HOUR)
            seconds = limit(value, "s")
        except BadInput as error:
            if "did you mean" in str(error):
                raise BadInput(f"{where}: deadline {quoted(value)}: {error}") from None
            seconds = 0.0
    if not 0 < seconds <= LATEST:
        raise BadInput(f'{where}: deadline {quoted(value)}: a time from now, for example "10d"')
    return float(seconds)


def _priority(table: dict[str, Any], where: str) -> float:
    value = table.get("priority", 1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST:
        raise BadInput(f"{where}: priority {quoted(value)}: a number above zero, at most 1e6")
    return float(value)


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """A device of a pool, as its file has it."""

    count: int
    per_node: int | None = None
    usd_per_hour: float | None = None


def read_pool(path: str | Path) -> tuple[Pooled, ...]:
    """The devices of a file: a table [devices] of name = number, or of name = {count = 16,
    per-node = 8, usd-per-hour = 2.1}. Raises BadInput or UnknownName.
    """
    tree = load(Path(path), "a pool: a table [devices] of name = number", "pool")
    table = tree.get("devices")
    if not isinstance(table, dict) or not table or set(tree) != {"devices"}:
        raise BadInput(f"{path}: wanted one table [devices], for example h100-sxm5 = 16")
    if len(table) > MOST_KINDS:
        raise BadInput(f"{path}: {len(table)} kinds of devices; at most {MOST_KINDS} are planned")
    found: dict[str, Pooled] = {}
    for name, entry in table.items():
        where = f"{path}: {quoted(name)}"
        given = entry if isinstance(entry, dict) else {"count": entry}
        asked = checked(_Entry, given, where)
        if not 1 <= asked.count <= MOST_DEVICES:
            raise BadInput(f"{where}: count {quoted(asked.count)}: from 1 to {MOST_DEVICES:,}")
        if asked.per_node is not None and not 1 <= asked.per_node <= asked.count:
            raise BadInput(
                f"{where}: per-node {quoted(asked.per_node)}: from 1 to the count, {asked.count}"
            )
        usd = asked.usd_per_hour
        if usd is not None and not 0 <= usd < 1e6:
            raise BadInput(f"{where}: usd-per-hour {quoted(usd)}: not a price")
        device = hwdb.device(placed(name, path))
        if device.id in found:
            raise BadInput(f"{where}: {device.id} is there twice; give one count")
        price = (
            rent(device)
            if usd is None
            else Summary("on-demand", "yours", usd, usd, usd, 1, "", True)
        )
        known = price.median if price is not None else None
        found[device.id] = Pooled(device, asked.count, asked.per_node, known, price)
    return tuple(found.values())
