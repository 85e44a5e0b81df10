"""roofcast search and roofcast choose as a person types them."""

import csv
import functools
import json
import re
import shlex

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main

CHOOSE = "choose llama-2-7b --tokens 20B --batch 96 --on h100-sxm5 --on l4 --devices 16"
SEARCH = "search llama-3-8b --on h100-sxm5 --devices 8 --batch 32"


@functools.cache
def typed(line, width=100):
    return CliRunner(env={"COLUMNS": str(width)}).invoke(main, shlex.split(line))


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize("line", [f"{CHOOSE} --within 10d --under 9k", SEARCH])
def test_pages_keep_to_the_width_and_cut_no_number(line, width):
    text = typed(line, width).output
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert text.count("\n") > 10


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_width_loses_a_column(width):
    text = typed(f"{CHOOSE} --within 10d --under 9k", width).output
    table = text.split("Choices, one per kind of device")[1].split("Best:")[0]
    for title in (
        "devices", "time", "80 % interval", "in time", "cost", "in budget", "memory",
        "price per device", "by provider", "TDPs", "board energy",
    ):  # fmt: skip
        assert title in table, title


def test_the_kinds_of_devices_add_up():
    text = typed(f"{CHOOSE} --on a100-sxm4-80gb --on mi210", 300).output
    line = re.search(r"(\d+) kinds of devices: (.*)", text)
    parts = [int(part.split()[0]) for part in line[2].split("; ")]
    assert sum(parts) == int(line[1]) == 4 and "1 without a price" in line[2]


def test_a_choice_tells_devices_time_cost_probability_and_what_binds():
    text = typed(f"{CHOOSE} --within 10d --under 9k", 200).output
    assert re.search(r"\d+ × (h100-sxm5|l4) +[\d.]+ (days|h) .*%.*\$[\d,]+ .*Wh", text), text
    for part in (
        "how much of each",
        "deadline: ",
        "budget: ",
        "Pareto front",
        "Assumed",
        "rent: $",
    ):
        assert part in text, part


def test_the_command_that_a_choice_prints_gives_its_numbers():
    text = typed(f"{CHOOSE} --within 35h", 300).output
    line = re.search(r"in full: roofcast (.*)", text)[1]
    step = re.search(r"step: ([\d.]+ m?s),", text)[1]
    row = re.search(r"\n +\d+ × .*", text)[0].split("  ")
    time, span, chance, cost = [cell.strip() for cell in row if cell.strip()][1:5]
    printed = typed(line, 300).output
    low, high = span.split(" to ")
    assert (
        step in printed
        and f"{time} expected; 80 % interval {low}" in printed
        and f" to {high}" in printed
    )
    assert chance == re.search(r"by [\d.]+ days: (\d+ %)", printed)[1]
    total = re.findall(r"\n +total .*?([\d,]+\.\d\d)\n", printed)[-1].replace(",", "")
    assert float(cost.strip("$").replace(",", "")) == pytest.approx(float(total), abs=0.5)


def test_the_command_that_a_search_prints_forecasts_its_best_step():
    text = typed(SEARCH, 200).output
    line = re.search(r"fastest: roofcast (.*)", text)[1]
    step = re.search(r"fits +layout.*\n +([\d.]+ m?s) ", text)[1]
    assert step in typed(line, 100).output


def test_the_best_layout_of_predict_is_that_of_a_search():
    options = SEARCH.removeprefix("search ")
    found = json.loads(typed(f"{SEARCH} --json").output)
    best = json.loads(typed(f"predict {options} --layout best --json").output)
    assert best["step_time_s"] == pytest.approx(found["best"][0]["step_time_s"], rel=1e-9)


def test_a_step_that_does_not_fit_names_the_nearest_layout_that_does():
    text = " ".join(typed("predict llama-3-8b --on h100-sxm5 --devices 8 --batch 8").output.split())
    assert "The nearest that fits, with the same batch: --zero" in text


def test_json_and_csv_of_a_choice_hold_the_same_rows(tmp_path):
    path = tmp_path / "choices.csv"
    found = json.loads(typed(f"{CHOOSE} --within 20d --json -o {path}").output)
    rows = list(csv.DictReader(path.open()))
    assert [(r["device"], int(r["devices"])) for r in rows[: len(found["choices"])]] == [
        (c["device"], c["devices"]) for c in found["choices"]
    ]
    assert float(rows[0]["cost_usd"]) == pytest.approx(found["choices"][0]["cost_usd"])


def test_csv_of_a_search_holds_every_valid_layout(tmp_path):
    path = tmp_path / "layouts.csv"
    found = json.loads(typed(f"{SEARCH} --json -o {path}").output)
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == found["fit"] + found["need_more_memory"]
    times = [float(r["step_time_s"]) for r in rows]
    assert times == sorted(times)


def test_a_pool_of_owned_devices_is_chosen_from(tmp_path):
    path = tmp_path / "pool.toml"
    path.write_text("[devices]\nh100-sxm5 = 4\nl4 = 8\n")
    line = f"choose llama-2-7b --tokens 1B --batch 96 --owned {path} --json"
    found = json.loads(typed(line).output)
    assert {c["device"] for c in found["choices"]} <= {"h100-sxm5", "l4"}
    assert all(c["devices"] <= {"h100-sxm5": 4, "l4": 8}[c["device"]] for c in found["choices"])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            f"{CHOOSE} --within soon",
            "--within soon: not an amount above zero; give for example 10d",
        ),
        (f"{CHOOSE} --under -5", "--under -5: not an amount above zero; give for example 50k"),
        (f"{CHOOSE} --max-power 3kg", "--max-power 3kg: not an amount"),
        (f"{CHOOSE} --max-energy 0", "--max-energy 0: not an amount"),
        (f"{CHOOSE} --price h100-sxm5", "not DEVICE=USD"),
        (f"{CHOOSE} --price h101=2", "no device 'h101'"),
        (f"{CHOOSE} --prices nowhere.toml", "nowhere.toml"),
        (f"{CHOOSE} --owned nowhere.toml", "leave --on and --vendor out"),
        (f"{CHOOSE} -o choices.xls", "use .csv or .parquet"),
        ("choose llama-2-7b --on h100-sxm5", "--tokens 2T"),
        ("choose resnet50 --epochs 90 --on l4", "--samples 1.28M"),
        ("choose resnet50 --tokens 90 --on l4", "does not read tokens"),
        ("choose llama-9 --tokens 1T --on l4", "no model 'llama-9'"),
        ("choose llama-2-7b --tokens 1T --on l5", "no device 'l5'"),
        ("choose llama-2-7b --tokens 1T --vendor Acme", "no vendor 'Acme'"),
        ("search llama-3-8b --on h100-sxm5", "--devices is missing"),
        ("search resnet50 --on h100-sxm5 --devices 7 --batch 8", "multiple of 7"),
        (f"{SEARCH} -o layouts", "no suffix"),
        ("predict llama-3-8b --on h100-sxm5 --layout best", "give --devices, or --system"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(line, text):
    result = typed(line)
    assert result.exit_code == 2, result.output
    assert text in result.stderr and result.stderr.count("\n") == 1 and not result.stdout
