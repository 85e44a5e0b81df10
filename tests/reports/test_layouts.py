"""Layouts, recomputation and offload on the command line: what is printed adds up."""

import json
import shlex

import pytest
from click.testing import CliRunner

from roofcast import predict
from roofcast.reports.command import main
from roofcast.reports.pages.forecast import print_forecast
from roofcast.reports.pages.layout import losses

LLAMA = "llama-3-8b --on h100-sxm5"
MOE = "mixtral-8x7b --on h100-sxm5"


def run(line):
    return CliRunner().invoke(main, shlex.split(line))


def asked(line):
    result = run(f"{line} --json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


LAYOUTS = {
    "tensor": f"{LLAMA} --tp 8 --batch 8",
    "tensor without sequence parallel": f"{LLAMA} --tp 4 --no-sp --recompute full --batch 8",
    "pipeline": (
        f"{LLAMA} --devices 16 --tp 2 --pp 4 --stages 7,8,8,9 --batch 64 --recompute block:3"
    ),
    "virtual stages": f"{LLAMA} --devices 16 --tp 2 --pp 4 --vpp 2 --batch 64 --micro-batch 1",
    "two ways": f"{LLAMA} --devices 8 --tp 2 --pp 4 --schedule dualpipe --batch 16",
    "ring": f"{LLAMA} --devices 8 --cp 4 --batch 8 --recompute uniform:4",
    "all-gather": f"{LLAMA} --devices 8 --tp 2 --cp 2 --cp-kind all-gather --zero 1 --batch 8",
    "ulysses": (
        f"{LLAMA} --devices 16 --cp 4 --cp-kind ulysses --zero 3 --shard 8 --batch 16 --recompute"
        " every:2"
    ),
    "experts": f"{MOE} --devices 32 --tp 4 --ep 8 --batch 32",
    "parts of experts": (
        f"{MOE} --devices 32 --tp 2 --pp 2 --ep 4 --etp 2 --zero 1 --batch 32 --recompute full"
    ),
    "sharded pipeline": (
        f"{LLAMA} --devices 8 --pp 4 --zero 3 --reshard --batch 32 --recompute modules:mlp,norm"
    ),
    "host": (
        f"{LLAMA} --devices 8 --zero 3 --no-reshard --offload optimizer --offload activations"
        " --batch 8"
    ),
    "one with its host": f"{LLAMA} --offload optimizer --recompute selective",
    "inference": f"{LLAMA} --tp 8 --batch 8 --mode infer",
    "pictures": "resnet50 --on h100-sxm5 --devices 8 --zero 2 --shard 4 --batch 512",
}
OF_OPS = ("tensor", "context", "expert", "expert tensor")


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=LAYOUTS)
def line(request):
    return request.param


@pytest.fixture(scope="module")
def found(line):
    return asked(f"predict {line}")


def test_bytes_sent_by_ops_sum_to_those_of_the_device(found):
    by_op = sum(layer["sent_bytes"] for layer in found["layers"])
    assert by_op == pytest.approx(
        sum(found["communication_bytes"].get(kind, 0.0) for kind in OF_OPS), rel=1e-9
    )
    degrees = found["layout"]
    assert (by_op > 0) == (degrees["tp"] * degrees["cp"] * degrees["ep"] * degrees["etp"] > 1)


def test_kinds_of_memory_sum_to_the_peak_of_the_most_loaded_stage(found):
    memory = found["memory"]
    held = sum(
        memory[f"{kind}_bytes"]
        for kind in (
            "parameters",
            "gradients",
            "optimizer",
            "activations",
            "transient",
            "framework",
        )
    )
    assert (
        held
        == pytest.approx(memory["peak_bytes"], rel=1e-9)
        == max(rank["peak_bytes"] for rank in found["ranks"])
    )
    for rank in found["ranks"]:
        kinds = [
            value for key, value in rank.items() if key.endswith("_bytes") and key != "peak_bytes"
        ]
        assert sum(kinds) == pytest.approx(rank["peak_bytes"], rel=1e-9)
    assert memory["fits"] == (memory["peak_bytes"] <= memory["capacity_bytes"])


def scenario(line):
    """The forecast behind a line, as Python has it."""
    from roofcast.reports.command import main as group

    command = group.get_command(None, "predict")
    context = command.make_context("predict", shlex.split(line))
    for name in ("as_json", "save", "remedies", "layout"):
        context.params.pop(name)
    from roofcast.reports.option_campaign import gathered
    from roofcast.reports.options import scenarios

    return scenarios(campaign=gathered(context.params), **context.params)[0]


def test_layers_and_losses_sum_to_the_step(line):
    f = predict(scenario(line))
    layers, lost = sum(layer.time_s for layer in f.layers), sum(loss.time for loss in losses(f))
    assert layers == pytest.approx(f.forward_s + f.backward_s)
    left = f.step_time_s - layers - lost
    if f.layout.pp == 1:  # in a pipeline, the slowest stage takes longer than the mean
        assert left == pytest.approx(0.0, abs=0.02 * f.step_time_s)
    assert left > -0.002 * f.step_time_s
    update = 0.0 if "optimizer" in f.layout.offload else f.update_s  # then the host does it
    assert sum(p.time_s for p in f.points) == pytest.approx(layers + update)
    assert f.lower_bound_s < f.step_time_s
    assert all(row.lower_bound_s <= row.time_s * (1 + 1e-9) for row in f.layers)


