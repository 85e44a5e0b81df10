"""Text and audio families: parameters against transformers, layouts, recomputation, bad keys."""

import csv
import json
from pathlib import Path

import pytest

from roofcast import predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models import from_config, resolve
from roofcast.simulator.models.names_text import TEXT
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Parallel

ORACLE = Path(__file__).parents[1] / "oracle"


def parameters():
    with (ORACLE / "parameters_text.csv").open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {row["model"]: int(row["parameters"]) for row in rows}


PARAMETERS = parameters()
SMALL = {}  # a small configuration of every family, of those that transformers counted
for case in json.loads((ORACLE / "configurations_text.json").read_text()):
    SMALL.setdefault(case["config"]["model_type"], case["config"])


def size_of(model):
    return 16_000 if model.size and model.size > 100_000 else 64


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_equal_those_of_transformers(name):
    model = resolve(name)
    tape = model.run(Tape(precision("bf16")), 1, size_of(model))
    assert sum(w.size * w.count for w in tape.weights) == PARAMETERS[name]


def test_every_text_model_has_a_reference():
    without = {name for name in TEXT if resolve(name).family == "rwkv7"}  # not in transformers
    assert set(TEXT) - without <= set(PARAMETERS)


ONE_EACH = {resolve(name).family: name for name in reversed(sorted(TEXT))}  # a name of each family


@pytest.mark.parametrize("name", ONE_EACH.values())
@pytest.mark.parametrize("stack", ["pytorch-eager", "pytorch-compiled", "fsdp-fused", "megatron"])
def test_every_family_trains_and_infers(name, stack):
    size = size_of(resolve(name))
    asked = {"model": name, "device": "b200", "batch": 1, "sequence": size, "stack": stack}
    train, infer = predict(**asked), predict(**asked, mode="infer")
    assert train.step_time_s > infer.step_time_s > 0


@pytest.mark.parametrize("name", ONE_EACH.values())
@pytest.mark.parametrize("how", ["full", "selective", "every:2", "block:3", "modules:residual"])
def test_recomputation_keeps_less(name, how):
    asked = {"model": name, "device": "b200", "batch": 2, "sequence": size_of(resolve(name))}
    kept = predict(**asked).memory.activations_bytes
    if how == "selective" and resolve(name).family == "rwkv7":
        with pytest.raises(BadInput, match="has no attention to recompute"):
            predict(**asked, recompute=how)
        return
    assert predict(**asked, recompute=how).memory.activations_bytes <= kept


@pytest.mark.parametrize("name", ONE_EACH.values())
@pytest.mark.parametrize("how", [{"tp": 2}, {"pp": 2}, {"dp": 2, "zero": 3}, {"cp": 2}])
def test_layouts_run_or_are_refused_in_one_line(name, how):
    asked = {"model": name, "device": "h100-sxm5", "batch": 8, "devices": 2}
    try:
        found = predict(**asked, sequence=size_of(resolve(name)), **how)
    except BadInput as error:
        assert set(how) & {"tp", "cp", "pp"} and "\n" not in str(error) and len(str(error)) < 300
        assert any(key in str(error) for key in how)
    else:
        assert found.step_time_s > 0


@pytest.mark.parametrize("name", ["gemma-3n-e2b", "gemma-4-e2b"])
def test_keys_that_later_stages_read_are_said_to_stay(name):
    asked = {"model": name, "device": "h100-sxm5", "batch": 8, "sequence": 256, "devices": 2}
    found = [predict(**asked, **how).assumptions for how in ({"pp": 2}, {"dp": 2})]
    said = [any(a.startswith("num_kv_shared_layers") for a in each) for each in found]
    assert said == [True, False]


def test_ranks_add_up_the_squares_of_the_norm_behind_lightning_attention():
    model = resolve("minimax-text-01")
    tape = model.run(Tape(precision("bf16"), parallel=Parallel(tp=2, sp=True)), 1, 64)
    norms = [x for x in tape.traffic if tape.nodes[x.node].name.endswith("self_attn.norm")]
    assert {x.kind for x in norms} == {"all_reduce"} and {x.bytes for x in norms} == {64 * 4}
    assert {x.phase for x in norms} == {"forward", "backward"}


WRONG = (0, -1, [1, 2], "wide", 1e30, None, {})


@pytest.mark.parametrize("kind", SMALL)
def test_wrong_values_are_refused_in_one_line_or_run(kind):
    for key, value in SMALL[kind].items():
        for wrong in WRONG:
            if key == "model_type" or wrong == value:
                continue
            try:
                model = from_config("small", SMALL[kind] | {key: wrong}, "config.json")
                model.run(Tape(precision("bf16")), 1, 32)
            except BadInput as error:
                assert "\n" not in str(error) and len(str(error)) < 500


@pytest.mark.parametrize("kind", SMALL)
def test_a_missing_key_is_named_or_has_a_default(kind):
    for key in SMALL[kind]:
        if key == "model_type":
            continue
        config = {k: v for k, v in SMALL[kind].items() if k != key}
        try:
            from_config("small", config, "config.json").run(Tape(precision("bf16")), 1, 32)
        except BadInput as error:
            assert "\n" not in str(error) and len(str(error)) < 500
