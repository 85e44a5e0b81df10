"""A user's own chip file: what may be left out, and the one-line error for every mistake."""

import os

import pytest

from roofcast import hwdb
from roofcast.hwdb.lookup import as_set

SMALL = 'name = "Chip"\n[peak_flops]\nbf16 = "400 TFLOP/s"\n[memory]\nbandwidth = "3.35 TB/s"\n'


@pytest.fixture
def chip(tmp_path):
    def write(text, name="my_chip.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_a_name_a_rate_and_a_bandwidth_are_enough(chip):
    device = hwdb.device(chip(SMALL))
    assert (device.id, device.name, device.kind) == ("my_chip", "Chip", "gpu")
    assert device.peak_flops == {"bf16": 400e12}
    assert (device.memory.bandwidth, device.memory.capacity) == (3.35e12, None)
    assert device.memory.bandwidth.status == "given"


def test_numbers_may_be_bare_or_cited(chip):
    text = SMALL + 'capacity = {value = "80 GB", source = "me", status = "estimate"}\n'
    text += '[power]\ntdp = 300\n[sources]\nme = "our roadmap"\n'
    device = hwdb.device(chip(text))
    assert device.memory.capacity == 80e9
    assert (device.memory.capacity.source, device.memory.capacity.status) == ("me", "estimate")
    assert device.power.tdp == 300


def test_a_base_provides_what_the_file_leaves_out(chip):
    text = 'base = "h100-sxm5"\nname = "H100 with HBM4"\n[memory]\n'
    device = hwdb.device(chip(text + 'bandwidth = "8 TB/s"\ncapacity = "80 GiB"\n'))
    base = hwdb.device("h100-sxm5")
    assert device.edits == ("memory.bandwidth 3.35 TB/s -> 8 TB/s",)
    assert (device.base, device.name, device.family) == ("h100-sxm5", "H100 with HBM4", "hopper")
    assert device.peak_flops == base.peak_flops and device.achieved == base.achieved


def test_a_base_may_be_another_file(chip):
    chip(SMALL, "first.toml")
    device = hwdb.device(
        chip('base = "first.toml"\n[power]\ntdp = "1 kW"\n', "second.toml"),
        {"memory.bandwidth": "x2"},
    )
    assert device.edits == ("power.tdp unknown -> 1 kW", "memory.bandwidth 3.35 TB/s -> 6.7 TB/s")


def test_a_bandwidth_in_bits_is_said_and_one_without_its_prefix_is_asked_back(chip):
    bits = hwdb.device(chip(SMALL.replace("3.35 TB/s", "4 Tb/s")))
    assert bits.memory.bandwidth == 0.5e12
    assert bits.read_as == ("my_chip: memory.bandwidth 4 Tb/s is in bits: 500 GB/s",)
    assert not hwdb.device(chip(SMALL)).read_as
    slow = chip(SMALL.replace("3.35 TB/s", "4 GB/s"))
    with pytest.raises(hwdb.BadInput, match="did you mean 4 TB/s"):
        as_set(slow, {})
    assert as_set(chip(SMALL), {"memory.bandwidth": "x0.001"}).memory.bandwidth == 3.35e9


def test_no_shipped_device_is_asked_back_for_its_bandwidth():
    for name in hwdb.devices():
        bandwidth = hwdb.device(name).memory.bandwidth
        assert as_set(name, {"memory.bandwidth": float(bandwidth)}).memory.bandwidth == bandwidth


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('model = "gpt2"\ndevice = "l4"\n', "is a scenario, not a device; roofcast run "),
        ("[devices]\nl4 = 2\n", "is a pool of devices, not a device"),
        ("layers = []\n", "is a list of layers, not a device"),
    ],
)
def test_a_file_of_another_sort_is_named(chip, text, said):
    with pytest.raises(hwdb.BadInput, match=said):
        hwdb.device(chip(text))


