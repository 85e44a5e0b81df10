"""--set changes what it names and nothing else, on every device: laws of a forecast over several
devices, and of its interval.
"""

from pathlib import Path

import msgspec
import pytest
from kinds import KINDS_OF_DEVICES, TRAINING, kind_of_device, one_in_turn

from roofcast import hwdb, predict, scenarios
from roofcast.hwdb.edits import figure_keys, said
from roofcast.hwdb.records import CROSSCHECK_ONLY, SHOWN_ONLY
from roofcast.simulator.parallel.networks import fabric_of

KINDS = [name for name in KINDS_OF_DEVICES if name in TRAINING]
STEP = {"model": "bert-base", "batch": 16, "sequence": 64, "devices": 16, "precision": "bf16"}
WHERE_IT_STANDS = {  # key: fields of a forecast that it may change
    "price.launch_usd": set(),
    "power.idle": set(),
    "price.cloud_usd_per_hour": {"price_usd_per_hour", "price"},
    "memory.capacity": {"memory", "diagnosis", "limits"},
}


def differing(a, b):
    """Names of the fields in which two forecasts differ, assumptions apart."""
    one, two = msgspec.structs.asdict(a), msgspec.structs.asdict(b)
    return {name for name in one if one[name] != two[name]} - {"assumptions"}


@pytest.fixture(scope="module")
def plain():
    """The forecast on the device as it is, by name of the device."""
    found = {}

    def of(name):
        if name not in found:
            found[name] = predict(device=name, **STEP)
        return found[name]

    return of


TRIED = one_in_turn(TRAINING, WHERE_IT_STANDS, kind_of_device)


@pytest.mark.parametrize("key", WHERE_IT_STANDS)
def test_an_edit_that_no_time_depends_on_changes_no_number_but_its_own(key, plain):
    value = 123e9 if key == "memory.capacity" else 7.0
    for name in (name for name, keys in TRIED.items() if key in keys):
        edited = predict(device=name, set={key: value}, **STEP)
        assert differing(edited, plain(name)) <= WHERE_IT_STANDS[key], name
        assert any(line.startswith(f"hypothetical: {key} ") for line in edited.assumptions), name


def test_an_edit_to_the_same_value_is_none(plain):
    for name in KINDS:
        key = next(f"peak_flops.{format}" for format in hwdb.device(name).peak_flops)
        edited = predict(device=name, set={"memory.bandwidth": "x1", key: "x1"}, **STEP)
        assert not differing(edited, plain(name)), name


@pytest.mark.parametrize("devices", [2, 8, 64])
def test_only_an_edit_of_the_links_changes_the_network(devices):
    for name in hwdb.devices():
        device = hwdb.device(name)
        levels = fabric_of(None, device, devices).levels
        for key, value in {
            "memory.bandwidth": "x0.5",
            "price.launch_usd": 1e3,
            "power.tdp": 1e3,
        }.items():
            edited = hwdb.device(name, {key: value})
            assert fabric_of(None, edited, devices).levels == levels, (name, key)
        if device.scale_up.bandwidth:
            edited = hwdb.device(name, {"scale_up.bandwidth": "x2"})
            faster = fabric_of(None, edited, devices).levels
            rates = [b.bandwidth / a.bandwidth for a, b in zip(levels, faster, strict=True)]
            assert rates[0] in (1.0, pytest.approx(2.0)) and set(rates[1:]) <= {1.0}, name


@pytest.mark.parametrize("name, links", [("h800-sxm5", 200e9), ("a800-sxm4-80gb", 200e9)])
def test_boards_with_fewer_links_than_the_node_they_stand_in_keep_their_own(name, links):
    assert fabric_of(None, hwdb.device(name), 8).levels[0].bandwidth == links


def test_a_node_that_uses_part_of_a_devices_links_uses_the_same_part_of_edited_ones():
    edited = hwdb.device("gaudi2", {"scale_up.bandwidth": "x2"})
    assert fabric_of(None, edited, 8).levels[0].bandwidth == 2 * 262.5e9


MOVES = {
    "memory.bandwidth": True, "peak_flops.bf16": True, "power.tdp": True, "peak_flops.fp8": False,
    "memory.capacity": False, "price.cloud_usd_per_hour": False, "power.idle": False,
    "cache.l2.capacity": False, "scale_up.bandwidth": False,
}  # fmt: skip


