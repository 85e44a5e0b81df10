"""Devices and models by what tells the code's paths apart, so that a law over several steps need
not hold every step against every one of them.
"""

from roofcast import hwdb
from roofcast.simulator import models
from roofcast.simulator.models.catalog import CONFIGS, read_config
from roofcast.simulator.models.nets import NETS

TRAINING = [n for n in hwdb.devices() if set(hwdb.device(n).peak_flops) != {"int8"}]
"""Devices but chips that multiply int8 alone, which refuse training."""


def kind_of_device(name: str) -> tuple:
    """Family, number formats, and whether a clock is stated: what the formulas branch on."""
    device = hwdb.device(name)
    formats = *sorted(device.peak_flops), "", *sorted(device.vector_flops)
    return device.family, formats, device.clock is not None


def kind_of_model(name: str) -> str:
    """The architecture of a shipped model."""
    if name in NETS:
        return NETS[name].module
    raw = read_config(CONFIGS / f"{name}.json")
    return str(raw.get("model_type") or raw.get("_class_name"))


def first_of_each(names, kind) -> set[str]:
    """The first name of each kind."""
    found = {}
    for name in names:
        found.setdefault(kind(name), name)
    return set(found.values())


def one_in_turn(names, cases, kind) -> dict[str, list]:
    """Cases to try with each name: all for the first of a kind, one in turn for any other.

    So every kind meets every case, and every name meets one.
    """
    firsts, cases = first_of_each(names, kind), list(cases)
    return {
        name: cases if name in firsts else [cases[i % len(cases)]] for i, name in enumerate(names)
    }


KINDS_OF_DEVICES = sorted(first_of_each(hwdb.devices(), kind_of_device))
KINDS_OF_MODELS = first_of_each(models.names(), kind_of_model)
