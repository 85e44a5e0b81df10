"""What people call a device: the shipped device is found, or those that they may mean are named."""

import pytest

from roofcast import hwdb
from roofcast.hwdb.errors import UnknownName

CALLED = {
    "a100": "a100-sxm4-80gb",
    "h100": "h100-sxm5",
    "4090": "rtx-4090",
    "3090": "rtx-3090",
    "1080ti": "gtx-1080-ti",
    "2080 Ti": "rtx-2080-ti",
    "7900xtx": "rx-7900-xtx",
    "m1": "m1",
    "xeon": "xeon-8480",
}
MEANT = {
    "tpu": ("tpu-v4", "tpu-v5e", "tpu-v7"),
    "ryzen": ("ryzen-7600",),
    "i7": ("i7-9700k",),
    "orin": ("jetson-orin-64gb",),
    "gpu": ("h100-sxm5", "rtx-4090"),
    "hopper": ("h100-sxm5", "h200-sxm"),
    "gaudi": ("gaudi2 or gaudi3",),
    "mi300": ("mi300x", "mi300a"),
}


@pytest.mark.parametrize(("typed", "device"), CALLED.items())
def test_a_device_is_found_by_the_name_people_call_it(typed, device):
    assert hwdb.device(typed).id == device


@pytest.mark.parametrize(("typed", "named"), MEANT.items())
def test_a_word_for_several_devices_is_answered_with_some_of_them(typed, named):
    with pytest.raises(UnknownName, match=f"no device '{typed}'; did you mean ") as caught:
        hwdb.device(typed)
    assert all(each in str(caught.value) for each in named)


def test_every_word_and_alias_stands_for_shipped_devices():
    words = hwdb.names.aliases("words")
    assert words and not set(words) & {*hwdb.devices(), *hwdb.names.aliases("devices")}
    named = {device for devices in words.values() for device in devices}
    assert named | set(hwdb.names.aliases("devices").values()) <= set(hwdb.devices())
