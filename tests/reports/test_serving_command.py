"""`roofcast serving`, `validate --serving` and the cache in `memory`, as a person types them."""

import csv
import gzip
import json
from statistics import NormalDist

import pytest
from click.testing import CliRunner

from roofcast import serving
from roofcast.hwdb.errors import BadInput
from roofcast.reports.command import main
from roofcast.simulator.serving.likeness import Likeness
from roofcast.simulator.serving.profiles import profile

ASKED = ["serving", "llama-3.1-8b", "--on", "h100-sxm5"]


def run(*words, code=0, width="100"):
    found = CliRunner(env={"COLUMNS": width}).invoke(main, [str(w) for w in words])
    assert found.exit_code == code, found.output
    return found


def as_json(*words):
    return json.loads(run(*words, "--json").stdout)


def test_a_page_says_what_was_asked_and_everything_promised():
    text = run(*ASKED, "--concurrency", 64).stdout
    for word in (
        "64 users", "1,024 tokens in, 512 out", "vllm", "output tokens/s", "80 % interval", "TTFT",
        "TPOT", "E2E", "p50", "p90", "p99", "decode:", "prefill:", "weights", "cache",
        "128 KiB per token", "largest concurrency at 1,536 tokens", "per output token",
        "per million input tokens", "per million output tokens", "Assumed", "Most similar measured",
    ):  # fmt: skip
        assert word in text, word


def test_a_time_to_the_first_token_ends_no_later_than_that_to_the_last():
    """Of a server whose memory holds a tenth of the users: nearly all of E2E is the wait."""
    f = as_json("serving", "qwen2.5-32b", "--on", "h100-sxm5", "--concurrency", 200)
    first, last = f["ttft_s"], f["e2e_s"]
    assert first["mean"] < first["high"] == last["high"]
    f = as_json(*ASKED, "--concurrency", 4)
    assert f["ttft_s"]["high"] > 1.5 * f["ttft_s"]["mean"] and f["e2e_s"]["high"] > 1


def test_a_rent_is_printed_as_predict_prints_it():
    """Rounded to cents, an hour of a small board would be 1 % off the cost beside it."""
    rent = "0.665"
    found = run("predict", "gpt2", "--on", "rtx-4090", "--samples", "1M").stdout
    assert f"at ${rent} per device-hour" in " ".join(found.split())
    found = run("serving", "gpt2", "--on", "rtx-4090", "--concurrency", 2).stdout
    assert f"{rent} USD per device-hour: median" in " ".join(found.split())


def test_a_page_says_why_a_token_takes_longer_than_a_decode_step():
    """With few users no other prompt comes between two tokens; with many they do."""
    line = "holds such steps and those that compute prompts"
    assert line in run(*ASKED, "--concurrency", 64).stdout
    assert line not in run(*ASKED, "--concurrency", 1).stdout


def of_one_load(f):
    """Numbers of a page belong together: Little's law, sums of parts, ordered percentiles."""
    under_way = f["requests_per_s"] * f["e2e_s"]["mean"]
    assert f["under_way"] == pytest.approx(under_way, rel=1e-9)
    if f["load"] in ("batch", "concurrency"):
        assert under_way == pytest.approx(f["amount"], rel=2e-3)
    if f["load"] != "batch":  # sequences that decode: the rate times the time from first to last
        decoding = f["decoding"] * f["replicas"]
        more = f["output_len"] - 1
        assert decoding == pytest.approx(f["requests_per_s"] * f["decode_s"], rel=2e-3)
        assert decoding == pytest.approx(f["requests_per_s"] * more * f["tpot_s"]["mean"], rel=0.01)
    parts = f["ttft_parts_s"]
    assert sum(parts.values()) == pytest.approx(f["ttft_s"]["mean"], rel=1e-6)
    assert f["ttft_s"]["mean"] + f["decode_s"] == pytest.approx(f["e2e_s"]["mean"], rel=1e-6)
    assert f["waiting_s"] <= parts["queue"] + 1e-12
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        s = f[name]
        if s["p50"] is not None:
            assert s["p50"] <= s["p90"] <= s["p99"] and 0.3 * s["p50"] < s["mean"] < s["p99"]


