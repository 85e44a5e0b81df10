"""What is printed for people: complete, consistent, no wider than the terminal."""

import msgspec
import pytest

from roofcast import predict
from roofcast.reports.pages.forecast import print_comparison, print_forecast
from roofcast.reports.pages.memory import bar, kinds, print_memory, verdict
from roofcast.simulator.forecast.result import Near

LONG = dict(
    steps=1e6,
    time_to_train_s=3e7,
    cost_usd=2.5e4,
    price_usd_per_hour=2.95,
    energy_j=7.6e10,
    power_w=700.0,
)
UNKNOWN = dict(mfu=None, hfu=None, tokens_per_s=None)
FORECASTS = {
    "training": {},
    "small": dict(batch=1, sequence=16, layers=2),
    "too big": dict(batch=64),
    "whole training": LONG,
    "inference": dict(mode="infer", optimizer=None),
    "rates unknown": UNKNOWN,
}


@pytest.mark.parametrize("width", [60, 80, 132])
@pytest.mark.parametrize("asked", FORECASTS.values(), ids=FORECASTS)
def test_text_is_no_wider_than_the_terminal(step, asked, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    forecast = step(**asked)
    print_forecast(forecast)
    print_memory(forecast)
    print_comparison([forecast, step("rtx-3090", **asked)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert not any("\x1b" in line or line != line.rstrip() for line in lines)


def test_shares_of_the_table_sum_to_the_step(forecast, capsys):
    print_forecast(forecast)
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if "bound by" in line)
    end = next(i for i, line in enumerate(lines) if line.strip().startswith("total"))
    shares = [float(line.split("%")[0].split()[-1]) for line in lines[start + 1 : end]]
    assert sum(shares) == pytest.approx(100, abs=0.5 * len(shares))
    assert "and 3 smaller" in lines[end - 1]
    assert "702 ms" in lines[end]


def test_waiting_is_a_line_of_its_own(step, capsys):
    print_forecast(step(step_time_s=1.2 * step().step_time_s))
    assert "waiting for the host" in capsys.readouterr().out


def test_memory_kinds_sum_to_the_peak(forecast):
    assert sum(value for _, value in kinds(forecast.memory)) == pytest.approx(
        forecast.memory.peak_bytes
    )


def test_verdict_names_need_capacity_and_cure(forecast):
    assert verdict(forecast).startswith("does not fit: needs 182 of 80.0 GiB")
    assert "optimizer" in verdict(forecast)
    memory = msgspec.structs.replace(forecast.memory, capacity_bytes=190e9, largest_batch=3)
    assert "largest batch that fits is 3; --recompute full" in verdict(
        msgspec.structs.replace(forecast, memory=memory)
    )
    memory = msgspec.structs.replace(
        forecast.memory, capacity_bytes=288e9, fits=True, largest_batch=2
    )
    assert verdict(msgspec.structs.replace(forecast, memory=memory)).endswith(
        "; the largest batch that fits is 2"
    )


def test_an_unknown_capacity_is_said(forecast):
    memory = msgspec.structs.replace(forecast.memory, capacity_bytes=None, fits=None)
    assert verdict(msgspec.structs.replace(forecast, memory=memory)).endswith(
        "capacity is not known"
    )


def test_the_interval_and_the_nearest_runs_are_told(step, capsys):
    near = Near(
        name="gpt2, batch 8",
        device="a100-pcie-40gb",
        stack="pytorch-eager",
        source="a table",
        measured_s=0.1,
        error=-0.05,
    )
    print_forecast(step(low_s=0.6, high_s=0.8, interval_class="known device", nearest=(near,)))
    text = " ".join(capsys.readouterr().out.split())
    assert "80 % interval: 600 ms to 800 ms (known device)" in text
    assert (
        "gpt2, batch 8 on a100-pcie-40gb, pytorch-eager (a table): 100 ms measured, forecast 5.0 %"
        " too short" in text
    )


def test_length_money_and_energy_are_told(step, capsys):
    print_forecast(step(**LONG))
    assert (
        "347 days, 1.00 million steps, $25,000 at $2.95 an hour, 21.1 MWh at 700 W"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0, 3.0])
def test_bars_are_as_wide_as_their_room(share):
    assert len(bar(share, 17)) == 17


def test_several_devices_tell_their_layout_their_traffic_and_their_stages(spread, capsys):
    print_forecast(spread())
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "llama-3-8b on 16 × h100-sxm5",
        "tensor 2 with sequence parallel, pipeline 4 (1f1b), data 2, ZeRO 1; 8 micro-batches of 1",
        "700 a device",
        "Memory of the fullest device",
        "tensor: a device sends 40.0 GB a step, 30.0 ms of it exposed",
        "pipeline: a device sends 1.00 GB a step, all of it hidden",
        "pipeline bubble: 20 % of the step",
        "Memory by pipeline stage",
        "23.3 GiB",
    ):
        assert words in text, words


def test_what_several_devices_lose_is_in_the_table_that_sums_to_the_step(spread, capsys):
    print_forecast(spread())
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if "bound by" in line)
    end = next(i for i, line in enumerate(lines) if line.strip().startswith("total"))
    rows = "\n".join(lines[start:end])
    assert all(words in rows for words in ("sent: tensor", "sent: data", "pipeline bubble"))
    shares = [float(line.split("%")[0].split()[-1]) for line in lines[start + 1 : end]]
    assert sum(shares) == pytest.approx(100, abs=0.5 * len(shares))


@pytest.mark.parametrize("stages", [1, 4, 40])
@pytest.mark.parametrize("width", [76, 80, 132])
def test_text_of_several_devices_is_no_wider_than_the_terminal(
    spread, stages, width, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", str(width))
    ranks = (spread().ranks * 10)[:stages]
    forecast = spread(ranks=ranks, system="dgx-h100")
    print_forecast(forecast)
    print_memory(forecast)
    print_comparison([forecast, spread()])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= width


def test_what_nothing_hides_is_told_apart_from_launches(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nlike = "pytorch-eager"\nabout = "mine"\nsource = "a test"\nstep_s = 0.05\n'
    )
    forecast = predict(model="gpt2", device="h100", batch=1, stack=str(path))
    print_forecast(forecast)
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "of the host to launch kernels, then " in text
        and "between steps, which nothing hides" in text
    )
    assert "is host time between steps, which a larger batch would amortise" in forecast.diagnosis
