"""Constants that whole runs set: where they stand, and how they are written back."""

import tomllib

import pytest

from roofcast.scenarios.fits import runs as fit_runs
from roofcast.simulator.software import stack as stacks

FITTED = {
    (which, name)
    for (where, shared), names in fit_runs.CONSTANTS.items()
    if where == "stack"
    for which in shared.split()
    for name in names
}


def states(profile: dict, name: str) -> bool:
    """Does the profile itself say it?"""
    return (
        name[8:] in profile.get("overlap", {}) if name.startswith("overlap.") else name in profile
    )


@pytest.mark.parametrize("name", stacks.names())
def test_no_stack_inherits_a_constant_that_is_fitted_to_another(name):
    """A fit moves a constant of the stack that it names, and of no other."""
    below = [stacks.stated(stacks.path_of(name))]
    while like := below[-1].get("like"):
        for constant in (constant for which, constant in FITTED if which == like):
            # graphs launch nothing
            shared = constant == "expert_launches" and stacks.stack(name).graphs
            assert shared or any(states(profile, constant) for profile in below), (
                f"{name} inherits {constant} of {like}"
            )
        below.append(stacks.stated(stacks.path_of(like)))


@pytest.mark.parametrize(("which", "name"), sorted(FITTED))
def test_a_fitted_constant_is_written_where_it_stands_or_into_the_profile_that_inherits_it(
    which, name
):
    text = stacks.path_of(which).read_text(encoding="utf-8")
    before, after = tomllib.loads(text), tomllib.loads(fit_runs.stated(text, name, 0.5))
    if name.startswith("overlap."):
        assert after == {**before, "overlap": {**before.get("overlap", {}), name[8:]: 0.5}}
    else:
        assert after == {**before, name: 0.5}


@pytest.mark.parametrize("tables", ["", "\n", '\n\n[implementations]\nattention = "flash"\n'])
@pytest.mark.parametrize("name", ["attention", "overlap.ep"])
def test_an_inherited_constant_is_added(tables, name):
    text = 'like = "megatron"' + tables
    after = tomllib.loads(fit_runs.stated(text, name, 0.5))
    new = {"overlap": {"ep": 0.5}} if name == "overlap.ep" else {"attention": 0.5}
    assert after == {**tomllib.loads(text), **new}


def test_writing_a_constant_twice_leaves_one_and_what_is_said_of_it():
    once = fit_runs.stated('like = "megatron"\n', "sync_s", 1e-3)
    assert fit_runs.stated(once, "sync_s", 2e-5) == 'like = "megatron"\nsync_s = 2e-05\n'
    assert fit_runs.stated("factor = 1.0  # tuning\n", "factor", 0.9) == "factor = 0.9  # tuning\n"
