"""The reader of constants refuses what it does not know, in one line."""

import pytest

from hwdb.constants import HERE, family, read_family, read_kernels
from hwdb.errors import BadInput, UnknownName

CHANGES = [("start ", "stert "), ('unit = "cycles"', 'unjt = "cycles"'), ("[host]", "[hest]"), ("[host]", "[host"), ("3.0", '"3.0"')]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_refused_by_name(tmp_path, change):
    text = (HERE / "kernels.toml").read_text()
    path = tmp_path / "kernels.toml"
    path.write_text(text.replace(*change, 1))
    with pytest.raises(BadInput, match="kernels.toml") as refused:
        read_kernels(path)
    assert "\n" not in str(refused.value)


def test_a_family_with_an_unknown_key_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nkind = "gpu"\nsustaned = {}\n')
    with pytest.raises(BadInput, match="mine.toml"):
        read_family(path)


def test_an_unknown_family_names_the_known():
    with pytest.raises(UnknownName, match="hopper"):
        family("hoper")