def test_the_text_keeps_to_80_columns(line):
    for command in ("predict", "memory"):
        out = CliRunner(env={"COLUMNS": "80"}).invoke(main, [command, *shlex.split(line)]).stdout
        assert out and max(map(len, out.splitlines())) <= 80
        # names, the first cell of a row, may be cut; other cells not at all
        assert "…" not in "".join(line.strip().partition(" ")[2] for line in out.splitlines())
        assert (
            "-0" not in out
            and "nan" not in out
            and "inf" not in out.replace("infer", "").replace("infin", "")
        )


def test_a_timeline_is_as_long_as_the_step(line, found, tmp_path):
    wrote = run(f"trace {line} -o {tmp_path / 'step.json'}")
    assert wrote.exit_code == 0, wrote.stderr
    events = json.loads((tmp_path / "step.json").read_text())["traceEvents"]
    end = max(event["ts"] + event.get("dur", 0) for event in events if "ts" in event) / 1e6
    assert end == pytest.approx(
        found["step_time_s"], rel=0.06 if found["layout"]["pp"] > 1 else 0.01
    )


def test_counts_of_the_whole_model_do_not_depend_on_the_layout():
    one = predict(model="llama-3-8b", device="h100-sxm5", batch=8)
    for cut in (
        dict(tp=4),
        dict(devices=8, zero=3),
        dict(pp=4, micro_batch=1),
        dict(cp=2, micro_batch=8),
    ):
        f = predict(model="llama-3-8b", device="h100-sxm5", batch=8, **cut)
        for field in (
            "parameters",
            "flops_forward",
            "flops_backward",
            "flops_other",
            "saved_bytes",
            "saved_input_bytes",
        ):
            assert getattr(f, field) == pytest.approx(getattr(one, field), rel=1e-3), (cut, field)
        assert f.bytes_forward >= one.bytes_forward * 0.999  # weights are read once per micro-batch


@pytest.mark.parametrize("cp", [2, 8])
def test_kinds_of_context_parallelism_compute_the_same_scores(cp):
    """Each rank has an equal part of the causal square; a ring computes it in other blocks."""

    def attention(**cut):
        f = predict(model="llama-3-8b", device="h100-sxm5", sequence=32768, batch=1, **cut)
        return next(layer for layer in f.layers if layer.op == "attention")

    part = attention().time_s / cp
    for kind in ("ring", "all-gather", "ulysses"):
        row = attention(cp=cp, cp_kind=kind)
        # with four heads per rank, the last wave of blocks is emptier under Ulysses
        assert row.time_s == pytest.approx(part, rel=0.1), kind
        assert row.lower_bound_s == pytest.approx(attention().lower_bound_s / cp, rel=1e-6)


def test_an_update_counts_once_for_any_number_of_micro_batches():
    few, many = (
        predict(model="gpt2", device="h100-sxm5", devices=2, batch=2 * n, micro_batch=1)
        for n in (1, 8)
    )
    rows = [{layer.name: layer for layer in f.layers} for f in (few, many)]
    for name in rows[0]:
        assert rows[1][name].bytes == pytest.approx(8 * rows[0][name].bytes)
    updates = [sum(p.bytes for p in f.points if p.phase == "update") for f in (few, many)]
    assert updates[0] == pytest.approx(updates[1]) and updates[0] > few.parameters


def test_an_update_on_the_host_is_printed_once():
    found = asked(f"predict {LLAMA} --offload optimizer")
    assert found["exposed_communication_s"]["offload"] == 0 < found["update_s"]
    text = " ".join(run(f"predict {LLAMA} --offload optimizer").stdout.split())
    assert (
        "Offload to the host" in text
        and "optimizer update on the host: " in text
        and "lost to the optimizer on the host" in text
    )
    assert "Over 1 devices" not in text and "40 GB/s" in text


def test_the_diagnosis_has_shares_of_the_printed_step():
    f = predict(model="llama-3-8b", device="h100-sxm5", devices=16, tp=8, batch=16)
    compute = next(limit.share for limit in f.limits if limit.name == "compute")
    said = f"{100 * compute:.0f} % of the step is bound by the matrix units"
    assert said in f.diagnosis


def test_uneven_stages_are_printed(capsys):
    f = predict(model="llama-3-8b", device="h100-sxm5", pp=4, stages=(2, 10, 10, 10), batch=32)
    assert "uneven pipeline stages" in f.diagnosis and "--stages" in f.diagnosis
    print_forecast(f)
    assert "uneven stages" in capsys.readouterr().out


