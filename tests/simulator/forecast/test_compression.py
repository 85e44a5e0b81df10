"""Compressed nets: formats of weights, 2:4, pruning, a teacher; published figures and laws."""

from pathlib import Path

import numpy as np
import pytest

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.scenarios.measured.products import (
    A100,
    Product,
    call,
    kernels,
    pruned,
    table,
    widened,
)
from roofcast.simulator import models
from roofcast.simulator.choose.compress import compress
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.recipes import default_precision
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.forecast.sparsity import has_sparse
from roofcast.simulator.models.pruned import pruned as prune
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.tuning import Tuning

DOCUMENT = Path(__file__).parents[3] / "docs" / "compression.md"
SPARSE = Tuning(sparse=True)
NETS = ("llama-3-8b", "gpt2", "bert-base", "mixtral-8x7b", "resnet50", "vit_base_patch16_224")


def infer(model="llama-3-8b", device=A100, **fields):
    return forecast(Scenario(model=model, device=device, mode="infer", **fields))


# ------------------------------------------------------------------ published
def test_large_2_4_products_gain_as_published():
    """Linear(10240, 3072) on 3,072 rows: 1.38 on A100, 1.15 on H100; cuSPARSELt's example 1.11."""
    for row in pruned("kernel"):
        dense, sparse = (kernels(row.device, [row.of], t)[0] for t in (None, SPARSE))
        assert dense / sparse > 1
        if row.device.startswith(("a100", "h100")):
            assert 1.1 <= dense / sparse <= 1.6
            assert dense / sparse == pytest.approx(row.gain, rel=0.16), row


def test_calls_of_2_4_products_that_were_measured_to_lose_are_forecast_to_lose():
    for row in pruned("call"):
        assert row.gain < 1
        assert call(row.device, row.of) < call(row.device, row.of, SPARSE)


def test_the_mlp_of_vit_l_trains_faster_with_2_4_weights_as_torchao_measured():
    """pytorch/ao PR 184, A100: 11,534 us forward and backward, 9,205 with sparse weights."""
    rows = 44_160
    once, again = Product(rows, 4096, 1024), Product(rows, 1024, 4096)
    of_weights = sum(kernels(A100, [Product(4096, 1024, rows)] * 2))
    dense, sparse = (2 * sum(kernels(A100, [once, again], t)) for t in (None, SPARSE))
    assert 1.05 < (dense + of_weights) / (sparse + of_weights) < 1.6


def test_widened_weights_are_within_the_error_of_their_fit():
    errors = []
    for name in ("int8", "int4"):
        rows = [row for row in widened() if row.format == name]
        seconds = kernels(A100, [row.of for row in rows], Tuning(weights=name))
        errors.append(np.abs(np.log(np.array(seconds) / [row.seconds for row in rows])))
    assert np.median(np.concatenate(errors)) < 0.10


@pytest.mark.parametrize(
    "name, gigabytes",
    # sizes of Q4_K_M files: Meta-Llama-3-8B 4.92 GB, Llama-2-7B 4.08 GB, Llama-3-70B 42.5 GB
    [("llama-3-8b", 4.92), ("llama-2-7b", 4.08), ("llama-3-70b", 42.5)],
)
def test_q4_k_m_takes_the_bytes_of_published_files(name, gigabytes):
    found = infer(name, "b200-sxm", sequence=1, weights="q4_k_m")
    assert found.memory.parameters_bytes / 1e9 == pytest.approx(gigabytes, rel=0.005)


def test_2_4_takes_36_of_64_bits():
    dense, sparse = infer(sequence=128), infer(sequence=128, sparsity="2:4")
    linear = {row.name: row for row in dense.layers if row.op == "linear" and row.count > 1}
    rows = {row.name: row for row in sparse.layers}
    for name, row in linear.items():
        assert rows[name].parameters_bytes == pytest.approx(row.parameters_bytes * 36 / 64)
        assert rows[name].flops == pytest.approx(row.flops / 2)