@pytest.mark.parametrize(
    "words",
    [
        ["--rate", "13.3"], ["--rate", "0.1"], ["--concurrency", 1], ["--concurrency", 400],
        ["--concurrency", 64, "--stack", "sglang"], ["--rate", 3, "--output-len", 1],
        ["--slo", "tpot=50ms"], ["--rate", 20, "--devices", 2, "--tp", 1],
        ["--offline", "--output-len", 20], ["--rate", 2, "--input-len", 7000, "--output-len", 30],
    ],
    ids=str,
)  # fmt: skip
def test_the_numbers_of_a_page_are_of_one_load(words):
    of_one_load(as_json(*ASKED, *words))


@pytest.mark.parametrize(
    "load", [["--rate", "180/min"], ["--batch", 8], ["--offline"], ["--concurrency", 4]], ids=str
)
def test_every_load_is_answered_and_consistent(load):
    f = as_json(*ASKED, *load)
    more = f["output_len"] - 1
    e2e = f["ttft_s"]["mean"] + more * f["tpot_s"]["mean"]
    assert f["e2e_s"]["mean"] == pytest.approx(e2e, rel=0.01)
    assert f["output_tokens_per_s"] == pytest.approx(512 * f["requests_per_s"])
    low, high = f["output_tokens_per_s_range"]
    if "--rate" in load:  # the requests come at it; what may vary is the highest rate
        assert low == f["output_tokens_per_s"] == high
        low, high = f["highest_requests_per_s_range"]
        assert f["requests_per_s"] < low < f["highest_requests_per_s"] < high
    else:
        assert 0 < low < f["output_tokens_per_s"] < high
    of_one_load(f)
    assert f["power_w"] > 0 and f["energy_j_per_output_token"] > 0
    joules = f["power_w"] * f["devices"] / f["output_tokens_per_s"]
    assert f["energy_j_per_output_token"] == pytest.approx(joules)
    # dollars: what the devices cost, over the tokens
    spent = 1024 * f["usd_per_million_input"] + 512 * f["usd_per_million_output"]
    hour = f["price_usd_per_hour"] * f["devices"] / 3600 / f["requests_per_s"]
    assert spent / 1e6 == pytest.approx(hour)
    assert 512 * f["usd_per_million_output_all"] / 1e6 == pytest.approx(hour)
    assert sum(f["decode_bounds"].values()) == pytest.approx(1.0, abs=0.01)
    m = f["memory"]
    assert m["peak_bytes"] == pytest.approx(
        m["weights_bytes"] + m["cache_bytes"] + m["runtime_bytes"]
    )
    assert m["fits"]


def test_percentiles_rise_and_follow_the_seed():
    one, same, other = (as_json(*ASKED, "--rate", 8, "--seed", seed) for seed in (1, 1, 2))
    assert one == same and one["ttft_s"] != other["ttft_s"]
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        assert one[name]["p50"] <= one[name]["p90"] <= one[name]["p99"]


def test_fewer_bits_never_need_more_memory_and_a_cache_of_8_bits_holds_twice_as_many():
    asked = [*ASKED[:-1], "b200-sxm", "--batch", 16, "--input-len", 4096]
    found = {w: as_json(*asked, "--weights", w)["memory"] for w in ("bf16", "fp8", "int4", "nvfp4")}
    assert found["bf16"]["weights_bytes"] > found["fp8"]["weights_bytes"]
    assert found["fp8"]["weights_bytes"] > found["int4"]["weights_bytes"]
    assert found["int4"]["peak_bytes"] < found["bf16"]["peak_bytes"]
    wide, narrow = (as_json(*asked, "--kv", kv)["memory"] for kv in ("bf16", "fp8"))
    assert narrow["cache_bytes_per_token"] == wide["cache_bytes_per_token"] / 2
    assert narrow["largest_concurrency"] >= 2 * wide["largest_concurrency"] - 1


