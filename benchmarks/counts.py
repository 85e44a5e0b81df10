"""Our counts beside PyTorch's: `python benchmarks/counts.py COUNTS.csv CONFIGS_FOLDER`.

COUNTS.csv has a row a model, input and precision, counted by PyTorch on fake CUDA tensors: model,
source (hf | timm | custom), input_spec, dtype, attn, device, params, fwd_flops, bwd_flops_groupfix,
saved_activation_bytes, saved_weight_copy_bytes, saved_input_bytes. CONFIGS_FOLDER holds the
config.json of each Hugging Face model as <model>.json.
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

WANTED = (
    "parameters",
    "forward FLOPs",
    "backward FLOPs",
    "saved bytes",
    "saved inputs",
    "weight copies",
)
COLUMNS = (
    "params",
    "fwd_flops",
    "bwd_flops_groupfix",
    "saved_activation_bytes",
    "saved_input_bytes",
    "saved_weight_copy_bytes",
)


def size_of(spec: dict, takes: str) -> tuple[int, int | None]:
    """Batch and length or side of a row's input."""
    shape = next(v for k, v in spec.items() if k not in ("labels", "y"))
    shape = shape if isinstance(shape[0], int) else shape[0]
    if takes == "image" and "pixel_values" in spec:
        shape = spec["pixel_values"]
    return shape[0], shape[-1] if takes != "table" and len(shape) > 1 else None


def counted(row: dict, configs: Path) -> tuple[float, ...]:
    model = resolve(
        str(configs / f"{row['model']}.json") if row["source"] == "hf" else row["model"]
    )
    tape = Tape(
        precision(row["dtype"]),
        implementations={"attention": "eager" if row["attn"] == "eager" else "flash"},
    )
    model.run(tape, *size_of(json.loads(row["input_spec"]), model.takes))
    kept = collections.Counter()
    for _, held, count, kind, _ in tape.saved.values():
        kept[kind] += held * count
    flops = [
        sum(k.matrix * k.count for k in tape.kernels if k.phase == p)
        for p in ("forward", "backward")
    ]
    return (
        sum(w.size * w.count for w in tape.weights),
        *flops,
        sum(kept.values()),
        kept["input"],
        kept["weight_copy"],
    )


def main(path: str, configs: str) -> None:
    exact, worst, rows, skipped = collections.Counter(), collections.defaultdict(float), 0, []
    for row in csv.DictReader(open(path, encoding="utf-8")):
        if row["device"] != "fake-cuda":
            continue
        try:
            ours = counted(row, Path(configs))
        except RoofcastError as error:
            skipped.append(f"{row['model']}: {error}")
            continue
        rows += 1
        for name, column, value in zip(WANTED, COLUMNS, ours, strict=True):
            reference = float(row[column])
            off = abs(value - reference) / max(reference, 1.0)
            exact[name] += off == 0
            worst[name] = max(worst[name], off)
            if off:
                print(
                    f"{row['model']} {row['dtype']} {row['attn']} {row['input_spec']}: {name}"
                    f" {value:.0f}, PyTorch {reference:.0f}"
                )
    print(f"{rows} rows, {len(skipped)} without a model of ours")
    for name in WANTED:
        print(f"{name:16s} {exact[name]} exact, largest difference {100 * worst[name]:.2g} %")
    print(*skipped, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:3])
