"""How well forecasts tell layouts that fit from layouts that do not, on a table of nanotron runs:
`python benchmarks/playbook_memory.py playbook_memory.csv.gz`.

The table holds the layouts of the Ultra-Scale Playbook (Hugging Face, 2025: Llama-like models of 1B
and 8B on 8 to 512 H100, a million tokens per step). Each row has `model`, `config` ("dp4 tp2 pp1
mbs2 zero1 seq4096"), `n_devices`, and either `mem_gib`, the peak that the run allocated, or a mark
in `oom`: the figure marks runs that crashed and runs that ran out of memory alike, so part of the
marks is no statement about memory. Architecture: scripts/scaling_benchmarks.py of
huggingface/nanotron. Not told in the figure, and taken here: sequence parallelism with tp, AdamW
with fp32 master weights, no recomputation, one-forward-one-backward pipelines.
"""

import argparse
import csv
import gzip
import re
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured.training import LlmRun, run
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.result import MemoryForecast

SEQUENCES = 256  # of 4096 tokens: a million tokens per step
GIB = 2.0**30
SHARED = {
    "device": "H100-SXM5-80GB", "heads": "32", "kv_heads": "32", "vocab": "131072",
    "activation": "swiglu", "seq_len": "4096", "global_batch_seqs": f"{SEQUENCES}",
    "recompute": "none", "dtype": "bf16", "framework": "nanotron", "memory_kind": "allocated",
}  # fmt: skip
MODELS = {
    "llama-1B": {"layers": "16", "hidden": "2048", "ffn_hidden": "8192", "tied_embeddings": "yes"},
    "llama-8B": {"layers": "32", "hidden": "4096", "ffn_hidden": "14336", "tied_embeddings": "no"},
}


class Told(NamedTuple):
    """A layout of the table and what is forecast of it."""

    row: dict[str, str]
    run: LlmRun
    memory: MemoryForecast

    @property
    def allocated_gib(self) -> float:
        """Forecast peak without what the framework adds, as the table measured it [GiB]."""
        return (self.memory.peak_bytes - self.memory.framework_bytes) / GIB


def told(path: str) -> Iterator[Told | None]:
    """The rows of the table; None for one that has no forecast."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            degrees = dict(re.findall(r"\b([a-z]+?)(\d+)\b", row["config"]))
            found = run(
                {
                    **SHARED,
                    **MODELS[row["model"]],
                    "model_name": row["model"],
                    "n_devices": row["n_devices"],
                    "micro_batch": degrees["mbs"],
                    "tp": degrees["tp"],
                    "pp": degrees["pp"],
                    "zero_stage": degrees["zero"],
                    "sp": "yes" if degrees["tp"] != "1" else "no",
                }
            )
            try:
                assert found.scenario is not None, found.refused
                yield Told(row, found, forecast(found.scenario).memory)
            except RoofcastError:
                yield None


def main() -> None:
    """Print the shares told right, and the error of the memory of the layouts that ran."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table")
    rows = list(told(parser.parse_args().table))
    known = [t for t in rows if t is not None]
    marked = [t for t in known if t.row["oom"]]
    ran = [t for t in known if not t.row["oom"]]
    right = sum(t.memory.fits is False for t in marked) / len(marked)
    fit = sum(t.memory.fits is True for t in ran) / len(ran)
    small = sum(t.allocated_gib < 20.0 for t in marked)
    print(f"layouts: {len(rows)}, of them {len(rows) - len(known)} without a forecast")
    print(f"marked as crashed or out of memory: {len(marked)}, forecast not to fit: {right:.1%}")
    print(f"  (of the marked, {small} are forecast to need less than 20 GiB)")
    print(f"ran: {len(ran)}, forecast to fit: {fit:.1%}")
    print(f"mean of the two: {(right + fit) / 2:.1%}")
    for name in (*MODELS, ""):
        errors = [
            t.allocated_gib / float(t.row["mem_gib"]) - 1.0 for t in ran if name in t.row["model"]
        ]
        typical = median(abs(e) for e in errors)
        print(f"memory of {name or 'all'}: median {median(errors):+.1%}, of |error| {typical:.1%}")


if __name__ == "__main__":
    main()
