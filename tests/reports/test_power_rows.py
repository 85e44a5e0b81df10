"""`roofcast validate --power` and `roofcast plan` as a person types them."""

import csv
import gzip
import json

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main
from roofcast.scenarios.measured.power_answers import KINDS, answers
from roofcast.scenarios.measured.watts import TABLE

HEAD = (
    "id,kind,device,n_devices,workload,model,batch,power_limit_w,time_s,time_unit,avg_power_w,"
    "energy_j,source_name,source,note,precision,avg_batch,tokens_per_s,utilisation_pct"
)
ROWS = (
    "A,power_cap_training,V100,1,resnet50 on imagenet,resnet50,64,250,1000,,222,,Zeus,f,,,,,",
    "B,power_cap_training,V100,1,resnet50 on imagenet,resnet50,64,150,1200,,149,,Zeus,f,,,,,",
    "C,inference_serving,H100,1,lm-arena-chat,Qwen/Qwen3-8B,64,,,,500,300,ML,g,avg output 600.0,"
    "bfloat16,64,3000,",
    "D,node_power_training,H100-SXM5-80GB,8,MLPerf bert,bert,768,,277,,6606,,smc-dc-power,h,,,,,",
    "E,cpu_load,AMD EPYC 8024P 8-Core Processor,1,\"stress, some_cores\",,,,30,,47,,cc,i,,,,,50",
    "F,pue,Google fleet,,PUE 1.09,,,,,,,,Google,j,,,,,",
    "G,cpu_load,Unknown CPU 12,1,\"stress, all_cores\",,,,30,,47,,cc,i,,,,,50",
    "H,of_the_moon,H100,1,,,,,,,47,,cc,i,,,,,",
)  # fmt: skip


def run(*words):
    return CliRunner().invoke(main, list(words))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "power.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("\n".join((HEAD, *ROWS)) + "\n")
    return path


def test_every_kind_is_forecast_with_its_interval(table, tmp_path):
    out = tmp_path / "out.csv"
    result = run("validate", "--power", str(table), "-o", str(out))
    assert result.exit_code == 0 and "power_cap_training" in result.stdout
    rows = {row["id"]: row for row in csv.DictReader(out.open())}
    for name in "ABCDE":
        low, value, high = (
            float(rows[name][f"predicted_power_w{end}"]) for end in ("_low", "", "_high")
        )
        assert low < value < high and not rows[name]["refused_because"]
        assert abs(value / float(rows[name]["avg_power_w"]) - 1) < 0.4
    assert float(rows["A"]["predicted_time_s"]) == 1000.0  # the anchor
    assert float(rows["B"]["predicted_time_s"]) == pytest.approx(1200.0, rel=0.1)
    assert "highest cap" in rows["B"]["compared"]
    assert rows["F"]["predicted_pue"] == "1.09" and not rows["F"]["refused_because"]
    assert "TDP of this processor is not known" in rows["G"]["refused_because"]
    assert "is not known; known:" in rows["H"]["refused_because"]


def test_json_has_errors_by_kind_and_scope(table):
    found = json.loads(run("validate", "--power", str(table), "--json").stdout)
    by_kind = {line["kind"]: line for line in found["power"]}
    assert by_kind["power_cap_training"]["scope"] == "board"
    assert by_kind["node_power_training"]["scope"] == "accelerator"
    assert set(by_kind) <= {"power_cap_training", *KINDS}


def test_capped_time_and_watts_of_shipped_rows(tmp_path):
    """Zeus, V100 and P100: 5 % in time against the cap, 12 % in watts."""
    time, watts = [], []
    lines = TABLE.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("PO") or "power_cap_training" in line]
    (tmp_path / "caps.csv").write_text("\n".join(kept))
    for each in answers(tmp_path / "caps.csv"):
        row, a = each.row, each.answer
        watts.append(abs(a.power_w / float(row["avg_power_w"]) - 1))
        if not a.anchor:
            time.append(abs(a.time_s / float(row["time_s"]) - 1))
    assert len(watts) == 334
    assert sum(time) / len(time) < 0.05 and sum(watts) / len(watts) < 0.12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("validate", "--power", "nowhere.csv"), "no such file"),
        (("validate", "--power", "x.csv", "--runs", "y.csv"), "goes with -o and --json alone"),
        (("plan", "--budget", "1e23"), "has no unit"),
        (("plan",), "--budget is missing"),
        (("plan", "--budget", "1e22FLOP", "--family", "lama"), "did you mean llama"),
        (("plan", "--budget", "1e22FLOP", "--days", "0"), "positive number of days"),
        (("plan", "--budget", "8xh100-sxm5x3d", "--on", "a100-sxm4-80gb"), "leave --on out"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words, message):
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.output and len(result.output.strip().splitlines()) == 1


def test_plan_prints_the_model_its_loss_and_where():
    words = ("plan", "--budget", "1e19FLOP", "--on", "a100-sxm4-80gb")
    text = " ".join(run(*words).stdout.split())
    for part in ("nats per token", "interval of the law", "1 × a100-sxm4-80gb", "Assumed"):
        assert part in text
    found = json.loads(run(*words, "--json").stdout)
    assert found["plans"][0]["devices"] == 1
