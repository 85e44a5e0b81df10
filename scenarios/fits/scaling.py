"""Speed per device against the number of devices, forecast and published: docs/scaling.md.

    python -m roofcast.scenarios.fits.scaling [--write docs/scaling.md]

Published: groups of ZeRO-1 and ZeRO-3 runs that differ in the number of devices and the micro-batch
only (fits.overlap). Forecast: one model under ZeRO-1 and ZeRO-3 with the same work per device.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.fits.overlap import groups
from roofcast.scenarios.measured.training import LlmRun
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

DEVICES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
WEAK = (  # model, device, stack, sequence, samples per device
    ("llama-2-7b", "h100-sxm5", "fsdp-torchtitan", 4096, 1),
    ("llama-2-7b", "h100-sxm5", "fsdp-torchtitan", 4096, 4),
    ("llama-2-7b", "a100-sxm4-80gb", "fsdp-eager", 2048, 8),
)
HEAD = """# Speed per device against the number of devices

Written by `python -m roofcast.scenarios.fits.scaling --write docs/scaling.md`. Tokens per second
and device throughout; each device has the same work, whatever their number.

What lowers the speed under ZeRO-3, in the order in which it matters on larger clusters:

- Gathers and scatters are rings through all ranks: their latency grows with the number of devices.
  Beyond some thousand devices it is longer than the compute of a layer. Hybrid sharding (`--shard`)
  avoids that.
- Nodes are not equally fast, and each layer waits for the slowest: 1.5 % of its time with 2 nodes,
  4 % with 8, 8 % with 1024 (fitted to llm-foundry's runs on 8 to 64 devices).
- While a collective runs, its kernels take 22 % of the multiprocessors from compute.
- The first gather of a pass and the last scatter hide behind nothing.
- Nearly all of the bytes of a ring cross the network, from two nodes on.

Against that, each rank updates a smaller part of the weights, which on few nodes can outweigh it.
"""


def measured(run: LlmRun) -> float:
    """Published tokens per second and device."""
    tokens = float(run.row["global_batch_seqs"]) * float(run.row["seq_len"])
    assert run.measured_s, "groups() takes no others"
    return tokens / run.measured_s / float(run.row["n_devices"])


def published_lines() -> Iterator[str]:
    """A line per published run of each group, fewest devices first."""
    yield "| source | model | tokens | devices | micro-batch | published | forecast | error |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for key, runs in groups((1, 3)).items():
        for run in sorted(runs, key=lambda r: float(r.row["n_devices"])):
            assert run.scenario, "groups() takes no others"
            try:
                f = forecast(run.scenario)
            except RoofcastError:
                continue
            assert f.layout and f.tokens_per_s_per_device, "several devices, and a language model"
            of = f"{key[0]}, ZeRO-{f.layout.zero}"
            if f.layout.zero == 1 and f.layout.shard < f.layout.dp:
                of += f" within {f.layout.shard}"
            speed = measured(run)
            yield (
                f"| {of} | {run.row['model_name']}, tp {f.layout.tp} | {run.row['seq_len']} "
                f"| {f.devices} | {f.layout.micro_batch} | {speed:,.0f} "
                f"| {f.tokens_per_s_per_device:,.0f} "
                f"| {100 * (f.tokens_per_s_per_device / speed - 1):+.1f} % |"
            )


def speed(
    zero: int, devices: int, model: str, device: str, stack: str, sequence: int, each: int
) -> float:
    """Forecast tokens per second and device."""
    f = forecast(
        Scenario(
            model=model, device=device, stack=stack, sequence=sequence, dp=devices, zero=zero,
            micro_batch=each, batch=each * devices, precision="bf16",
        )
    )  # fmt: skip
    assert f.tokens_per_s_per_device, "a language model"
    return f.tokens_per_s_per_device


def weak_lines() -> Iterator[str]:
    """A line per number of devices: each case under ZeRO-1 and ZeRO-3."""
    names = [
        f"{m}, {d}, {stack}, {each} x {sequence}: ZeRO-{z}"
        for m, d, stack, sequence, each in WEAK
        for z in (1, 3)
    ]
    yield f"| devices | {' | '.join(names)} |"
    yield f"|---:|{'---:|' * len(names)}"
    for n in DEVICES:
        cells = [f"{speed(z, n, *case):,.0f}" for case in WEAK for z in (1, 3)]
        yield f"| {n:,} | {' | '.join(cells)} |"


def fall_lines() -> Iterator[str]:
    """Mean ratio of speed on most devices to speed on fewest, published and forecast, by source."""
    yield "| source | groups | published | forecast |"
    yield "|---|---:|---:|---:|"
    ratios: dict[str, list[tuple[float, float]]] = {}
    for key, runs in groups((1, 3)).items():
        ends = sorted(runs, key=lambda r: float(r.row["n_devices"]))
        few, many = ends[0], ends[-1]
        assert few.scenario and many.scenario, "groups() takes no others"
        told = [forecast(r.scenario).tokens_per_s_per_device for r in (few, many) if r.scenario]
        assert told[0] and told[1], "language models"
        zero = f"{key[0]}, ZeRO-{few.scenario.zero}"
        ratios.setdefault(zero, []).append((measured(many) / measured(few), told[1] / told[0]))
    for source, pairs in ratios.items():
        seen, forecast_ = (mean(p[i] for p in pairs) for i in (0, 1))
        yield f"| {source} | {len(pairs)} | {seen:.3f} | {forecast_:.3f} |"


def text() -> str:
    """The document."""
    parts = [
        HEAD,
        "## Forecast, ZeRO-1 and ZeRO-3\n",
        *weak_lines(),
        "\n## Speed on most devices over speed on fewest, mean over groups of published runs\n",
        *fall_lines(),
        "\n## Published runs, one by one\n",
        *published_lines(),
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", metavar="FILE", help="write the document; default: print it")
    options = parser.parse_args()
    if options.write:
        Path(options.write).write_text(text(), encoding="utf-8")
    else:
        print(text(), end="")


if __name__ == "__main__":
    main()
