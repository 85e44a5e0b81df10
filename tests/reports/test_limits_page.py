"""Limits and remedies as `roofcast predict` prints them."""

import json

import pytest
from click.testing import CliRunner

from roofcast import predict
from roofcast.reports.command import main

ONE = ("predict", "llama-3-8b", "--on", "h100-sxm5")
SEVERAL = (*ONE, "--devices", "16", "--tp", "4", "--pp", "2", "--batch", "32")


def run(*words, columns="80"):
    return CliRunner(env={"COLUMNS": columns}).invoke(main, words)


def section(text, title):
    """The lines of a section of a page."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    rest = lines[start + 1 :]
    return rest[: next((i for i, line in enumerate(rest) if line and line[0] != " "), None)]


@pytest.mark.parametrize("columns", ["60", "80", "120"])
@pytest.mark.parametrize("words", [ONE, SEVERAL], ids=["one device", "several"])
def test_a_page_tells_the_limits_apart_and_what_remedies_save(words, columns):
    result = run(*words, columns=columns)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= int(columns)
    limits = "\n".join(section(result.stdout, "Limits of the step"))
    names = ["compute", "memory bandwidth", "host", "memory capacity", "not modelled"]
    names += ["network", "pipeline"] if words is SEVERAL else []
    assert all(name in " ".join(limits.split()) for name in names), limits
    assert ("network" in limits) == (words is SEVERAL)
    remedies = "\n".join(section(result.stdout, "Diagnosis"))
    assert "a compiled stack" in remedies and "savings do not add up" in " ".join(remedies.split())


def test_a_peak_beyond_the_memory_says_by_how_much():
    """A used part of more than 100 % is no number to leave to the reader."""
    found = predict("llama-3-8b", "rtx-4090").memory
    over = found.peak_bytes / found.capacity_bytes - 1
    assert over > 0.5
    text = run("predict", "llama-3-8b", "--on", "rtx-4090").stdout
    lines = section(text, "Limits of the step")
    assert next(line for line in lines if "memory capacity  " in line).endswith("none")
    assert "does not fit, the forecast peak exceeds it by" in " ".join(text.split())
    assert f"({over:.0%}".replace("%", " %") in " ".join(text.split())
    assert "exceeds it" not in run(*ONE).stdout


def test_json_has_limits_always_and_remedies_when_asked_for():
    plain = json.loads(run(*ONE, "--json").stdout)
    assert "remedies" not in plain
    assert sum(limit["share"] or 0 for limit in plain["limits"]) == pytest.approx(1)
    asked = json.loads(run(*ONE, "--json", "--remedies").stdout)
    saved = {r["name"]: r["saved_s"] for r in asked.pop("remedies")}
    assert asked == plain
    compiled = predict("llama-3-8b", "h100-sxm5", stack="pytorch-compiled").step_time_s
    assert saved["a compiled stack"] == pytest.approx(plain["step_time_s"] - compiled)


def test_a_comparison_of_devices_computes_remedies_only_when_asked():
    refused = run(*ONE, "--on", "mi300x", "--remedies")
    assert refused.exit_code == 2 and "add --json" in refused.stderr
    words = (*ONE, "--on", "mi300x", "--json")
    plain, asked = (json.loads(run(*words, *more).stdout) for more in ((), ("--remedies",)))
    assert all("remedies" not in f for f in plain["forecasts"])
    assert all(f["remedies"] for f in asked["forecasts"])


def test_a_forecast_read_from_json_has_no_remedies_to_compute():
    from roofcast import Forecast, RoofcastError

    read = Forecast.from_json(predict("gpt2", "t4").to_json())
    with pytest.raises(RoofcastError, match="predict again"):
        read.with_remedies()
