"""Tables of errors and of constants for the documents: what `roofcast validate --write` fills in.

A document has a line `<!-- table: NAME -->` where a table belongs; the table follows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from roofcast.hwdb import constants as families
from roofcast.hwdb import contents
from roofcast.hwdb.errors import BadInput, quoted
from roofcast.reports.files import replacing
from roofcast.reports.pages.left_out import cells
from roofcast.reports.tables import accuracy, validation
from roofcast.reports.tables.accuracy import Figures, Row
from roofcast.reports.tables.constants import KINDS, PARTS, constants, counts
from roofcast.reports.tables.left_out import LeftOut, Line
from roofcast.simulator.forecast import interval

PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n)(?:\|.*\n)*")
FEW = 20  # stacks of fewer rows share a line
FURTHEST = 5  # rows that are listed as furthest off
SCALES = ((1, "1"), (8, "2 to 8"), (64, "9 to 64"), (512, "65 to 512"), (10**9, "over 512"))
MODES = {"train": "training", "infer": "inference"}


def write(path: str) -> list[str]:
    """Fill in every table of a document; the names of those tables. Raises BadInput."""
    text = contents.text(path, "a document with places for tables")
    names = [found[2] for found in PLACE.finditer(text)]
    if not names:
        raise BadInput(
            f"{path}: has no place for a table; wanted a line <!-- table: NAME -->, NAME one of"
            f" {', '.join(TABLES)}"
        )
    done = filled(text, path)
    with replacing(path) as part:
        part.write_text(done, encoding="utf-8")
    return names


def filled(text: str, path: str = "") -> str:
    """The text with its tables as they are now."""

    def table(found: re.Match[str]) -> str:
        name = found[2]
        if name not in TABLES:
            raise BadInput(f"{path}: no table {quoted(name)}; there are: {', '.join(TABLES)}")
        return found[1] + TABLES[name]()

    return PLACE.sub(table, text)


def markdown(columns: str, rows: Iterable[Iterable[str]]) -> str:
    """A table. Columns are separated by commas; those that start with > are aligned right."""
    names = columns.split(", ")
    lines = ["| " + " | ".join(name.lstrip(">") for name in names) + " |"]
    lines.append("|" + "|".join("---:" if name.startswith(">") else "---" for name in names) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def percent(share: float, sign: str = "") -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * share:{sign}.1f}"


def error(f: Figures) -> list[str]:
    """Cells of a line of errors: status, rows, median / mean, bias."""
    return [f.status, f"{f.rows}", f"{percent(f.median)} / {percent(f.mean)}", percent(f.bias, "+")]


ERRORS = "status, >rows, >error, >bias"


def by(what: str, key: Callable[[Row], str], order: Iterable[str] = ()) -> str:
    """Errors of all measured runs, a line for each group, a column for each status.

    A cell: rows: median / mean error; bias; share inside the 80 % interval, all in percent.
    """
    found = {(f.name, f.status): f for f in accuracy.grouped(accuracy.rows(), key)}
    names = [*order] or list(dict.fromkeys(name for name, _ in found))
    lines = [[n, *(_cell(found.get((n, s))) for s in accuracy.STATUSES)] for n in names]
    return markdown(", ".join([what, *accuracy.STATUSES]), lines)


def _cell(f: Figures | None) -> str:
    if f is None:
        return ""
    errors = f"{f.rows}: {percent(f.median)} / {percent(f.mean)}; {percent(f.bias, '+')}"
    return errors if f.inside is None else f"{errors}; {100 * f.inside:.0f}"


def _summary() -> str:
    """All measured runs, by status, beside the roofline lower bound."""
    lines = []
    for f in accuracy.grouped(accuracy.rows(), lambda _: ""):
        rows = [r for r in accuracy.rows() if r.status == f.status]
        bound = " / ".join(map(percent, accuracy.roofline(rows)))
        lines.append([*error(f), bound, f"{100 * (f.inside or 0.0):.0f}", f.worst])
    return markdown(f"{ERRORS}, >roofline bound, >inside 80 %, furthest off", lines)


def _devices() -> str:
    """By device family; each cell ends with its devices."""
    found = {(f.name, f.status): f for f in accuracy.grouped(accuracy.rows(), _family)}
    devices: dict[tuple[str, str], set[str]] = {}
    for row in accuracy.rows():
        devices.setdefault((_family(row), row.status), set()).add(row.device)

    def cell(key: tuple[str, str]) -> str:
        return f"{_cell(found[key])} ({', '.join(sorted(devices[key]))})" if key in found else ""

    names = dict.fromkeys(name for name, _ in found)
    lines = [[name, *(cell((name, status)) for status in accuracy.STATUSES)] for name in names]
    return markdown(", ".join(["device family", *accuracy.STATUSES]), lines)


def _family(row: Row) -> str:
    return families.family(row.traits.family).name


def _stacks() -> str:
    """By software stack; those of fewer than FEW rows share a line."""
    rows: dict[str, int] = {}
    for row in accuracy.rows():
        rows[row.traits.stack] = rows.get(row.traits.stack, 0) + 1
    others = f"others: {', '.join(sorted(name for name, count in rows.items() if count < FEW))}"
    names = [*sorted(name for name, count in rows.items() if count >= FEW), others]
    return by("stack", lambda r: r.traits.stack if rows[r.traits.stack] >= FEW else others, names)


def _models() -> str:
    return by("kind of model", lambda r: f"{r.traits.model_kind}, {MODES[r.traits.mode]}")


def _scales() -> str:
    def scale(row: Row) -> str:
        return next(name for most, name in SCALES if row.devices <= most)

    return by("devices", scale, [name for _, name in SCALES])


def _memory() -> str:
    lines = [[f.name, *error(f), f.worst] for f in accuracy.memory()]
    return markdown(f"source (what it measures), {ERRORS}, furthest off", lines)


def _verdicts() -> str:
    """Published runs that ran and are forecast not to fit, by source."""
    found = accuracy.verdicts()
    lines = [_verdict(v.source, v.status, [v]) for v in found if v.refused]
    for status in dict.fromkeys(v.status for v in found):
        lines.append(_verdict("all", status, [v for v in found if v.status == status]))
    return markdown("source, status, >ran, >told not to fit, >percent, >excess, >near", lines)


def _verdict(name: str, status: str, of: list[accuracy.Verdicts]) -> list[str]:
    ran, refused = sum(v.ran for v in of), sum(v.refused for v in of)
    alone = of[0].median if len(of) == 1 else None
    excess = percent(alone, "+") if alone is not None else ""
    near = f"{sum(v.within for v in of)}"
    return [name, status, f"{ran}", f"{refused}", percent(refused / ran), excess, near]


def _kernels() -> str:
    """Shipped kernels by kind and format, over all devices."""
    from roofcast.scenarios.measured.kernel_errors import summary
    from roofcast.scenarios.measured.nets import shipped_kernels

    table = validation.kernels(shipped_kernels())
    errors = summary(table, ("kind", "format")).reset_index()
    devices = summary(table, ("kind", "format", "device")).reset_index().to_dict("records")
    lines = []
    for row in errors.to_dict("records"):
        key = ("kind", "format")
        own = [each for each in devices if all(each[k] == row[k] for k in key)]
        worst = max(own, key=lambda each: each["median"])
        name, number_format = row["kind"].replace("bfloat16", "bf16").split(), row["format"]
        lines.append([
            " ".join(dict.fromkeys((*name, number_format))),
            f"{len(own)}",
            f"{row['rows']:.0f}",
            f"{percent(row['median'])} / {percent(row['mean'])}",
            percent(row["bias"], "+"),
            f"{percent(row['roofline_median'])} / {percent(row['roofline_mean'])}",
            f"{worst['device']} {percent(worst['median'])}",
        ])  # fmt: skip
    columns = "kernel, >devices, >rows, >error, >bias, >roofline bound, least accurate device"
    return markdown(columns, lines)


def _left_out() -> str:
    """Errors of runs left out by source, device and software, by class and kind of model."""
    of = LeftOut(interval.residuals())
    lines = [line for line in of.by_class() if line.way == "source" and line.name != "all"]
    taken = {(line.way, line.rows) for line in lines}  # mixtures are a class and a kind
    lines += [k for k in of.by_kind() if k.sources > 1 and (k.way, k.rows) not in taken]
    lines.sort(key=lambda line: list(interval.WAYS).index(line.way))
    columns = "left out by, runs, >sources, >rows, >error, >bias, >inside 80 %, interval"
    return markdown(columns, ([line.way, *_left(line)] for line in lines))


def _left(line: Line) -> list[str]:
    name, sources, rows, errors, _, bias, inside, both = cells(line, line.name)
    return [name, sources, rows, errors, bias, inside, both]


def _furthest() -> str:
    """The rows furthest off."""
    lines = []
    for r in accuracy.furthest(accuracy.rows(), FURTHEST):
        many = f"{r.devices} x " if r.devices > 1 else ""
        batch = r.run.scenario.batch if r.run.scenario else None
        what = f"{r.model}, {many}{r.device}, {r.traits.stack}, {MODES[r.traits.mode]}"
        what = f"{what}, {r.traits.format}, batch {batch}"
        lines.append([what, r.run.source, r.status, f"{100 * r.error:+.0f}"])
    return markdown("run, source, status, >error", lines)


def _constants() -> str:
    """How many constants there are, by part and kind."""
    found = counts(constants())
    lines = [
        [PARTS[part], *(f"{n or ''}" for n in row.values()), f"{sum(row.values())}"]
        for part, row in found.items()
    ]
    total = [sum(row[kind] for row in found.values()) for kind in KINDS]
    lines.append(["all", *map(str, total), f"{sum(total)}"])
    return markdown(", ".join(["where they stand", *(f">{kind}" for kind in KINDS), ">all"]), lines)


TABLES: dict[str, Callable[[], str]] = {
    "summary": _summary,
    "devices": _devices,
    "stacks": _stacks,
    "models": _models,
    "scales": _scales,
    "memory": _memory,
    "verdicts": _verdicts,
    "kernels": _kernels,
    "left-out": _left_out,
    "furthest": _furthest,
    "constants": _constants,
}
