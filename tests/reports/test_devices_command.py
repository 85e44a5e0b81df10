"""roofcast devices and roofcast devices show: filters, marks of figures, JSON."""

import json

import pytest
from click.testing import CliRunner

from roofcast import hwdb
from roofcast.hwdb.figure import STATUSES
from roofcast.hwdb.records import CROSSCHECK_ONLY, SHOWN_ONLY, Device
from roofcast.reports.command import main
from roofcast.reports.pages import hardware as page


def run(*args):
    return CliRunner().invoke(main, ["devices", *args], env={"COLUMNS": "200"})


@pytest.mark.parametrize("name", ["h100-sxm5", "i9-10940x", "mi100", "tpu-v4"])
def test_a_figure_that_no_forecast_reads_is_marked(name):
    for key, figure, _ in hwdb.figures(hwdb.device(name)):
        assert (page.mark(key) == "*") == (key in SHOWN_ONLY[Device])
        assert (page.mark(key) == "+") == (key in CROSSCHECK_ONLY)
        assert page.source(figure).startswith(figure.source)


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


@pytest.mark.parametrize("name", [*hwdb.systems(), *hwdb.links()])
def test_systems_and_links_are_shown_with_the_sources_of_their_numbers(name):
    found = json.loads(run("show", name, "--json").stdout)
    kind = "system" if name in hwdb.systems() else "link"
    assert found[kind] == name
    assert {row["source"] for row in found["figures"]} <= set(found["sources"])
    record = hwdb.system(name) if kind == "system" else hwdb.link(name)
    values = {row["key"]: row["value"] for row in found["figures"]}
    if kind == "link":
        assert values["bandwidth"] == record.bandwidth
    else:
        assert values["count"] == record.count
        assert all(values[f"levels.{i}.size"] == t.size for i, t in enumerate(record.levels))
    of_kind = CliRunner().invoke(main, [f"{kind}s", "show", name, "--json"]).stdout
    assert json.loads(of_kind) == found


def test_a_system_and_a_link_are_printed():
    shown = run("show", "dgx-h100").stdout
    for words in (
        "DGX H100 (NVIDIA, 2022)",
        "device: h100-sxm5",
        "nvlink4",
        "450 GB/s",
        "datasheet",
    ):
        assert words in shown, words
    assert "in one direction" in shown and "bandwidth_per_link" in run("show", "nvlink4").stdout
    assert run("show", "NVLink4").stdout == run("show", "nvlink4").stdout


def test_systems_and_links_are_listed():
    for what, names in (("systems", hwdb.systems()), ("links", hwdb.links())):
        for columns in ("60", "120"):
            text = CliRunner().invoke(main, [what], env={"COLUMNS": columns}).stdout
            assert set(names) <= {line.split()[0] for line in text.splitlines() if line.strip()}
        assert json.loads(CliRunner().invoke(main, [what, "--json"]).stdout)[what] == list(names)


def test_a_node_of_ones_own_is_shown(tmp_path):
    path = tmp_path / "node.toml"
    path.write_text(
        'name = "N"\ndevice = "h100-sxm5"\ncount = 2\n[[levels]]\nname = "node"\n'
        'link = "pcie5-x16"\nsize = 2\nbandwidth = "50 GB/s"\n'
    )
    assert "50 GB/s" in run("show", str(path)).stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show", "dgx-h101"), "or the system or link dgx-h100"),
        (("show", "dgx-h100", "--set", "power=1 kW"), "--set changes devices; dgx-h100 is one of"),
    ],
)
def test_a_mistake_about_a_system_is_one_line(args, message):
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "") and message in result.stderr