@pytest.mark.parametrize("key, moves", MOVES.items())
def test_only_an_edit_that_moves_the_time_widens_its_interval(key, moves):
    step = {"model": "llama-3-8b", "device": "h100-sxm5", "precision": "bf16", "mode": "infer"}
    plain = predict(**step)
    edited = predict(**step, set={key: 0.7 * dict_of(hwdb.device("h100-sxm5")).get(key, 10.0)})
    assert (edited.interval_class == "imagined device") is moves
    if not moves:
        assert edited.interval_s == plain.interval_s
        words = ("leave the time of this step as it is", "no effect", "shown only", "changes no fo")
        assert sum(line.count(word) for line in edited.assumptions for word in words) == 1


def dict_of(device):
    return {key: float(figure) for key, figure, _ in hwdb.figures(device)}


def test_a_power_limit_that_no_formula_reads_on_a_device_widens_nothing():
    step = {"model": "gpt2", "device": "arc-a770", "batch": 2}
    edited = predict(**step, set={"power.tdp": 100})
    assert edited.interval_class == predict(**step).interval_class
    assert edited.power_w == pytest.approx(0.75 * 100)  # a stated share of the limit


def test_a_file_that_changes_only_the_price_of_its_base_has_the_interval_of_its_base(tmp_path):
    own = tmp_path / "cheap.toml"
    own.write_text('base = "h100-sxm5"\n[price]\ncloud_usd_per_hour = 1.0\n')
    f, base = predict("gpt2", str(own), batch=2), predict("gpt2", "h100-sxm5", batch=2)
    assert (f.interval_class, f.interval_s) == (base.interval_class, base.interval_s)
    own.write_text('base = "h100-sxm5"\n[memory]\nbandwidth = "1 TB/s"\n')
    assert predict("gpt2", str(own), batch=64).interval_class == "imagined device"


def without_names(f):
    """The fields of a forecast but those that name the device, and what lists its name."""
    words = {"device", "assumptions", "diagnosis", "layers", "points", "nearest"}
    return {k: v for k, v in msgspec.structs.asdict(f).items() if k not in words}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_over_a_base_is_an_edit_of_that_base(name, tmp_path):
    device = hwdb.device(name)
    key = "bf16" if "bf16" in device.peak_flops else next(iter(device.peak_flops))
    rate, bandwidth = 2.5 * device.peak_flops[key], 2.0 * device.memory.bandwidth
    own = tmp_path / "own.toml"
    head = f'base = "{name}"\nname = "Own"\n'
    own.write_text(
        f"{head}[peak_flops]\n{key} = {float(rate)!r}\n[memory]\nbandwidth = {float(bandwidth)!r}\n"
    )
    changes = {f"peak_flops.{key}": float(rate), "memory.bandwidth": float(bandwidth)}
    asked = {**STEP, "precision": "fp32" if key == "fp32" else "bf16"}
    file, edit = predict(device=str(own), **asked), predict(device=name, set=changes, **asked)
    assert without_names(file) == without_names(edit)
    own.write_text(head)
    assert without_names(predict(device=str(own), **asked)) == without_names(
        predict(device=name, **asked)
    )


@pytest.mark.parametrize("key", sorted(SHOWN_ONLY[hwdb.Device] | CROSSCHECK_ONLY))
def test_an_edit_of_a_key_that_no_forecast_reads_says_so(key):
    if key not in figure_keys():
        return  # words, which --set does not take
    (line,) = said([f"{key} unknown -> 1"])
    assert "no formula reads it" in line or "roofcast crosscheck only" in line


def test_an_edit_of_links_that_the_system_does_not_use_says_so(tmp_path):
    node = tmp_path / "node.toml"
    node.write_text(
        'name = "Box"\ndevice = "h100-sxm5"\ncount = 4\n[[levels]]\nname = "node"\n'
        'link = "pcie5-x16"\nsize = 4\nbandwidth = "63 GB/s"\n'
    )
    f = predict("gpt2", "h100-sxm5", system=str(node), batch=4, set={"scale_up.bandwidth": "x2"})
    assert any("joined by pcie5-x16, so it changes nothing" in line for line in f.assumptions)


def test_a_measured_bandwidth_of_a_cpu_stays_a_measured_one_when_it_is_changed():
    machines = Path(scenarios.__file__).parent / "measured" / "machines"
    calibrated = machines / "intel-xeon-vm-1-2026-11-22.toml"
    step = {"model": "gpt2", "device": str(calibrated), "mode": "infer", "batch": 1}
    faster = predict(**step, set={"memory.bandwidth": "+1%"})
    assert faster.step_time_s < predict(**step).step_time_s
