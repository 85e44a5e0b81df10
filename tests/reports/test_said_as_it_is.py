"""What a page says agrees with what was computed: attention, verdicts, the bottleneck, names."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from roofcast import count, predict
from roofcast.reports.command import main

H100 = {"device": "h100-sxm5", "batch": 1}
# score caps, sinks, ALiBi biases, cosine and additive attention: no fused kernel in PyTorch
COMPOSED = {
    "gemma-2-2b": 512, "gpt-oss-20b": 512, "bloom-1b7": 512, "swinv2_tiny_window8_256": None,
    "gnmt": None,
}  # fmt: skip


def page(*words, columns=100):
    """What a command prints, with its line breaks."""
    result = CliRunner().invoke(main, words, env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.output
    return result.stdout


ONES = [  # commands that count to one
    ("sweep", "gpt2", "--on", "t4", "--vary", "batch=1"),
    ("sweep", "gpt2", "--on", "t4", "--vary", "tp=1,3"),
    ("search", "gpt2", "--on", "t4", "--devices", "1", "--batch", "1"),
    ("choose", "gpt2", "--tokens", "1B", "--on", "t4", "--devices", "1", "--max-power", "10W"),
    ("predict", "gpt2", "--on", "t4", "--tokens", "1000", "--devices", "2", "--batch", "2"),
    ("predict", "gpt2", "--on", "t4", "--tokens", "1000", "--mode", "infer"),
    ("memory", "gpt2", "--on", "t4", "--devices", "2", "--batch", "2"),
    ("models", "lenet"),
    ("devices", "--vendor", "cerebras"),
]
SINGULAR = "days|ms|µs|s\\b|less|pass|process|loss|misses"  # units, and words that end so
ONE_OF_SEVERAL = re.compile(rf"(?<![\d.,])1 (?:are|have|need|fit|(?!{SINGULAR})\w+s)\b")


@pytest.mark.parametrize("words", ONES, ids=" ".join)
def test_words_agree_with_a_number_of_one(words):
    result = CliRunner().invoke(main, words, env={"COLUMNS": "400"})
    assert result.exit_code == 0 or "no device" in result.output, result.output
    prose = [line for line in result.stdout.splitlines() if "  " not in line.strip()]
    found = [m[0] for line in prose for m in ONE_OF_SEVERAL.finditer(line)]
    assert prose and not found


def test_there_is_one_way_to_count_in_words():
    """`number_of` of hwdb/errors.py; pages of serving have their own until they are rewritten."""
    root = Path(__file__).parents[2]
    folders = ("api", "hwdb", "reports", "scenarios", "simulator")
    files = [f for folder in folders for f in (root / folder).rglob("*.py")]
    own = [f.name for f in files if re.search(r"""['"]e?s['"] (if|\*) """, f.read_text("utf-8"))]
    assert len(files) > 300
    assert not [name for name in own if not re.match("serving|means|slo", name)]


@pytest.mark.parametrize("name", COMPOSED)
@pytest.mark.parametrize("asked", [None, "flash", "efficient"])
def test_attention_without_a_fused_kernel_is_called_eager(name, asked):
    found = predict(name, sequence=COMPOSED[name], attention=asked, **H100)
    assert found.attention == "eager"
    (line,) = [a for a in found.assumptions if a.startswith("attention ")]
    assert line.startswith(f"attention {asked or 'flash'}: {name} runs eager attention")


def test_eager_attention_that_was_asked_for_needs_no_line():
    found = predict("gemma-2-2b", sequence=512, attention="eager", **H100)
    assert found.attention == "eager"
    assert not [a for a in found.assumptions if a.startswith("attention ")]


@pytest.mark.parametrize("name", ["llama-3-8b", "gemma-3-4b", "bert-base"])
def test_fused_attention_keeps_its_name(name):
    found = predict(name, sequence=512, **H100)
    assert found.attention == "flash" and not [a for a in found.assumptions if "eager att" in a]


def test_counts_and_layouts_call_it_eager_too():
    assert count("gemma-2-2b", batch=1, sequence=512).attention == "eager"
    spread = predict("gemma-2-2b", device="h100-sxm5", sequence=512, devices=8, zero=3)
    assert spread.attention == "eager"
    assert sum("eager attention" in a for a in spread.assumptions) == 1


def test_a_comparison_marks_what_may_not_fit():
    """77 of 80 GiB is within the error of memory, 77 of 180 is not."""
    for command in ("memory", "predict"):
        text = page(command, "llama-3-8b", "--on", "h100-sxm5", "--on", "b200-sxm")
        assert re.search(r"^  h100-sxm5 .* maybe", text, re.MULTILINE)
        assert re.search(r"^  b200-sxm .* yes", text, re.MULTILINE)
        assert "maybe: the capacity" in text
    assert "maybe" not in page("memory", "gpt2", "--on", "h100-sxm5", "--on", "b200-sxm")


