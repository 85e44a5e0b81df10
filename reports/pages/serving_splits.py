"""What a search over two pools of devices found, for reading."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.format import money, rate, seconds
from roofcast.reports.pages.serving_search import CLOSED, WORDS, refused
from roofcast.reports.parts import Console
from roofcast.reports.tables.serving_search import means_of
from roofcast.simulator.serving.pools.search import FoundSplits, Side, bound
from roofcast.simulator.serving.settled import Shown

COLUMNS: list[tuple[str, Justify]] = [
    ("prefill", "left"), ("decode", "left"), ("formats", "left"), ("users", "right"),
    ("per device", "right"), ("80 % interval", "right"), ("per user", "right"), ("TTFT", "right"),
    ("TPOT", "right"), ("binds", "left"), ("$/M out", "right"),
]  # fmt: skip
SPARE = ("TPOT", "80 % interval", "$/M out")
LEFT_OUT = ("different devices for the two pools; roofcast serving --prefill-on forecasts them",)


def print_splits(found: FoundSplits, shown: Shown) -> None:
    """Print the best splits, the front, and what was refused."""
    a = found.asked
    device = found.splits[0].decode.of.device.id
    with page() as out:
        say(out, f"{a.model}: two pools on {a.devices:,} {device}", indent=0, style="bold")
        profile = found.splits[0].decode.of.server.profile.name
        say(out, f"{a.load.input_len:,} tokens in, {a.load.output_len:,} out; {profile}")
        say(
            out,
            f"{len(found.splits):,} splits of {found.layouts:,} layouts of an instance;"
            f" {len(found.layout):,} forecasts of splits under numbers of users",
        )
        if found.level is not None:
            limits = ", ".join(f"{n} {1000 * v:g} ms" for n, v in found.level.limits.items())
            say(out, f"{int(found.holds.sum()):,} of them hold {limits} in the mean")
        best = shown.best
        if best:
            section(out, f"Best by {WORDS[found.goal]}, each at its best number of users")
            _table(out, found, best)
            say(out, command_line(found, best[0]), first="the first alone: ")
            section(out, "Front: no other row has both more per device and more per user")
            _table(out, found, shown.front)
            if len(shown.front) < len(shown.whole):
                every = len(shown.whole)
                say(out, f"{len(shown.front)} of {every} rows; -o writes all", style="dim")
        else:
            say(out, "no split holds the service level under any number of users", style="bold red")
        refused(out, found.reasons, LEFT_OUT)
        section(out, "Assumed")
        for line in (CLOSED, *found.assumptions):
            say(out, line, first="- ")


def side_words(side: Side, instances: int) -> str:
    """Instances of a layout: 2 x tp 4, pp 2.

    Data-parallel attention is `dp`, as --dp with --ep takes it.
    """
    cut = side.of.cut
    words = [f"{name} {n}" for name in ("tp", "pp", "ep", "dp") if (n := getattr(cut, name)) > 1]
    return f"{instances} x {', '.join(words) or '1 device'}"


def _table(out: Console, found: FoundSplits, rows: Sequence[int]) -> None:
    cells = [_cells(found, i) for i in rows]
    kept = [k for k, (title, _) in enumerate(COLUMNS) if title != "formats" or _formats(found) > 1]
    columns = [COLUMNS[k] for k in kept]
    shown = [[c[k] for k in kept] for c in cells]
    show(out, fitted_table(out.width - 2, columns, shown, SPARE))
    say(
        out,
        "prefill, decode: instances x layout; users: of all; per device: output tokens/s over the"
        " devices of both pools; per user: tokens/s after the first token",
        style="dim",
    )


def _formats(found: FoundSplits) -> int:
    return len({(s.decode.of.asked.weights, s.decode.of.asked.kv) for s in found.splits})


def _cells(found: FoundSplits, i: int) -> list[str]:
    r, s = found.rows, found.splits[int(found.layout[i])]
    low, high = (float(r[f"output_tokens_per_s_per_device_{end}"][i]) for end in ("low", "high"))
    usd, asked = float(r["usd_per_million_output_all"][i]), s.decode.of.asked
    return [
        side_words(s.prefill, s.prefills),
        side_words(s.decode, s.decodes),
        " ".join(filter(None, (asked.weights, asked.kv))),
        f"{r['amount'][i]:,.0f}",
        rate(float(r["output_tokens_per_s_per_device"][i])),
        f"{rate(low)} to {rate(high)}",
        rate(float(r["tokens_per_s_per_user"][i])),
        seconds(float(r["ttft_s"][i])),
        seconds(float(r["tpot_s"][i])),
        bound(found, i),
        money(usd) if usd == usd else "",
    ]


def command_line(found: FoundSplits, i: int) -> str:
    """The command that forecasts a row alone."""
    s = found.splits[int(found.layout[i])]
    a, load = s.decode.of.asked, s.decode.of.asked.load
    words = ["roofcast", "serving", a.model, "--on", a.device]
    for name, side, n in zip(("prefill", "decode"), (s.prefill, s.decode), s.devices, strict=True):
        words += [f"--{name}-devices", f"{n}"]
        for degree in ("tp", "pp", "ep", "dp"):
            value = getattr(side.of.asked, degree)
            words += [f"--{name}-{degree}", f"{value}"] if (value or 1) > 1 else []
        if (side.of.asked.tp or 1) == 1:
            words += [f"--{name}-tp", "1"]
    given = {"weights": a.weights, "kv": a.kv, "stack": a.stack, "system": a.system}
    for name, text in given.items():
        words += [f"--{name}", text] if text else []
    for key, edit in a.set.items():
        words += ["--set", f"{key}={edit}"]
    words += ["--input-len", f"{load.input_len}", "--output-len", f"{load.output_len}"]
    words += ["--concurrency", f"{found.rows['amount'][i]:.0f}"]
    return shlex.join(words)


def rows_of(found: FoundSplits, shown: Shown, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Rows in SI units, for --json and -o."""
    table, replayed = [], set(shown.replayed)
    for i in rows:
        s = found.splits[int(found.layout[i])]
        row: dict[str, Any] = {"model": found.asked.model, "device": s.decode.of.device.id}
        for name, side, n in zip(
            ("prefill", "decode"), (s.prefill, s.decode), (s.prefills, s.decodes), strict=True
        ):
            row[f"{name}_instances"] = n
            for degree in ("tp", "pp", "ep", "dp"):
                row[f"{name}_{degree}"] = getattr(side.of.cut, degree)
        asked = s.decode.of.asked
        row |= {"weights": asked.weights, "kv": asked.kv}
        numbers = {name: float(values[i]) for name, values in found.rows.items() if name != "binds"}
        more = {"binds": bound(found, i), "means": means_of(i in replayed)}
        table.append(row | numbers | more)
    return table
