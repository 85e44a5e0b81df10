"""Prefill and decode on separate pools, as a person types them."""

import csv
import json

import pytest
from click.testing import CliRunner

from roofcast import serving
from roofcast.hwdb.errors import BadInput
from roofcast.reports.command import main

ASKED = ["serving", "llama-3.1-8b", "--on", "h100-sxm5"]
POOLS = ["--prefill-devices", 1, "--decode-devices", 2]
SHORT = ["--requests", 50, "--input-len", 200, "--output-len", 30]
SEARCH = ["search", "llama-3.1-8b", "--serving", "--on", "h100-sxm5", "--devices", 4,
          "--disaggregated"]  # fmt: skip


def run(*words, code=0, width="100"):
    found = CliRunner(env={"COLUMNS": width}).invoke(main, [str(w) for w in words])
    assert found.exit_code == code, found.output
    return found


def test_a_page_says_which_pool_binds_and_what_is_sent():
    text = " ".join(run(*ASKED, *POOLS, "--concurrency", 32).stdout.split())
    for words in (
        "1 h100-sxm5 for prefill (one device) and 2 h100-sxm5 for decode (tp 2)", "transfer",
        "join", "pool binds", "both pools serve as much with", "128 MiB of KV cache per prompt",
        "Memory, per device of the decode pool", "split by pool", "behind the whole prompt",
        "links of a node", "a router gives a request",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(
    "load", [["--rate", 3], ["--offline"], ["--slo", "ttft=1s,tpot=50ms", *SHORT], []],
    ids=str,
)  # fmt: skip
def test_every_load_is_answered(load):
    found = json.loads(run(*ASKED, *POOLS, *load, "--json").stdout)
    for f in found.get("forecasts", [found]):
        assert f["devices"] == 3 and f["pools"]["decode"]["devices"] == 2
        per_s = f["price_usd_per_hour"] * 3 / 3600
        by_tokens = f["usd_per_million_output_all"] / 1e6 * f["output_tokens_per_s"]
        assert by_tokens == pytest.approx(per_s)
        both = f["usd_per_million_input"] * f["input_len"]
        both += f["usd_per_million_output"] * f["output_len"]
        assert both / 1e6 * f["requests_per_s"] == pytest.approx(per_s)
        watts = sum(p["power_w"] * p["devices"] for p in (f["pools"]["prefill"],
                                                         f["pools"]["decode"]))  # fmt: skip
        assert f["power_w"] * 3 == pytest.approx(watts)


def test_a_trace_on_two_pools(tmp_path):
    (tmp_path / "t.csv").write_text("time,input,output\n0,500,30\n0.1,900,1\n0.2,100,60\n")
    f = json.loads(run(*ASKED, *POOLS, "--trace", tmp_path / "t.csv", "--json").stdout)
    assert f["replayed"] == 3 and f["ttft_s"]["p99"] <= f["e2e_s"]["p99"]


def test_a_slower_device_for_prompts_makes_the_first_token_later_alone():
    one, two = (
        serving("llama-3.1-8b", "h100-sxm5", concurrency=4,
                pools={"prefill_devices": 1, "decode_devices": 1} | more)
        for more in ({}, {"prefill_on": "l40s", "transfer_bandwidth": "10GB/s"})
    )  # fmt: skip
    assert two.ttft_s.mean > 1.5 * one.ttft_s.mean
    assert two.tpot_s.mean <= one.tpot_s.mean
    assert two.pools.prefill.device == "l40s" and two.device == "h100-sxm5"
    assert two.price_usd_per_hour < one.price_usd_per_hour


def test_the_search_over_splits(tmp_path):
    path = tmp_path / "splits.csv"
    text = run(*SEARCH, "--slo", "ttft=1s", "--top", 2, "-o", path).stdout
    for words in ("two pools on 4 h100-sxm5", "Best by output tokens/s", "binds", "Front"):
        assert words in text
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert {float(r["prefill_devices"]) + float(r["decode_devices"]) for r in rows} == {4.0}
    line = " ".join(text.split()).split("the first alone: roofcast ")[1].split(" Front")[0]
    alone = json.loads(run(*line.split(), "--json").stdout)
    both = json.loads(run(*f"{line},1".split(), "--json").stdout)  # a table has mean values
    f = max(both["forecasts"] if isinstance(both, dict) else both, key=lambda row: row["amount"])
    best = json.loads(run(*SEARCH, "--slo", "ttft=1s", "--json").stdout)["best"][0]
    per_device = best["output_tokens_per_s_per_device"]
    assert f["output_tokens_per_s_per_device"] == pytest.approx(per_device, rel=1e-9)
    # a single load has the means of its replay
    assert alone["output_tokens_per_s_per_device"] == pytest.approx(per_device, rel=0.05)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([*ASKED, "--prefill-devices", 4], "--decode-devices not given"),
        ([*ASKED, "--prefill-tp", 4, "--rate", 1], "--prefill-devices and --decode-devices"),
        ([*ASKED, *POOLS, "--devices", 3], "--devices with --prefill-devices"),
        ([*ASKED, *POOLS, "--batch", 3], "a static batch is of one pool"),
        ([*ASKED, *POOLS, "--transfer-bandwidth", "5 seconds", "--rate", 1], "B/s"),
        (
            [*ASKED, *POOLS, "--transfer-bandwidth", "10", "--rate", 1],
            "did you mean 10 GB/s? give the",
        ),
        ([*ASKED, *POOLS, "--prefill-on", "h101", "--rate", 1], "h101"),
        ([*ASKED, *POOLS, "--rate", "9000/s"], "pool can serve"),
        ([*SEARCH, "--tp", 3], "tp 3: does not divide the 32 attention heads"),
        ([*SEARCH, "--plot", "x.png"], "no --plot"),
        ([*SEARCH[:5], "--disaggregated"], "--devices 2 or more"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_one_line(words, says):
    found = run(*words, code=2)
    assert says in found.stderr and found.stderr.count("\n") == 1, found.stderr
    with pytest.raises(BadInput, match="known: prefill_on"):
        serving("llama-3.1-8b", "h100-sxm5", pools={"prefil_devices": 1})
