"""The printed text of a forecast: complete, consistent, no wider than the terminal."""

import re

import msgspec
import pytest

from roofcast import predict
from roofcast.reports.format import seconds, si
from roofcast.reports.pages.asked import INTERVALS, NARROWER, interval_basis
from roofcast.reports.pages.comparison import print_comparison
from roofcast.reports.pages.forecast import print_forecast
from roofcast.reports.pages.layer_table import by_kind
from roofcast.reports.pages.memory import bar, kinds, print_memory, verdict
from roofcast.simulator.forecast.interval import effects
from roofcast.simulator.forecast.result import Near

LONG = dict(
    steps=1e6,
    time_to_train_s=3e7,
    cost_usd=2.5e4,
    price_usd_per_hour=2.95,
    energy_j=7.6e10,
    power_w=700.0,
    power_scope="share of TDP",
)
UNKNOWN = dict(mfu=None, hfu=None, tokens_per_s=None)
FORECASTS = {
    "training": {},
    "small": dict(batch=1, sequence=16, layers=2),
    "too large": dict(batch=64),
    "whole run": LONG,
    "inference": dict(mode="infer", optimizer=None),
    "rates unknown": UNKNOWN,
}


def one_line(capsys):
    """What was printed, with single spaces."""
    return " ".join(capsys.readouterr().out.split())


def table_of(capsys):
    """The lines of the layer table: rows and total."""
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if "bound by" in line)
    end = next(i for i, line in enumerate(lines) if line.strip().startswith("total"))
    return lines[start + 1 : end], lines[end]


def shares(rows):
    """The shares of the step in rows of the layer table [%]."""
    return [float(line.split("%")[0].split()[-1]) for line in rows]


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