def test_token_counts_of_experts_are_waits_not_uneven_stages():
    asked = {
        "model": "mixtral-8x7b",
        "device": "h100-sxm5",
        "devices": 64,
        "tp": 2,
        "pp": 2,
        "ep": 4,
        "batch": 256,
        "micro_batch": 1,
    }
    waits, graphs = (
        predict(**asked, stack="megatron"),
        predict(**asked, stack="megatron-bridge-2026"),
    )
    assert (
        waits.waiting_for_host_s > 0.1 * waits.step_time_s
        and waits.uneven_stages_s < 0.02 * waits.step_time_s
    )
    assert (
        "waiting for the host" in waits.diagnosis
        and graphs.waiting_for_host_s < 0.01 * graphs.step_time_s
    )
    exposed = (
        sum(waits.exposed_communication_s.values()) + waits.bubble_fraction * waits.step_time_s
    )
    parts = (
        sum(row.time_s for row in waits.layers)
        + waits.update_s
        + exposed
        + waits.waiting_for_host_s
        + waits.uneven_stages_s
    )
    assert parts == pytest.approx(waits.step_time_s, rel=0.02)


def test_json_has_the_whole_layout():
    told = asked(f"predict {LAYOUTS['ulysses']} --offload optimizer")["layout"]
    assert (told["cp_kind"], told["shard"], told["zero"], told["offload"]) == (
        "ulysses",
        8,
        3,
        ["optimizer"],
    )
    assert asked(f"predict {LAYOUTS['pipeline']}")["layout"]["stages"] == [7, 8, 8, 9]
    assert asked(f"memory {LAYOUTS['pipeline']}")["layout"]["stages"] == [7, 8, 8, 9]


def test_the_text_has_the_whole_layout():
    text = " ".join(
        run(f"predict {LAYOUTS['ulysses']} --offload activations --system dgx-h100").stdout.split()
    )
    assert (
        "CP 4 (ulysses), DP 4, ZeRO 3 in groups of 8, activations offloaded to the host; 1"
        " micro-batch of 4 samples per DP rank; on dgx-h100" in text
    )
    assert "PP 4 (1f1b, layers 7+8+8+9)" in run(f"memory {LAYOUTS['pipeline']}").stdout


def test_the_table_has_bytes_sent_by_ops():
    text = run(f"predict {LAYOUTS['tensor']}").stdout.splitlines()
    header = next(line for line in text if "bound by" in line)
    assert "sent" in header and "saved" not in header
    assert (
        next(line for line in text if "mlp.down_proj" in line)[
            header.index("sent") - 4 : header.index("sent") + 4
        ]
        .strip()
        .endswith("B")
    )


def test_sharding_over_one_rank_is_stated_to_do_nothing():
    assert any(
        "shards nothing" in each for each in asked(f"predict {LLAMA} --zero 3")["assumptions"]
    )


@pytest.mark.parametrize(
    "line",
    [LAYOUTS["pictures"], LAYOUTS["experts"], LAYOUTS["ulysses"], LAYOUTS["one with its host"]],
)
def test_the_largest_batch_over_several_devices_fits_and_the_next_does_not(line):
    found = asked(f"memory {line}")
    parts = found["layout"]["micro_batches"] * found["layout"]["dp"]
    micro, rest = divmod(found["memory"]["largest_batch"], parts)
    base = (
        line.partition(" --batch ")[0] + " " + " ".join(line.partition(" --batch ")[2].split()[1:])
    )
    fits = [
        asked(f"memory {base} --batch {n * parts} --micro-batch {n}")["memory"]["fits"]
        for n in (micro, micro + 1)
    ]
    assert rest == 0 and fits == [True, False]


def test_inference_over_several_devices_needs_memory_for_its_largest_op():
    one, two = (
        asked(f"memory {LLAMA} --mode infer --batch 8{more}")["memory"] for more in ("", " --tp 2")
    )
    assert one["transient_bytes"] == pytest.approx(2 * two["transient_bytes"], rel=0.05)
    assert two["peak_moment"] == "forward of a micro-batch"


def test_an_unknown_price_is_stated():
    text = run("predict gpt2 --on tpu-v7 --tokens 1B").stdout
    assert "--price" in text and "$" not in text


def test_a_comparison_of_several_devices_prints_their_layout():
    text = run(
        "predict gpt2 --on h100-sxm5 --on a100-sxm4-80gb --devices 8 --zero 3 --shard 4 --batch 8"
    ).stdout
    assert "ZeRO 3 in groups of 4" in text and "on 8 devices, 2 kinds compared" in text


def test_the_diagnosis_names_what_data_parallel_ranks_could_shard():
    asked = {
        "model": "llama-3-8b",
        "device": "h100-sxm5",
        "devices": 64,
        "batch": 64,
        "sequence": 4096,
    }
    text = predict(**asked).diagnosis
    assert "largest part is optimizer states" in text and "--zero 1" in text
    sharded, alone = (
        predict(**asked, zero=1),
        predict(model="llama-3-8b", device="h100-sxm5", batch=1),
    )
    assert "--zero" not in sharded.diagnosis and "--zero" not in alone.diagnosis
