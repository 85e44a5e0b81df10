"""Compare counts with those of PyTorch: `python benchmarks/counts.py COUNTS.csv CONFIGS_FOLDER`.

COUNTS.csv has one row per model, input and precision, as PyTorch counts them on fake CUDA tensors:
model, source (hf | timm | custom), input_spec, dtype, attn, device, params, fwd_flops,
bwd_flops_groupfix, saved_activation_bytes, saved_weight_copy_bytes, saved_input_bytes.
CONFIGS_FOLDER holds the config.json of each Hugging Face model as <model>.json. Prints every
difference, and how many rows agree exactly.
"""

import collections
import csv
import json
import sys
from pathlib import Path

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.models import resolve
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

COLUMNS = {  # what is counted -> column of COUNTS.csv, in the order in which `counted` returns it
    "parameters": "params",
    "forward FLOPs": "fwd_flops",
    "backward FLOPs": "bwd_flops_groupfix",
    "saved bytes": "saved_activation_bytes",
    "saved inputs": "saved_input_bytes",
    "weight copies": "saved_weight_copy_bytes",
}


def size_of(spec: dict, takes: str) -> tuple[int, int | None]:
    """Batch of an input, and its sequence length or side; None where it has none."""
    shape = next(v for k, v in spec.items() if k not in ("labels", "y"))
    shape = shape if isinstance(shape[0], int) else shape[0]
    if takes == "image" and "pixel_values" in spec:
        shape = spec["pixel_values"]
    return shape[0], shape[-1] if takes != "table" and len(shape) > 1 else None


def counted(row: dict[str, str], configs: Path) -> tuple[float, ...]:
    """Our counts for a row."""
    config = str(configs / f"{row['model']}.json")
    model = resolve(config if row["source"] == "hf" else row["model"])
    attention = "eager" if row["attn"] == "eager" else "flash"
    tape = Tape(precision(row["dtype"]), implementations={"attention": attention})
    model.run(tape, *size_of(json.loads(row["input_spec"]), model.takes))
    kept: dict[str, float] = collections.Counter()
    for _, held, count, kind, _ in tape.saved.values():
        kept[kind] += held * count
    flops = [
        sum(k.matrix * k.count for k in tape.kernels if k.phase == phase)
        for phase in ("forward", "backward")
    ]
    parameters = sum(w.size * w.count for w in tape.weights)
    return parameters, *flops, sum(kept.values()), kept["input"], kept["weight_copy"]


def main(path: str, configs: str) -> None:
    """Print differences and totals."""
    exact = dict.fromkeys(COLUMNS, 0)
    worst = dict.fromkeys(COLUMNS, 0.0)
    rows, skipped = 0, []
    with open(path, encoding="utf-8", newline="") as file:
        table = [row for row in csv.DictReader(file) if row["device"] == "fake-cuda"]
    for row in table:
        try:
            ours = counted(row, Path(configs))
        except RoofcastError as error:
            skipped.append(f"{row['model']}: {error}")
            continue
        rows += 1
        for (name, column), value in zip(COLUMNS.items(), ours, strict=True):
            reference = float(row[column])
            off = abs(value - reference) / max(reference, 1.0)
            exact[name] += off == 0
            worst[name] = max(worst[name], off)
            if off:
                what = f"{row['model']} {row['dtype']} {row['attn']} {row['input_spec']}"
                print(f"{what}: {name} {value:.0f}, PyTorch {reference:.0f}")
    print(f"{rows} rows, {len(skipped)} of models that are not supported")
    for name in COLUMNS:
        print(f"{name:16s} {exact[name]} exact, largest difference {100 * worst[name]:.2g} %")
    print(*skipped, sep="\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