def test_a_program_whose_launch_takes_longer_than_the_step_is_the_bottleneck():
    small = " ".join(page("predict", "lenet", "--on", "tpu-v5e").split())
    assert re.search(r"host launch time \d+ µs, the bottleneck: [\d.]+ µs not overlapped", small)
    large = " ".join(page("predict", "resnet18", "--on", "tpu-v5e").split())
    assert re.search(r"host launch time \d+ µs, overlapped", large)


def test_names_that_do_not_fit_stay_distinct():
    text = page("predict", "gemma-2-2b", "--on", "h100-sxm5", "--seq", "512", columns=80)
    norms = re.findall(r"^  (\S*…\S*norm) ", text, re.MULTILINE)
    assert len(norms) > 2 and len(set(norms)) == len(norms)


def test_a_layout_of_many_devices_has_one_spelling_of_their_number():
    asked = ("predict", "gpt3-175b", "--on", "h100-sxm5", "--devices", "1024", "--tp", "8")
    text = page(*asked, "--pp", "8").replace("--batch 1024", "")  # options are typed without commas
    assert "Over 1,024 devices" in text and "1024" not in text


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_whole_experts_that_do_not_fit_are_to_be_cut_themselves(mode):
    """A larger --tp leaves experts whole where --etp is 1: --ep or --etp makes it smaller."""
    asked = ("memory", "mixtral-8x7b", "--on", "h100-sxm5", "--devices", "8", "--tp", "8")
    asked = (*asked, "--mode", mode, "--batch", "1")
    text = " ".join(page(*asked, "--etp", "1").split())
    assert "; a larger --ep or --etp" in text and "larger --tp" not in text
    whole = predict("mixtral-8x7b", mode=mode, devices=8, tp=8, etp=1, **H100)
    for cut in ({"etp": 8}, {"etp": 1, "ep": 8}):
        less = predict("mixtral-8x7b", mode=mode, devices=8, tp=8, **cut, **H100)
        assert less.memory.parameters_bytes < 0.2 * whole.memory.parameters_bytes


def test_memory_names_the_nearest_that_fits_and_weights_in_4_bits():
    words = ["memory", "llama-3-8b", "--on", "rtx-4090", "--lora", "16"]
    text = " ".join(CliRunner().invoke(main, words).stdout.split())
    assert re.search(r"The nearest that may fit, with the same batch: --recompute full \(", text)
    assert re.search(r"--weights nf4 --recompute full fits too \([\d.]+ s per step, .*GiB\)", text)


def test_memory_says_that_saved_activations_are_those_before_recomputation():
    """With --recompute full the column would else contradict the bar of the activations."""
    asked = ("memory", "llama-3-8b", "--on", "h100-sxm5", "--lora", "16")
    note = "saved: activations kept for backward"
    assert f"{note}, before recomputation, a" in " ".join(
        page(*asked, "--recompute", "full").split()
    )
    assert f"{note}, a tensor" in " ".join(page(*asked).split())


def test_a_duration_and_its_interval_have_one_unit():
    """43.6 h expected and an interval from 34.8 h to 2.27 days has to be read twice."""
    asked = ("predict", "llama-3-8b", "--on", "rtx-4090", "--lora", "16", "--weights", "nf4")
    asked = (*asked, "--recompute", "full", "--seq", "2048", "--samples", "150k")
    text = " ".join(page(*asked).split())
    found = re.search(r"([\d.]+) h expected; 80 % interval ([\d.]+) h to ([\d.]+) h", text)
    low, high = float(found[2]), float(found[3])
    assert low < float(found[1]) < high and high > 48
    assert float(re.search(r"95 % probability done within ([\d.]+) h", text)[1]) > high


def test_weights_in_4_bits_come_with_no_change_that_they_do_not_need():
    """Whole weights of 70B have to leave an H100; those in nf4 fit it with recomputation alone."""
    text = " ".join(page("memory", "llama-3-70b", "--on", "h100-sxm5", "--lora", "16").split())
    assert "--recompute full --offload parameters --micro-batch 1 (" in text
    assert "--weights nf4 --recompute full fits too (" in text


def test_the_kinds_of_a_comparison_of_memories_sum_to_the_peak():
    """The KV cache is one of them."""
    asked = ("memory", "qwen2.5-32b", "--on", "h100-sxm5", "--on", "h200-sxm", "--mode", "infer")
    text = page(*asked, columns=200)
    head, row = (next(line for line in text.splitlines() if word in line.split()[:1])
                 for word in ("device", "h200-sxm"))  # fmt: skip
    assert "KV cache" in head
    sizes = [float(n) * {"G": 1.0, "M": 2**-10, "K": 2**-20}[u]
             for n, u in re.findall(r"([\d.]+) ([GMK])iB", row)]  # fmt: skip
    peak, _, *kinds = sizes
    assert sum(kinds) == pytest.approx(peak, abs=0.1)
