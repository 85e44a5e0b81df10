"""Fits write what they found, and a later stage of the same run starts from it."""

import shutil

import pytest

from roofcast.hwdb import constants
from roofcast.scenarios.fits import kernels as fit


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A copy of the constants, read in place of the shipped ones."""
    shutil.copy(constants.HERE / "kernels.toml", tmp_path)
    shutil.copytree(constants.HERE / "families", tmp_path / "families")
    monkeypatch.setattr(constants, "HERE", tmp_path)
    read_once = (constants.kernels, constants.constants, constants.family)
    for reader in read_once:
        reader.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    for reader in read_once:
        reader.cache_clear()


def test_what_a_stage_writes_the_next_one_reads(shipped):
    assert (
        constants.kernels().matmul.tile != 1234.0
        and constants.family("ada").sustained["fp8"].value != 0.5
    )
    fit.put(shipped / "kernels.toml", "matmul", "tile", 1234.0, "1 / 2 %")
    fit.put(shipped / "families" / "ada.toml", "sustained", "fp8", 0.5, "3 / 4 %")
    assert constants.kernels().matmul.tile == 1234.0
    assert constants.family("ada").sustained["fp8"].value == 0.5
    assert constants.constants()["matmul.tile"].residual == "1 / 2 %"


def test_what_no_fit_set_is_left_alone(shipped):
    before = (shipped / "families" / "ada.toml").read_text()
    fit.put(shipped / "families" / "ada.toml", "sustained", "tf32", 0.5, "3 / 4 %")  # assumed
    assert (shipped / "families" / "ada.toml").read_text() == before