@pytest.mark.parametrize("width", [50, 60, 80, 132])
def test_the_layer_table_has_names_and_times_at_any_width(step, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    print_forecast(step())
    rows, _ = table_of(capsys)
    assert any(row.split()[0].endswith("mlp.down_proj") for row in rows)
    assert all("%" in row for row in rows)


@pytest.mark.parametrize("width", [60, 80, 132])
def test_a_comparison_names_every_device_and_cost(step, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    print_comparison([step(**LONG), step("rtx-3090", **LONG)])
    text = capsys.readouterr().out
    for words in ("h100-sxm5", "rtx-3090", "$25,000", "347 days", "whole run", "cost"):
        assert words in text, words


def test_a_comparison_has_the_interval_of_every_device(step, capsys):
    """Whether two devices differ is told by their intervals."""
    print_comparison([step(low_s=0.4, high_s=0.725), step("rtx-3090")])
    text = " ".join(capsys.readouterr().out.split())
    assert "400 ms to 725 ms" in text
    assert "80 % interval: of the step" in text and "printed with one --on alone" in text


@pytest.mark.parametrize("width", range(30, 90, 3))
def test_no_rate_of_the_headline_is_broken(spread, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    print_forecast(spread(recompute="full", mfu=0.512, hfu=0.61))
    lines = capsys.readouterr().out.splitlines()
    for rate in ("1.50 s per step", "700 tokens/s per device", "MFU 51 %", "HFU 61 %"):
        assert any(rate in line for line in lines), rate


def test_shares_of_the_table_sum_to_the_step(forecast, capsys):
    print_forecast(forecast)
    rows, total = table_of(capsys)
    assert sum(shares(rows)) == pytest.approx(100, abs=0.5 * len(rows))
    assert "5 other rows" in rows[-2] and "optimizer" in rows[-1]
    assert "702 ms" in total


def test_layers_are_printed_without_the_optimizer_update(step, capsys):
    """Rows: forward and backward. The update is a row of its own, with its FLOP and bytes."""
    f = step(layers=1, sequence=512)
    print_forecast(f)
    rows, total = table_of(capsys)
    head = next(row for row in rows if "lm_head" in row)
    layer = next(layer for layer in f.layers if layer.name == "lm_head")
    assert layer.update_s > 0 and seconds(layer.forward_s + layer.backward_s) in head
    assert seconds(f.update_s) in rows[-1] and si(28.0 * f.parameters, "B") in rows[-1]
    moved = sum(layer.bytes for layer in f.layers)
    assert si(moved, "B") in total


@pytest.mark.parametrize("asked", FORECASTS.values(), ids=FORECASTS)
def test_shares_by_op_sum_to_the_step(step, spread, asked):
    for forecast in (step(**asked), spread(**asked), step(**asked, between_steps_s=0.01)):
        named = re.findall(r"(-?[\d.]+).%", by_kind(forecast))
        assert sum(map(float, named)) == pytest.approx(100, abs=0.5 * len(named))
    assert all(kind in by_kind(spread()) for kind in ("optimizer", "communication", "waiting"))


def test_a_step_that_does_not_fit_is_marked_in_the_headline(step, capsys):
    print_forecast(step(batch=64))
    headline = " ".join(capsys.readouterr().out.partition("forward")[0].split())
    assert "does not fit: needs 3.90 TiB per device, capacity 80.0 GiB" in headline
    assert headline.endswith("times are as if it did")


def test_a_changed_device_is_named_in_the_title(step, capsys):
    changed = step(assumptions=("hypothetical: memory.bandwidth 3.35 TB/s -> 8 TB/s",))
    print_forecast(changed)
    print_memory(changed)
    print_comparison([changed, changed])
    text = one_line(capsys)
    assert text.count("h100-sxm5 with changes: ") == 2 and "2 devices with changes" in text


def test_inference_is_a_pass(step, capsys):
    print_forecast(step(mode="infer", optimizer=None))
    text = one_line(capsys)
    assert "one inference pass" in text and "per pass" in text and "per step" not in text


def test_waiting_for_the_host_has_its_own_row(step, capsys):
    print_forecast(step(step_time_s=1.2 * step().step_time_s))
    assert "waiting for the host" in capsys.readouterr().out


def test_launches_are_overlapped_or_limit_the_step(step, capsys):
    print_forecast(step())
    assert "host launch time 21.0 ms, overlapped" in one_line(capsys)
    layers = tuple(msgspec.structs.replace(layer, bound="host") for layer in step().layers)
    print_forecast(msgspec.structs.replace(step(), layers=layers))
    assert "host launch time 21.0 ms, the bottleneck" in one_line(capsys)


def test_launches_on_a_cpu_are_part_of_the_step(step, capsys):
    forecast = msgspec.structs.replace(step(), device="xeon-8480")
    print_forecast(forecast)
    assert "host launch time 21.0 ms, included in these" in one_line(capsys)


def test_kinds_of_memory_sum_to_the_peak(forecast):
    total = sum(value for _, value in kinds(forecast))
    assert total == pytest.approx(forecast.memory.peak_bytes)


def test_the_verdict_names_need_capacity_and_cure(forecast):
    def with_memory(**changes):
        memory = msgspec.structs.replace(forecast.memory, **changes)
        return verdict(msgspec.structs.replace(forecast, memory=memory))

    text = verdict(forecast)
    assert text.startswith("does not fit: needs 182 GiB per device, capacity 80.0 GiB; ")
    assert "optimizer" in text
    assert "largest batch that fits: 3; --recompute full would reduce activations" in with_memory(
        capacity_bytes=190e9, largest_batch=3
    )
    assert with_memory(capacity_bytes=288e9, fits=True, largest_batch=2).endswith(
        "of 268 GiB; largest batch that fits: 2"
    )


def test_an_unknown_capacity_is_stated(forecast):
    memory = msgspec.structs.replace(forecast.memory, capacity_bytes=None, fits=None)
    text = verdict(msgspec.structs.replace(forecast, memory=memory))
    assert text.endswith("the device's capacity is unknown")


def test_the_interval_and_the_nearest_runs_are_printed(step, capsys):
    near = Near(
        name="gpt2, batch 8",
        device="a100-pcie-40gb",
        stack="pytorch-eager",
        source="a table",
        measured_s=0.1,
        error=-0.05,
    )
    known = "known device, another stack"
    print_forecast(step(low_s=0.602, high_s=0.798, interval_class=known, nearest=(near,)))
    text = one_line(capsys)
    spread = f"-14 to +14 %: {INTERVALS[known]}; {NARROWER}"
    assert f"80 % prediction interval: 602 ms to 798 ms ({spread})" in text
    assert (
        "gpt2, batch 8 on a100-pcie-40gb, stack pytorch-eager (a table): measured 100 ms per step"
        in text
    )
    assert "measured 100 ms per step, forecast 5.0 % too short" in text


def test_every_class_of_interval_has_a_text():
    assert set(effects().classes) == set(INTERVALS)


def test_the_interval_says_that_own_runs_calibrate_it(step):
    found = step(low_s=0.63, high_s=0.77, interval_class="a new class", own_runs=2)
    assert interval_basis(found) == "-10 to +10 %: a new class; calibrated on 2 of your runs"


def test_duration_cost_and_energy_are_printed(step, capsys):
    print_forecast(step(**LONG))
    text = one_line(capsys)
    assert "347 days of steps (without data loading, evaluation and restarts)" in text
    assert "1.00 million steps, $25,000 at $2.95 per device-hour, 21.1 MWh" in text


def test_energy_is_told_by_scope(step, capsys):
    scopes = ("board", "accelerator", "node", "site")
    modelled = {"power_w": 622.4, "power_scope": "board", "step_energy_j": 341.0}
    fields = ("power_by_scope_w", "step_energy_by_scope_j", "energy_by_scope_j")
    for field, scale in zip(fields, (600.0, 300.0, 7.2e10), strict=True):
        modelled[field] = {scope: scale * (1 + 0.5 * i) for i, scope in enumerate(scopes)}
    carbon = {"carbon_kg": 37020.0, "carbon_g_per_kwh": 56.0, "region": "FRA", "embodied_kg": 5.0}
    print_forecast(step(**(LONG | modelled | carbon), pue=1.54, site="average", clock_share=0.84))
    text = one_line(capsys)
    assert "power 622 W per board, 341 J of the boards per step; mean clock 84 %" in text
    assert "50.0 MWh at the site (PUE 1.54)" in text and "at most" not in text
    assert "board the device alone 600 W 300 J 20.0 MWh" in text
    assert "37.0 t CO2e at 56 g/kWh (FRA)" in text and "5.00 kg CO2e" in text


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0, 3.0])
def test_bars_are_as_wide_as_their_room(share):
    assert len(bar(share, 17)) == 17


def test_several_devices_print_layout_communication_and_stages(spread, capsys):
    print_forecast(spread())
    text = one_line(capsys)
    for words in (
        "llama-3-8b on 16 × h100-sxm5",
        "global batch 1 ×",
        "TP 2 with SP, PP 4 (1f1b), DP 2, ZeRO 1; 8 micro-batches of 1 sample per DP rank",
        "700 tokens/s per device",
        "Memory at peak, most loaded device (first of 4 pipeline stages)",
        "communication buffers 477 MiB",
        "tensor parallel 40.0 GB 30.0 ms",
        "pipeline parallel 1.00 GB none",
        "pipeline bubble: 20 % of the step",
        "Memory by pipeline stage, per device",
        "23.3 GiB",
    ):
        assert words in text, words


def test_losses_of_several_devices_are_rows_of_a_table_that_sums_to_the_step(spread, capsys):
    print_forecast(spread())
    rows, _ = table_of(capsys)
    text = "\n".join(rows)
    assert all(words in text for words in ("comm: tensor", "comm: data", "pipeline bubble"))
    assert sum(shares(rows)) == pytest.approx(100, abs=0.5 * len(rows))


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


def test_host_time_between_steps_is_separate_from_launches(tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nlike = "pytorch-eager"\nabout = "mine"\nsource = "a test"\nstep_s = 0.05\n'
    )
    forecast = predict(model="gpt2", device="h100", batch=1, stack=str(path))
    print_forecast(forecast)
    text = one_line(capsys)
    assert "host launch time" in text and "host between steps" in text
    assert re.search(r"host time between steps [\d.]+ ms, not overlapped", text)
    assert "is host time between steps, which a larger batch would amortise" in forecast.diagnosis
