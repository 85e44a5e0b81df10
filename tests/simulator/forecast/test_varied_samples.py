"""Samples of different lengths make one forecast: step, memory, run, remedies, searches agree."""

import json
import re
from itertools import product

import msgspec
import pytest
from click.testing import CliRunner

from roofcast import predict
from roofcast.reports.command import main
from roofcast.simulator.choose.batches import FINE_TUNING, TUNES, run_batch
from roofcast.simulator.choose.chosen import choose
from roofcast.simulator.choose.search import search_layouts
from roofcast.simulator.choose.wanted import Wanted
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.lengths import read
from roofcast.simulator.forecast.scenario import Scenario

GPT2 = {"model": "gpt2", "device": "a100-sxm4-80gb", "batch": 8, "lengths": "100,1024"}
RUNS = [{"samples": "50k"}, {"tokens": "20M"}, {"samples": "50k", "epochs": 3.0}]
LENGTHS = read("100,1024")


@pytest.mark.parametrize("run", RUNS, ids=str)
@pytest.mark.parametrize("packing", [False, True])
def test_a_run_takes_the_steps_that_its_samples_need(run, packing):
    f = predict(**GPT2, **run, packing=packing)
    tokens = 20e6 if "tokens" in run else 50e3 * run.get("epochs", 1) * LENGTHS.mean
    assert f.steps * f.tokens_per_step == pytest.approx(tokens, rel=1e-9)
    assert f.steps * f.samples_per_step == pytest.approx(tokens / LENGTHS.mean, rel=1e-9)
    assert f.tokens_per_s * f.time_to_train_s == pytest.approx(tokens, rel=1e-9)
    assert f.samples_per_step == pytest.approx(8 * 1024 / LENGTHS.mean if packing else 8)
    c = f.campaign  # the whole run is made of the same steps
    assert c.steps == f.steps and c.steps_s == pytest.approx(f.time_to_train_s)
    assert f.cost_usd == pytest.approx(f.time_to_train_s / 3600 * f.price_usd_per_hour)
    assert f.energy_by_scope_j["board"] == pytest.approx(f.energy_j)
    assert f.energy_j == pytest.approx(f.steps * f.step_energy_j)


