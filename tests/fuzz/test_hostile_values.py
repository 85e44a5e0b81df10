"""Values that once ended in a traceback, a hang or a forecast of nothing: each is one line that
says which key, what was found and what would do.
"""

import json

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main

GPT2 = {"model_type": "gpt2", "vocab_size": 100, "n_embd": 8, "n_layer": 2, "n_head": 2}
LLAMA = {
    "model_type": "llama", "vocab_size": 100, "hidden_size": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 16,
}  # fmt: skip
DEVICE = 'base = "h100-sxm5"\n'
RUNS = "n_devices,device,seq_len,global_batch_seqs,layers,hidden,tp,pp,iter_time_s\n"


def refused(*words):
    """The line with which a command refuses its input."""
    result = CliRunner().invoke(main, words)
    assert isinstance(result.exception, SystemExit) and result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1 and len(result.stderr) <= 501
    return result.stderr


CONFIGS = {
    "deep nest": ('{"model_type": ' + "[" * 10**5, "nested deeper than 64 levels"),
    "nest of 100": ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested deeper than 64 levels"),
    "5,000 digits": ('{"vocab_size": ' + "9" * 5000 + "}", "thousands of digits"),
    "key twice": (
        '{"model_type": "gpt2", "n_embd": 8, "n_embd": 16}', "key 'n_embd' is there twice"
    ),
    "list as type": (GPT2 | {"model_type": ["gpt2"]}, "model_type is ['gpt2']"),
    "table as type": (GPT2 | {"model_type": {}}, "model_type is {}"),
    "size of 0": (GPT2 | {"n_embd": 0}, "key 'n_embd' is 0"),
    "size of 1e15": (GPT2 | {"n_embd": 10**15}, "key 'n_embd' is 1000000000000000; it can be at"),
    "size of 1e40": (GPT2 | {"vocab_size": 10**40}, "'vocab_size'"),
    "sizes whose product is too large": (
        GPT2 | {"n_embd": 10**11, "vocab_size": 10**11}, "larger than any memory"
    ),
    "layers": (LLAMA | {"num_hidden_layers": 10**9}, "it can be at most 10,000"),
    "NaN dropout": (GPT2 | {"resid_pdrop": float("nan")}, "'resid_pdrop' is nan"),
    "negative dropout": (GPT2 | {"attn_pdrop": -0.1}, "'attn_pdrop' is -0.1; wanted a number fr"),
    "dropout above 1": (LLAMA | {"attention_dropout": 1.5}, "'attention_dropout' is 1.5"),
    "zero window": (
        LLAMA | {"model_type": "mistral", "sliding_window": 0}, "'sliding_window' is 0"
    ),
    "window of 0 positions": (
        {"model_type": "mamba", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1,
         "conv_kernel": 0},
        "key 'conv_kernel' is 0",
    ),
    "negative size": (LLAMA | {"intermediate_size": -16}, "'intermediate_size' is -16"),
    "long type": (GPT2 | {"model_type": "q" * 5000}, "qqq...qqq"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_cannot_be_is_one_line(name, tmp_path):
    given, says = CONFIGS[name]
    path = tmp_path / "config.json"
    path.write_text(given if isinstance(given, str) else json.dumps(given))
    for command in (("count",), ("predict", "--on", "h100-sxm5")):
        assert says in refused(command[0], str(path), *command[1:])


TOMLS = {
    "deep nest": ("a = " + "[" * 10**5, "nested deeper than 64 levels"),
    "dotted keys": (".".join("a" * 5000) + " = 1", "nested deeper than 64 levels"),
    "5,000 digits": ("a = " + "9" * 5000, "thousands of digits"),
    "key twice": ("a = 1\na = 2", "is not valid TOML"),
}
READERS = {
    "net": ("count", "{}"), "device": ("devices", "show", "{}"), "scenario": ("run", "{}"),
    "system": ("systems", "show", "{}"), "stack": ("stacks", "show", "{}"),
    "link": ("links", "show", "{}"),
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", TOMLS)
def test_a_toml_file_that_cannot_be_is_one_line(name, reader, tmp_path):
    text, says = TOMLS[name]
    path = tmp_path / "a.toml"
    path.write_text(text)
    assert says in refused(*(word.format(path) for word in READERS[reader]))


def test_a_net_of_too_many_layers_is_one_line(tmp_path):
    path = tmp_path / "net.toml"
    head = 'tokens = 8\nvocabulary = 9\n[[layers]]\nkind = "embedding"\nwidth = 4\n'
    path.write_text(head + '[[layers]]\nkind = "lstm"\nhidden = 4\nlayers = 2000000\n')
    assert "layers is 2000000; wanted a whole number <= 10000" in refused("count", str(path))


DEVICES = {
    "source that is a list": (
        'memory.bandwidth = {value = "1 TB/s", source = []}', "memory.bandwidth cites []"
    ),
    "status that is a table": (
        'memory.bandwidth = {value = "1 TB/s", status = {}}', "memory.bandwidth has status {}"
    ),
    "stream above 1": ("achieved.stream = 1.1", "achieved.stream is 1.1; a fraction of the publ"),
    "product above a boost clock": ("achieved.matmul_bf16 = 1.2", "is at most 1.125"),
    "infinite": ("memory.bandwidth = inf", "not a finite number"),
    "beyond all hardware": ('clock = "1e300 Hz"', "wanted a number from 1e-24 to 1e+24"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_that_cannot_be_is_one_line(name, tmp_path):
    line, says = DEVICES[name]
    path = tmp_path / "a.toml"
    path.write_text(DEVICE + line)
    assert says in refused("predict", "gpt2", "--on", str(path))


def test_a_product_may_run_at_a_boost_clock(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(DEVICE + "achieved.matmul_bf16 = 1.125")
    found = CliRunner().invoke(main, ("predict", "gpt2", "--on", str(path)))
    assert found.exit_code == 0


@pytest.mark.parametrize("cell", ["inf", "nan", "-1", "1.5", "1e30", "x" * 500])
def test_a_cell_that_is_no_whole_number_refuses_its_row(cell, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(f"{RUNS}8,h100-sxm5,2048,8,{cell},4096,1,1,3.5\n")
    found = CliRunner().invoke(main, ("validate", "--runs", str(path), "--json"))
    assert found.exit_code == 0
    (refusal,) = json.loads(found.stdout)["training_runs"]["refused"]
    assert "layers" in refusal["reason"] and len(refusal["reason"]) < 200


OPS = (
    "op,device,dtype,B,M,N,K,H,conv_cin,conv_cout,conv_k,conv_in,conv_stride,conv_pad,latency_ms\n"
)


@pytest.mark.parametrize(
    "row, says",
    [
        ("add,t4,fp32,many,,,,473,,,,,,,0.01", "column B: 'many' is not a number"),
        ("add,t4,fp32,inf,,,,473,,,,,,,0.01", "column B: 'inf'"),
        ("add,t4,fp32,-1,,,,473,,,,,,,0.01", "wanted a number above 0"),
        ("add,t4,fp32,182,,,,473,,,,,,,", "measured time is nan"),
    ],
)
def test_a_kernel_that_is_no_measurement_is_one_line(row, says, tmp_path):
    path = tmp_path / "ops.csv"
    path.write_text(f"{OPS}{row}\n")
    assert says in refused("validate", "--ops", str(path))


EXTREMES = [
    ("--batch", "1e18"), ("--batch", "10" * 9), ("--batch", "1" + "0" * 15), ("--seq", "0"),
    ("--devices", "1000000000", "--tp", "7"), ("--devices", "1000000000", "--tp", "2"),
    ("--tokens", "1e308"), ("--epochs", "1e300", "--samples", "1e24"), ("--price", "1e308"),
    ("--set", "cores=+1e300%"), ("--set", "memory.bandwidth=1e-300 B/s"), ("--seq", "9" * 12),
    ("--devices", "999999937"), ("--batch", "999999999999989", "--micro-batch", "999999999999988"),
    ("--stages", "1," * 4000 + "1", "--pp", "4001"),
]  # fmt: skip


@pytest.mark.parametrize("words", EXTREMES, ids=lambda words: " ".join(words)[:40])
def test_an_extreme_option_is_an_answer_or_one_line(words):
    found = CliRunner().invoke(main, ("predict", "gpt2", "--on", "h100-sxm5", *words))
    assert found.exit_code == 0 or found.stderr.count("\n") == 1
    assert found.exit_code in (0, 2) and len(found.stderr) <= 501, found.exception