def test_devices_are_cut_by_tensors_then_replicas():
    one = as_json("serving", "llama-3.1-70b", "--on", "h100-sxm5", "--devices", 8, "--batch", 8)
    assert one["layout"]["tp"] == 8 and one["replicas"] == 1
    two = as_json("serving", "llama-3.1-70b", "--on", "h100-sxm5", "--devices", 8, "--tp", 4,
                  "--concurrency", 64)  # fmt: skip
    half = as_json("serving", "llama-3.1-70b", "--on", "h100-sxm5", "--tp", 4, "--concurrency", 32)
    assert two["replicas"] == 2
    assert two["output_tokens_per_s"] == pytest.approx(2 * half["output_tokens_per_s"])
    assert two["memory"]["largest_concurrency_total"] == 2 * half["memory"]["largest_concurrency"]


def test_a_level_is_held_at_the_highest_rate_and_missed_above():
    f = as_json(*ASKED, "--slo", "ttft=400ms,tpot=14ms")
    assert f["tpot_s"]["p90"] <= 0.014 and f["ttft_s"]["p90"] <= 0.4
    above = as_json(*ASKED, "--rate", 1.08 * f["requests_per_s"])
    assert above["tpot_s"]["p90"] > 0.014
    stricter = as_json(*ASKED, "--slo", "ttft=400ms,tpot=11ms,p99")
    assert stricter["requests_per_s"] < f["requests_per_s"]


def test_a_level_says_users_and_how_sure_it_is():
    f = as_json(*ASKED, "--slo", "tpot=20ms")
    bounds = Likeness().bounds["tpot"]  # the interval lies above: normal, through both ends
    middle, half = (bounds.low + bounds.high) / 2, (bounds.high - bounds.low) / 2
    holds = NormalDist().cdf(-middle / half * NormalDist().inv_cdf(0.9))
    assert f["slo_probability"] == pytest.approx(holds, abs=0.05) and holds < 0.4
    sure = f["slo_sure_requests_per_s"]
    assert 0 < sure < f["requests_per_s"]
    # the level holds at that rate where every time is as long as one of ten servers takes
    low = as_json(*ASKED, "--rate", sure)
    slow = low["tpot_s"]["high"] / low["tpot_s"]["mean"]
    assert low["tpot_s"]["p90"] * slow < 0.02
    text = " ".join(run(*ASKED, "--slo", "tpot=20ms").stdout.split())
    share = f"{100 * f['slo_probability']:.0f} %"
    assert f"probability that a real server holds this: {share}; 90 % at" in text
    assert f"{f['under_way']:.3g} concurrent users" in text
    loose = as_json(*ASKED, "--slo", "e2e=900s")
    assert loose["use"] == pytest.approx(0.95)
    assert any("no rate above 95%" in line for line in loose["assumptions"])
    none = " ".join(run(*ASKED, "--slo", "tpot=7ms").stdout.split())
    assert "90 % at no rate" in none


def test_rows_that_wait_and_the_models_own_length_are_marked():
    text = run("serving", "llama-3-8b", "--on", "h100-sxm5", "--concurrency", "1,300,500").stdout
    most = as_json("serving", "llama-3-8b", "--on", "h100-sxm5", "--batch", 1)["memory"]
    n = most["largest_concurrency"]
    assert 1 < n < 300 and most["model_context"] == 8192
    assert "500 *" in text and "300 *" in text and "1 *" not in text
    assert f"more users than the {n} sequences that fit" in " ".join(text.split())
    outside = profile("vllm").ttft_s * 1e3
    assert f"TTFT of the first row = server {outside:.1f} ms + prefill" in text
    page = run("serving", "llama-3-8b", "--on", "h100-sxm5", "--concurrency", 1).stdout
    assert "was made for up to 8,192" in " ".join(page.split())
    assert f"TTFT = server {outside:.1f} ms + prefill" in page and "queue" not in page
    for word in ("exchanges", "usable", "all on the output", "lost its cache"):
        assert word not in page
    for width in ("60", "80", "120"):
        shown = run(*ASKED, "--rate", 5, width=width).stdout
        assert max(map(len, shown.splitlines())) <= int(width) and "…" not in shown