def test_an_evaluation_reads_samples_and_not_sequences():
    rule = {"eval_every": 10, "eval_samples": 1000}
    f = predict(**GPT2, samples="50k", packing=True, campaign=rule)
    forward = f.forward_s / (f.forward_s + f.backward_s)
    each = 1000 / f.samples_per_step * f.step_time_s * forward
    assert f.campaign.eval_s == pytest.approx(f.steps // 10 * each)


@pytest.mark.parametrize("more", [{}, {"devices": 8, "zero": 3}, {"devices": 4, "pp": 2}], ids=str)
def test_memory_is_of_the_longest_and_time_of_the_mean_micro_batch(more):
    asked = GPT2 | {"batch": 16} | more
    f = predict(**asked)
    micro = f.layout.micro_batch if f.layout else 16
    fixed = {"batch": 16, "micro_batch": micro if more else None, "lengths": None}
    longest = predict(**asked | fixed, sequence=1024)
    mean = predict(**asked | fixed, sequence=round(LENGTHS.padded(micro)))
    assert f.memory == longest.memory and f.ranks == longest.ranks
    assert f.saved_bytes == longest.saved_bytes
    assert [x.saved_bytes for x in f.layers] == [x.saved_bytes for x in longest.layers]
    assert f.step_time_s == mean.step_time_s and f.flops_forward == mean.flops_forward
    used = {x.name: x.used for x in f.limits}["memory capacity"]
    assert used == f.memory.peak_bytes / f.memory.capacity_bytes
    rate = f.tokens_per_s_per_device
    assert rate is None or rate * f.devices == pytest.approx(f.tokens_per_s)


def test_what_ifs_change_the_step_that_is_shown():
    f, mean = (
        predict(**GPT2),
        predict(**GPT2 | {"lengths": None}, sequence=round(LENGTHS.padded(8))),
    )
    free, plain = ({r.limit: r for r in x.with_remedies().remedies if r.limit} for x in (f, mean))
    assert free.keys() == plain.keys()
    for name, remedy in free.items():
        assert remedy.saved_s == pytest.approx(plain[name].saved_s, abs=1e-9), name
    every = {r.name: r for r in f.with_remedies().remedies}
    packed = predict(**GPT2, packing=True)
    saved = f.step_time_s - packed.step_time_s * f.samples_per_step / packed.samples_per_step
    assert every["samples packed into whole sequences"].saved_s == pytest.approx(saved)
    half = predict(**GPT2, micro_batch=4)
    less = every["micro-batches of 4: less padding"]
    assert less.step_time_s == half.step_time_s and less.peak_bytes == half.memory.peak_bytes


def test_what_does_not_fit_is_said_of_the_longest():
    f = predict("gpt2-xl", "rtx-4090", batch=16, lengths="60,1024", lora=8)
    assert not f.memory.fits and "does not fit" in f.diagnosis


@pytest.mark.parametrize("packing", [False, True])
def test_a_search_finds_what_predict_forecasts(packing):
    degrees = product((1, 2), (1, 2), (1, 2), (1, 2), (0, 3), (1, 4))
    names = ("tp", "pp", "cp", "dp", "zero", "micro_batch")
    shapes = [dict(zip(names, each, strict=True)) for each in degrees]
    shapes = [s | {"devices": s["tp"] * s["pp"] * s["cp"] * s["dp"]} for s in shapes]
    asked = Scenario(model="llama-3.2-1b", device="h100-sxm5", batch=8, lengths="400,2048",
                     packing=packing)  # fmt: skip
    found = search_layouts(asked, shapes)
    for i in range(0, len(shapes), 5):
        f = forecast(msgspec.structs.replace(asked, **shapes[i]))
        assert found.step_s[i] == pytest.approx(f.step_time_s, rel=1e-9), shapes[i]
        assert found.peak_bytes[i] == pytest.approx(f.memory.peak_bytes, rel=1e-9), shapes[i]


@pytest.mark.parametrize("packing", [False, True])
def test_a_choice_is_of_the_run_that_predict_forecasts(packing):
    asked = Scenario(model="gpt2", device="", lengths="100,1024", packing=packing, samples="500k",
                     batch=64)  # fmt: skip
    best = choose(asked, ["a100-sxm4-80gb"], Wanted(devices=2), 1).choices[0]
    f = forecast(msgspec.structs.replace(asked, device=best.device, **best.options))
    assert best.step_time_s == pytest.approx(f.step_time_s)
    assert best.steps_s == pytest.approx(f.time_to_train_s)
    assert best.time_s == pytest.approx(f.campaign.time_s) and best.rate == f.tokens_per_s


@pytest.mark.parametrize("field", TUNES)
def test_fine_tuning_takes_one_batch_however_long_the_run(field):
    value = 8 if field in ("lora", "prompt_tuning", "prefix_tuning") else "nf4"
    for run in ({}, {"samples": "50k"}, {"tokens": "1T"}):
        s = Scenario(model="llama-3-8b", device="", **{field: value}, **run)
        assert run_batch(s, "sequence", 2048, 8e9)[0] == FINE_TUNING


def test_pages_and_json_say_the_same_run(tmp_path):
    options = ["gpt2", "--on", "a100-sxm4-80gb", "--batch", "8", "--lengths", "100,1024",
               "--samples", "50k", "--packing"]  # fmt: skip
    run, path = CliRunner(), str(tmp_path / "saved.toml")
    page = run.invoke(main, ["predict", *options, "--save", path]).output
    steps = set(re.findall(r"([\d,]+)\s+steps", page))
    found = json.loads(run.invoke(main, ["predict", *options, "--json"]).output)
    assert steps == {f"{round(found['steps']):,}"} and found["campaign"]["steps"] == found["steps"]
    compared = json.loads(run.invoke(main, ["compare", path, path, "--json"]).output)
    assert compared["scenarios"][0]["time_to_train_s"] == found["time_to_train_s"]
