"""Every constant of the time formulas: which a committed script fitted, which are ceilings of
device families, which are from elsewhere.
"""

from __future__ import annotations

from roofcast.hwdb import collective_constants
from roofcast.hwdb import constants as shipped
from roofcast.reports.console import page, say, section
from roofcast.scenarios.fits.nets import OF_STACKS, STAGES
from roofcast.scenarios.fits.runs import CONSTANTS
from roofcast.simulator.parallel.traffic import HIDE
from roofcast.simulator.software import stack as stacks

KINDS = {
    "fitted": "fitted by a committed script",
    "ceiling": "ceilings of device families that were fitted",
    "mean": "means of fitted ones, for devices that have none",
    "other": "taken from published figures, read off measured runs, chosen, or assumed",
}
CEILINGS = ("share", "in_switch")  # of the collectives of a family: of its printed bandwidth
OF_RUNS = "fit runs: published training runs (scenarios/measured/published)"
OF_NETS = "fit session: nnU-Net and V-Net, NVIDIA DeepLearningExamples"
STATED = {  # what a stack's profile may say of time, and its unit
    "fusion": "1",
    "dispatch_s": "s",
    "dispatch_backward": "1",
    "factor": "1",
    "attention": "1",
    "step_s": "s",
    "sync_s": "s",
    "expert_launches": "launches",
    "accumulate_bytes": "bytes",
}


def constant_rows() -> list[dict]:
    """Constants of the formulas, of collectives, of device families and of stacks: name, value,
    unit, meaning, source, residual, kind.
    """
    return [*_formulas(), *_families(), *_stacks(), *_overlap()]


def _row(
    kind: str, name: str, value: float, unit: str, meaning: str, source: str, residual: str = ""
) -> dict:
    return {
        "kind": kind,
        "name": name,
        "value": value,
        "unit": unit,
        "meaning": meaning,
        "source": source,
        "residual": residual,
    }


def _formulas() -> list[dict]:
    """Of kernels and of collectives."""
    rows = [
        _row(_kind(c.source), name, c.value, c.unit, c.meaning, c.source, c.residual)
        for name, c in shipped.constants().items()
    ]
    for name, c in collective_constants.constants().items():
        kind = _kind(c.source)
        if kind == "fitted" and name.split(".")[1] in CEILINGS:
            kind = "ceiling"
        rows.append(
            _row(kind, f"collectives.{name}", c.value, c.unit, c.meaning, c.source, c.residual)
        )
    return rows


def _kind(source: str) -> str:
    if "geometric mean" in source:
        return "mean"
    return "fitted" if source.startswith("fit") else "other"


def _families() -> list[dict]:
    """Shares that device families hold of their printed rates, alone and in training, where they
    were fitted.
    """
    rows = []
    for name in shipped.families():
        family = shipped.family(name)
        shares = {f"sustained.{key}": f for key, f in family.sustained.items()} | {
            f"trained.{key}": f for key, f in family.trained.items()
        }
        shares |= {
            "half_rate": family.half_rate,
            "attention": family.attention,
            "stream": family.stream,
        }
        for key, f in shares.items():
            if f and f.source.startswith("fit"):
                rows.append(
                    _row(
                        "ceiling",
                        f"{name}.{key}",
                        f.value,
                        "1",
                        f"ceiling of {family.name}",
                        f.source,
                        f.residual,
                    )
                )
    return rows


def _stacks() -> list[dict]:
    """What profiles of software say of time; what several share, once."""
    of_runs = [
        (which, name)
        for (kind, which), names in CONSTANTS.items()
        if kind == "stack"
        for name in names
    ]
    fitted = {(where, name): which for which, name in of_runs for where in which.split()}
    sessions = {
        tuple(knob.split("."))
        for stage in STAGES.values()
        for knob in stage.knobs
        if knob.split(".")[1] in OF_STACKS
    }
    rows: dict[str, dict] = {}
    for where in stacks.names():
        stack, stated = stacks.stack(where), stacks.stated(stacks.path_of(where))
        numbers = {key: stated[key] for key in STATED if stated.get(key)}
        numbers |= {f"overlap.{key}": value for key, value in stated.get("overlap", {}).items()}
        for key, value in numbers.items():
            meaning, unit = stacks.MEANING[key.split(".")[0]], STATED.get(key, "1")
            if (where, key) in fitted:
                row = _row(
                    "fitted",
                    f"{fitted[where, key].replace(' ', ', ')}: {key}",
                    value,
                    unit,
                    meaning,
                    OF_RUNS,
                )
            elif (where, key) in sessions:
                row = _row("fitted", f"{where}: {key}", value, unit, meaning, OF_NETS)
            else:
                row = _row("other", f"{where}: {key}", value, unit, meaning, stack.source)
            rows[row["name"]] = row
    return list(rows.values())


def _overlap() -> list[dict]:
    """How sharply kinds of traffic hide behind compute where a stack does not say."""
    source = "chosen: published runs, of 64 to 10752 GPUs for gradients; 1: not at all"
    return [
        _row("other", f"overlap.{kind}", power, "1", stacks.MEANING["overlap"], source)
        for kind, power in HIDE.items()
    ]


def print_constants(rows: list[dict]) -> None:
    """The constants by kind, and how many of each there are."""
    with page() as out:
        counts = {}
        for kind, title in KINDS.items():
            members = [r for r in rows if r["kind"] == kind]
            counts[kind] = len(members)
            section(out, f"{len(members)} {title}")
            for r in members:
                residual = f" ({r['residual']})" if r["residual"] else ""
                say(
                    out,
                    f"{r['value']:g} {r['unit']}: {r['meaning']}. {r['source']}{residual}",
                    first=f"{r['name']}  ",
                )
        out.print()
        few, ceilings, others = (counts[kind] for kind in ("fitted", "ceiling", "other"))
        say(
            out,
            f"{few} fitted constants beside {ceilings} fitted ceilings of device families; {others}"
            " others.",
        )
