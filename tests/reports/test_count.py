"""Counts: layers and tree sum to the totals, which are those of a forecast and of publications."""

import json
import time

import pytest
from click.testing import CliRunner

import roofcast
from roofcast.reports.command import main
from roofcast.reports.format import binary, si
from roofcast.reports.pages.tree import ROWS, fitting_depth, height, tree, walk
from roofcast.simulator.forecast.counts import SUMMED, Counts, count

NETS = (
    "gpt2",
    "llama-3-8b",
    "bert-base",
    "vit-b16",
    "resnet50",
    "mobilenetv2_100",
    "dlrm",
    "bilstm",
    "unet-diffusion",
)
PROMISED = """parameters flops_forward flops_backward flops_other_forward flops_other_backward
    saved_bytes saved_input_bytes saved_weight_copy_bytes bytes_forward bytes_backward layers"""
# parameters of Inception's auxiliary classifier: two convolutions with their norms, and a head
AUXILIARY = 128 * 768 + 768 * 128 * 25 + 2 * (128 + 768) + 1000 * 769
# torchvision 0.25, metadata of its weights: num_params, and _ops of one image, in 1e9 multiply-adds
TORCHVISION = {
    "resnet50": (25_557_032, 4.089),
    "vgg16": (138_357_544, 15.47),
    "densenet121": (7_978_856, 2.834),
    "vit-b16": (86_567_656, 17.564),
    "mobilenetv2_100": (3_504_872, 0.301),
    "inception_v3": (27_161_264 - AUXILIARY, 5.713),
}
GPT3 = dict(
    model_type="gpt2",
    n_layer=96,
    n_embd=12288,
    n_head=96,
    n_positions=2048,
    n_ctx=2048,
    vocab_size=50257,
    layer_norm_epsilon=1e-5,
    activation_function="gelu_new",
)


def run(*words):
    return CliRunner().invoke(main, ["count", *words])


@pytest.mark.parametrize("precision", ["fp32", "amp-bf16"])
@pytest.mark.parametrize("net", NETS)
def test_layers_sum_to_the_totals_and_so_does_the_tree(net, precision):
    counts = count(net, precision=precision)
    whole = tree(counts)
    for key in SUMMED:
        total = getattr(counts, key)
        assert sum(getattr(layer, key) for layer in counts.layers) == total == whole.sums[key]
    for _, branch in walk(whole, None):
        if branch.parts:
            assert branch.sums == {
                key: sum(part.sums[key] for part in branch.parts) for key in SUMMED
            }


@pytest.mark.parametrize(
    "asked", [{}, dict(precision="amp-fp16", attention="eager"), dict(mode="infer")], ids=str
)
@pytest.mark.parametrize("net", NETS)
def test_totals_are_those_of_the_forecast(net, asked):
    counts = count(net, **asked)
    forecast = roofcast.predict(
        model=net, device="h100-sxm5", stack="pytorch-eager", **{"precision": "bf16", **asked}
    )
    for key in (
        "parameters",
        "flops_forward",
        "flops_backward",
        "saved_bytes",
        "saved_input_bytes",
        "saved_weight_copy_bytes",
    ):
        assert getattr(counts, key) == getattr(forecast, key), key
    assert (counts.bytes_forward, counts.bytes_backward) == (
        forecast.bytes_forward,
        forecast.bytes_backward,
    )


@pytest.mark.parametrize("net", TORCHVISION)
def test_parameters_and_operations_are_those_torchvision_prints(net):
    parameters, operations = TORCHVISION[net]
    counts = count(net, batch=1, mode="infer")
    assert counts.parameters == parameters
    assert counts.flops_forward / 2e9 == pytest.approx(operations, abs=0.0005)


def test_gpt3_is_the_size_and_costs_what_its_paper_says(tmp_path):
    """Brown et al. 2020, Tables 2.1 and D.1: 175.0 billion parameters; 3.14e23 FLOP for 300 billion
    tokens, without attention's scores.
    """
    (tmp_path / "config.json").write_text(json.dumps(GPT3))
    counts = count(str(tmp_path / "config.json"), batch=1, sequence=2048)
    scores = sum(
        layer.flops_forward + layer.flops_backward
        for layer in counts.layers
        if layer.op == "attention"
    )
    assert counts.parameters / 1e9 == pytest.approx(
        174.6, abs=0.05
    )  # printed as 174,600 M in Table D.1
    total = (counts.flops_forward + counts.flops_backward - scores) / 2048 * 300e9
    assert total == pytest.approx(3.14e23, rel=0.01)