def test_the_document_holds_the_table_of_published_gains():
    assert table() in DOCUMENT.read_text(encoding="utf-8")


# ------------------------------------------------------------------ laws
@pytest.mark.parametrize("model", NETS)
def test_fewer_bits_never_take_more_memory(model):
    whole = infer(model).memory.peak_bytes
    eight, four = (infer(model, weights=name).memory.peak_bytes for name in ("int8", "int4"))
    assert four <= eight <= whole


@pytest.mark.parametrize("model", NETS)
@pytest.mark.parametrize("part", ["heads", "ffn", "layers", "experts", "channels"])
def test_pruning_never_adds_flops_bytes_or_weights(model, part):
    try:
        prune(models.resolve(model), f"{part}=25%")
    except BadInput:
        return
    less, whole = infer(model, prune=f"{part}=25%"), infer(model)
    assert less.parameters < whole.parameters
    assert less.flops_forward <= whole.flops_forward
    assert less.bytes_forward <= whole.bytes_forward
    assert less.memory.peak_bytes < whole.memory.peak_bytes
    if part != "experts":  # fewer experts get odd numbers of tokens
        assert less.step_time_s <= whole.step_time_s * 1.001


@pytest.mark.parametrize("part", ["heads", "ffn", "layers", "experts", "channels"])
def test_every_model_is_pruned_or_says_why_not(part):
    done = 0
    for name in models.names()[:: 4 if part == "layers" else 3]:
        model = models.resolve(name)
        try:
            prune(model, f"{part}=25%")
            done += 1
        except BadInput as error:
            assert str(error).startswith(f"prune {part}=25%")
    assert done


def test_pruned_heads_keep_their_width_and_groups():
    config = prune(models.resolve("llama-3-8b"), "heads=25%").config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (24, 6, 128)
    assert prune(models.resolve("gemma-2b"), "heads=50%").config.num_key_value_heads == 1


def test_a_device_without_units_for_it_refuses_2_4():
    with_it = {name for name in hwdb.devices() if has_sparse(hwdb.device(name))}
    assert {"a100-sxm4-80gb", "rtx-3090", "l4", "h100-sxm5", "b200-sxm", "mi300x"} <= with_it
    for name in ("t4", "v100-sxm2-16gb", "mi250x", "xeon-8380", "tpu-v5e", "m3-max"):
        assert name not in with_it
        format = default_precision(hwdb.device(name))
        with pytest.raises(BadInput, match="no units that skip zeros"):
            infer("gpt2", name, precision=format, sparsity="2:4")


def test_scattered_zeros_change_neither_time_nor_memory():
    plain, zeros = infer("gpt2"), infer("gpt2", sparsity="50%")
    assert zeros.step_time_s == plain.step_time_s
    assert zeros.memory == plain.memory
    assert any("no kernel skips scattered zeros" in line for line in zeros.assumptions)


def test_a_teacher_adds_its_weights_and_forward_and_nothing_that_trains():
    student, teacher = "distilbert-base", "bert-base"
    on = {"device": A100, "batch": 4, "sequence": 128}
    alone = forecast(Scenario(model=student, **on))
    both = forecast(Scenario(model=student, teacher=teacher, **on))
    passed = infer(teacher, batch=4, sequence=128)
    assert both.parameters == alone.parameters + passed.parameters
    assert both.trainable_parameters == alone.trainable_parameters
    assert both.flops_forward == alone.flops_forward + passed.flops_forward
    assert both.flops_backward == alone.flops_backward
    assert both.memory.optimizer_bytes == alone.memory.optimizer_bytes
    assert both.student_alone_s == alone.step_time_s < both.step_time_s


@pytest.mark.parametrize("recompute", ["full", "selective"])
def test_a_teacher_is_never_computed_again(recompute):
    on = {"device": A100, "batch": 1, "sequence": 128, "recompute": recompute}
    alone = forecast(Scenario(model="llama-3.2-1b", **on))
    both = forecast(Scenario(model="llama-3.2-1b", teacher="llama-3.2-3b", **on))
    assert both.flops_recompute == alone.flops_recompute > 0


