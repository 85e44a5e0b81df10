"""How fits write constants back: into hwdb, and into profiles of software stacks."""

import shutil
import tomllib

import pytest

from roofcast.hwdb import constants
from roofcast.scenarios.fits.writing import profile_with, put

CACHED = (constants.shipped, constants.constants, constants.family)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the constants, read in place of the shipped ones."""
    shutil.copy(constants.HERE / "kernels.toml", tmp_path)
    shutil.copytree(constants.HERE / "families", tmp_path / "families")
    monkeypatch.setattr(constants, "HERE", tmp_path)
    for reader in CACHED:
        reader.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    for reader in CACHED:
        reader.cache_clear()


def test_the_next_stage_of_a_fit_reads_what_a_stage_wrote(copied):
    assert constants.shipped().matmul.tile != 1234.0
    assert constants.family("volta").sustained["fp32"].value != 0.5
    put(copied / "kernels.toml", "matmul", "tile", 1234.0, "1 / 2 %")
    put(copied / "families" / "volta.toml", "sustained", "fp32", 0.5, "3 / 4 %")
    assert constants.shipped().matmul.tile == 1234.0
    assert constants.family("volta").sustained["fp32"].value == 0.5
    assert constants.constants()["matmul.tile"].residual == "1 / 2 %"


def test_a_fit_leaves_constants_of_other_sources_alone(copied):
    before = (copied / "families" / "ada.toml").read_text()
    put(copied / "families" / "ada.toml", "sustained", "tf32", 0.5, "3 / 4 %")  # is assumed
    assert (copied / "families" / "ada.toml").read_text() == before


@pytest.mark.parametrize("tables", ["", "\n", '\n\n[implementations]\nattention = "flash"\n'])
@pytest.mark.parametrize("name", ["attention", "overlap.ep"])
def test_a_constant_that_a_profile_inherits_is_added_to_it(tables, name):
    text = 'like = "megatron"' + tables
    after = tomllib.loads(profile_with(text, name, 0.5))
    new = {"overlap": {"ep": 0.5}} if name == "overlap.ep" else {"attention": 0.5}
    assert after == {**tomllib.loads(text), **new}


def test_writing_a_constant_twice_replaces_it():
    once = profile_with('like = "megatron"\n', "sync_s", 1e-3)
    assert profile_with(once, "sync_s", 2e-5) == 'like = "megatron"\nsync_s = 2e-05\n'


def test_the_comment_behind_a_constant_stays():
    assert profile_with("factor = 1.0  # tuning\n", "factor", 0.9) == "factor = 0.9  # tuning\n"
