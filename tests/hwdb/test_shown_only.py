"""SHOWN_ONLY and CROSSCHECK_ONLY of hwdb/records.py list exactly the keys that no forecast reads.

The records are watched while forecasts run: every key that code of simulator/ reads is noted.
"""

import sys
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import get_args, get_origin

import pytest

from roofcast import hwdb, predict, simulator
from roofcast.hwdb import records
from roofcast.hwdb.errors import UnknownName
from roofcast.hwdb.reader import keys, members
from roofcast.hwdb.records import CROSSCHECK_ONLY, SHOWN_ONLY, Device, Link, System
from roofcast.simulator.machine.crosscheck import kernels as crosscheck
from roofcast.simulator.times.rates import resolve

SIMULATOR = Path(simulator.__file__).parent
CALIBRATED = SIMULATOR.parent / "scenarios" / "measured" / "machines"
# not properties of the hardware
IDENTITY = {"id", "name", "notes", "sources", "base", "edits", "given", "read_as"}
PARTS = {
    records.Memory: (Device, "memory"),
    records.ScaleUp: (Device, "scale_up"),
    records.Power: (Device, "power"),
    records.Price: (Device, "price"),
    records.Tier: (System, "levels"),
    records.Nics: (System, "nics"),
}
TABLES = ("peak_flops", "vector_flops", "achieved", "cache")
RECORDS = (Device, Link, System)


class Reads:
    """Keys that the simulator read: by record, those of forecasts and those of the cross-check."""

    def __init__(self):
        self.forecast, self.crosscheck = defaultdict(set), defaultdict(set)

    def note(self, record, key, depth=2):
        reader = Path(sys._getframe(depth).f_code.co_filename)
        if SIMULATOR / "machine" in reader.parents:
            self.crosscheck[record].add(key)
        elif SIMULATOR in reader.parents or reader.name == "market.py":  # the rent of a run
            self.forecast[record].add(key)


class WatchedTable(hwdb.Table):
    """A table of a device that notes the keys that are looked up."""

    def __init__(self, table, name, reads):
        super().__init__(table)
        self.name, self.reads = name, reads

    def __getitem__(self, key):
        self.reads.note(Device, f"{self.name}.{key}")
        return self.watched(key, super().__getitem__(key))

    def get(self, key, default=None):
        self.reads.note(Device, f"{self.name}.{key}")
        return self.watched(key, super().get(key, default))

    def watched(self, key, value):
        is_level = isinstance(value, hwdb.Level)
        return WatchedLevel(value, f"{self.name}.{key}", self.reads) if is_level else value


class WatchedLevel:
    """A cache level that notes which of its figures are read."""

    def __init__(self, level, name, reads):
        self.level, self.name, self.reads = level, name, reads

    def __getattr__(self, key):
        self.reads.note(Device, f"{self.name}.{key}")
        return getattr(self.level, key)


@pytest.fixture(scope="module")
def reads():
    """What the simulator reads while it forecasts on every device and system."""
    found = Reads()

    def getter(record, prefix):
        def read(self, key):
            value = object.__getattribute__(self, key)
            if not key.startswith("_"):
                found.note(record, prefix + key)
            return WatchedTable(value, key, found) if key in TABLES else value

        return read

    with pytest.MonkeyPatch.context() as patch:
        for record in RECORDS:
            patch.setattr(record, "__getattribute__", getter(record, ""), raising=False)
        for part, (record, name) in PARTS.items():
            patch.setattr(part, "__getattribute__", getter(record, f"{name}."), raising=False)
        run_forecasts()
    return found


def run_forecasts():
    step = {"batch": 16, "sequence": 128}
    for name in hwdb.devices():
        mode = "infer" if set(hwdb.device(name).peak_flops) == {"int8"} else "train"
        predict("gpt2", name, devices=16, mode=mode, **step)
        for number_format in hwdb.FORMATS:
            with suppress(UnknownName):
                resolve(hwdb.device(name), number_format)
    for name in hwdb.systems():
        system = hwdb.system(name)
        count = int(2 * system.count)
        predict("gpt2", system.device, system=name, devices=count, **step | {"batch": count})
    predict("gpt2", "a100-pcie-80gb", offload=["optimizer"], **step)
    predict("gpt2", "h100-sxm5", set={"peak_flops.bf16": "x2", "scale_up.bandwidth": "x2"}, **step)
    calibrated = CALIBRATED / "intel-xeon-vm-1-2026-11-22.toml"
    predict("gpt2", str(calibrated), precision="fp32", **step)
    crosscheck.roofs(hwdb.device(calibrated))


def properties(record, path=""):
    """Dotted keys of a record's values, without those that only identify it."""
    for key, (hint, _) in keys(record).items():
        inner = members(get_args(hint)[0] if get_origin(hint) is tuple else hint)
        if inner is not None:
            yield from properties(inner, f"{path}{key}.")
        elif path or key not in IDENTITY:
            yield path + key


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_no_formula_reads_a_key_that_is_shown_only(record, reads):
    assert not SHOWN_ONLY[record] & (reads.forecast[record] | reads.crosscheck[record])


def test_no_forecast_reads_a_key_that_is_for_the_crosscheck_only(reads):
    assert not CROSSCHECK_ONLY & reads.forecast[Device]
    assert CROSSCHECK_ONLY <= reads.crosscheck[Device]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_other_key_is_read_by_a_forecast(record, reads):
    known = SHOWN_ONLY[record] | (CROSSCHECK_ONLY if record is Device else frozenset())
    declared = set(properties(record))
    assert known <= declared, "no key of the record"
    assert declared - known <= reads.forecast[record], "add it to SHOWN_ONLY of hwdb/records.py"