def test_a_trace_and_several_numbers_of_users(tmp_path):
    trace = tmp_path / "trace.csv"
    rows = "".join(f"{i / 4},{500 + i % 7},{50 + i % 5}\n" for i in range(200))
    trace.write_text("time,input,output\n" + rows)
    f = as_json(*ASKED, "--trace", trace)
    assert f["replayed"] == 200 and f["requests_per_s"] == pytest.approx(4.0, rel=0.05)
    out, picture = tmp_path / "front.csv", tmp_path / "front.png"
    text = run(*ASKED, "--concurrency", "1,8,64", "-o", out, "--plot", picture).stdout
    assert "users" in text and picture.stat().st_size > 5000
    with out.open() as file:
        table = list(csv.DictReader(file))
    assert [float(r["amount"]) for r in table] == [1, 8, 64]
    assert len(as_json(*ASKED)["forecasts"]) > 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--input-len", 0], "--input-len 0: too small"),
        (["--output-len", -1], "--output-len -1: too small"),
        (["--rate", "1000/s"], "the highest is"),
        (["--rate", 0], "not a rate above zero"),
        (["--kv", "fp5"], "kv 'fp5': known formats"),
        (["--weights", "q9"], "weights 'q9': known formats"),
        (["--stack", "vlm"], "no serving stack 'vlm'; did you mean vllm"),
        (["--concurrency", "x"], "give whole numbers"),
        (["--concurrency", 4, "--batch", 4], "two loads"),
        (["--slo", "tpot=1ms"], "no rate holds it"),
        (["--slo", "speed=1ms"], "wanted ttft, tpot, e2e"),
        (["--slo", "ttft=1s", "--rate", 3], "give one of them"),
        (["--trace", "none.csv"], "no such file"),
        (["--ep", 8, "--devices", 8], "has no experts"),
        (["--devices", 6, "--tp", 4], "not a multiple"),
        (["--tp", 6], "tp 6: does not divide the 32 attention heads of llama-3.1-8b; use 1, 2, 4"),
        (["--pp", 0], "--pp 0: too small"),
        (["--acceptance", 0.5], "without drafted tokens"),
        (["--prefix-share", 1.5], "give 0 to below 1"),
        (["--plot", "x.png", "--batch", 1], "draws several loads"),
        (["-o", "x.txt"], "cannot write"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(words, said):
    found = run(*ASKED, *words, code=2)
    assert said in found.stderr and found.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("a,b\n1,2\n", "no column 'time'"),
        ("time,input,output\n", "no requests"),
        ("time,input,output\n0,0,5\n", "line 2: input '0'"),
        ("time,input,output\n0,5,x\n", "line 2: output 'x'"),
        ("time,input,output\n-1,5,5\n", "line 2: time '-1'"),
    ],
    ids=str,
)
def test_a_trace_that_is_none_is_refused(tmp_path, body, said):
    path = tmp_path / "t.csv"
    path.write_text(body)
    assert said in run(*ASKED, "--trace", path, code=2).stderr


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("resnet50", "does not generate text"),
        ("bert-base", "takes a whole input at once and generates no tokens"),
        ("t5-base", "has an encoder beside its decoder"),
        ("whisper-large-v3", "has an encoder beside its decoder"),
    ],
)
def test_what_generates_no_text_is_refused_with_what_would_do(model, why):
    said = run("serving", model, "--on", "h100-sxm5", "--batch", 1, code=2).stderr
    assert why in said and said.count("\n") == 1
    assert f"roofcast predict {model} --mode infer" in said


def test_what_does_not_fit_and_what_is_too_long_is_said():
    said = run("serving", "llama-3.1-70b", "--on", "h100-sxm5", "--batch", 1, code=2).stderr
    assert "does not fit" in said and "--tp" in said
    text = run("serving", "llama-2-7b", "--on", "h100-sxm5", "--batch", 1, "--input-len", 8000)
    assert "more than the 4,096 that llama-2-7b was made for" in " ".join(text.stdout.split())


