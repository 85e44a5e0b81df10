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


def test_a_search_says_what_its_layouts_compute_and_assume(tmp_path):
    """The kind of training, the length of a sample and the links, as predict does."""
    chip = tmp_path / "chip.toml"
    chip.write_text(
        'name = "Chip"\n[peak_flops]\nbf16 = "400 TFLOP/s"\n[memory]\nbandwidth = "4 TB/s"\n'
        'capacity = "96 GiB"\n'
    )
    line = f"search gpt2 --on {chip} --devices 2 --batch 4 --lora 8 --seq 512 --recompute full"
    text = " ".join(typed(line).output.split())
    assert "4 × 512 tokens, bf16, adamw," in text and "LoRA r=8 on" in text
    assert "no known system of chip: 8 chip per node on PCIe 4.0 x16" in text
    assert "stack pytorch-eager (not given)" in text


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


CHIP = (
    'name = "Paper"\nkind = "gpu"\n[peak_flops]\nbf16 = "400 TFLOP/s"\n[vector_flops]\nfp32 ='
    ' "25 TFLOP/s"\n[memory]\nbandwidth = "4 TB/s"\ncapacity = "96 GiB"\n'
)


@pytest.mark.parametrize("given", ["--price chip=2", "--prices {0}", ""])
def test_a_device_of_a_file_is_chosen_at_its_price(tmp_path, given):
    file, prices = tmp_path / "chip.toml", tmp_path / "prices.toml"
    file.write_text(CHIP)
    prices.write_text("[chip]\non-demand = 2\n")
    line = f"choose gpt2 --tokens 1B --batch 64 --within 30d --devices 2 --on {file} "
    text = typed(f"{line}{given.format(prices)}", 300).output
    if not given:  # the line that it advises, as it is typed
        advised = re.search(r"\((--price \S+=2\.10) gives one\)", text)[1]
        text = typed(f"{line}{advised}", 300).output
    assert f"× {file} " in text and "$2." in text
    assert re.search(r"1 kind of device: 1 shown", text)
    assert typed(re.search(r"in full: roofcast (.*)", text)[1]).exit_code == 0


def test_a_server_and_a_pool_take_a_device_of_a_file(tmp_path):
    file, pool = tmp_path / "chip.toml", tmp_path / "pool.toml"
    file.write_text(CHIP + "[price]\ncloud_usd_per_hour = 2\n")
    pool.write_text('[devices]\n"chip.toml" = 2\n')
    text = typed(f"choose gpt2 --serving --on {file} --rate 1/s", 200).output
    assert f"1 × {file}" in text and "1 kind of device," in text
    owned = typed(f"choose gpt2 --tokens 1B --batch 64 --owned {pool} --json").output
    assert json.loads(owned)["choices"][0]["device"] == str(file)


def test_two_files_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "chip.toml").write_text(CHIP.replace("Paper", folder))
    both = " ".join(f"--on {tmp_path}/{folder}/chip.toml" for folder in "ab")
    assert "two devices of one name" in typed(f"choose gpt2 --tokens 1B {both}").stderr


def test_what_would_do_with_a_probability_is_told_beside_what_is_expected():
    line = "choose gpt2 --tokens 20B --batch 64 --on l4 --devices 1 --sure 90 --within 2d"
    text = " ".join(typed(line, 300).output.split())
    assert re.search(r"would do \(90 % sure; [\d.]+ days expected\), the other limits kept", text)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            f"{CHOOSE} --within soon",
            "--within soon: not an amount above zero; give for example 10d",
        ),
        (f"{CHOOSE} --within 10", "10 is 10 seconds; did you mean 10d? give the unit"),
        (f"{CHOOSE} --max-energy 500", "500 is 500 joules; did you mean 500kWh?"),
        (
            f"{CHOOSE} --within 10d --sure 0.9",
            "a whole percentage from 50 to 99 is wanted; did you mean 90?",
        ),
        (f"{CHOOSE} --buy --rent spot", "--buy and --rent: two ways to pay"),
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
