"""The fit scripts: what they may write, and that the files name them."""

import importlib
import re
import sys
import tomllib

import pytest

from roofcast.hwdb import collective_constants, constants
from roofcast.scenarios.fits import collectives, kernels, nets, runs
from roofcast.scenarios.fits.writing import profile_with
from roofcast.simulator.software import stack as stacks

SCRIPTS = ("kernels", "collectives", "nets", "runs", "intervals", "blind")
OF_STACKS = {
    (which, name)
    for (where, shared), names in runs.CONSTANTS.items()
    if where == "stack"
    for which in shared.split()
    for name in names
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_a_script_reads_and_writes(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"roofcast.scenarios.fits.{name}").main()
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"python -m roofcast.scenarios.fits.{name}" in text
    if name == "blind":
        assert "writes nothing" in text and "--write" not in text
    else:
        assert "--write" in text and "hwdb/" in text


def source_of(name: str) -> str:
    """The source of a constant of kernels.toml, or of a family's share: "ada sustained.fp8"."""
    if " " not in name:
        return constants.constants()[name].source
    family, _, field = name.partition(" ")
    field, _, key = field.partition(".")
    found = getattr(constants.family(family), field)
    return (found[key] if key else found).source


KERNELS = [(stage, knob) for stage, s in kernels.STAGES.items() for knob in s.knobs]
NETS = [(stage, knob) for stage, s in nets.STAGES.items() for knob in s.knobs]
OF_RUNS = [
    f"{which}.{name}" if where == "kernels" else f"{which} {where}.{name}"
    for (where, which), names in runs.CONSTANTS.items()
    if where != "stack"
    for name in names
]


@pytest.mark.parametrize(("stage", "knob"), KERNELS, ids=str)
def test_a_constant_of_the_kernel_fit_names_it(stage, knob):
    assert source_of(knob).startswith(f"fit {stage} (scenarios/fits/kernels.py)")


@pytest.mark.parametrize(("stage", "knob"), NETS, ids=str)
def test_a_constant_of_the_fit_to_nets_names_it(stage, knob):
    section, key = knob.split(".")
    if key in nets.OF_STACKS:
        assert re.search(rf"^{key} = .*# .*scenarios/fits/nets\.py", profile(section), re.M)
    else:
        assert source_of(knob).startswith(f"fit {stage} (scenarios/fits/nets.py)")


@pytest.mark.parametrize("name", OF_RUNS)
def test_a_constant_of_whole_steps_names_the_fit_to_runs(name):
    assert source_of(name).startswith("fit runs (scenarios/fits/runs.py)")


def test_a_constant_of_the_collective_fit_names_it():
    named = collective_constants.constants()
    fitted = {name for name, c in named.items() if c.source.startswith("fit")}
    assert set(collectives.SHARED) < fitted
    for name in fitted:
        script = "overlap" if name == "kinds.straggling" else "collectives"
        assert named[name].source.startswith(f"fit (scenarios/fits/{script}.py)"), name


def profile(which: str) -> str:
    return stacks.path_of(which).read_text(encoding="utf-8")


@pytest.mark.parametrize("which", sorted({which for which, _ in OF_STACKS}))
def test_a_profile_with_fitted_constants_names_the_fit_to_runs(which):
    names = [name for stack, name in OF_STACKS if stack == which]
    for name in names:
        key = name.partition(".")[0]
        assert re.search(rf"^{key} = .*# .*scenarios/fits/runs\.py", profile(which), re.M), name


def states(profile: dict, name: str) -> bool:
    """Whether the profile itself states the constant."""
    kind = name.removeprefix("overlap.")
    return name in profile if kind == name else kind in profile.get("overlap", {})


@pytest.mark.parametrize("name", stacks.names())
def test_no_stack_inherits_a_constant_that_is_fitted_to_another(name):
    """A fit changes a constant of the stacks that it names, and of no other."""
    below = [stacks.stated(stacks.path_of(name))]
    while like := below[-1].get("like"):
        for constant in (constant for which, constant in OF_STACKS if which == like):
            # under CUDA graphs, launches cost nothing
            irrelevant = constant == "expert_launches" and stacks.stack(name).graphs
            assert irrelevant or any(states(profile, constant) for profile in below), (
                f"{name} inherits {constant} of {like}"
            )
        below.append(stacks.stated(stacks.path_of(like)))


@pytest.mark.parametrize(("which", "name"), sorted(OF_STACKS))
def test_a_fitted_constant_is_written_into_its_own_profile(which, name):
    text = profile(which)
    before, after = tomllib.loads(text), tomllib.loads(profile_with(text, name, 0.5))
    if name.startswith("overlap."):
        assert after == {**before, "overlap": {**before.get("overlap", {}), name[8:]: 0.5}}
    else:
        assert after == {**before, name: 0.5}
