"""Memory of published training runs: verdicts, unstated recomputation, and the error of memory."""

import csv
import sys
from pathlib import Path

import pytest

from roofcast import serving
from roofcast.reports.tables import accuracy
from roofcast.scenarios.fits import memory as fit
from roofcast.scenarios.measured import training
from roofcast.simulator.forecast.memory_error import factors

ROW = {
    "n_devices": "128", "device": "H100-SXM5-80GB", "seq_len": "8192", "global_batch_seqs": "256",
    "micro_batch": "2", "model_name": "llama-70b", "layers": "80", "hidden": "8192", "heads": "64",
    "kv_heads": "8", "ffn_hidden": "28672", "vocab": "128256", "activation": "swiglu",
    "dtype": "bf16", "framework": "MaxText", "iter_time_s": "15",
}  # fmt: skip
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def verdicts():
    return accuracy.verdicts()


def test_at_most_one_of_ten_published_runs_that_ran_is_told_not_to_fit(verdicts):
    """Without the 360 runs of one node, all of which fit."""
    several = [v for v in verdicts if v.source != "Megatron-DeepSpeed single node"]
    ran, refused = sum(v.ran for v in several), sum(v.refused for v in several)
    assert ran > 700 and refused / ran < 0.1


@pytest.mark.parametrize(
    ("source", "refused"),
    [("llm-foundry training benchmarks", 0), ("NVIDIA dgxc", 2)],  # 3 % beyond the device
)
def test_runs_of_these_sources_are_not_told_to_exceed_their_devices(verdicts, source, refused):
    found = [v for v in verdicts if v.source.startswith(source)]
    assert found and sum(v.refused for v in found) == refused
    assert all(v.within == v.refused for v in found)


def test_unstated_recomputation_is_the_least_that_fits():
    """The configuration of this run has remat_policy save_qkv_proj: without any recomputation it
    needs five times its device.
    """
    run = training.run(ROW)
    assert run.scenario.recompute == "save_qkv_proj"
    wanted = "recompute save_qkv_proj (not given, none needs 38"
    assert any(a.startswith(wanted) for a in run.assumptions)
    less = training.run({**ROW, "device": "A100-SXM4-40GB"})
    assert less.scenario.recompute == "full"


@pytest.mark.parametrize(
    "changed",
    [{"layers": "8"}, {"recompute": "none"}, {"oom": "yes"}, {"iter_time_s": ""}],
    ids=lambda changed: next(iter(changed)),
)
def test_nothing_is_recomputed_that_fits_is_stated_or_did_not_run(changed):
    assert training.run({**ROW, **changed}).scenario.recompute == "none"


def test_a_run_that_no_recomputation_fits_has_the_one_that_needs_least():
    run = training.run({**ROW, "device": "V100-SXM2-32GB", "n_devices": "8", "framework": "fsdp"})
    assert run.scenario.recompute == "full"
    assert any("not given, and needs" in a for a in run.assumptions)


def test_the_factors_of_memory_are_those_that_the_fit_writes():
    assert fit.PATH.read_text(encoding="utf-8") == fit.text(fit.peaks())


PLAYBOOK = [  # hover texts of the figure of the Ultra-Scale Playbook [GiB]
    ("llama-1B", "8", "dp8 tp1 pp1 mbs2 zero0", 50.2),
    ("llama-1B", "8", "dp8 tp1 pp1 mbs1 zero0", 36.7),
    ("llama-1B", "64", "dp64 tp1 pp1 mbs2 zero1", 34.8),
    ("llama-8B", "128", "dp16 tp8 pp1 mbs4 zero1", 30.9),
    ("llama-8B", "128", "dp16 tp8 pp1 mbs8 zero0", 66.9),
    ("llama-1B", "32", "dp16 tp1 pp2 mbs4 zero1", 41.1),
    ("llama-8B", "64", "dp32 tp1 pp2 mbs1 zero1", 59.1),
]


def test_memory_of_nanotron_layouts(tmp_path, monkeypatch, capsys):
    """What the tensors of a rank need, within the spread of layouts printed twice."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import playbook_memory

    table = tmp_path / "layouts.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "n_devices", "config", "mem_gib", "oom"])
        writer.writerows([m, n, c, gib, ""] for m, n, c, gib in PLAYBOOK)
        writer.writerow(["llama-8B", "8", "dp8 tp1 pp1 mbs4 zero1", "", "crashed or oom"])
    for told in playbook_memory.told(str(table)):
        if told.row["mem_gib"]:
            assert told.allocated_gib == pytest.approx(float(told.row["mem_gib"]), rel=0.1)
    monkeypatch.setattr(sys, "argv", ["playbook_memory.py", str(table)])
    playbook_memory.main()
    assert "mean of the two: 100.0%" in capsys.readouterr().out


def test_the_interval_of_inference_is_that_of_measured_programs():
    """Of programs that generate text, and of starts whose rows no constant has seen."""
    of = [*fit.generating(), *fit.starts()]
    assert {p.source for p in of} >= {"FasterTransformer", "vLLM starts, lmcache"} and len(of) == 29
    low, high = fit.factors(of)
    shipped = factors().infer
    assert (shipped.low, shipped.high) == (
        pytest.approx(low, abs=1e-3),
        pytest.approx(high, abs=1e-3),
    )
    held = [p for p in of if shipped.low <= p.ratio <= shipped.high]
    assert 0.6 * len(of) < len(held) < len(of)
    f = serving("llama-3.1-8b", "h100-sxm5", batch=4)
    assert f.memory.peak_bytes_low == pytest.approx(shipped.low * f.memory.peak_bytes)
    assert "80 % interval" in str(f).split("peak")[1].split("\n")[0]
