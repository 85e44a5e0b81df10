"""Every constant that steers a forecast is listed, with its kind and source."""

import ast
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from roofcast.reports.command import main
from roofcast.reports.tables.code_constants import CONSTANTS as IN_CODE
from roofcast.reports.tables.constants import (
    KIND_OF_SOURCE,
    KINDS,
    PARTS,
    STATED,
    constants,
    counts,
)
from roofcast.reports.tables.no_constants import NO_CONSTANTS
from roofcast.scenarios.fits.runs import CONSTANTS as OF_RUNS
from roofcast.simulator.software import stack as stacks

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("times", "parallel", "work", "software", "serving", "campaign")  # folders of the simulator
FILES = ("memory.py", "forecast/interval.py", "forecast/own_runs.py")
INTERVALS = "simulator.forecast.interval"  # its constants are a part of their own


@pytest.fixture(scope="module")
def rows():
    return constants()


def test_names_are_unique_and_entries_complete(rows):
    assert len({r.name for r in rows}) == len(rows)
    for r in rows:
        assert r.kind in KINDS and r.part in PARTS
        assert r.unit and r.meaning and r.source and r.where, r.name
        assert (ROOT / r.where).is_file(), r


def test_fitted_constants_of_formulas_and_stacks_are_few(rows):
    parts = ("kernels", "collectives", "stacks")
    few = [r for r in rows if (r.kind, r.role) == ("fitted", "constant") and r.part in parts]
    assert 40 < len(few) < 76
    assert len([r for r in rows if r.kind == "fitted"]) < 105  # all parts; power is among them
    assert all(r.residual or r.part == "stacks" for r in few)


def test_constants_of_whole_step_fits_are_among_them(rows):
    kinds = {r.name: (r.kind, r.role) for r in rows}
    for (kind, which), names in OF_RUNS.items():
        for name in names:
            if kind == "kernels":
                assert kinds[f"{which}.{name}"] == ("fitted", "constant")
            elif kind != "stack":
                assert kinds[f"{which}.{kind}.{name}"] == ("fitted", "ceiling")
            else:
                assert kinds[f"{which.replace(' ', ', ')}: {name}"] == ("fitted", "constant")
    assert kinds["tensorflow: step_s"][0] == "fitted"
    assert kinds["pytorch-eager: dispatch_s"][0] == "chosen"
    assert kinds["collectives.hopper.share"] == ("fitted", "ceiling")
    assert kinds["collectives.switch.hop"] == ("fitted", "mean")


def test_every_source_tells_its_kind(rows):
    """A reworded source must not change the kind of its constant in silence."""
    for r in rows:
        if r.part in ("kernels", "collectives", "families"):
            assert any(re.search(words, r.source) for words, _ in KIND_OF_SOURCE), r


def test_every_number_of_a_stack_profile_is_listed():
    for name in stacks.names():
        for key, value in stacks.stated(stacks.path_of(name)).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert key in STATED, f"{name}: {key}"


def modules():
    """Modules of the rooms that steer forecasts."""
    simulator = ROOT / "simulator"
    paths = [path for room in ROOMS for path in sorted((simulator / room).rglob("*.py"))]
    for path in (*paths, *(simulator / file for file in FILES)):
        if path.name != "__init__.py":
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts)


def numeric(value) -> bool:
    """Whether a value is a number, or holds numbers only or beside words."""
    if isinstance(value, bool | str | bytes | type):
        return False
    if isinstance(value, int | float | np.ndarray):
        return True
    if isinstance(value, dict):
        return any(map(numeric, value.values()))
    return isinstance(value, tuple | list | frozenset | set) and any(map(numeric, value))


def numbers(module) -> list[str]:
    """Names of the module-level constants that are, or hold, numbers."""
    loaded = importlib.import_module(f"roofcast.{module}")
    text = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    targets = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            targets += [each for t in node.targets for each in getattr(t, "elts", [t])]
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    names = [t.id for t in targets if isinstance(t, ast.Name) and t.id.isupper()]
    return [name for name in names if numeric(getattr(loaded, name))]


@pytest.mark.parametrize("module", list(modules()))
def test_every_number_of_a_module_is_registered(module, rows):
    registered = {f"{c.module}.{c.name}" for c in IN_CODE} | set(NO_CONSTANTS)
    registered |= {f"{INTERVALS}.{r.name.split('.')[1]}" for r in rows if r.part == "intervals"}
    for name in numbers(module):
        assert f"{module}.{name}" in registered, (
            f"{module}.{name}: add it to reports/tables/code_constants.py"
        )


def test_the_registry_names_nothing_that_is_gone():
    for place in [f"{c.module}.{c.name}" for c in IN_CODE] + list(NO_CONSTANTS):
        module, _, name = place.rpartition(".")
        assert hasattr(importlib.import_module(f"roofcast.{module}"), name), place


def test_the_command_lists_them(rows):
    found = json.loads(CliRunner().invoke(main, ["validate", "--constants", "--json"]).stdout)
    assert found["number"] == len(found["constants"]) == len(rows)
    assert sum(sum(part.values()) for part in found["counts"].values()) == len(rows)
    text = CliRunner(env={"COLUMNS": "100"}).invoke(main, ["validate", "--constants"]).stdout
    few = [r for r in rows if (r.kind, r.role) == ("fitted", "constant") and r.part != "intervals"]
    assert f"{len(rows)} constants" in text
    assert f"{len(few)} fitted constants" in " ".join(text.split())
    assert all(title.split(":")[0] in text for title in KINDS.values())
    assert counts(rows)["kernels"]["fitted"] > 30


def test_it_goes_with_no_file_of_measurements():
    result = CliRunner().invoke(main, ["validate", "--constants", "--runs", "x.csv"])
    assert result.exit_code == 2
