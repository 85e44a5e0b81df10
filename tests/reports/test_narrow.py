"""Tables in narrow terminals: names stay, no number is cut, no number is parted from its unit."""

import re

import msgspec
import pytest
from click.testing import CliRunner

from roofcast import predict
from roofcast.reports.command import main
from roofcast.reports.console import fitting
from roofcast.reports.pages.comparison import print_comparison
from roofcast.reports.pages.summary import summary

LONG = "rtx-pro-6000-of-a-workstation-with-a-long-name"
COMMANDS = {
    "memory": ("memory", "resnet50", "--on", "h100-sxm5"),
    "memory of stages": ("memory", "llama-3-8b", "--on", "h100-sxm5", "--pp", "8"),
    "count": ("count", "llama-3-8b"),
    "count of inference": ("count", "resnet50", "--mode", "infer"),
    "devices": ("devices",),
    "device": ("devices", "show", "h100-sxm5"),
    "stacks": ("stacks",),
    "predict": ("predict", "llama-3-8b", "--on", "h100-sxm5", "--tp", "8", "--tokens", "1T"),
}


def named(device, step, **asked):
    """A forecast for a device of that name."""
    return msgspec.structs.replace(step(**asked), device=device)


@pytest.mark.parametrize("width", [50, 60, 80])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_number_of_a_table_is_cut(command, width):
    text = CliRunner().invoke(main, command, env={"COLUMNS": str(width)}).stdout
    assert text and not re.search(r"\d[\d.,]*…|… ?[KMGTP]?i?B\b", text), text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [40, 60, 76, 80, 90, 132])
def test_a_comparison_has_every_device_beside_every_number(step, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    whole = dict(steps=1e6, time_to_train_s=3e7, cost_usd=2.5e4, price_usd_per_hour=2.95)
    print_comparison(
        [step(**whole), step("rtx-3090", **whole), named("rtx-pro-6000", step, **whole)]
    )
    text = capsys.readouterr().out
    tables = [part.splitlines() for part in text.partition("\n\nAssumed")[0].split("\n\n")[1:]]
    for lines in tables:
        assert [line.split()[0] for line in lines] == ["device", "h100-sxm5", "rtx-3090",
                                                       "rtx-pro-6000"]  # fmt: skip
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    shown = " ".join(lines[0] for lines in tables)
    for title in ("step", "tokens/s", "MFU", "peak memory", "fits", "whole run", "cost"):
        assert title in shown, title


def test_a_long_name_is_folded_rather_than_lost(step, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    print_comparison([step(), named(LONG, step)])
    text = capsys.readouterr().out
    assert "".join(re.findall(r"^  (\S+-?)", text.split("\n\n")[1], re.M)).endswith(LONG)
    assert "…" not in text


def test_mfu_and_its_number_are_on_one_line_of_a_summary(monkeypatch):
    forecast = predict("llama-3-8b", "h100-sxm5", batch=1)
    for width in range(50, 110):
        monkeypatch.setattr("roofcast.reports.pages.summary.WIDTH", width)
        text = summary(forecast)
        assert re.search(r"MFU \d+ %", text), text
        assert "\N{NO-BREAK SPACE}" not in text


def test_columns_are_left_out_in_the_order_given():
    columns = [("device", "left"), ("year", "right"), ("price", "right")]
    rows = [["h100-sxm5", "2022", "$2.95/h"]]
    assert fitting(24, columns, rows, ("price", "year")) == [0, 1, 2]
    assert fitting(23, columns, rows, ("price", "year")) == [0, 1]
    assert fitting(12, columns, rows, ("price", "year")) == [0]
