"""Doctests of every module, run under the names that users import."""

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
MODULES = ["roofcast", "roofcast.calls", "roofcast.results"] + [
    found.name
    for package in (hwdb, simulator, scenarios, reports)
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]


def test_doctests_are_collected_from_the_whole_package():
    assert len(MODULES) > 200
    assert roofcast.__name__ == "roofcast"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_give_the_printed_results(name):
    if name in TORCH and not find_spec("torch") or name in ONNX and not find_spec("onnx"):
        pytest.skip("an optional dependency is not installed")
    result = doctest.testmod(import_module(name), optionflags=FLAGS)
    assert result.failed == 0
