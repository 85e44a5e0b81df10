"""The fit scripts: what they may write, and that the files name them."""

import importlib
import re
import sys
import tomllib

import pytest

from roofcast.hwdb import collective_constants, constants
from roofcast.scenarios.fits import collectives, kernels, nets, playbook, runs
from roofcast.scenarios.fits.writing import profile_with
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.software import stack as stacks

SCRIPTS = ("kernels", "collectives", "nets", "runs", "intervals", "blind", "power")
SHARED = {
    (shared, name)
    for (where, shared), names in runs.CONSTANTS.items()
    if where == "stack"
    for name in names
}
OF_STACKS = {(which, name) for shared, name in SHARED for which in shared.split()}


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
    """Or inherits them from one that does, and that the fit names beside it."""
    for name in (name for stack, name in OF_STACKS if stack == which):
        if states(stacks.stated(stacks.path_of(which)), name):
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
            named = any(
                {name, like} <= set(shared.split()) for shared, n in SHARED if n == constant
            )
            own = any(states(profile, constant) for profile in below)
            assert irrelevant or named or own, f"{name} inherits {constant} of {like}"
        below.append(stacks.stated(stacks.path_of(like)))


@pytest.mark.parametrize(
    ("which", "name"),
    sorted(
        (which, name)
        for which, name in OF_STACKS
        if states(stacks.stated(stacks.path_of(which)), name)
    ),
)
def test_a_fitted_constant_is_written_into_its_own_profile(which, name):
    text = profile(which)
    before, after = tomllib.loads(text), tomllib.loads(profile_with(text, name, 0.5))
    if name.startswith("overlap."):
        assert after == {**before, "overlap": {**before.get("overlap", {}), name[8:]: 0.5}}
    else:
        assert after == {**before, name: 0.5}


@pytest.mark.parametrize(("shared", "name"), sorted(SHARED))
def test_stacks_that_share_a_constant_have_one_value_of_it(shared, name):
    """One of them states it, the others inherit it."""
    which = shared.split()
    assert any(states(stacks.stated(stacks.path_of(each)), name) for each in which)
    assert len({value_of(stacks.stack(each), name) for each in which}) == 1


def value_of(stack: stacks.Stack, name: str) -> float:
    kind = name.removeprefix("overlap.")
    return getattr(stack, name) if kind == name else stack.overlap[kind]


@pytest.mark.parametrize("name", playbook.FITTED)
def test_a_constant_of_the_fit_to_nanotron_names_it(name):
    assert re.search(rf"^{name} = .*# .*scenarios/fits/playbook\.py", profile("nanotron"), re.M)


@pytest.mark.parametrize(
    "options",
    [
        {},  # one device
        {"dp": 16, "zero": 3, "micro_batch": 1, "batch": 32},
        {"tp": 5, "sp": False, "pp": 4, "dp": 2, "batch": 16, "stack": "te-nemo-2024"},
    ],
    ids=str,
)
def test_fits_time_a_step_as_forecast_does(options):
    """With other constants too: the trace of a step is kept, its stack is not."""
    asked = Scenario(model="gpt2-xl", device="a100-sxm4-80gb", sequence=512, **options)
    stack = options.get("stack", "pytorch-eager")
    for launch in (2e-5, 2e-3):
        with runs.trial({("stack", stack, "dispatch_s"): launch}):
            assert runs.step_seconds(asked) == pytest.approx(forecast(asked).step_time_s, rel=1e-12)


NANOTRON = """\
id,model_name,layers,hidden,heads,kv_heads,ffn_hidden,vocab,seq_len,activation,tied_embeddings,\
global_batch_seqs,micro_batch,n_devices,device,tp,pp,zero_stage,sp,recompute,dtype,framework,\
peak_mem_gib,memory_kind,iter_time_s,exclude
{rows}"""
ROW = "{id},{model},16,2048,32,32,8192,131072,4096,swiglu,yes,256,{micro},{n},H100-SXM5-80GB,"
ROW += "{tp},{pp},1,yes,none,bf16,nanotron,20.0,allocated,{seconds},{exclude}"


def nanotron(tmp_path, *rows: dict) -> str:
    """A table of runs of nanotron."""
    lines = [ROW.format(id=f"N{i}", exclude="", **row) for i, row in enumerate(rows)]
    path = tmp_path / "runs.csv"
    path.write_text(NANOTRON.replace("\\\n", "").format(rows="\n".join(lines)), encoding="utf-8")
    return str(path)


LAYOUTS = [
    {"n": 8, "tp": 8, "pp": 1, "micro": 1}, {"n": 16, "tp": 16, "pp": 1, "micro": 1},
    {"n": 16, "tp": 4, "pp": 2, "micro": 1}, {"n": 16, "tp": 8, "pp": 1, "micro": 4},
]  # fmt: skip


def test_the_fit_to_nanotron_finds_the_constants_of_its_runs(tmp_path, monkeypatch, capsys):
    """The runs are forecasts with other constants than the shipped ones."""
    shipped = {n: getattr(stacks.stack("nanotron"), n) for n in playbook.FITTED}
    wanted = {n: v * (0.8 if n == "dispatch_s" else 1.5) for n, v in shipped.items()}
    unknown = [
        {**row, "model": model, "seconds": 1.0} for model in ("first", "second") for row in LAYOUTS
    ]
    steps = playbook.steps(nanotron(tmp_path, *unknown))
    with runs.trial({("stack", "nanotron", n): v for n, v in wanted.items()}):
        seconds = [runs.step_seconds(s.scenario) for s in steps]
    known = [{**row, "seconds": s} for row, s in zip(unknown, seconds, strict=True)]
    monkeypatch.setattr(sys, "argv", ["playbook", nanotron(tmp_path, *known)])
    playbook.main()
    said = capsys.readouterr().out
    for name, value in wanted.items():
        found = float(re.search(rf"^{name} = (\S+)", said, re.M)[1])
        assert found == pytest.approx(value, rel=0.05), name
    assert "second left out, with a pipeline: 1 rows" in said
