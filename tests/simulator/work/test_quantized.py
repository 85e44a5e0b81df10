"""Inference in fewer bits: formats of weights and activations, epilogues, and what is refused."""

import pytest
from kinds import kind_of_device, one_in_turn

from roofcast import hwdb, predict
from roofcast.hwdb.constants import kernels
from roofcast.hwdb.errors import BadInput
from roofcast.reports.pages.memory import cure
from roofcast.simulator.forecast.resolve import resolve
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.times.conv import conv
from roofcast.simulator.times.rates import resolve as rates_of
from roofcast.simulator.work.precision import PRECISIONS, precision
from roofcast.simulator.work.step import trace

LLAMA_TABLE, LLAMA_NORMS = 128256 * 4096, 65 * 4096  # embedding, and again the head; norms


def infer(**fields):
    return predict(mode="infer", **fields)


def step_of(**fields):
    asked = resolve(Scenario(mode="infer", **fields))
    return trace(asked.model, asked.recipe)


WIDTHS = {"fp8": 1, "int8": 1, "nvfp4": 4.5 / 8, "mxfp4": 4.25 / 8, "int4": (4 + 20 / 128) / 8}


@pytest.mark.parametrize(("name", "width"), WIDTHS.items())
def test_weights_of_llama_are_held_in_the_format_of_their_products_but_tables_and_norms(
    name, width
):
    found = infer(model="llama-3-8b", device="h100-sxm5", sequence=128, precision=name)
    sixteen = 2 * LLAMA_TABLE + LLAMA_NORMS
    expected = width * (found.parameters - sixteen) + 2 * sixteen
    assert found.memory.parameters_bytes == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("model", ["llama-3-8b", "bert-base", "t5-large", "mixtral-8x7b", "gpt2"])
def test_bytes_of_weights_fall_with_the_format(model):
    held = [
        infer(model=model, device="b200-sxm", sequence=64, precision=p).memory.parameters_bytes
        for p in ("fp32", "bf16", "fp8", "nvfp4")
    ]
    assert held[0] == 2 * held[1] and held[1] > held[2] > held[3] > 0.28 * held[1]


@pytest.mark.parametrize("name", ["fp8", "nvfp4"])
def test_a_training_step_holds_weights_in_two_bytes(name):
    found = predict(model="gpt2", device="b200-sxm", precision=name, optimizer="none")
    assert found.memory.parameters_bytes == 2 * found.parameters


@pytest.mark.parametrize("name", ["bf16", "fp8"])
def test_ranks_of_a_tensor_parallel_model_hold_its_weights_once(name):
    fields = {"model": "llama-3-70b", "device": "h100-sxm5", "sequence": 64, "precision": name}
    one, eight = infer(**fields), infer(devices=8, tp=8, **fields)
    whole = one.memory.parameters_bytes
    assert whole <= 8 * eight.memory.parameters_bytes <= 1.01 * whole


@pytest.mark.parametrize("stack", ["pytorch-eager", "nvidia-tuned"])
def test_activations_between_quantized_convolutions_take_one_byte(stack):
    step = step_of(model="resnet50", device="t4", batch=8, stack=stack, precision="int8")
    convs = [k for k in step.kernels if k.kind == "conv"]
    assert sum(k.count for k in convs) == 53
    assert {v.dtype for k in convs for v in k.inputs[:2]} == {"int8"}
    assert {v.dtype for k in convs for v in k.outputs} == {"int8"}


def test_int8_moves_half_the_bytes_of_fp16_through_a_convnet():
    int8, fp16 = (
        infer(model="resnet50", device="t4", batch=64, stack="nvidia-tuned", precision=p)
        for p in ("int8", "fp16")
    )
    assert int8.bytes_forward == pytest.approx(0.5 * fp16.bytes_forward, rel=0.05)


@pytest.mark.parametrize(("stack", "name"), [("nvidia-tuned", "fp16"), ("pytorch-eager", "int8")])
def test_batch_norm_relu_and_addition_run_in_the_kernels_of_convolutions(stack, name):
    step = step_of(model="resnet50", device="t4", batch=8, stack=stack, precision=name)
    convs = [k for k in step.kernels if k.kind == "conv"]
    assert sum(k.count for k in convs) == 53
    assert {k.kind for k in step.kernels} <= {"conv", "pool", "reduce", "matmul", "cast"}
    shortcuts = [k.count for k in convs if len(k.inputs) > 2]
    assert sum(shortcuts) == 16  # one addition per block reads the other branch


