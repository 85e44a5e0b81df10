"""Files of fitted constants: what the reader rejects, with one-line messages."""

import re

import pytest

from roofcast.hwdb.constants import HERE, family, read_family, read_kernels
from roofcast.hwdb.errors import BadInput, UnknownName

CHANGES = [
    (r"\nstart ", "\nstert "),
    (r'unit = "cycles"', 'unjt = "cycles"'),
    (r"\[host\]", "[hest]"),
    (r"\[host\]", "[host"),
    (r"value = ([0-9.]+)", r'value = "\1"'),
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_invalid_constants_file_is_rejected_in_one_line_that_names_it(tmp_path, change):
    text = (HERE / "kernels.toml").read_text()
    path = tmp_path / "kernels.toml"
    changed = re.sub(*change, text, count=1)
    assert changed != text
    path.write_text(changed)
    with pytest.raises(BadInput, match="kernels.toml") as error:
        read_kernels(path)
    assert "\n" not in str(error.value)


def test_a_device_family_with_an_unknown_key_is_rejected(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nkind = "gpu"\nsustaned = {}\n')
    with pytest.raises(BadInput, match="mine.toml"):
        read_family(path)


def test_an_unknown_device_family_gets_the_nearest_known_one_suggested():
    with pytest.raises(UnknownName, match="hopper"):
        family("hoper")
