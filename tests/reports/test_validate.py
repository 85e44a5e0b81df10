"""roofcast validate and stacks: printed text, and bounds on the errors of forecasts."""

import csv
import json
from typing import NamedTuple

import pytest

from roofcast.reports.command import main
from roofcast.reports.pages import validation as page
from roofcast.reports.tables import validation
from roofcast.scenarios.measured.nets import shipped, shipped_kernels


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def roofcast(capsys):
    """Run the command; return its exit code and what it printed."""

    def run(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as ended:
            main.main(list(arguments))
        return Done(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def checked():
    return validation.check_files(p for p in shipped() if p.parent.name == "runs")


def of(checked, *words):
    rows = [c for c in checked if c.predicted and all(word in c.group for word in words)]
    return validation.summarise(rows, lambda c: ("all",))[0]


def test_error_of_rtx_3090_training_is_below_half_of_the_rooflines(checked):
    found = of(checked, "RTX 3090", "train")
    assert found.rows >= 80
    assert found.mean < 0.5 * found.roofline_mean
    assert found.median <= 0.05 and found.mean <= 0.08


@pytest.mark.parametrize(("words", "median", "mean"), [
    (("RTX 3090", "infer"), 0.045, 0.075),
    (("V100-16GB", "amp-fp16", "channels_last"), 0.17, 0.17),
    (("Intel i9-10940X",), 0.13, 0.17),
])  # fmt: skip
def test_errors_of_single_devices_stay_below_their_limits(checked, words, median, mean):
    words = tuple("nhwc" if w == "channels_last" else w for w in words)
    found = of(checked, *words)
    assert found.median <= median and found.mean <= mean


@pytest.mark.parametrize("device", ["a100-sxm4-80gb", "h100-sxm5"])
def test_error_of_bf16_products_is_below_half_of_the_rooflines(device):
    table = validation.kernels([p for p in shipped_kernels() if "serving" in p.stem])
    rows = table[(table.device == device) & (table.kind == "gemm bfloat16")]
    assert len(rows) == 50
    error, naive = (
        (rows.predicted / rows.seconds - 1).abs(),
        (rows.roofline / rows.seconds - 1).abs(),
    )
    assert error.mean() < 0.5 * naive.mean()


def test_runs_are_grouped_by_their_use_in_fitting(checked):
    some = [c for c in checked if c.predicted][:5]
    shipped = page.Shipped(["fitted", "left out", "fitted", "left out", "fitted"], some[:4])
    found = page.by_status(some, shipped)
    assert [(g.group[1].split(" (")[0], g.rows) for g in found] == [
        ("used for fitting", 3),
        ("read by no fit", 2),
        ("from sources never used for fitting", 4),
    ]


def test_printed_tables_explain_their_columns(roofcast, tmp_path, monkeypatch):
    path = tmp_path / "mine.csv"
    path.write_text(
        "model,device,precision,mode,batch_per_device,step_time_ms\n"
        "resnet50,rtx-3090,amp-fp16,train,64,10500\n"
    )
    for columns in (80, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        out = roofcast("validate", "--runs", str(path)).out
        assert max(map(len, out.splitlines())) <= columns
        words = " ".join(out.split())
        assert "rows median / mean bias roofline inside 80 %" in words
        assert "inside 80 %: percent of the measured times" in words
        assert "10.5 s" in out and "above +" not in out


def test_output_holds_every_row_with_its_forecast(roofcast, tmp_path):
    path = tmp_path / "out.csv"
    assert roofcast("validate", "--runs", str(shipped()[0]), "-o", str(path)).code == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(validation.ADDED) <= set(rows[0])
    for row in rows:
        assert bool(row["refused_because"]) != bool(row["predicted_step_time_s"])
        if row["predicted_step_time_s"]:
            assert (
                float(row["predicted_low_s"])
                <= float(row["predicted_step_time_s"])
                <= float(row["predicted_high_s"])
            )


def test_kernels_of_a_file_are_forecast(roofcast, tmp_path):
    path = tmp_path / "out.csv"
    done = roofcast("validate", "--ops", str(shipped_kernels()[0]), "-o", str(path))
    assert done.code == 0 and "gemm" in done.out
    assert "predicted" in path.read_text().splitlines()[0]


@pytest.mark.parametrize("option", ["--runs", "--ops"])
def test_a_bad_file_is_refused_in_one_line(roofcast, tmp_path, option):
    for content in (None, b"a,b\n1,2\n", b"\x00\xff"):
        path = tmp_path / "bad.csv"
        if content is not None:
            path.write_bytes(content)
        done = roofcast("validate", option, str(path))
        assert done.code == 2 and len(done.err.strip().splitlines()) == 1 and "bad.csv" in done.err


def test_stacks_are_listed_and_shown(roofcast):
    assert "pytorch-eager" in roofcast("stacks").out
    assert "dispatch_s" in roofcast("stacks", "show", "tensorflow").out
    assert json.loads(roofcast("stacks", "--json").out)["stacks"]
    assert roofcast("stacks", "show", "pytorch-eagre").code == 2


def test_runs_on_many_devices_get_their_columns(roofcast, tmp_path):
    from roofcast.scenarios.measured.training import HERE

    target = tmp_path / "out.csv"
    done = roofcast("validate", "--runs", str(HERE / "korthikanti2022.csv"), "-o", str(target))
    assert done.code == 0 and "Korthikanti" in done.out
    with target.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        assert (
            float(row["predicted_low_s"])
            < float(row["predicted_iter_time_s"])
            < float(row["predicted_high_s"])
        )
        assert float(row["predicted_peak_mem_gib"]) > 40 and row["refused_because"] == ""


def test_runs_on_many_devices_as_json(roofcast):
    from roofcast.scenarios.measured.training import HERE

    found = json.loads(roofcast("validate", "--runs", str(HERE / "bloom-log.csv"), "--json").out)[
        "training_runs"
    ]
    assert (
        found["overall"]["rows"] == 2
        and len(found["rows"]) == 2
        and found["sources"][0]["baseline"] is not None
    )


def test_blind_like_leaves_out_in_three_ways_and_says_what_was_refitted(roofcast):
    done = roofcast("validate", "--blind-like", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert set(found["ways"]) == {"source", "device", "software"}
    assert "constants of fits.runs" in found["refitted"]
    for lines in (found["by_kind"], found["by_class"]):
        for way in found["ways"]:
            mine = [line for line in lines if line["way"] == way]
            assert sum(line["rows"] for line in mine if line["name"] != "all") == next(
                line["rows"] for line in mine if line["name"] == "all"
            )
            assert all(0.0 <= line["inside"] <= 1.0 for line in mine)
    assert all(abs(line["bias"]) > 0.1 for line in found["biased_sources"])
    text = roofcast("validate", "--blind-like").out
    assert "Left out by software" in text and "known device and stack" in text


@pytest.mark.parametrize("others", [["--constants"], ["--runs", "x.csv"], ["--plot", "x.png"]])
def test_blind_like_goes_alone(roofcast, others):
    assert roofcast("validate", "--blind-like", *others).code == 2
    assert roofcast("validate", "--refit").code == 2