def test_a_405b_config_is_counted_in_50_ms(tmp_path):
    """Llama team 2024, Table 3: 126 layers, 16384 wide; the count needs less than 50 ms once the
    modules are imported.
    """
    config = dict(
        model_type="llama",
        hidden_size=16384,
        intermediate_size=53248,
        num_hidden_layers=126,
        num_attention_heads=128,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=131072,
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert count(str(tmp_path / "config.json")).parameters == 405_853_388_800
    started = time.process_time()
    count(str(tmp_path / "config.json"))
    assert time.process_time() - started < 0.05


def test_repeated_blocks_have_their_number_of_repetitions():
    times = {branch.name: branch.times for _, branch in walk(tree(count("llama-3-8b")), None)}
    assert times["layers"] == 32
    assert {times[name] for name in ("model", "self_attn", "q_proj", "lm_head")} == {1}


@pytest.mark.parametrize("net", NETS)
def test_a_tree_can_be_cut_at_any_depth(net):
    whole = tree(count(net))
    rows = [sum(1 for _ in walk(whole, depth)) for depth in range(height(whole) + 2)]
    assert rows[0] == 1 and rows == sorted(rows) and rows[-1] == rows[-2]
    deep = fitting_depth(whole)
    assert (
        1 <= deep <= height(whole)
        and (deep == 1 or rows[deep] <= ROWS)
        and (deep == height(whole) or rows[deep + 1] > ROWS)
    )


def test_counts_can_be_saved_and_read_back():
    counts = count("gpt2")
    assert Counts.from_json(counts.to_json()) == counts


def test_json_has_the_promised_keys_and_whole_numbers():
    found = json.loads(run("gpt2", "--json", "--batch", "2").stdout)
    assert set(PROMISED.split()) <= set(found) and found["batch"] == 2
    assert {"name", "op", "count", *(key for key in PROMISED.split() if key != "layers")} == set(
        found["layers"][0]
    )
    assert all(isinstance(found[key], int) for key in PROMISED.split()[:-1])


def test_the_text_names_totals_layers_and_defaults(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    result = run("gpt2", "--seq", "128")
    assert result.exit_code == 0, result.stderr
    for words in (
        "124,439,808",
        "h ×12",
        "attn",
        "layer_norm",
        "precision bf16 (not given)",
        "FlopCounterMode",
    ):
        assert words in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_depth_hides_deeper_levels():
    shallow, deep = (run("gpt2", "--depth", depth).stdout for depth in ("1", "9"))
    assert (
        "c_attn" in deep
        and "c_attn" not in shallow
        and "--depth 4 shows all levels" in " ".join(shallow.split())
    )


def test_inference_saves_nothing_and_has_no_backward_pass():
    found = json.loads(run("resnet50", "--mode", "infer", "--json").stdout)
    assert found["saved_bytes"] == found["flops_backward"] == found["bytes_backward"] == 0
    assert "bwd" not in run("resnet50", "--mode", "infer").stdout


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ([], "MODEL is missing"),
        (["gtp2"], "gpt2"),
        (["gpt2", "--on", "h100-sxm5"], "no option --on"),
        (["gpt2", "--batch", "0"], "give 1 or more"),
        (["gpt2", "--depth", "0"], "give 1 or more"),
        (["gpt2", "--depth", "deep"], "not a whole number"),
        (["gpt2", "--image", "224"], "--seq"),
        (["resnet50", "--seq", "128"], "--image"),
        (["gpt2", "--input", "1x128:int64"], "defines the shape of its inputs"),
        (["gpt2", "--precision", "int5"], "bf16"),
        (["gpt2", "--stack", "pytroch-eager"], "pytorch-eager"),
        (["no_such_net.py:Net"], "--input"),
        (["no_such_net.toml"], "no_such_net.toml"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_with_the_correction(words, cure):
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("roofcast: ") and result.stderr.count("\n") == 1
    assert cure in result.stderr


def test_units_of_memory_are_binary_and_of_traffic_decimal():
    assert (binary(80 * 2**30), si(80e9, "B")) == ("80.0 GiB", "80.0 GB")
