"""Every shipped file parses, and every number has a source and a status."""

import re
import tomllib

import pytest
from looped import each

from roofcast import hwdb
from roofcast.hwdb.figure import STATUSES
from roofcast.hwdb.names import ROOT, aliases, dashed, plain

SHIPPED = ("read", "measured", "derived", "estimate", "recalled")
FILES = [
    (folder, name) for folder in ("devices", "links", "systems") for name in getattr(hwdb, folder)()
]
READ = {"devices": hwdb.device, "links": hwdb.link, "systems": hwdb.system}


def numbers(table, path=""):
    """Path and value of every figure of a parsed file, and of every bare number in its place."""
    for key, value in table.items():
        if key in ("sources", "year"):
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and "value" not in item:
                yield from numbers(item, f"{path}{key}.")
            elif isinstance(item, dict | int | float):
                yield f"{path}{key}", item


def test_every_public_name_loads():
    assert set(hwdb.__all__) == set(hwdb._MODULES)
    assert all(getattr(hwdb, public) is not None for public in hwdb.__all__)


def test_the_database_is_not_truncated():
    assert len(hwdb.devices()) >= 150
    assert len(hwdb.links()) >= 20
    assert len(hwdb.systems()) >= 25


@each("folder, name", FILES)
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
    assert cited == set(raw["sources"]), "a source that no number cites"
    assert all(len(text) > 8 for text in raw["sources"].values())


@each("folder, name", FILES)
def test_file_names_are_lower_case_words_with_dashes(folder, name):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert dashed(name) == name


@each("name", hwdb.devices())
def test_a_device_is_complete_and_can_be_listed(name):
    chip = hwdb.device(name)
    assert chip.peak_flops and chip.memory.bandwidth and chip.family and chip.vendor
    assert chip.kind in hwdb.KINDS and chip.scope in ("device", "die", "card")
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
    islands = name == "summit-node"  # two groups of three devices, connected by the host
    assert sizes[-1] == system.count or islands


@pytest.mark.parametrize("folder", ["devices", "links", "systems"])
def test_aliases_name_shipped_files_and_are_no_file_names(folder):
    known = getattr(hwdb, folder)()
    for alias, name in aliases(folder).items():
        assert name in known and alias not in known
        assert alias in (dashed(alias), plain(alias))
