"""Every shipped file: it parses, and every number says where it is from and how sure it is."""

import re
import tomllib

import pytest

from roofcast import hwdb
from roofcast.hwdb.figure import STATUSES
from roofcast.hwdb.names import ROOT, aliases, dashed, plain

SHIPPED = ("read", "measured", "derived", "estimate", "recalled")
FILES = [
    (folder, name) for folder in ("devices", "links", "systems") for name in getattr(hwdb, folder)()
]
IDS = ["/".join(file) for file in FILES]
READ = {"devices": hwdb.device, "links": hwdb.link, "systems": hwdb.system}


def numbers(table, path=""):
    """Every {value, ...} of a parsed file with its path, and every bare number where a figure
    should be.
    """
    for key, value in table.items():
        if key in ("sources", "year"):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and "value" not in item:
                yield from numbers(item, f"{path}{key}.")
            elif isinstance(item, dict | int | float):
                yield f"{path}{key}", item


def test_there_are_enough_of_them():
    assert len(hwdb.devices()) >= 150
    assert len(hwdb.links()) >= 20
    assert len(hwdb.systems()) >= 25


@pytest.mark.parametrize(("folder", "name"), FILES, ids=IDS)
def test_every_number_has_a_source_and_a_status(folder, name):
    record = READ[folder](name)
    assert record.id == name
    raw = tomllib.loads((ROOT / folder / f"{name}.toml").read_text())
    cited = set()
    for path, number in numbers(raw):
        assert isinstance(number, dict), f"{path} is a bare number"
        assert number["source"] in raw["sources"], path
        assert number["status"] in SHIPPED, path
        cited.add(number["source"])
    assert cited == set(raw["sources"]), "a source that nothing cites"
    assert all(len(text) > 8 for text in raw["sources"].values())


@pytest.mark.parametrize(("folder", "name"), FILES, ids=IDS)
def test_names_are_what_people_type(folder, name):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert dashed(name) == name


@pytest.mark.parametrize("name", hwdb.devices())
def test_a_device_can_be_forecast_on_and_listed(name):
    chip = hwdb.device(name)
    assert chip.peak_flops and chip.memory.bandwidth
    assert (
        chip.kind in hwdb.KINDS
        and chip.family
        and chip.vendor
        and chip.scope in ("device", "die", "card")
    )
    assert 2014 <= chip.year <= 2026
    listed = hwdb.figures(chip)
    assert ("memory.bandwidth", chip.memory.bandwidth, "B/s") in listed
    assert all(
        figure.status in STATUSES and figure.source in chip.sources for _, figure, _ in listed
    )
    line = hwdb.summary(name)
    assert (line.vendor, line.bandwidth) == (chip.vendor, chip.memory.bandwidth)


@pytest.mark.parametrize("name", hwdb.systems())
def test_a_system_names_shipped_devices_and_links(name):
    system = hwdb.system(name)
    hwdb.device(system.device)
    assert system.levels
    for level in system.levels:
        assert level.bandwidth <= 1.001 * hwdb.link(level.link).bandwidth
    if system.nics:
        hwdb.link(system.nics.link)
    sizes = [level.size for level in system.levels]
    assert sizes == sorted(sizes)
    assert (
        sizes[-1] == system.count or name == "summit-node"
    )  # two islands of three, joined by the host


@pytest.mark.parametrize("folder", ["devices", "links", "systems"])
def test_aliases_lead_to_files_and_can_be_reached(folder):
    known = getattr(hwdb, folder)()
    for alias, name in aliases(folder).items():
        assert name in known and alias not in known
        assert alias in (dashed(alias), plain(alias))