def test_an_epilogue_keeps_products_and_moves_fewer_bytes(tmp_path):
    plain_stack = tmp_path / "plain.toml"
    plain_stack.write_text(
        'like = "nvidia-tuned"\nname = "plain"\nabout = "plain"\nsource = "test"\n'
        '[implementations]\nepilogue = "none"\n'
    )
    for model in ("resnet50", "bert-base", "mobilenetv2_100"):
        fields = {"model": model, "device": "t4", "batch": 4, "precision": "fp16"}
        plain, fused = (step_of(stack=s, **fields) for s in (str(plain_stack), "nvidia-tuned"))
        flops = [sum(k.matrix * k.count for k in s.kernels) for s in (plain, fused)]
        moved = [sum((k.read + k.written) * k.count for k in s.kernels) for s in (plain, fused)]
        assert flops[0] == flops[1] and moved[1] < moved[0]


def test_a_residual_that_is_made_after_a_convolution_joins_the_later_one():
    """In a block whose shortcut is a convolution, the addition runs with that convolution, which
    comes last; the main branch is written before.
    """
    step = step_of(model="resnet50", device="t4", batch=2, stack="nvidia-tuned", precision="fp16")
    names = {
        step.nodes[k.node].name for k in step.kernels if k.kind == "conv" and len(k.inputs) > 2
    }
    assert {f"layer{i}.0.downsample.0" for i in (1, 2, 3, 4)} <= names


def own_stack(path, name, change):
    """A profile like `nvidia-tuned` or `onednn` with one thing changed."""
    path.write_text(
        f'like = "{name}"\nname = "{path.stem}"\nabout = "changed"\nsource = "test"\n{change}\n'
    )
    return str(path)


@pytest.mark.parametrize(
    ("device", "times"),
    [("rtx-3060", 1.2), ("rtx-2080-ti", 1.2), ("rtx-4090", 1.1), ("t4", 1.0), ("a100", 1.0)],
)
def test_fp16_sums_are_faster_on_boards_held_at_half_rate_in_fp32_sums(tmp_path, device, times):
    wide = own_stack(tmp_path / "wide.toml", "nvidia-tuned", '[implementations]\nsums = "fp32"')
    asked = {"model": "resnet50", "device": device, "batch": 128, "precision": "fp16"}
    half, whole = (infer(stack=s, **asked) for s in ("nvidia-tuned", wide))
    faster = whole.step_time_s / half.step_time_s
    said = any("add in fp16" in a for a in half.assumptions)
    assert (faster >= times and said) if times > 1.0 else (faster == 1.0 and not said)
    assert half.mfu <= half.hfu <= 1.0 and half.lower_bound_s <= half.step_time_s
    assert not any("add in fp16" in a for a in whole.assumptions)


def test_fp16_sums_are_of_inference_and_of_fp16_alone():
    for other in ({"precision": "bf16"}, {"precision": "amp-fp16", "mode": "train"}):
        f = predict(
            model="resnet50", device="rtx-3060", batch=8, stack="nvidia-tuned",
            **{"mode": "infer", **other},
        )  # fmt: skip
        assert not any("add in fp16" in a for a in f.assumptions)


def test_products_with_2_of_4_weights_add_in_fp16_as_dense_ones_do(tmp_path):
    wide = own_stack(tmp_path / "wide.toml", "nvidia-tuned", '[implementations]\nsums = "fp32"')
    asked = {"model": "llama-2-7b", "device": "rtx-3060", "batch": 8, "sequence": 384}
    half, whole = (
        infer(stack=s, precision="fp16", sparsity="2:4", **asked) for s in ("nvidia-tuned", wide)
    )
    assert half.step_time_s < 0.95 * whole.step_time_s


def test_pools_of_inference_engines_are_bound_by_memory(tmp_path):
    plain = own_stack(tmp_path / "p.toml", "nvidia-tuned", '[implementations]\npool = "pytorch"')
    asked = {"model": "resnet50", "device": "a100", "batch": 128}

    def pool(stack, mode):
        precision = "fp16" if mode == "infer" else "amp-bf16"
        f = predict(stack=stack, mode=mode, precision=precision, **asked)
        return next(x for x in f.layers if x.name == "maxpool")

    assert pool("nvidia-tuned", "infer").time_s < 0.3 * pool(plain, "infer").time_s
    assert pool("nvidia-tuned", "infer").time_s > pool("nvidia-tuned", "infer").lower_bound_s
    assert pool("nvidia-tuned", "train").time_s == pool(plain, "train").time_s


def test_graphs_that_keep_the_layout_of_onednn_copy_no_operands(tmp_path):
    copies = own_stack(tmp_path / "copies.toml", "onednn", "laid_out = false")
    for model in ("resnet50", "bert-base"):
        asked = {"model": model, "device": "xeon-8480", "batch": 14, "precision": "fp32"}
        kept, copied = (infer(stack=s, **asked) for s in ("onednn", copies))
        assert kept.bytes_forward == copied.bytes_forward
        assert kept.lower_bound_s <= kept.step_time_s < copied.step_time_s


def test_an_image_has_four_channels_in_int8():
    """A first layer of 5 channels is padded to 16, one of 4 is not."""
    rates, c = rates_of(hwdb.device("a100"), "int8").rates, kernels()
    three, four, five = (
        conv("forward", 128, n, 64, 224**2, 112**2, 49, 1, 1.0, rates, c) for n in (3, 4, 5)
    )
    assert three <= four < 0.7 * five


