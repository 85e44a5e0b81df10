"""`search --serving` and `choose --serving`, as a person types them."""

import csv
import json

import pytest
from click.testing import CliRunner

from roofcast import serving
from roofcast.reports.command import main
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.chain import serve
from roofcast.simulator.serving.load import Load

SEARCH = ["search", "llama-3.1-8b", "--serving", "--on", "h100-sxm5", "--devices", "2"]
CHOOSE = ["choose", "llama-3.1-8b", "--serving", "--on", "h100-sxm5,l4", "--weights", "fp8"]


def run(*words, code=0, width="100"):
    found = CliRunner(env={"COLUMNS": width}).invoke(main, [str(w) for w in words])
    assert found.exit_code == code, found.output
    return found


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("words", [SEARCH, [*CHOOSE, "--concurrency", 9]], ids=lambda w: w[0])
def test_pages_are_legible_at_every_width(words, width):
    text = run(*words, width=str(width)).stdout
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text and "first alone: roofcast serving llama-3.1-8b" in text
    for word in ("Refused, and not considered", "Assumed", "tokens in, 512", "fits"):
        assert word in text, word


def test_a_search_prints_writes_and_draws_the_same(tmp_path):
    table, picture = tmp_path / "layouts.csv", tmp_path / "front.png"
    found = json.loads(run(*SEARCH, "-o", table, "--plot", picture, "--json").stdout)
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == found["forecasts"] and found["layouts"] == 3
    assert found["hold_the_model"] + sum(found["reasons"].values()) == found["layouts"]
    on_front = [row for row in rows if row["on_front"] == "True"]
    assert len(on_front) == len(found["front"])
    assert picture.stat().st_size > 10_000
    best = found["best"][0]
    layout = {name: best[name] for name in ("tp", "pp")}
    load = Load(kind="concurrency", amount=float(best["users"]))
    asked = Serving(model="llama-3.1-8b", device="h100-sxm5", devices=2, load=load, **layout)
    # the rows that are shown are forecast as a single load is
    f = serve(asked)
    assert best["output_tokens_per_s"] == pytest.approx(f.output_tokens_per_s, rel=1e-9)
    assert any(line.startswith("means and percentiles of") for line in f.assumptions)
    told = [row for row in rows if row["means"] == "replay"]
    per_device = [float(row["output_tokens_per_s_per_device"]) for row in told]
    assert best["means"] == "replay" and len(told) < len(rows)
    assert best["output_tokens_per_s_per_device"] == max(per_device)


def test_the_command_that_is_printed_gives_the_first_row():
    text = run(*SEARCH, "--concurrency", 8, "--kv", "fp8").stdout
    line = " ".join(text.split("the first alone: ")[1].split("\n\n")[0].split())
    assert "--concurrency 8" in line and "--kv fp8" in line
    alone = json.loads(run(*line.split()[1:], "--json").stdout)
    first = json.loads(run(*SEARCH, "--concurrency", 8, "--kv", "fp8", "--json").stdout)["best"][0]
    assert alone["tpot_s"]["mean"] == pytest.approx(first["tpot_s"], rel=1e-9)


def test_a_choice_says_what_it_costs_and_holds_its_limits(tmp_path):
    words = [*CHOOSE, "--rate", "20/s", "--slo", "tpot=30ms", "--price", "l4=0.01"]
    path = tmp_path / "choices.csv"
    found = json.loads(run(*words, "-o", path, "--json").stdout)
    first = found["choices"][0]
    assert first["device"] == "l4" and first["usd_per_hour"] == 0.01 * first["devices"]
    for c in found["choices"]:
        assert c["forecast"]["tpot_s"]["p90"] <= 0.03 * 1.02
        assert c["devices"] == c["replicas"] * c["layout"]["tp"] * c["layout"]["pp"]
    assert [row["device"] for row in csv.DictReader(path.open())] == [
        c["device"] for c in found["choices"]
    ]