def test_a_teacher_over_devices_sends_no_gradients():
    on = {"device": "h100-sxm5", "devices": 8, "batch": 8, "sequence": 128, "zero": 2}
    alone = forecast(Scenario(model="llama-3.2-1b", **on))
    both = forecast(Scenario(model="llama-3.2-1b", teacher="llama-3.2-3b", **on))
    assert both.communication_bytes == alone.communication_bytes


def test_tied_tables_of_student_and_teacher_are_two():
    tape = Tape(precision("bf16"))
    a = tape.parameter(4, 4, tied="embedding")
    b = tape.beside("teacher", lambda: tape.parameter(4, 4, tied="embedding"))
    assert a.storage != b.storage and tape.parameter(4, 4, tied="embedding") is a
    assert [w.trainable for w in tape.weights] == [True, False]


@pytest.mark.parametrize("model, device", [("gpt2", A100), ("resnet50", "t4")])
def test_rows_of_compress_are_those_of_predict(model, device):
    found = compress(Scenario(model=model, device=device, mode="infer", batch=2))
    for v in found.variants:
        if v.forecast is not None:
            assert v.forecast == infer(model, device, batch=2, **v.options)
    assert found.variants[0].options == {}


# ------------------------------------------------------------------ refused
@pytest.mark.parametrize(
    "model, fields, line",
    [
        ("gpt2", {"sparsity": "2:3"}, "2:4 .* or a percentage"),
        ("gpt2", {"sparsity": "100%"}, "above 0 and below 100"),
        ("gpt2", {"sparsity": "2:4", "weights": "int4"}, "kernels that do both are not modelled"),
        ("gpt2", {"sparsity": "2:4", "precision": "fp32"}, "skips zeros in"),
        ("gpt2", {"sparsity": "2:4", "precision": "fp8"}, "skips zeros in"),
        ("gpt2", {"sparsity": "2:4", "mode": "train"}, "use --mode infer"),
        ("gpt2", {"weights": "int3"}, "known: nf4"),
        ("gpt2", {"weights": "int4", "precision": "int8"}, "says how weights are held"),
        ("yolov3", {"weights": "int4"}, "no matrices of linear layers|linear"),
        ("gpt2", {"prune": "heads"}, "is wanted"),
        ("gpt2", {"prune": "heads=100%"}, "above 0 and below 100"),
        ("gpt2", {"prune": "heads=0%"}, "above 0 and below 100"),
        ("gpt2", {"prune": "heads=25%,heads=50%"}, "given twice"),
        ("gpt2", {"prune": "experts=50%"}, "gpt2 has no experts"),
        ("gpt2", {"prune": ""}, "is wanted"),
        ("resnet50", {"prune": "heads=25%"}, "resnet50 has no heads"),
        ("yolov3", {"prune": "channels=25%"}, "those of resnet"),
        ("opt-125m", {"prune": "heads=25%"}, "set the width of its layers"),
        ("mixtral-8x7b", {"prune": "experts=90%"}, "at least 2 must"),
        ("gpt2", {"teacher": "bert-base"}, "learns nothing"),
        ("gpt2", {"teacher": "resnet50", "mode": "train"}, "read the same inputs"),
        ("gpt2", {"teacher": "llama-3-8b", "mode": "train"}, "same vocabulary"),
        ("gpt2", {"teacher": "gpt2", "mode": "train", "devices": 8, "zero": 3}, "zero up to 2"),
        ("gpt2", {"teacher": "nobody", "mode": "train"}, "no model 'nobody'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(model, fields, line):
    with pytest.raises((BadInput, hwdb.errors.UnknownName), match=line) as raised:
        forecast(Scenario(**({"model": model, "device": A100, "mode": "infer"} | fields)))
    assert "\n" not in str(raised.value)