BAD = {
    "cut off": (SMALL[:40], "is not valid TOML, or is cut off"),
    "binary": (b"\x80\x02\xff\xfe\x00", "is not text in UTF-8"),
    "empty": ("", "name is missing; add name = "),
    "no memory": (
        'name = "x"\n[peak_flops]\nbf16 = 1e12\n',
        r"memory is missing; add a table \[memory\]",
    ),
    "no bandwidth": (
        'name = "x"\n[peak_flops]\nbf16 = 1e12\n[memory]\ncapacity = 1e9\n',
        'memory.bandwidth is missing; add for example bandwidth = "3.35 TB/s"',
    ),
    "no rate": (
        'name = "x"\n[peak_flops]\n[memory]\nbandwidth = 1e12\n',
        r"\[peak_flops\] is empty",
    ),
    "misspelt key": (SMALL.replace("bandwidth", "bandwith"), "did you mean memory.bandwidth"),
    "misspelt table": (SMALL.replace("peak_flops", "peakflops"), "did you mean peak_flops"),
    "unknown format": (SMALL.replace("bf16", "fp12"), "peak_flops.fp12"),
    "wrong unit": (
        SMALL.replace("3.35 TB/s", "8 GHz"),
        "memory.bandwidth: '8 GHz' is not a bandwidth; write for example '3.35 TB/s'",
    ),
    "not a number": (SMALL.replace('"3.35 TB/s"', "[1, 2]"), "memory.bandwidth: .* is a list"),
    "true": (SMALL.replace('"3.35 TB/s"', "true"), "True is a boolean; wanted a bandwidth"),
    "negative": (SMALL.replace('"3.35 TB/s"', "-1e12"), "must be more than zero"),
    "not finite": (SMALL.replace('"3.35 TB/s"', "nan"), "not a finite number"),
    "text expected": (SMALL.replace('"Chip"', "5"), "name is 5; wanted a string"),
    "table expected": (
        'name = "x"\nmemory = 3\n[peak_flops]\nbf16 = 1e12\n',
        "memory is 3; wanted a table",
    ),
    "year in quotes": ('year = "2030"\n' + SMALL, "year is '2030'; wanted a whole number"),
    "kind": ('kind = "quantum"\n' + SMALL, "wanted one of gpu, tpu, npu, cpu"),
    "missing source": (
        SMALL + 'capacity = {value = 1e9, source = "nowhere"}\n',
        r"\[sources\] has no such key",
    ),
    "status": (SMALL + 'capacity = {value = 1e9, status = "sure"}\n', "has status 'sure'"),
    "value left out": (SMALL + 'capacity = {status = "read"}\n', "memory.capacity has no value"),
    "list of notes": ('notes = "one"\n' + SMALL, "wanted a list in brackets"),
    "sources": (SMALL + "[sources]\nme = 3\n", r"\[sources\] must map keys to citations"),
    "unknown base": ('base = "h100-smx5"\n', "did you mean h100-sxm5"),
    "unknown link": (
        'base = "h100"\n[scale_up]\nlink = "nvlnk4"\n',
        "scale_up.link.*did you mean nvlink4",
    ),
    "base of itself": ('base = "./my_chip.toml"\n', "is its own base"),
    "base and a bad number": ('base = "h100"\n[power]\ntdp = "5 GB"\n', "power.tdp"),
    "base and a number for a table": ('base = "h100"\nmemory = 1\n', "memory is 1; wanted a table"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_gives_one_line_that_names_the_file(chip, case):
    text, expected = BAD[case]
    with pytest.raises(hwdb.RoofcastError, match=expected) as caught:
        hwdb.device(chip(text))
    message = str(caught.value)
    assert "\n" not in message
    assert "my_chip.toml" in message


def test_a_path_without_a_file_is_rejected(tmp_path):
    with pytest.raises(hwdb.BadInput, match="no such file"):
        hwdb.device(str(tmp_path / "absent.toml"))
    with pytest.raises(hwdb.BadInput, match="is a directory"):
        hwdb.device(f"{tmp_path}{os.sep}")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("h100", "h100-sxm5"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm5"),
        ("A100-SXM4-80GB", "a100-sxm4-80gb"),
        ("Tesla V100-SXM2-16GB", "v100-sxm2-16gb"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("rtx3090", "rtx-3090"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("AMD Instinct MI300X", "mi300x"),
        ("xeon", "xeon-8480"),
        ("TPUv4", "tpu-v4"),
        ("trn2", "trainium2"),
        ("Apple M2 Ultra", "m2-ultra"),
        ("K80", "k80"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", "rtx-4060-laptop"),
        ("NVIDIA GeForce GTX 1650", "gtx-1650"),
        ("AMD Ryzen 7 5800H with Radeon Graphics", "ryzen-5800h"),
        ("AMD Ryzen 9 7950X 16-Core Processor", "ryzen-7950x"),
        ("11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz", "i7-1165g7"),
        ("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", "i7-9750h"),
        ("Intel(R) Core(TM) Ultra 7 155H", "core-ultra-7-155h"),
    ],
)
def test_common_names_and_those_of_drivers_are_recognised(typed, meant):
    assert hwdb.device(typed).id == meant


@pytest.mark.parametrize("name", ["h100-smx5", "", "nothing like it", "../t4", "x" * 400])
def test_an_unknown_name_is_rejected_with_the_command_that_lists_names(name):
    with pytest.raises(hwdb.RoofcastError, match="roofcast devices") as caught:
        hwdb.device(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [None, 5, ["h100"]])
def test_a_value_that_is_no_name_is_rejected(name):
    for find in (hwdb.device, hwdb.link, hwdb.system):
        with pytest.raises(hwdb.BadInput, match="is not a name; give one that roofcast devices"):
            find(name)
