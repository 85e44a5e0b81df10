"""Every docstring example of the package, run under the name by which users import the module."""

import doctest
import pkgutil
from importlib import import_module
from importlib.util import find_spec

import pytest

import roofcast
from roofcast import hwdb, reports, scenarios, simulator

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
TORCH = {f"roofcast.simulator.importers.{m}" for m in ("fake", "loader", "record", "torch_module")}
TORCH |= {
    f"roofcast.simulator.machine.crosscheck.torch_{m}"
    for m in ("nets", "images", "sequences", "tables")
}
ONNX = {"roofcast.simulator.importers.onnx_graph"}
MODULES = ["roofcast"] + [
    found.name
    for package in (hwdb, simulator, scenarios, reports)
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]


def test_every_room_is_looked_through():
    assert len(MODULES) > 200
    assert roofcast.__name__ == "roofcast"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_hold(name):
    if name in TORCH and not find_spec("torch") or name in ONNX and not find_spec("onnx"):
        pytest.skip("needs an extra")
    result = doctest.testmod(import_module(name), optionflags=FLAGS)
    assert result.failed == 0
