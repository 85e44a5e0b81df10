"""What the commands on servers say to options and files that are mistyped, or change nothing."""

import json
import re

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main

ASKED = ["serving", "llama-3.1-8b", "--on", "l40s"]
SEARCH = ["search", "llama-3.1-8b", "--serving", "--on", "l40s", "--devices", 1]
CHOOSE = ["choose", "llama-3.1-8b", "--serving", "--on", "l40s"]
STEP = ["roofline", "llama-3.1-8b", "--on", "l40s", "--mode", "decode"]


def run(*words, code=0, width="100"):
    found = CliRunner(env={"COLUMNS": width}).invoke(main, [str(w) for w in words])
    assert found.exit_code == code, found.output
    if code:
        assert found.stdout == "" and found.stderr.count("\n") == 1
        return found.stderr
    return " ".join(found.stdout.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*ASKED, "--qps", 4], "did you mean --rate?"),
        ([*ASKED, "--isl", 4], "did you mean --input-len?"),
        ([*ASKED, "--max-tokens", 4], "did you mean --output-len?"),
        ([*ASKED, "--precision", "fp8"], "did you mean --weights?"),
        ([*ASKED, "--engine", "vllm"], "did you mean --stack?"),
        ([*ASKED, "--gpus", 4], "did you mean --devices?"),
        ([*ASKED, "--sure", 90], "roofcast choose MODEL --serving has --sure"),
        ([*SEARCH, "--qps", 3], "roofcast serving MODEL has --rate"),
        ([*CHOOSE, "--batch", 3], "roofcast serving MODEL has --batch"),
        ([*STEP, "--seq", 9], "did you mean --input-len?"),
        (
            ["roofline", "gpt2", "--on", "l40s", "--mode", "decoding"],
            "'infer', 'decode', 'prefill'",
        ),
        ([*STEP, "--power-cap", "200W", "--set", "power.cap=300W"], "are one setting"),
        ([*ASKED, "--power-cap", "best"], "give watts: 500W"),
        ([*ASKED, "--slo", " "], "--slo is empty; give for example --slo ttft=500ms"),
        ([*ASKED, "--trace", ""], "--trace is empty"),
        ([*CHOOSE, "--rate", 1, "--slo", "ttft=1s", "--sure", "0.9"], "did you mean 90?"),
        (["search", "gpt2", "--serving", "--on", ","], "--on is empty"),
        (["serving", "gpt2", "--on", "l40s,h100"], "a page is of one device"),
        ([*ASKED, "--requests", 10**7, "--concurrency", 2], "give 1 to 1,000,000"),
        ([*ASKED, "--weights", ""], "weights is empty; leave it out"),
        ([*STEP, "--batch", 10**8], "batch 100,000,000: give a number above 0, up to 10,000,000"),
        ([*CHOOSE, "--rate", 10**5], "--devices"),
    ],
    ids=lambda v: " ".join(map(str, v)) if isinstance(v, list) else "",
)
def test_a_mistyped_option_is_told_what_was_meant(words, said):
    assert said in run(*words, code=2)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("time;input;output\n0;1;1\n", "separated by commas, found 'time;input;output'"),
        ("TIMESTAMP,ContextTokens\n", "found 'timestamp, contexttokens'"),
        ("", "found an empty file"),
        ("time,input,output\n0,5\n", "line 2: no output; a row has time, input, output"),
        ("time,input,output\n0,5.5,5\n", "'5.5': a whole number from 1 to 10,000,000"),
    ],
)
def test_a_trace_is_told_what_is_in_it(tmp_path, body, said):
    path = tmp_path / "t.csv"
    path.write_text(body)
    assert said in run(*ASKED, "--trace", path, code=2)


