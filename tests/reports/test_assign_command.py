"""`roofcast assign` as a person types it."""

import csv
import json

import pytest
from click.testing import CliRunner

from roofcast import predict
from roofcast.reports.command import main

JOBS = """
[[jobs]]
name = "chat"
model = "llama-2-7b"
tokens = "2B"
batch = 64
deadline = "4d"
priority = 2

[[jobs]]
model = "gpt2"
tokens = "5B"
batch = 64

[[jobs]]
name = "longer"
model = "gpt2"
tokens = 10e9
batch = 64
deadline = "12h"
"""
POOL = """
[devices]
h100-sxm5 = 8
l40s = {count = 2, usd-per-hour = 1.0}
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(jobs=JOBS, pool=POOL):
        (tmp_path / "jobs.toml").write_text(jobs, encoding="utf-8")
        (tmp_path / "pool.toml").write_text(pool, encoding="utf-8")

    write()
    return write


def run(*words, columns="80"):
    return CliRunner(env={"COLUMNS": columns}).invoke(
        main, ("assign", "jobs.toml", "--pool", "pool.toml", *words)
    )


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    """The JSON of the plan."""
    place = tmp_path_factory.mktemp("assign")
    (place / "jobs.toml").write_text(JOBS, encoding="utf-8")
    (place / "pool.toml").write_text(POOL, encoding="utf-8")
    words = ("assign", str(place / "jobs.toml"), "--pool", str(place / "pool.toml"), "--json")
    return json.loads(CliRunner().invoke(main, words).stdout)


def test_every_time_of_a_plan_is_that_of_predict(answer):
    assert len(answer["plan"]) == 3 and not answer["left"]
    lengths = {"chat": 2e9, "2 gpt2": 5e9, "longer": 10e9}
    model = {"chat": "llama-2-7b"}
    for each in answer["plan"]:
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in each["options"].items()}
        forecast = predict(
            model.get(each["job"], "gpt2"), each["device"], batch=each["batch"],
            tokens=lengths[each["job"]], **options,
        )  # fmt: skip
        assert forecast.devices == each["devices"] and forecast.memory.fits
        assert each["time_s"] == pytest.approx(forecast.time_to_train_s, rel=1e-9)
        assert each["end_s"] == pytest.approx(each["start_s"] + each["time_s"])
        usd = 1.0 if each["device"] == "l40s" else forecast.price_usd_per_hour
        assert each["cost_usd"] == pytest.approx(
            usd * each["devices"] * each["time_s"] / 3600, rel=1e-9
        )
        if each["deadline_s"] is not None:
            assert each["end_s"] <= each["deadline_s"]
    assert answer["total"]["makespan_s"] == max(each["end_s"] for each in answer["plan"])
    assert answer["total"]["makespan_s"] <= answer["greedy"]["makespan_s"]


@pytest.mark.parametrize("columns", ["60", "120"])
def test_the_page_fits_the_terminal_and_the_files_hold_the_plan(files, columns):
    result = run("-o", "plan.csv", "--plot", "gantt.png", columns=columns)
    assert result.exit_code == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= int(columns)
    for words in ("this plan", "greedy", "chat", "8 × h100-sxm5", "price of l40s: your price"):
        assert words in result.stdout
    with open("plan.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["job"] for row in rows} == {"chat", "2 gpt2", "longer"}
    with open("gantt.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_a_job_that_the_pool_cannot_do_is_refused_with_what_it_lacks(files):
    large = '[[jobs]]\nname = "big"\nmodel = "llama-3-70b"\ntokens = "1B"\nbatch = 64\n'
    late = '[[jobs]]\nname = "late"\nmodel = "gpt2"\ntokens = "1T"\nbatch = 64\ndeadline = "1h"\n'
    small = '[[jobs]]\nname = "small"\nmodel = "gpt2"\ntokens = "1B"\nbatch = 64\n'
    files(large + late + small, "[devices]\nl40s = 2\n")
    found = json.loads(run("--json").stdout)
    assert [each["job"] for each in found["plan"]] == ["small"]
    why = {each["job"]: each for each in found["left"]}
    assert "l40s: weights, gradients and states take" in why["big"]["why"]
    assert "2 there" in why["big"]["why"] and why["big"]["refused"]
    assert "too small for its deadline" in why["late"]["why"] and why["late"]["refused"]
    text = " ".join(run().stdout.split())
    assert "Refused" in text and "big: no device of the pool can run it" in text
    files(large, "[devices]\nl40s = 2\n")
    result = run()
    assert result.exit_code == 2 and "job big: no device of the pool can run it" in result.stderr


def test_jobs_of_less_priority_are_left_out_where_time_is_short(files):
    one = '[[jobs]]\nname = "{}"\nmodel = "gpt2"\ntokens = "5B"\nbatch = 64\npriority = {}\n'
    one += 'deadline = "9h"\n'
    files(one.format("minor", 1) + one.format("major", 5), "[devices]\nh100-sxm5 = 1\n")
    found = json.loads(run("--json").stdout)
    assert [each["job"] for each in found["plan"]] == ["major"]
    (left,) = found["left"]
    assert left["job"] == "minor" and not left["refused"] and "more priority" in left["why"]
    assert found["total"]["unfinished_priority"] == 1


def test_the_least_cost_needs_prices(files):
    files(pool="[devices]\nh100-sxm5 = 8\ntpu-v7 = 4\n")
    result = run("--for", "cost")
    assert result.exit_code == 2 and "no price is known of tpu-v7" in result.stderr
    found = json.loads(run("--json").stdout)
    held = {each["device"]: each for each in found["pool"]}
    assert held["tpu-v7"]["price"] == "no price is known"
    assert held["h100-sxm5"]["price"].endswith("hwdb/prices")


WRONG = [
    ({"jobs": "x = 1"}, "wanted tables [[jobs]]"),
    ({"jobs": "[[jobs]]\ntokens = 1"}, "job 1: no model"),
    ({"jobs": '[[jobs]]\nmodel = "gpt2"'}, "how long is it?"),
    ({"jobs": JOBS + "tp = 2"}, "job 'longer': tp is decided by the plan"),
    ({"jobs": JOBS + "bacth = 2"}, "no key 'bacth'"),
    ({"jobs": JOBS.replace('"4d"', '"soon"')}, "job 'chat': deadline 'soon'"),
    ({"jobs": JOBS.replace("priority = 2", "priority = -2")}, "priority -2"),
    ({"jobs": JOBS.replace('"longer"', '"chat"')}, "two jobs are called 'chat'"),
    ({"jobs": JOBS.replace('"2B"', '"2 kg"')}, "job chat: "),
    ({"jobs": '[[jobs]]\nmodel = "gtp2"\ntokens = 1e9'}, "gpt2"),
    ({"pool": "h100-sxm5 = 8"}, "wanted one table [devices]"),
    ({"pool": "[devices]\nh100-sxm5 = 0"}, "count 0"),
    ({"pool": "[devices]\nh100-sxm5 = {count = 8, per-node = 9}"}, "per-node 9"),
    ({"pool": "[devices]\nh100-sxm5 = {count = 8, usd-per-hour = -1}"}, "not a price"),
    ({"pool": "[devices]\nh100-sxm5 = 8\nh100 = 8"}, "there twice"),
    ({"pool": "[devices]\nh100-sxm6 = 8"}, "h100-sxm5"),
]


@pytest.mark.parametrize(("written", "says"), WRONG, ids=[says for _, says in WRONG])
def test_wrong_input_is_one_line(files, written, says):
    files(**written)
    result = run()
    assert result.exit_code == 2 and says in result.stderr, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
