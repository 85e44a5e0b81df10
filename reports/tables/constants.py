"""Every constant that steers a forecast: what it means, its value, where it stands, and its kind.

The printed figures of devices, links and systems are inputs, not constants; `roofcast devices
show` lists them with their sources.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from roofcast import hwdb
from roofcast.hwdb import collective_constants
from roofcast.hwdb import constants as shipped
from roofcast.reports.tables.code_constants import CONSTANTS as IN_CODE
from roofcast.scenarios.fits import playbook
from roofcast.scenarios.fits.nets import OF_STACKS, STAGES
from roofcast.scenarios.fits.runs import CONSTANTS
from roofcast.simulator.forecast import interval
from roofcast.simulator.parallel.traffic import HIDE
from roofcast.simulator.software import kernels
from roofcast.simulator.software import stack as stacks

KINDS = {
    "fitted": "fitted: a committed script (scenarios/fits) minimises the error of measured times",
    "measured": "measured: taken from a published measurement of that quantity",
    "printed": "printed: taken from a document, or from the source code of a library",
    "chosen": "chosen: set by hand while looking at measured runs or kernels",
    "assumed": "assumed: no measurement was found",
}
PARTS = {
    "kernels": "formulas of kernel times",
    "collectives": "formulas of collectives",
    "families": "what device families achieve",
    "devices": "measured on one device",
    "stacks": "software stacks",
    "code": "in the code of the simulator",
    "overlap": "default overlap of traffic",
    "intervals": "intervals of forecasts",
    "comparison": "comparison with measured kernel calls",
}
ROLES = ("constant", "ceiling", "mean")  # the ceiling: an achieved fraction of a device family
KIND_OF_SOURCE = (  # the first pattern that a source matches tells its kind
    (r"^fit\b|left-out runs$", "fitted"),
    (r"^(assumed|no data|as |equal to|mean of|twice |bf16 x|fp32 GPUs$|share is)", "assumed"),
    (r"^(chosen|set by hand|between|the footprint|RTX 3090 (nets|vision))", "chosen"),
    (r"^printed|NVIDIA/nccl@|scaling-book|documentation", "printed"),
    (
        r"[GT]B/s|FLOP/s|\b(triad|products?|measure\w+|kernels?|flash_perf|weight streaming)\b"
        r"|NeuSight|DeepBench|vidur|gpu-benches|TPU v7x|every A100|pto-isa",
        "measured",
    ),
)
CEILINGS = ("share", "in_switch")  # of the collectives of a family: of its printed bandwidth
OF_RUNS = "fit runs: published training runs (scenarios/measured/published)"
OF_AGES = "fit ages: Dao 2023, FlashAttention-2, Fig. 4 (scenarios/measured/attention)"
AGES = ("flash-1", "triton-2023", "flash-2")  # kernels whose rate is fitted
OF_NANOTRON = "fit playbook: layouts of the Ultra-Scale Playbook, up to 256 H100"
OF_NETS = "fit session: nnU-Net and V-Net, NVIDIA DeepLearningExamples"
# numbers in the profile of a stack: unit; kind where no fit sets it
STATED = {
    "fusion": ("1", "chosen"),
    "dispatch_s": ("s", "chosen"),
    "dispatch_backward": ("1", "chosen"),
    "row_s": ("s", "measured"),
    "factor": ("1", "chosen"),
    "attention": ("1", "chosen"),
    "step_s": ("s", "chosen"),
    "program_s": ("s", "measured"),
    "sync_s": ("s", "chosen"),
    "far_s": ("s", "chosen"),
    "piped_s": ("s", "chosen"),
    "expert_launches": ("launches", "chosen"),
    "module_s": ("s", "measured"),
    "accumulate_bytes": ("bytes", "printed"),
    "bucket_bytes": ("bytes", "printed"),
    "gradient_bytes": ("bytes", "printed"),
    "gather_bytes": ("bytes", "printed"),
    "live_weights": ("weights", "printed"),
    "reduce_bytes": ("bytes", "printed"),
    "framework_bytes": ("bytes", "assumed"),
    "slack": ("1", "assumed"),
    "overlap": ("1", "chosen"),
}
# read by forecasts where a family has none (matmul) or before the family's (the others)
READ = re.compile(r"matmul_|sustained_|stream$|weight_streaming$|exp$")
ACHIEVED = {
    "matmul_": "best matrix product measured, as a fraction of the printed peak",
    "stream": "bandwidth of a streaming kernel, as a fraction of the printed one",
    "weight_streaming": "bandwidth of streamed weights, as a fraction of the printed one",
    "kernel_": "time of the shortest kernel, or from start to start of tiny kernels",
    "all_reduce_latency": "latency of an all-reduce",
    "all_reduce_": "bus bandwidth of an all-reduce at the largest message",
    "latency_": "latency of a cache",
    "host_copy": "bandwidth of a copy from pinned host memory",
    "pair_copy": "bandwidth from one device to one other",
}


OF_CLASSES = {
    "bias": "middle of the errors ln(measured / forecast) of unseen sources",
    "half_width": "half-width around it that holds 80 % of them",
}
COMMON = {  # of all classes: meaning, unit
    "degrees": ("degrees of freedom of Student's t distribution of the errors", "1"),
    "nets": ("half-width of steps other than the training of transformers, over theirs", "1"),
    "source": ("share of a source in the variance of the errors", "1"),
    "model": ("share of a model within a source", "1"),
    "reach": ("ratio of step times, as ln, at which errors of one source are 1/e as alike", "1"),
}


class Constant(NamedTuple):
    """One constant. `value` is a list where the constant is a menu of sizes."""

    kind: str  # one of KINDS
    name: str
    value: float | list[float]
    unit: str
    meaning: str
    source: str
    residual: str = ""  # error of the fit
    part: str = "kernels"  # one of PARTS
    where: str = ""  # file or module
    role: str = "constant"  # one of ROLES
    # False: a measurement in a device file that is only listed, or a constant of "comparison"
    read_by_forecasts: bool = True


def constants() -> list[Constant]:
    """All constants, part by part."""
    return [
        *_kernels(),
        *_collectives(),
        *_families(),
        *_devices(),
        *_stacks(),
        *_code(),
        *_overlap(),
        *_ages(),
        *_intervals(),
    ]


def counts(rows: Iterable[Constant]) -> dict[str, dict[str, int]]:
    """How many constants there are, by part and kind."""
    found = {part: dict.fromkeys(KINDS, 0) for part in PARTS}
    for row in rows:
        found[row.part][row.kind] += 1
    return found


def kind_of(source: str) -> str:
    """The kind of a constant by the words of its source; assumed where they say nothing.

    >>> kind_of("fit gemm"), kind_of("assumed as Ampere"), kind_of("gpu-benches, A40 triad 0.938")
    ('fitted', 'assumed', 'measured')
    """
    return next((kind for words, kind in KIND_OF_SOURCE if re.search(words, source)), "assumed")


def _kernels() -> list[Constant]:
    return [
        Constant(
            kind_of(c.source), name, c.value, c.unit, c.meaning, c.source, c.residual,
            "kernels", "hwdb/kernels.toml",
        )
        for name, c in shipped.constants().items()
    ]  # fmt: skip


def _collectives() -> list[Constant]:
    rows = []
    for name, c in collective_constants.constants().items():
        fitted, mean = kind_of(c.source) == "fitted", "geometric mean" in c.source
        role = "mean" if mean else "ceiling" if name.split(".")[1] in CEILINGS else "constant"
        rows.append(
            Constant(
                kind_of(c.source), f"collectives.{name}", c.value, c.unit, c.meaning, c.source,
                c.residual, "collectives", "hwdb/collectives.toml", role if fitted else "constant",
            )
        )  # fmt: skip
    return rows


def _families() -> list[Constant]:
    """Fractions of its printed rates that a device family achieves, alone and in training."""
    rows = []
    for name in shipped.families():
        family = shipped.family(name)
        tables = {
            "sustained": (family.sustained, "1", "long matrix products / printed peak"),
            "joule_per_flop": (
                family.joule_per_flop, "J/FLOP", "energy of a FLOP on matrix units",
            ),
        }  # fmt: skip
        single = {
            "joule_per_vector_flop": (
                family.joule_per_vector_flop, "J/FLOP", "energy of a FLOP on vector units",
            ),
            "half_rate": (family.half_rate, "1", "sustained, where matrix units run at half rate"),
            "full_core": (family.full_core, "FLOP", "of a whole core's matrix units, per clock"),
            "attention": (family.attention, "1", "fused attention forward / printed peak"),
            "stream": (family.stream, "1", "long triad / printed bandwidth"),
            "sparse": (family.sparse, "1", "printed rate with 2:4 weights / dense"),
            "foreach": (family.foreach, "1", "kernels over lists of tensors / long triad"),
            "batched_tile": (
                family.batched_tile, "elements", "smallest tile edge of batched fp32 products",
            ),
        }  # fmt: skip
        entries: list[tuple[str, shipped.Fraction | None, str, str]] = [
            (f"{key}.{fmt}", fraction, unit, meaning)
            for key, (table, unit, meaning) in tables.items()
            for fmt, fraction in table.items()
        ]
        entries += [(key, *rest) for key, rest in single.items()]
        for key, fraction, unit, meaning in entries:
            if fraction is not None:
                kind = kind_of(fraction.source)
                rows.append(
                    Constant(
                        kind, f"{name}.{key}", fraction.value, unit, f"{family.name}: {meaning}",
                        fraction.source, fraction.residual, "families",
                        f"hwdb/families/{name}.toml", "ceiling",
                    )
                )  # fmt: skip
    return rows


def _devices() -> list[Constant]:
    """The [achieved] tables of device files."""
    rows = []
    for name in hwdb.devices():
        device = hwdb.device(name)
        for key, figure in device.achieved.items():
            meaning = next((m for words, m in ACHIEVED.items() if key.startswith(words)), key)
            source = device.sources.get(figure.source, figure.source)
            where = f"hwdb/devices/{name}.toml"
            rows.append(
                Constant(
                    "measured", f"{name}.{key}", float(figure), _unit(key), meaning, source,
                    part="devices", where=where, read_by_forecasts=bool(READ.match(key)),
                )
            )  # fmt: skip
    return rows


def _unit(key: str) -> str:
    if re.match(r"kernel_|latency_|all_reduce_latency", key):
        return "s"
    return "B/s" if re.match(r"all_reduce_|host_copy|pair_copy", key) else "1"


def _stacks() -> list[Constant]:
    """Numbers that profiles of software state; one that several share is listed once."""
    fitted = {
        (where, name): which
        for (kind, which), names in CONSTANTS.items()
        if kind == "stack"
        for name in names
        for where in which.split()
    }
    sessions = {
        tuple(knob.split("."))
        for stage in STAGES.values()
        for knob in stage.knobs
        if knob.split(".")[1] in OF_STACKS
    }
    rows: dict[str, Constant] = {}
    for where in stacks.names():
        stack, stated = stacks.stack(where), stacks.stated(stacks.path_of(where))
        numbers = {key: stated[key] for key in STATED if key in stated and key != "overlap"}
        numbers |= {f"overlap.{key}": value for key, value in stated.get("overlap", {}).items()}
        for key, value in numbers.items():
            field = key.split(".")[0]
            unit, kind = STATED[field]
            name, source = f"{where}: {key}", stack.source
            if (where, key) in fitted:
                kind, source = "fitted", OF_RUNS
                name = f"{fitted[where, key].replace(' ', ', ')}: {key}"
            elif where == playbook.STACK and key in playbook.FITTED:
                kind, source = "fitted", OF_NANOTRON
            elif (where, key) in sessions:
                kind, source = "fitted", OF_NETS
            elif value == 0:
                kind = (
                    "printed"  # what the stack does not do: no launch under CUDA graphs, no slack
                )
            rows[name] = Constant(
                kind, name, float(value), unit, stacks.MEANING[field], source,
                part="stacks", where=f"simulator/software/stacks/{where}.toml",
            )  # fmt: skip
    return list(rows.values())


def _code() -> list[Constant]:
    rows = []
    for c in IN_CODE:
        found = getattr(importlib.import_module(f"roofcast.{c.module}"), c.name)
        short, where = c.module.removeprefix("simulator."), c.module.replace(".", "/") + ".py"
        simulator = c.module.startswith("simulator.")
        for entry, value in _values(found, c.per_entry):
            rows.append(
                Constant(
                    c.kind, f"{short}.{c.name}{entry}", value, c.unit, c.meaning, c.source,
                    part="code" if simulator else "comparison", where=where,
                    read_by_forecasts=simulator,
                )
            )  # fmt: skip
    return rows


def _values(found: Any, per_entry: bool) -> list[tuple[str, float | list[float]]]:
    """The value of a constant, or its entries, each with what its name ends in."""
    if per_entry:
        entries = found.items() if isinstance(found, dict) else enumerate(found, 1)
        return [(f".{key}", float(value)) for key, value in entries]
    if isinstance(found, int | float):
        return [("", float(found))]
    return [("", [float(value) for value in np.ravel(found)])]


def _overlap() -> list[Constant]:
    """How sharply kinds of traffic hide behind compute where a stack does not say."""
    source = "chosen: published runs; 1: no overlap, 6: nearly all that there is compute for"
    return [
        Constant(
            "chosen", f"overlap.{kind}", power, "1", stacks.MEANING["overlap"], source,
            part="overlap", where="simulator/parallel/traffic.py",
        )
        for kind, power in HIDE.items()
    ]  # fmt: skip


def _ages() -> list[Constant]:
    """FLOP per clock of generations of matrix instructions, and rates of kernels of some age."""
    table, where = kernels.table(), "simulator/software/kernels.toml"
    flash_2 = table.attention["flash-2"].rates
    rows = [
        Constant(
            "printed", f"{name}: flop_per_clock", g.flop_per_clock, "FLOP",
            "16-bit products per core and clock", g.source, part="stacks", where=where,
        )
        for name, g in table.generations.items()
    ]  # fmt: skip
    for kind, named in (("attention", table.attention), ("products", table.products)):
        for name, kernel in named.items():
            for generation, rate in kernel.rates.items():
                fitted = name in AGES
                if rate == flash_2.get(generation) and name != "flash-2":
                    continue  # the same kernel under another name
                rows.append(
                    Constant(
                        "fitted" if fitted else "measured" if kind == "products" else "assumed",
                        f"{name} on {generation}: rate", rate, "1",
                        "speed of the kernel, as a fraction of the family's formula",
                        OF_AGES if fitted else kernel.source, part="stacks", where=where,
                    )
                )  # fmt: skip
    return rows


def _intervals() -> list[Constant]:
    """Errors of unseen sources by class, and what they share. Quantiles of Student's t follow from
    the degrees of freedom; a bias of 0 is none; a hypothetical device has the widest class.
    """
    found, rows = interval.effects(), []
    for klass, effect in found.classes.items():
        for name, meaning in OF_CLASSES.items():
            value = getattr(effect, name)
            if value and klass != interval.IMAGINED:
                rows.append((f"{klass}.{name}", value, "1", meaning, effect.source))
    for name, (meaning, unit) in COMMON.items():
        share = found.common[name]
        rows.append((name, share.value, unit, meaning, share.source))
    told = [
        Constant(
            kind_of(source), f"interval.{name}", value, unit, meaning, source, part="intervals",
            where="hwdb/intervals.toml",
        )
        for name, value, unit, meaning, source in rows
    ]  # fmt: skip
    bound = Constant(
        "chosen", "interval.HOST_BOUND", interval.HOST_BOUND, "1",
        "host share above which the host bounds a step",
        "chosen: separates steps whose errors are those of the host", part="intervals",
        where="simulator/forecast/interval.py",
    )  # fmt: skip
    return [*told, bound]
