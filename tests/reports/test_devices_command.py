"""roofcast devices and roofcast devices show: filters, marks of figures, JSON."""

import json

import pytest
from click.testing import CliRunner

from roofcast import hwdb
from roofcast.hwdb.figure import STATUSES
from roofcast.hwdb.records import CROSSCHECK_ONLY, SHOWN_ONLY, Device
from roofcast.reports.command import main
from roofcast.reports.commands import devices as page


def run(*args):
    return CliRunner().invoke(main, ["devices", *args], env={"COLUMNS": "200"})


@pytest.mark.parametrize("name", ["h100-sxm5", "i9-10940x", "mi100", "tpu-v4"])
def test_a_figure_that_no_forecast_reads_is_marked(name):
    for key, figure, _ in hwdb.figures(hwdb.device(name)):
        assert (page._mark(key) == "*") == (key in SHOWN_ONLY[Device])
        assert (page._mark(key) == "+") == (key in CROSSCHECK_ONLY)
        assert page._source(figure).startswith(figure.source)


def test_the_marks_are_printed_beside_the_figures():
    lines = [line.split() for line in run("show", "h100-sxm5").stdout.splitlines()]
    marked = {words[0] for words in lines if words[1:2] == ["*"]}
    assert {"shared_memory_per_core", "registers_per_core"} <= marked
    assert not {"memory.bandwidth", "power.tdp"} & marked


def test_every_status_and_mark_that_occurs_is_explained():
    shown = run("show", "h100-sxm5").stdout
    assert "status recalled: (not checked) from memory of the source named" in shown
    assert "* not used" in shown and "+ used only by roofcast crosscheck" in shown
    assert "status edited" not in shown
    assert set(page.STATUSES) == set(STATUSES)


@pytest.mark.parametrize("columns", ["80", "100"])
def test_no_line_is_wider_than_the_terminal_and_no_short_word_is_broken(columns):
    shown = CliRunner().invoke(main, ["devices", "show", "h100-sxm5"], env={"COLUMNS": columns})
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert "source prints 67" in " ".join(shown.stdout.split()) and "0.88 of peak" in shown.stdout
    assert not [line for line in lines if line.strip() in ("rk", "t.py")]


def test_json_has_the_figures_in_si_units_without_marks():
    shown = json.loads(run("show", "h100-sxm5", "--json").stdout)
    assert set(shown) == {"device", "name", "figures", "sources", "notes"}
    (bandwidth,) = [f for f in shown["figures"] if f["key"] == "memory.bandwidth"]
    assert set(bandwidth) == {"key", "value", "unit", "status", "source", "where"}
    assert (bandwidth["value"], bandwidth["unit"]) == (3.35e12, "B/s")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--vendor", "nvidea"), "--vendor nvidea: no device matches; nearest values: NVIDIA"),
        (("--year", "7"), "--year 7: no device matches; known values: 2014, 2015, 2016"),
        (("show", "h100-smx5"), "no device 'h100-smx5'; did you mean h100-sxm5"),
    ],
)
def test_an_unknown_value_is_rejected_with_the_known_ones(args, message):
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and result.stderr.count("\n") == 1
