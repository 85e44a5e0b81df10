"""Output files are written whole or not at all."""

import os
import stat

import pytest

from roofcast.hwdb.errors import BadInput
from roofcast.reports.files import check_target, replacing


def test_a_finished_file_replaces_its_target(tmp_path):
    target = tmp_path / "a.png"
    with replacing(target) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".png"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new" and os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    target = tmp_path / "a.png"
    target.write_text("old")
    with pytest.raises(failure), replacing(target) as temporary:
        temporary.write_text("half")
        raise failure
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.png"]


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(BadInput, match="No space left"), replacing(tmp_path / "a.png") as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_permissions_are_those_of_the_old_file_or_the_umask(tmp_path):
    target = tmp_path / "a.png"
    before = os.umask(0o027)
    try:
        with replacing(target) as temporary:
            temporary.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    target.chmod(0o604)
    with replacing(target) as temporary:
        temporary.write_text("newer")
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real.png").write_text("old")
    (tmp_path / "link.png").symlink_to("real.png")
    with replacing(tmp_path / "link.png") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.png").is_symlink() and (tmp_path / "real.png").read_text() == "new"


@pytest.mark.parametrize(
    ("name", "says"),
    [("", "directory"), ("none/a.png", "no directory"), ("a.gif", ".png"), ("a", ".png")],
)
def test_a_target_that_cannot_be_written_is_an_error(tmp_path, name, says):
    with pytest.raises(BadInput, match=says):
        check_target(tmp_path / name, (".png",))