FASTER = [  # devices whose int8 rate is at least their 16-bit rate
    name
    for name in hwdb.devices()
    if (peak := hwdb.device(name).peak_flops).get("int8", 0)
    >= max(peak.get("fp16") or 0, peak.get("bf16") or 0)
    > 0
]


INT8_ON_EACH = one_in_turn(FASTER, ("resnet50", "bert-base"), kind_of_device)


@pytest.mark.parametrize("name", FASTER)
def test_int8_is_never_slower_than_16_bits_where_the_chip_multiplies_it_as_fast(name):
    """By more than 1 %: at equal rates nothing pays for the casts of activations."""
    other = "fp16" if "fp16" in hwdb.device(name).peak_flops else "bf16"
    for model in INT8_ON_EACH[name]:
        int8, wide = (
            infer(model=model, device=name, batch=32, stack="nvidia-tuned", precision=p).step_time_s
            for p in ("int8", other)
        )
        assert int8 <= 1.01 * wide, model


TRIED = one_in_turn(hwdb.devices(), PRECISIONS, kind_of_device)


@pytest.mark.parametrize("name", hwdb.devices())
def test_a_forecast_runs_in_a_format_of_the_device_or_says_how_or_is_refused(name):
    device = hwdb.device(name)
    has = {*device.peak_flops, *(["fp32"] if "fp32" in device.vector_flops else [])}
    for policy in TRIED[name]:
        for mode in ("train", "infer"):
            try:
                found = predict(model="resnet18", device=name, mode=mode, precision=policy)
            except BadInput as error:
                assert "\n" not in str(error)
                assert "int8" in str(error) or not precision(policy).trains
                continue
            product = precision(policy).product
            if policy in ("nvfp4", "mxfp4") and mode == "infer":
                product = "bf16"  # no 4-bit convolutions
            says = [
                a
                for a in found.assumptions
                if a.startswith((f"{name} ", f"{name}: ")) and product in a
            ]
            fp32 = policy == "fp32" and "tf32" in has  # TF32, where the stack allows it
            assert product in has or fp32 or says, (policy, mode)


INTEGER = [name for name in hwdb.devices() if set(hwdb.device(name).peak_flops) == {"int8"}]


@pytest.mark.parametrize("name", INTEGER)
def test_a_chip_of_int8_alone_runs_inference_in_int8_and_refuses_anything_else(name):
    found = infer(model="resnet50", device=name)
    assert found.precision == "int8"
    assert f"precision int8 (not given): {name} multiplies no other format" in found.assumptions
    for asked in ({"mode": "train"}, {"mode": "infer", "precision": "fp32"}):
        with pytest.raises(
            BadInput, match="multiplies int8 only; use --mode infer --precision int8"
        ):
            predict(model="resnet50", device=name, **asked)


def test_there_is_a_chip_of_int8_alone():
    assert INTEGER


def test_what_is_not_quantized_stays_fp32_where_a_device_has_no_16_bit_products():
    found = infer(model="bert-base", device="xeon-8280", precision="int8")
    assert found.precision == "int8-fp32"
    assert "precision int8: xeon-8280 multiplies no 16-bit format; int8-fp32" in found.assumptions
    assert infer(model="bert-base", device="xeon-8480", precision="int8").precision == "int8"


def test_decoding_is_faster_in_proportion_to_the_bytes_of_weights():
    """One token of one sample reads every weight but the embedding once."""
    fields = {"model": "llama-3-8b", "device": "h100-sxm5", "sequence": 1, "stack": "nvidia-tuned"}
    found = {p: infer(precision=p, **fields) for p in ("bf16", *WIDTHS)}
    read = {p: f.memory.parameters_bytes - 2 * LLAMA_TABLE for p, f in found.items()}
    for name in WIDTHS:
        assert found[name].bytes_forward == pytest.approx(read[name], rel=0.01)
        assert found[name].step_time_s < found["bf16"].step_time_s


def test_memory_does_not_advise_a_lower_precision_than_the_lowest():
    fields = {"model": "llama-3-70b", "device": "rtx-3060", "sequence": 64}
    advised = {p: cure(infer(precision=p, **fields)) for p in ("bf16", "fp8", "nvfp4", "int4")}
    assert [("lower --precision" in text) for text in advised.values()] == [
        True,
        True,
        False,
        False,
    ]


def test_a_diagnosis_does_not_advise_a_lower_precision_than_the_lowest():
    fields = {"model": "llama-3-8b", "device": "h100-sxm5", "batch": 4, "sequence": 2048}
    bf16, fp8 = (infer(precision=p, **fields).diagnosis for p in ("bf16", "fp8"))
    assert "bound by the matrix units" in bf16 and "a lower precision" in bf16
    assert "bound by the matrix units" in fp8 and "lower precision" not in fp8