def test_a_trace_says_how_its_requests_are_counted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\ufefftime,input,output\r\n3,100,9\r\n0,100,9\r\n", encoding="utf-8")
    page = run(*ASKED, "--trace", path)
    assert "a trace of 2 requests at 0.333 requests/s" in page
    assert "in the order of their times" in page and "to the last answer" in page
    path.write_text("time,input,output\n3,100,9\n")
    assert "a trace of 1 request;" in run(*ASKED, "--trace", path)


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (["--batch", 2, "--seed", 3, "--requests", 9], ["--requests", "--seed"]),
        (["--offline", "--seed", 0], ["--seed"]),
        (["--concurrency", "1,2", "--seed", 3], ["--seed"]),
        (["--rate", 1, "--requests", 50, "--seed", 3], []),
        (["--batch", 2, "--system", "dgx-h100"], ["--system"]),
        (["--batch", 2, "--devices", 2, "--system", "dgx-h100"], []),
    ],
    ids=str,
)
def test_an_option_that_changes_nothing_says_so(words, idle):
    page = run(*ASKED, *words)
    assert [w for w in ("--requests", "--seed", "--system") if f"{w} changes" in page] == idle


def test_lengths_and_seed_change_nothing_of_a_trace(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("time,input,output\n0,100,9\n1,100,9\n")
    page = run(*ASKED, "--trace", path, "--input-len", 7, "--seed", 1)
    assert "--input-len changes nothing: a trace has its own requests" in page
    assert "--seed changes" in page and "--output-len changes" not in page


def test_pages_agree_with_a_number_of_one():
    assert "1 user with one request under way" in run(*ASKED, "--concurrency", 1)
    page = run(*SEARCH)
    assert "1 layout: 1 holds the model, 0 are refused" in page
    refused = run("search", "llama-3.1-70b", "--serving", "--on", "l40s", "--devices", 1)
    assert "1 layout: 0 hold the model, 1 is refused; 0 forecasts" in refused
    assert "use more devices" in refused
    page = run(*CHOOSE, "--concurrency", 1)
    assert "1 kind of device, 1 layout of a replica; the replicas of 1 were counted Choices" in page
    assert "one public quote (" in run("serving", "gpt2", "--on", "mi325x", "--batch", 1)


def test_more_users_than_fit_wait_and_fit():
    page = run(*ASKED, "--concurrency", 300, "--requests", 600)
    assert "more users than the 129 sequences that fit at their full 1,536 tokens" in page
    assert "does not fit" not in page


def test_a_step_that_does_not_fit_says_so():
    page = run("roofline", "llama-3.1-70b", "--on", "l40s", "--mode", "decode")
    assert "does not fit: more than the 40.0 GiB that vllm uses" in page
    assert "does not fit" not in run(*STEP)


def test_stacks_of_servers_are_shown():
    assert "vLLM of 2026" in run("stacks", "show", "vllm")
    assert "llama.cpp-metal" in run("stacks")
    both = json.loads(CliRunner().invoke(main, ["stacks", "--json"]).stdout)
    assert {"vllm", "sglang"} <= {s["name"] for s in both["servers"]} and both["stacks"]


def test_devices_of_a_search_may_have_commas_between():
    page = run("search", "gpt2", "--serving", "--on", "l40s,h100-sxm5", "--devices", 1)
    assert "on 1 l40s or 1 h100-sxm5" in page


@pytest.mark.parametrize("pay", [["--rent", "spot"], ["--price", "l40s=0.7"], []], ids=str)
def test_the_command_of_a_choice_has_its_price(pay):
    page = run(*CHOOSE, "--rate", 1, *pay)
    line = page.split("the first alone: roofcast ")[1].split(" Refused")[0].split(" Assumed")[0]
    words = line.split(" not considered")[0].split()
    alone = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    rows = json.loads(
        CliRunner().invoke(main, [str(w) for w in (*CHOOSE, "--rate", 1, *pay, "--json")]).stdout
    )
    first = rows["choices"][0]["forecast"]
    for name in ("usd_per_million_output_all", "output_tokens_per_s", "ttft_s"):
        assert alone[name] == first[name], name


def test_assumptions_of_layouts_are_said_once():
    page = run("search", "deepseek-v3", "--serving", "--on", "h200-sxm", "--devices", 16)
    assert page.count("quantization_config") == 1 and "most weights in 8.002 bits" in page
    alone = run("serving", "deepseek-v3", "--on", "h200-sxm", "--devices", 8, "--batch", 1)
    assert "weights of a device in 8.002 bits" in alone


@pytest.mark.parametrize(
    ("typed", "name"), [("vLLM", "vllm"), ("TensorRT-LLM", "trt-llm"), ("llama-cpp", "llama.cpp")]
)
def test_a_stack_is_known_as_people_write_it(typed, name):
    page = run("serving", "gpt2", "--on", "l40s", "--batch", 1, "--stack", typed, "--kv", "FP8",
               "--weights", "FP8")  # fmt: skip
    assert f" {name}, weights fp8, KV cache fp8" in page


def test_answers_of_one_token_have_no_time_per_token():
    page = run(*ASKED, "--output-len", 1, "--concurrency", 2, "--requests", 100)
    table = page.split("Latency")[1].split("TTFT: to")[0]
    assert "TPOT" not in table and "decode:" not in page and "prefill:" in page


def test_what_was_not_asked_is_said():
    page = run(*CHOOSE, "--input-len", 200_000)
    assert "1 sequence at once (no load given)" in page
    assert "more than the 131,072 that llama-3.1-8b was made for" in page
    assert "no load given" not in run(*CHOOSE, "--concurrency", 1)
    page = run(*SEARCH, "--input-len", 150_000, "--concurrency", 1)
    assert "more than the 131,072 that llama-3.1-8b was made for" in page


def test_the_command_of_a_split_has_every_option():
    words = ["search", "llama-3.1-8b", "--serving", "--on", "l40s", "--devices", 2]
    given = ["--prefix-share", "0.5", "--speculate", "2", "--price", "3"]
    page = run(*words, "--disaggregated", "--concurrency", 4, *given)
    line = page.split("the first alone: roofcast ")[1].split(" Front")[0]
    assert all(word in line.split() for word in given)
    assert json.loads(CliRunner().invoke(main, [*line.split(), "--json"]).stdout)["pools"]


def test_a_search_of_many_devices_has_no_more_users_than_a_load():
    page = run("search", "gpt2", "--serving", "--on", "l40s", "--devices", 10**6, "--tp", 1,
               "--pp", 1, "--top", 1)  # fmt: skip
    users = int(page.split("--concurrency ")[1].split()[0])
    assert 10**6 <= users <= 10**7


def table_of(*words):
    """The page of several loads, and its forecasts."""
    page = run(*ASKED, *words)
    found = CliRunner().invoke(main, [str(w) for w in (*ASKED, *words, "--json")])
    return page, json.loads(found.stdout)["forecasts"]


def test_a_table_says_what_its_means_are_from():
    page, found = table_of("--concurrency", "1,4,120")
    assert [f["means"] for f in found] == ["closed form", "closed form", "replay"]
    assert "means of replayed requests for 120 users, of the others in closed form" in page
    page, found = table_of("--concurrency", "1,4", "--output-len", 20)
    assert {f["means"] for f in found} == {"replay"} and "closed form" not in page
    assert "means of replayed requests;" in page
    page, found = table_of("--batch", "1,4")
    assert {f["means"] for f in found} == {"closed form"}
    assert "mean values in closed form;" in page and "replayed" not in page


def test_a_single_load_says_what_its_means_are_from():
    for words, means in ((("--concurrency", 4), "closed form"), (("--rate", 1), "replay")):
        f = json.loads(
            CliRunner().invoke(main, [str(w) for w in (*ASKED, *words, "--json")]).stdout
        )
        assert f["means"] == means and f["replayed"] > 0
        assert any(a.startswith("means and perc") for a in f["assumptions"]) == (means == "replay")


def test_a_table_has_the_intervals_of_single_loads():
    page, found = table_of("--concurrency", "1,120")
    assert "80 % intervals of the means" in page and found[0]["interval_basis"] in page
    single = run(*ASKED, "--concurrency", 120)
    low, high = found[1]["output_tokens_per_s_range"]
    between = f"{low:,.0f} to {high:,.0f}"
    assert between in page and between in single


def test_the_interval_of_a_peak_ends_at_the_capacity():
    page, (few, many) = table_of("--concurrency", "1,129")
    memory = many["memory"]
    assert memory["peak_bytes_high"] == memory["capacity_bytes"] > memory["peak_bytes"]
    assert 0.1 <= memory["fitting_share"] <= 0.9
    assert few["memory"]["fitting_share"] is None
    assert few["memory"]["peak_bytes_high"] < memory["capacity_bytes"]
    assert "36.3 GiB ?" in page and "may not fit, by measured peaks of memory: 129 users" in page
    single = run(*ASKED, "--concurrency", 129)
    share = f"{10 * memory['fitting_share']:.0f}"
    assert f"44.4 GiB, the capacity: may not fit: about {share} of 10 such runs fit" in single
    assert "may not fit" not in run(*ASKED, "--concurrency", 1)


def test_a_rate_that_a_slower_server_cannot_hold_says_so():
    low = json.loads(run(*ASKED, "--rate", 1, "--json"))["highest_requests_per_s_range"][0]
    assert "a real server may not hold it" in run(*ASKED, "--rate", f"{1.02 * low:.3f}")
    assert "a real server may not hold it" not in run(*ASKED, "--rate", f"{0.98 * low:.3f}")


def test_a_choice_says_the_stack_of_each_device_and_what_gives_a_price():
    ask = ["choose", "llama-3.1-8b", "--serving", "--concurrency", 4]
    both = run(*ask, "--on", "l40s", "--on", "m4-max", "--price", "m4-max=0.2")
    assert "stack llama.cpp-metal on m4-max" in both and "stack vllm on l40s" in both
    assert "on every device" not in both and "--price DEVICE=USD" not in both
    alone = run(*ask, "--on", "l40s", "--on", "m4-max")
    assert "stack vllm on every device" in alone
    assert "1 device (m4-max); --price DEVICE=USD gives one" in alone


def test_intervals_of_several_devices_are_in_the_plural():
    ask = ["choose", "llama-3.1-8b", "--serving", "--on", "mi300x", "--on", "mi325x"]
    assert "no servers on mi300x, mi325x were measured, nor on others of their makers" in run(*ask)


def test_formats_that_do_not_fit_either_are_not_proposed():
    ask = ["serving", "llama-3.1-70b", "--concurrency", 1, "--on"]
    assert run(*ask, "rtx-4090", code=2).rstrip().endswith("use more devices (--tp)")
    assert "(--weights q8_0, q4_k_m)" in run(*ask, "strix-halo", code=2)
    assert "(--weights fp8, int4)" in run(*ask, "h100-sxm5", code=2)


def test_one_token_and_one_prompt_are_singular():
    page = run(*ASKED, "--input-len", 1, "--output-len", 1, "--concurrency", 4)
    assert "1 token in, 1 out" in page and re.search(r"at most \d+,\d{3} requests", page)
    ask = ["serving", "llama-3-8b", "--on", "m4-max", "--weights", "q4_k_m", "--batch", 1]
    assert "llama.cpp-metal, one prompt at a time, 512 to 8,192 in" in run(*ask)
    assert "static batches of 1," not in run(*ask)


def test_a_machine_of_one_chip_is_searched_alone():
    page = run("search", "llama-3.1-8b", "--serving", "--on", "strix-halo")
    assert "layouts of a server on 1 strix-halo" in page


def test_the_products_of_a_checkpoint_are_those_that_are_timed():
    ask = ["serving", "gpt-oss-20b", "--concurrency", 1, "--on"]
    assert "products with activations in fp8" in run(*ask, "gb200")
    assert "products in bf16" in run(*ask, "h100-sxm5")


def test_a_stack_of_servers_is_not_one_of_steps():
    said = run("memory", "gpt2", "--on", "l40s", "--mode", "infer", "--stack", "vllm", code=2)
    assert said.endswith("software of a server; roofcast serving MODEL --stack vllm\n")


def test_formats_that_a_file_of_llama_cpp_does_not_have_are_said():
    ask = ["serving", "llama-3-8b", "--on", "m4-max", "--concurrency", 1, "--weights"]
    assert "weights fp8: no file of llama.cpp has them; times are as if it did" in run(*ask, "fp8")
    assert "no file of llama.cpp" not in run(*ask, "q4_k_m")


def test_the_only_token_of_an_answer_has_one_interval():
    f = json.loads(run(*ASKED, "--output-len", 1, "--concurrency", 4, "--json"))
    first, last = ({k: f[t][k] for k in ("mean", "low", "high")} for t in ("ttft_s", "e2e_s"))
    assert first == pytest.approx(last)
