"""`roofcast report` as a person types it: one HTML file, or Markdown."""

import json
import re

import pytest
from click.testing import CliRunner

from roofcast import Forecast, RoofcastError, predict
from roofcast.reports.command import main
from roofcast.reports.html.page import embedded

LLAMA = ("llama-3-8b", "--on", "h100-sxm5")
HOSTILE = "</script><script>alert(1)</script>&\"'|"


def run(*words):
    return CliRunner(env={"COLUMNS": "100"}).invoke(main, words)


def report(path, *words):
    """The text of a report that was written."""
    result = run("report", *words, "-o", str(path))
    assert result.exit_code == 0, result.output
    assert f"wrote {path}" in result.output
    return path.read_text(encoding="utf-8")


def data(page):
    """The data of a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(found[1])


@pytest.mark.parametrize(
    "words",
    [
        LLAMA,
        ("resnet50", "--on", "rtx-4090", "--batch", "64", "--epochs", "90", "--samples", "1281167"),
        ("gpt2", "--on", "i9-10940x", "--mode", "infer"),
        tuple("llama-3-70b --on h100-sxm5 --devices 64 --tp 8 --pp 2 --batch 64".split()),
    ],
)
def test_the_data_of_the_page_are_what_predict_prints(tmp_path, words):
    page = report(tmp_path / "page.html", *words)
    (one,) = data(page)["forecasts"]
    assert one["json"] == json.loads(run("predict", *words, "--json").stdout)
    points = sum(point["time_s"] for point in one["points"])
    assert 0 < points <= one["json"]["step_time_s"]
    tree = sum(row["time_s"] for row in one["tree"])
    assert tree == pytest.approx(one["json"]["step_time_s"], rel=0.01)
    assert sum(size for _, size in one["memory"]["kinds"]) == pytest.approx(
        one["json"]["memory"]["peak_bytes"]
    )
    if moments := one["memory"]["moments"]:
        highest = max(moment["total"] for moment in moments)
        assert highest == pytest.approx(one["json"]["memory"]["peak_bytes"])


def test_a_report_of_a_run_leads_with_days_dollars_and_probability(tmp_path):
    page = report(
        tmp_path / "run.html", "gpt2", "--on", "h100-sxm5", "--batch", "64", "--tokens", "10B",
        "--deadline", "30d", "--no-sensitivity",
    )  # fmt: skip
    lead = re.search(r'<p class="headline">(.*?)</p>', page)[1]
    assert re.fullmatch(r"[\d.]+ (h|days), \$[\d.,]+", lead)
    assert "done within 30 days" in page and "80 % interval of the run" in page


def test_a_card_of_what_does_not_fit_says_as_if(tmp_path):
    words = ("llama-3-8b", "--on", "rtx-4090", "--tokens", "1B", "--no-sensitivity")
    assert ", as if it fitted</p>" in report(tmp_path / "large.html", *words)


def test_several_devices_are_one_page(tmp_path):
    page = report(tmp_path / "page.html", *LLAMA, "--on", "mi300x", "--no-sensitivity")
    forecasts = data(page)["forecasts"]
    assert [one["json"]["device"] for one in forecasts] == ["h100-sxm5", "mi300x"]
    assert all(one["sensitivity"] is None for one in forecasts)
    assert "elasticity" not in page.split("<script", 1)[0]


def test_a_page_loads_nothing_and_stays_small(tmp_path):
    words = ("llama-3.1-405b", "--on", "h100-sxm5", "--devices", "1024", "--tp", "8", "--pp", "16")
    page = report(tmp_path / "page.html", *words, "--batch", "512")
    assert len(page.encode()) < 2e6
    assert not re.search(r'(?:src|href)\s*=\s*"', page.split("<script", 1)[0])
    (one,) = data(page)["forecasts"]
    assert one["pipeline"]["shown"] == min(one["pipeline"]["all"], 3000) > 1000
    assert {event[0] for event in one["pipeline"]["events"]} == set(range(16))


def test_a_scenario_file_or_its_name_is_reported(tmp_path):
    text = report(tmp_path / "page.md", "llama-3-8b-qlora")
    assert "adapters" in text or "LoRA" in text
    saved = tmp_path / "saved.toml"
    assert run("predict", *LLAMA, "--batch", "2", "--save", str(saved)).exit_code == 0
    page = report(tmp_path / "page.html", str(saved))
    assert data(page)["forecasts"][0]["json"]["batch"] == 2
    assert "batch = 2" in page


def test_markdown_has_the_numbers_of_the_summary(tmp_path):
    text = report(tmp_path / "page.md", *LLAMA)
    found = json.loads(run("predict", *LLAMA, "--json").stdout)
    assert f"{found['step_time_s'] * 1e3:.0f} ms per step" in text
    assert f"{found['tokens_per_s']:,.0f} tokens/s" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")


def test_text_in_the_data_cannot_end_its_element():
    held = embedded({"name": HOSTILE})
    assert "<" not in held and json.loads(held) == {"name": HOSTILE}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*LLAMA, "-o", "page.pdf"), "use .html or .md"),
        ((*LLAMA,), "-o is missing; give the file to write, for example -o report.html"),
        ((*LLAMA, "-o", "no/where/page.html"), "there is no directory"),
        (("llama-3-8b", "-o", "page.html"), "--on is missing"),
        (("nonsense", "--on", "h100-sxm5", "-o", "page.html"), "no model 'nonsense'"),
        (("llama-3-8b-qlora", "--on", "h100-sxm5", "-o", "page.html"), "no model"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    result = run("report", *words)
    assert result.exit_code == 2
    assert said in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_python_writes_the_same_page(tmp_path):
    path = predict("gpt2", device="l4").report(tmp_path / "page.html")
    printed = report(tmp_path / "printed.html", "gpt2", "--on", "l4")
    found, wanted = (data(text)["forecasts"][0] for text in (path.read_text("utf-8"), printed))
    assert found["json"]["step_time_s"] == wanted["json"]["step_time_s"]
    assert found["sensitivity"] == wanted["sensitivity"]
    read = Forecast.from_json(predict("gpt2", device="l4").to_json())
    with pytest.raises(RoofcastError, match="predict again"):
        read.report(tmp_path / "again.html")
