"""One table of prices serves predict, choose and assign."""

import json

import pytest
from click.testing import CliRunner

from roofcast import choose, hwdb, predict
from roofcast.hwdb.market import CLASSES, rent, summary
from roofcast.reports.command import main

RUN = {"model": "gpt2", "batch": 64, "tokens": "1B"}


def run(*words):
    return CliRunner(env={"COLUMNS": "80"}).invoke(main, words)


@pytest.mark.parametrize("device", ["h100-sxm5", "l40s", "t4", "rtx-4090", "tpu-v5e"])
def test_predict_and_choose_take_the_same_price(device):
    forecast = predict(device=device, **RUN)
    (choice,) = choose("gpt2", on=[device], devices=1, batch=64, tokens="1B").choices
    assert forecast.price_usd_per_hour == choice.price.median == forecast.price.usd_per_hour
    for mine, theirs in (("of_class", "of_class"), ("newest", "newest"), ("source", "source")):
        assert getattr(forecast.price, mine) == getattr(choice.price, theirs)
    assert forecast.price.of_class in CLASSES and forecast.price.source


def test_a_rent_is_of_the_first_class_with_recent_quotes():
    for name in hwdb.devices():
        found = rent(hwdb.device(name))
        each = [summary(name, "on-demand", of_class) for of_class in CLASSES]
        recent = [s for s in each if s is not None and s.recent]
        if recent:
            assert found == recent[0]
        elif any(each):
            assert not found.recent
        elif found is not None:
            assert found.of_class == "listed"


def test_a_price_in_a_file_or_a_change_goes_before_the_table(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('base = "h100-sxm5"\n[price]\ncloud_usd_per_hour = 1.25\n', encoding="utf-8")
    forecast = predict(device=str(own), **RUN)
    assert (forecast.price_usd_per_hour, forecast.price.of_class) == (1.25, "listed")
    own.write_text('base = "h100-sxm5"\n[memory]\ncapacity = 9e10\n', encoding="utf-8")
    assert predict(device=str(own), **RUN).price == predict(device="h100-sxm5", **RUN).price
    changed = predict(device="h100-sxm5", set={"price.cloud_usd_per_hour": 7.0}, **RUN)
    assert (changed.price_usd_per_hour, changed.price.of_class) == (7.0, "listed")
    given = predict(device="h100-sxm5", price_per_hour=0.5, **RUN)
    assert (given.price_usd_per_hour, given.price.of_class) == (0.5, "yours")


def test_the_page_says_what_the_price_is_of_and_where_there_is_none():
    words = ("predict", "gpt2", "--tokens", "1B", "--on")
    text = " ".join(run(*words, "h100-sxm5").stdout.split())
    found = rent(hwdb.device("h100-sxm5"))
    assert f"median of {found.providers} specialised clouds, {found.newest}" in text
    assert "source: hwdb/prices" in text
    assert "price unknown (--price sets one)" in " ".join(run(*words, "tpu-v7").stdout.split())
    plain = json.loads(run(*words, "tpu-v7", "--json").stdout)
    assert plain["price"] is plain["price_usd_per_hour"] is None


def test_choose_takes_fine_tuning_and_prints_a_command_that_predicts_it():
    words = ("choose", "llama-3-70b", "--tokens", "1B", "--batch", "64", "--on", "h100-sxm5")
    full = json.loads(run(*words, "--devices", "8", "--json").stdout)
    tuned = run(*words, "--devices", "8", "--lora", "16", "--weights", "nf4", "--json")
    few = json.loads(tuned.stdout)
    assert few["scenario"]["lora"] == 16 and few["scenario"]["weights"] == "nf4"
    assert few["smallest"]["devices"] == 1 < full["smallest"]["devices"]
    best = few["choices"][0]
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in best["options"].items()}
    forecast = predict(
        "llama-3-70b", "h100-sxm5", batch=64, tokens="1B", lora=16, weights="nf4", **options
    )
    assert best["time_s"] == pytest.approx(forecast.campaign.time_s)
    text = " ".join(
        run(*words, "--devices", "8", "--lora", "16", "--weights", "nf4").stdout.split()
    )
    assert "--lora 16 --weights nf4" in text


def test_regret_reads_gzipped_runs_as_it_reads_plain_ones(tmp_path):
    import gzip

    head = "n_devices,global_batch_seqs,micro_batch,hidden,heads,layers,seq_len,tp,dp,pp,measured_s"
    layouts = ((1, 8, 1, 0.9), (2, 4, 1, 1.1), (4, 2, 1, 1.3), (2, 2, 2, 1.0))
    rows = [f"8,64,1,2048,16,16,1024,{tp},{dp},{pp},{s}" for tp, dp, pp, s in layouts]
    few = "\n".join([head, *rows, ""]).encode()
    (tmp_path / "own.csv").write_bytes(few)
    (tmp_path / "own.csv.gz").write_bytes(gzip.compress(few))
    plain, packed = (
        run("validate", "--regret", "--runs", str(tmp_path / name), "--json")
        for name in ("own.csv", "own.csv.gz")
    )
    assert plain.exit_code == packed.exit_code == 0, packed.stderr
    assert json.loads(plain.stdout) == json.loads(packed.stdout)
