"""benchmarks/playbook.py: forecasts beside a table of nanotron's runs."""

import csv
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SHARED = {
    "model_name": "llama-1B", "layers": 16, "hidden": 2048, "heads": 32, "kv_heads": 32,
    "ffn_hidden": 8192, "vocab": 131072, "seq_len": 4096, "activation": "swiglu",
    "tied_embeddings": "yes", "global_batch_seqs": 256, "device": "H100-SXM5-80GB",
    "recompute": "none", "dtype": "bf16", "framework": "nanotron 0.5",
    "memory_kind": "allocated",
}  # fmt: skip
RUNS = [  # hover texts of the figure of the Ultra-Scale Playbook [s, GiB]
    {"n_devices": 8, "tp": 1, "pp": 1, "zero_stage": 0, "micro_batch": 2, "s": 3.265, "gib": 50.2},
    {"n_devices": 16, "tp": 8, "pp": 1, "zero_stage": 0, "micro_batch": 1, "s": 9.422},
    {"n_devices": 16, "tp": 16, "pp": 1, "zero_stage": 0, "micro_batch": 1, "s": 32.67},
    {"n_devices": 16, "tp": 4, "pp": 2, "zero_stage": 1, "micro_batch": 2, "s": 8.036},
    {"n_devices": 128, "tp": 8, "pp": 1, "zero_stage": 1, "micro_batch": 2, "s": 0.690},
]


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import playbook

    return playbook


def table(path: Path, **changes) -> str:
    """The runs as a CSV in the columns of `roofcast validate --runs`."""
    rows = [
        SHARED
        | {k: v for k, v in run.items() if k not in ("s", "gib")}
        | {"id": f"FN{i}", "iter_time_s": run["s"], "peak_mem_gib": run.get("gib", "")}
        | {"sp": "yes" if run["tp"] > 1 else "no", "exclude": "", **changes}
        for i, run in enumerate(RUNS)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_steps_of_nanotron_that_its_host_or_the_network_bounds(benchmark, tmp_path):
    """A plain stack at the layouts where it is far slower than a vendor's: 4.5 ms per layer of one
    micro-batch on one node, 8 over two, 15 in a pipeline over nodes.
    """
    told = list(benchmark.told(table(tmp_path / "runs.csv")))
    assert len(told) == len(RUNS)
    for t in told:
        assert t.time == pytest.approx(1.0, abs=0.2), t.run.row
    assert told[0].memory == pytest.approx(1.0, abs=0.1) and told[1].memory is None


def test_errors_are_printed_by_group_and_rows_are_written(benchmark, tmp_path, monkeypatch, capsys):
    rows = tmp_path / "rows.csv"
    argv = ["playbook.py", table(tmp_path / "runs.csv"), "--rows", str(rows)]
    monkeypatch.setattr(sys, "argv", argv)
    benchmark.main()
    said = capsys.readouterr().out
    assert "5 runs, of them 0 excluded" in said
    assert "| pp 1, up to 256 devices | 4 |" in said and "| pp > 1, tp 4 | 1 |" in said
    with rows.open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(r["measured_s"]) for r in written] == [run["s"] for run in RUNS]
    monkeypatch.setattr(sys, "argv", ["playbook.py", table(tmp_path / "x.csv", exclude="slow")])
    benchmark.main()
    assert "5 runs, of them 5 excluded" in capsys.readouterr().out


def test_a_run_without_a_forecast_is_told(benchmark, tmp_path, capsys):
    assert not list(benchmark.told(table(tmp_path / "runs.csv", device="no such device")))
    assert "FN0: " in capsys.readouterr().out