def test_a_choice_shows_the_percentile_that_is_asked_for_and_how_sure_it_is():
    words = [*CHOOSE[:4], "h100-sxm5", "--rate", "12/s", "--slo", "ttft=400ms,p99"]
    found = [json.loads(run(*words, *more, "--json").stdout) for more in ([], ["--sure", 90])]
    likely, sure = (each["choices"][0] for each in found)
    assert 0 < likely["slo_probability"] < 0.9 <= sure["slo_probability"]
    assert sure["devices"] > likely["devices"]
    text = run(*words, width="70").stdout
    assert "TTFT p99" in text and "TTFT p90" not in text and "$/M out" in text
    assert "all: weights bf16, cache 16 bits" in text and "holds:" in text


def test_the_help_of_the_commands_in_front_names_the_door():
    for name in ("search", "choose"):
        assert f"roofcast {name} --serving --help" in " ".join(run(name, "--help").stdout.split())
        text = run(name, "--serving", "--help").stdout
        assert f"Usage: roofcast {name} --serving" in text and "--input-len" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*SEARCH, "--weights", "foo"], "known formats"),
        ([*SEARCH, "--weights", "fp8,"], "names with commas"),
        ([*SEARCH, "--tp", 3], "tp 3: no layout of 2 devices"),
        ([*SEARCH, "--slo", "tpot=30ms,p99"], "leave it out"),
        ([*SEARCH, "--slo", "tpot=0"], "not a time above zero"),
        ([*SEARCH, "--slo", "ttft=500"], "500 is 500 seconds; did you mean 500ms? give the unit"),
        ([*SEARCH, "--slo", "tpot=-3"], "not a time above zero"),
        ([*SEARCH, "--slo", "tpot=1us", "--plot", "x.png"], "fewer than two"),
        ([*SEARCH, "--plot", "x.doc"], ".png"),
        ([*SEARCH, "--batch", 3], "no option --batch"),
        (["search", "resnet50", "--serving", "--on", "h100"], "does not generate text"),
        (["search", "gpt2", "--serving"], "--on is missing"),
        ([*CHOOSE, "--rate", "0/s"], "not a rate above zero"),
        ([*CHOOSE, "--rate", "1", "--concurrency", 2], "two loads"),
        ([*CHOOSE, "--rate", "1", "--slo", "tpot=1us"], "nothing holds it; the nearest is"),
        ([*CHOOSE, "--rate", "500", "--under", 1], "nothing within the limits"),
        ([*CHOOSE, "--rate", "1", "--sure", 90], "give --rate and --slo"),
        ([*CHOOSE, "--buy", "--rent", "spot"], "two ways to pay"),
        (["choose", "t5-small", "--serving"], "decoder"),
    ],
    ids=lambda v: " ".join(map(str, v)) if isinstance(v, list) else "",
)  # fmt: skip
def test_what_cannot_be_is_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run(*words, code=2)
    assert found.stdout == "" and found.stderr.count("\n") == 1
    assert message in found.stderr
    assert not list(tmp_path.iterdir())


def test_of_layouts_of_one_price_the_choice_serves_best():
    """Four H100 cost the same however they are cut: the choice is the cut of the most tokens/s."""
    words = ["choose", "qwen2.5-32b", "--serving", "--on", "h100-sxm5", "--concurrency", 200]
    best = json.loads(run(*words, "--slo", "tpot=50ms", "--json").stdout)["choices"][0]
    assert best["devices"] == 4
    asked = {"model": "qwen2.5-32b", "device": "h100-sxm5", "devices": 4, "concurrency": 200}
    others = [serving(**asked, tp=tp, pp=pp) for tp, pp in ((4, 1), (2, 2), (1, 4), (2, 1))]
    most = max(f.output_tokens_per_s for f in others if f.tpot_s.mean <= 0.05)
    assert best["forecast"]["output_tokens_per_s"] > 0.999 * most
    assert min(f.output_tokens_per_s for f in others) < 0.9 * most
