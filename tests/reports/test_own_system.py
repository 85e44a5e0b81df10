"""A system file of one's own for --system, and scenario files that name one."""

import json

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main

NODE = """
name = "My node"
device = "h100-sxm5"
count = 4

[[levels]]
name = "node"
link = "nvlink4"
size = 4
bandwidth = "{link}"

[nics]
link = "infiniband-ndr"
count = 4
bandwidth = "{nic}"
"""
CHIP = (
    'name = "My chip"\n[peak_flops]\nbf16 = "400 TFLOP/s"\n[memory]\nbandwidth = "4 TB/s"\ncapacity'
    ' = "96 GiB"\n'
)
ASKED = ("--tp", "4", "--devices", "16", "--batch", "16")


def run(*words):
    return CliRunner().invoke(main, words)


def step_s(*words):
    result = run("predict", "llama-3-8b", *words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["step_time_s"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Writes files into a folder and works there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nodes").mkdir()
    return lambda name, text: (tmp_path / name).write_text(text)


def test_slower_links_or_nics_make_the_step_slower(place):
    for name, link, nic in (
        ("a", "450 GB/s", "50 GB/s"),
        ("b", "100 GB/s", "50 GB/s"),
        ("c", "450 GB/s", "5 GB/s"),
    ):
        place(f"{name}.toml", NODE.format(link=link, nic=nic))
    usual, slow_links, slow_nics = (step_s("--system", f"./{name}.toml", *ASKED) for name in "abc")
    assert usual < slow_links and usual < slow_nics


def test_without_a_number_of_devices_it_is_one_whole_node(place):
    place("node.toml", NODE.format(link="450 GB/s", nic="50 GB/s"))
    for batch in ([], ["--batch", "8"]):
        found = json.loads(
            run(
                "predict", "llama-3-8b", "--system", "node.toml", "--zero", "3", *batch, "--json"
            ).stdout
        )
        assert (found["devices"], found["device"], found["layout"]["dp"]) == (4, "h100-sxm5", 4)
    assert (
        json.loads(run("predict", "gpt2", "--system", "dgx-h100", "--json").stdout)["devices"] == 8
    )


def test_its_device_may_be_a_file_relative_to_it(place):
    place("nodes/chip.toml", CHIP)
    place(
        "nodes/node.toml",
        NODE.format(link="450 GB/s", nic="50 GB/s").replace("h100-sxm5", "./chip.toml"),
    )
    found = json.loads(
        run("predict", "llama-3-8b", "--system", "nodes/node.toml", *ASKED, "--json").stdout
    )
    assert (found["device"], found["memory"]["capacity_bytes"]) == ("chip", 96 * 2**30)


GOOD = NODE.format(link="450 GB/s", nic="50 GB/s")
RACK = GOOD + '[[levels]]\nname = "rack"\nlink = "nvlink4"\nsize = 2\nbandwidth = "100 GB/s"\n'
BAD = {
    "no device": (GOOD.replace('device = "h100-sxm5"', ""), "device is missing"),
    "unknown device": (GOOD.replace("h100-sxm5", "h101-sxm5"), "did you mean h100-sxm5"),
    "wrong unit": (GOOD.replace("450 GB/s", "450 GB"), "is not a bandwidth"),
    "no bandwidth": (GOOD.replace('bandwidth = "450 GB/s"', ""), "levels[0].bandwidth is missing"),
    "negative": (GOOD.replace('"50 GB/s', '"-50 GB/s'), "more than zero"),
    "no devices": (GOOD.replace("count = 4", "count = 0", 1), "count is 0"),
    "half a device": (
        GOOD.replace("count = 4", "count = 4.5", 1),
        "count is 4.5; wanted a whole number",
    ),
    "too many": (GOOD.replace("count = 4", "count = 2e9", 1), "whole number of devices"),
    "a rack of half a node": (RACK, "levels[1].size is 2"),
    "a misspelt key": (GOOD.replace("[nics]", "[nic]"), "did you mean nics"),
    "an unknown link": (GOOD.replace("nvlink4", "nvlnk4"), "did you mean nvlink4"),
    "an unknown NIC": (GOOD.replace("infiniband-ndr", "infinband-ndr"), "mean infiniband-ndr"),
    "no such link file": (GOOD.replace('"nvlink4"', '"./my_link.toml"'), "no such file"),
    "an unknown topology": (GOOD.replace("size = 4", 'size = 4\ntopology = "tours 2x2"'), "torus"),
    "a torus of any axes": (
        GOOD.replace("size = 4", 'size = 4\ntopology = "2D torus"'),
        'write the axes of its 4 devices, for example "2D torus 2x2"',
    ),
    "a torus of other axes": (
        GOOD.replace("size = 4", 'size = 4\ntopology = "2D torus 4x4"'),
        "axes of its 4 devices",
    ),
    "a mesh of lines": (
        GOOD.replace("size = 4", 'size = 4\ntopology = "2D mesh 2x2"'),
        "2D torus 2x2",
    ),
    "a level of half the node": (GOOD.replace("size = 4", "size = 2"), "but count is 4"),
    "cut off": (GOOD[:-12], "not valid TOML"),
    "empty": ("", "name is missing"),
}


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
def test_a_bad_file_is_one_line_that_names_file_and_key(text, says, place):
    place("node.toml", text)
    result = run("predict", "llama-3-8b", "--system", "./node.toml", "--tp", "2", "--batch", "8")
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert says in result.stderr and result.stderr.count("\n") == 1
    assert "node.toml" in result.stderr or "h101" in result.stderr


def assumed(*words):
    result = run("predict", "llama-3-8b", *words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["assumptions"]


def test_a_node_without_levels_has_the_links_of_its_device_as_an_assumption(place):
    head, nics = GOOD.split("[[levels]]")[0], "[nics]" + GOOD.split("[nics]")[1]
    place("levels.toml", GOOD)
    place("none.toml", head + nics)
    place("bus.toml", (head + nics).replace("h100-sxm5", "l40s"))
    with_levels, without = (step_s("--system", f"./{n}.toml", *ASKED) for n in ("levels", "none"))
    assert without == pytest.approx(with_levels, rel=0.01)
    (line,) = [each for each in assumed("--system", "./none.toml", *ASKED) if "[[levels]]" in each]
    assert line == "My node names no [[levels]]: 4 h100-sxm5 joined by nvlink4 assumed"
    (line,) = [each for each in assumed("--system", "./bus.toml", *ASKED) if "[[levels]]" in each]
    assert line == "My node names no [[levels]]: 4 l40s per node on PCIe 4.0 x16 assumed"


def test_a_topology_that_is_not_stated_or_not_modelled_is_an_assumption(place):
    place("none.toml", GOOD)
    place("ring.toml", GOOD.replace("size = 4", 'size = 4\ntopology = "ring"'))
    place("switch.toml", GOOD.replace("size = 4", 'size = 4\ntopology = "1 NVSwitch"'))
    for name, word in (("none", "not stated, taken as a switch"), ("ring", "its ring taken as")):
        assert any(word in each for each in assumed("--system", f"./{name}.toml", *ASKED))
    assert not any("switch" in each for each in assumed("--system", "./switch.toml", *ASKED))


def test_a_link_may_be_another_spelling_of_its_name_or_a_file_beside_the_node(place):
    place("nodes/link.toml", 'name = "My link"\nbandwidth = "450 GB/s"\n')
    place("nodes/own.toml", GOOD.replace('"nvlink4"', '"./link.toml"'))
    place("nodes/name.toml", GOOD.replace('"nvlink4"', '"NVLink4"'))
    place("nodes/plain.toml", GOOD)
    times = {step_s("--system", f"nodes/{n}.toml", *ASKED) for n in ("own", "name", "plain")}
    assert len(times) == 1


NOT_THERE = [
    ("./none.toml", "no such file"),
    ("./nodes", "is a directory"),
    ("", "no system"),
    ("dgx-h101", "dgx-h100"),
]


@pytest.mark.parametrize(("name", "says"), NOT_THERE)
def test_a_missing_file_is_one_line(name, says, place):
    result = run("predict", "llama-3-8b", "--on", "h100-sxm5", "--system", name)
    assert result.exit_code == 2 and says in result.stderr and result.stderr.count("\n") == 1


EVERY = (
    "mixtral-8x7b --on h100-sxm5 --system nodes/node.toml --stack nodes/stack.toml --devices 32"
    " --tp 2 --pp 2 --ep 4 --etp 2 --zero 1 --shard 4 --stages 15,17 --recompute uniform:3"
    " --offload optimizer --offload activations --batch 32 --micro-batch 1 --schedule gpipe"
)
MORE = (
    "llama-3-8b --on h100-sxm5 --cp 2 --cp-kind all-gather --zero 3 --no-reshard --dp 4 --batch 8"
    " --no-sp --recompute modules:mlp,norm"
)


@pytest.mark.parametrize("line", [EVERY, MORE])
def test_a_saved_layout_runs_to_the_same_forecast_from_anywhere(line, place, tmp_path, monkeypatch):
    from roofcast.simulator.software.stack import HERE

    place("nodes/node.toml", GOOD)
    place("nodes/stack.toml", (HERE / "megatron.toml").read_text())
    (tmp_path / "runs").mkdir()
    first = run("predict", *line.split(), "--save", "runs/a.toml", "--json")
    assert first.exit_code == 0, first.stderr
    for folder, path in (
        (tmp_path, "runs/a.toml"),
        (tmp_path / "nodes", "../runs/a.toml"),
        (tmp_path / "runs", "a.toml"),
    ):
        monkeypatch.chdir(folder)
        again = run("run", path, "--json")
        assert again.exit_code == 0, again.stderr
        one, two = json.loads(first.stdout), json.loads(again.stdout)
        assert {**one, "system": None} == {**two, "system": None}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ('recompute = "uniform"', "uniform:2"),
        ('offload = ["weights"]', "activations, optimizer"),
        ('offload = "activations"', "offload is 'activations'; wanted a list"),
        ('stages = "7,8,8,9"', "stages is '7,8,8,9'; wanted a list"),
        ("stages = [16, 16]", "--pp 2"),
        ("tp = 0", "at least 1"),
        ("devices = 99999999999999999999", "at most 1,000,000,000"),
        ("price_per_hour = -2", "USD per device-hour"),
        ("price_per_hour = inf", "USD per device-hour"),
        ('cp = 2\ncp_kind = "rings"', "did you mean ring"),
        ('system = "none.toml"', "no such file"),
    ],
)
def test_a_mistake_in_a_scenario_names_the_file(keys, says, place):
    place("nodes/a.toml", f'model = "llama-3-8b"\ndevice = "h100-sxm5"\n{keys}\n')
    result = run("run", "nodes/a.toml")
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert (
        result.stderr.startswith("roofcast: nodes/a.toml: ")
        and says in result.stderr
        and result.stderr.count("\n") == 1
    )


def test_links_of_a_chip_that_are_not_used_are_said_to_be_so(place):
    """Bandwidth without the number of joined devices leaves PCIe, which a page has to say."""
    asked = ("--devices", "8", "--zero", "1", "--batch", "8")
    own = '[scale_up]\nbandwidth = "450 GB/s"\n'
    place("pcie.toml", CHIP)
    place("half.toml", CHIP + own)
    place("full.toml", CHIP + own + 'domain = "8"\n')
    said = {
        name: " ".join(run("predict", "llama-3-8b", "--on", f"{name}.toml", *asked).stdout.split())
        for name in ("pcie", "half", "full")
    }
    assert "PCIe 4.0 x16; scale_up.bandwidth and scale_up.domain of its file" in said["pcie"]
    assert "scale_up.bandwidth is not used, as no scale_up.domain says" in said["half"]
    assert "8 full joined by their links" in said["full"] and "not used" not in said["full"]
    slow, fast = (step_s("--on", f"{name}.toml", *asked) for name in ("half", "full"))
    assert slow > 1.5 * fast
    assert slow == step_s("--on", "pcie.toml", *asked)