def test_python_gives_the_same_forecast():
    f = serving("llama-3.1-8b", "h100-sxm5", concurrency=16, input_len=300)
    typed = as_json(*ASKED, "--concurrency", 16, "--input-len", 300)
    assert f.tpot_s.mean == typed["tpot_s"]["mean"] and "16 users" in str(f)
    with pytest.raises(BadInput, match="two loads"):
        serving("llama-3.1-8b", "h100-sxm5", batch=1, rate=2.0)


ROWS = (
    "id,source_name,model,engine,device,n_devices,tp,w_prec,phase,mode,load_kind,load,input_len,"
    "output_len,context_len,ttft_s,tpot_s,output_tokens_per_s,prefill_tokens_per_s\n"
    "a,s,meta-llama/Llama-3.1-8B,vllm,h100-sxm5,1,1,bf16,e2e,agg,concurrency,16,1024,512,,0.1,"
    "0.008,,\n"
    "b,s,meta-llama/Llama-3.1-8B,vllm,h100-sxm5,1,,unstated,e2e,offline,offline_max,,1024,512,,,,"
    "5000,\n"
    "c,t,llama 8B Q4_K - Medium,llama.cpp CUDA,rtx-4090,1,1,gguf:Q4_K - Medium,prefill,static,"
    "batch,1,512,0,0,,,,6000\n"
    "d,t,nobody/knows-7b,vllm,h100-sxm5,1,1,bf16,decode,static,batch,1,1,128,64,,0.01,,\n"
)


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_measured_servers_are_forecast_row_by_row(tmp_path, name):
    path, out = tmp_path / name, tmp_path / "out.csv"
    path.write_bytes(gzip.compress(ROWS.encode()) if name.endswith("gz") else ROWS.encode())
    text = run("validate", "--serving", path, "-o", out).stdout
    assert "3 of 4 rows with a measured value (75.0 %) answered" in text
    with out.open() as file:
        a, b, c, d = csv.DictReader(file)
    for name in ("ttft_s", "tpot_s", "output_tokens_per_s"):
        low, value, high = (float(a[f"predicted_{name}{end}"]) for end in ("_low", "", "_high"))
        assert 0 < low < value < high
    assert float(a["predicted_peak_mem_gib"]) > 16
    assert b["taken_as"] == "weights bf16; tp 1" and float(b["predicted_output_tokens_per_s"]) > 0
    assert float(c["predicted_prefill_tokens_per_s"]) > 0 and not c["predicted_tpot_s"]
    assert "unknown" in d["refused_because"] and not d["predicted_tpot_s"]
    found = json.loads(run("validate", "--serving", path, "--json").stdout)
    assert found["answered"] == 3 and len(found["rows"]) == 4


def test_a_table_of_something_else_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    assert "no column model" in run("validate", "--serving", path, code=2).stderr
    assert "alone" in run("validate", "--serving", path, "--regret", code=2).stderr


def test_memory_of_inference_counts_the_cache():
    words = ["memory", "llama-3-70b", "--mode", "infer", "--precision", "int8", "--on", "h100-sxm5"]
    found = as_json(*words, "--seq", 2048, "--batch", 4)["memory"]
    assert found["kv_cache_bytes"] == 4 * 2048 * 327680
    kinds = ("parameters", "activations", "transient", "framework")
    held = sum(found[f"{kind}_bytes"] for kind in kinds) + found["kv_cache_bytes"]
    assert found["peak_bytes"] == pytest.approx(held)
    most = found["largest_batch"]
    assert as_json(*words, "--seq", 2048, "--batch", most)["memory"]["fits"]
    assert not as_json(*words, "--seq", 2048, "--batch", most + 1)["memory"]["fits"]
    assert "KV cache" in run(*words, "--seq", 2048).stdout
    windowed = as_json(
        "memory", "mistral-7b", "--mode", "infer", "--on", "h100-sxm5", "--seq", 8192
    )
    assert windowed["memory"]["kv_cache_bytes"] == 4096 * 131072
