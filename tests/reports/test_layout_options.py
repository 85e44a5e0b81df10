"""Layout options one by one: each changes the forecast, or is rejected with the correction."""

import json
import shlex

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main

LLAMA = "llama-3-8b --on h100-sxm5"
MOE = "mixtral-8x7b --on h100-sxm5"


def run(line):
    return CliRunner().invoke(main, shlex.split(line))


def asked(line):
    result = run(f"{line} --json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


CHANGES = {
    LLAMA: (
        "--recompute selective|--recompute full|--recompute uniform:32|--recompute every:2|"
        "--recompute block:4|--recompute modules:mlp|--offload activations|--offload optimizer|"
        "--attention eager"
    ),
    f"{LLAMA} --devices 16 --pp 4 --batch 64": (
        "--recompute uniform:2|--recompute every:2|--recompute block:2|--stages 9,9,9,5|--vpp 2|"
        "--schedule gpipe|--schedule zb-h1|--schedule zb-v|--schedule dualpipe|--zero 1|--zero 3|"
        "--micro-batch 2|--offload activations|--offload optimizer|--set memory.bandwidth=x2|"
        "--set scale_up.bandwidth=x2 --tp 2"
    ),
    f"{LLAMA} --devices 16 --zero 3 --batch 16": (
        "--shard 8|--shard 2|--no-reshard|--offload optimizer|--offload activations|--tp 2|"
        "--tp 2 --no-sp|--cp 2|--cp 2 --cp-kind all-gather|--cp 2 --cp-kind ulysses|"
        "--set memory.bandwidth=x2"
    ),
    f"{LLAMA} --devices 16 --cp 4 --batch 16": (
        "--cp-kind all-gather|--cp-kind ulysses|--zero 1|--zero 2 --micro-batch 1|"
        "--zero 1 --shard 16"
    ),
    f"{LLAMA} --devices 8 --pp 2 --zero 3 --batch 16": "--reshard|--shard 2",
    f"{MOE} --devices 16 --batch 16": (
        "--ep 2|--ep 8|--etp 2|--ep 4 --etp 2|--ep 4 --zero 1|--ep 4 --zero 1 --shard 4|"
        "--ep 4 --offload optimizer"
    ),
}


@pytest.mark.parametrize(
    ("base", "option"),
    [(base, option) for base, options in CHANGES.items() for option in options.split("|")],
)
def test_every_option_changes_time_or_memory(base, option):
    plain, changed = asked(f"predict {base}"), asked(f"predict {base} {option}")
    assert (plain["step_time_s"], plain["memory"]["peak_bytes"]) != (
        changed["step_time_s"],
        changed["memory"]["peak_bytes"],
    )


REJECTED = {
    f"{LLAMA} --sp": "--tp 2",
    f"{LLAMA} --stages 32": "--pp 2",
    f"{LLAMA} --schedule 1f1b": "--pp 2",
    f"{LLAMA} --pp 2 --schedule interleaved": "--vpp 2",
    f"{LLAMA} --stages 7,8,8,9": "--pp 4",
    f"{LLAMA} --pp 4 --stages 7,8,8,8": "31 layers, but the model has 32",
    f"{LLAMA} --pp 4 --stages 7,8,x,9": "commas",
    f"{LLAMA} --pp 4 --stages ''": "commas",
    f"{LLAMA} --cp-kind ulysses": "--cp 2",
    f"{LLAMA} --dp 4 --batch 4 --shard 2": "--zero 1",
    f"{LLAMA} --dp 4 --batch 4 --shard 3 --zero 3": "use 2",
    f"{LLAMA} --dp 4 --batch 4 --zero 2 --no-reshard": "--zero 3",
    f"{LLAMA} --dp 2 --batch 2 --ep 2": "no experts",
    f"{LLAMA} --dp 2 --batch 2 --etp 2": "no experts",
    f"{MOE} --ep 2": "--devices 2",
    f"{MOE} --ep 8 --tp 4 --pp 2": "--devices 16",
    f"{LLAMA} --recompute uniform:33": "uniform:32 or less",
    f"{LLAMA} --recompute every:99": "every:32 or less",
    f"{LLAMA} --recompute block:1e3": "block:2",
    f"{LLAMA} --recompute modules:mpl": "did you mean mlp",
    f"{LLAMA} --recompute ''": "uniform:N",
    f"{LLAMA} --offload weights": "'activations'",
    f"{LLAMA} --offload": "--offload optimizer",
    f"{LLAMA} --recompute": "--recompute full",
    f"{LLAMA} --offload optimizer --optimizer none": "--optimizer",
    "gpt2 --on xeon-8480 --offload optimizer": "leave --offload out",
    "jasper --on h100-sxm5 --tp 2": "--zero",
    "gnmt --on h100-sxm5 --pp 2": "--zero",
    f"{LLAMA} --devices 99999999999999999999": "or less",
    f"{LLAMA} --devices 2000000000 --batch 2000000000": "1,000,000,000",
    "'' --on h100-sxm5": "give a model",
    f"{LLAMA} --save ''": ".toml",
}


@pytest.mark.parametrize(("line", "cure"), REJECTED.items(), ids=REJECTED)
def test_options_that_are_invalid_or_without_effect_are_rejected(line, cure):
    result = run(f"predict {line}")
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.count("\n") == 1 and cure in result.stderr
