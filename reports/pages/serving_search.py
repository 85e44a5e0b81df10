"""What a search over layouts of a server found, for reading."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from roofcast.hwdb.errors import number_of
from roofcast.reports.console import Justify, fitted_table, fitting, page, say, section, show
from roofcast.reports.format import binary, money, seconds
from roofcast.reports.pages.forecast import rate
from roofcast.reports.parts import Console
from roofcast.reports.tables.serving_search import cache_of, weights_of
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.formats import fewer_bits
from roofcast.simulator.serving.search import LIMITED, Found
from roofcast.simulator.serving.settled import Shown

_SHOWN_REASONS = 6
CLOSED = (
    "closed loops: each user has one request under way; layouts are ranked by mean values in closed"
    " form, and rows that are shown have the means of a replay"
)
WORDS = {
    "throughput": "output tokens/s per device",
    "speed": "tokens/s per user",
    "ttft": "time to the first token",
    "cost": "cost of the output tokens",
}
COLUMNS: list[tuple[str, Justify]] = [
    ("device", "left"), ("layout", "fold"), ("weights", "left"), ("cache", "left"),
    ("users", "right"), ("per device", "right"), ("80 % interval", "right"),
    ("per user", "right"), ("TTFT", "right"), ("TPOT", "right"), ("memory", "right"),
    ("$/M out", "right"),
]  # fmt: skip
SPARE = ("TPOT", "memory", "TTFT", "$/M out", "80 % interval")  # left out where it is narrow
MEANING = {
    "users": "of all replicas together",
    "per device": "output tokens/s",
    "per user": "tokens/s after the first token",
    "memory": "peak of a device",
    "$/M out": "all cost on a million output tokens",
}


def print_found(found: Found, shown: Shown) -> None:
    """Print the best layouts, the front, and what was refused."""
    with page() as out:
        _head(out, found)
        best = shown.best
        if best:
            several = "each at its best number of users"
            section(out, f"Best by {WORDS[found.goal]}, {several}")
            _notes(out, found, _table(out, found, best))
            say(out, serving_line(found, best[0]), first="the first alone: ")
            _front(out, found, shown)
        else:
            _nothing(out, found)
        refused(out, found.reasons, found.left_out)
        section(out, "Assumed")
        for line in (f"{CLOSED} where these do not hold", *found.assumptions):
            say(out, line, first="- ")


def _head(out: Console, found: Found) -> None:
    a = found.asked
    on = {f"{laid.replica.cut.devices:,} {laid.replica.device.id}": None for laid in found.layouts}
    where = f" on {' or '.join(on)}" if on else ""
    say(out, f"{a.model}: layouts of a server{where}", indent=0, style="bold")
    cached = f", {a.load.hit:,} of them in the cache already" if a.load.hit else ""
    stack = f"; {found.layouts[0].replica.server.profile.name}" if found.layouts else ""
    say(out, f"{number_of(a.load.input_len, 'token')} in{cached}, {a.load.output_len:,} out{stack}")
    hold = len(found.layouts)
    say(
        out,
        f"{number_of(found.considered, 'layout')}: {number_of(hold, 'holds', 'hold')} the model,"
        f" {number_of(found.considered - hold, 'is', 'are')} refused;"
        f" {number_of(len(found.layout), 'forecast')} of layouts under numbers of users",
    )
    if found.level is not None:
        limits = ", ".join(f"{n} {1000 * v:g} ms" for n, v in found.level.limits.items())
        held = number_of(int(found.holds.sum()), "of them holds", "of them hold")
        say(out, f"{held} {limits} in the mean")


def degrees_words(found: Found, i: int) -> str:
    """Degrees of the i-th layout that are above 1, and its replicas.

    Data-parallel attention is `dp`, as --dp with --ep takes it.
    """
    cut = found.layouts[i].replica.cut
    words = [f"{name} {getattr(cut, name)}" for name in ("tp", "pp", "ep", "dp")
             if getattr(cut, name) > 1]  # fmt: skip
    if cut.replicas > 1:
        words.append(f"{cut.replicas:,} replicas")
    return ", ".join(words) or "one device"


def _table(out: Console, found: Found, rows: Sequence[int]) -> list[str]:
    """Print rows as a table, without the columns in which all are alike; the titles shown."""
    cells = [_cells(found, i) for i in rows]
    titles = [title for title, _ in COLUMNS]
    alike = {t for k, t in enumerate(titles) if len({c[k] for c in cells}) == 1}
    left = {t for k, t in enumerate(titles) if not any(c[k] for c in cells)}
    if len({laid.replica.device.id for laid in found.layouts}) == 1:
        left.add("device")
    same = [t for t in ("weights", "cache") if t in alike and len(rows) > 1]
    kept = [k for k, t in enumerate(titles) if t not in {*left, *same}]
    columns = [COLUMNS[k] for k in kept]
    shown = [[c[k] for k in kept] for c in cells]
    spare = [t for t in SPARE if t in {title for title, _ in columns}]
    show(out, fitted_table(out.width - 2, columns, shown, spare))
    if same:
        say(out, f"all: {', '.join(f'{t} {cells[0][titles.index(t)]}' for t in same)}")
    return [columns[k][0] for k in fitting(out.width - 2, columns, shown, spare)]


def _cells(found: Found, i: int) -> list[str]:
    r, k = found.rows, int(found.layout[i])
    usd = float(r["usd_per_million_output_all"][i])
    low, high = (float(r[f"output_tokens_per_s_per_device_{end}"][i]) for end in ("low", "high"))
    per_user = float(r["tokens_per_s_per_user"][i])
    return [
        found.layouts[k].replica.device.id,
        degrees_words(found, k),
        weights_of(found, k),
        cache_of(found, k),
        f"{r['amount'][i]:,.0f}",
        rate(float(r["output_tokens_per_s_per_device"][i])),
        f"{rate(low)} to {rate(high)}",
        rate(per_user) if per_user else "",
        seconds(float(r["ttft_s"][i])),
        seconds(float(r["tpot_s"][i])) if per_user else "",
        binary(float(r["peak_bytes"][i])),
        money(usd) if usd == usd else "",
    ]


def _notes(out: Console, found: Found, titles: Sequence[str]) -> None:
    """What the columns mean that are shown."""
    words = [f"{title}: {MEANING[title]}" for title in MEANING if title in titles]
    say(out, "; ".join([*words, "every row fits"]), style="dim")
    weights = {weights_of(found, i) for i in range(len(found.layouts))}
    caches = {cache_of(found, i) for i in range(len(found.layouts))}
    if len(weights) > 1 or len(caches) > 1:
        say(out, "what a format does to the quality of the text is not modelled", style="dim")


def serving_line(found: Found, i: int) -> str:
    """The command that forecasts a row alone."""
    a = found.asked_of(i)
    named = shlex.join(["roofcast", "serving", a.model, "--on", a.device])
    words = [f"{named} --devices {a.devices} --tp {a.tp}"]
    words += [
        f"--{name} {value}"
        for name in ("pp", "ep", "dp")
        if (value := getattr(a, name)) is not None and value > 1
    ]
    words += [f"--{name} {value}" for name in ("weights", "kv", "system")
              if (value := getattr(a, name)) is not None]  # fmt: skip
    words += [shlex.join(more)] if (more := more_options(a)) else []
    words.append(f"--input-len {a.load.input_len} --output-len {a.load.output_len}")
    words.append(f"--concurrency {a.load.amount:.0f}")
    return " ".join(words)


def more_options(a: Serving) -> list[str]:
    """Options beside the layout and the formats, as words."""
    words = ["--stack", a.stack] if a.stack is not None else []
    for key, value in a.set.items():
        words += ["--set", f"{key}={value}"]
    if a.speculate:
        words += ["--speculate", f"{a.speculate}"]
    if a.acceptance is not None:
        words += ["--acceptance", f"{a.acceptance:g}"]
    if a.load.cached:
        words += ["--prefix-share", f"{a.load.cached:g}"]
    if a.price_per_hour is not None:
        words += ["--price", f"{a.price_per_hour:g}"]
    return words


def _front(out: Console, found: Found, shown: Shown) -> None:
    """Rows that no other beats in throughput per device and in speed per user."""
    if len(shown.front) < 2:
        return
    every, some = len(shown.whole), len(shown.front)
    part = f", {some} of them shown" if some < every else ""
    section(
        out,
        f"Throughput per device against speed per user: {every} rows that no other beats in"
        f" both{part}",
    )
    _table(out, found, shown.front)


def _nothing(out: Console, found: Found) -> None:
    if not found.layouts:
        section(out, "Nothing fits")
        more = f"use more devices (--devices){fewer_bits(found.asked.weights)}"
        memory = any("does not fit" in reason for reason in found.reasons)
        say(out, f"every layout is refused; {f'{more}; ' if memory else ''}the reasons are below")
        return
    section(out, "Nothing holds the service level")
    for name in found.level.limits if found.level else ():
        i = found.nearest(name)
        if i is None:
            continue
        value = float(found.rows[LIMITED[name]][i])
        limit = found.level.limits[name] if found.level else 0.0
        verdict = "holds alone" if value <= limit else "is missed"
        say(
            out,
            f"{name} {seconds(limit)} {verdict}: the least is {seconds(value)}, with"
            f" {degrees_words(found, int(found.layout[i]))} and"
            f" {number_of(float(found.rows['amount'][i]), 'user')}",
        )


def refused(out: Console, reasons: Mapping[str, int], left_out: Sequence[str]) -> None:
    """Print why layouts were refused, by reason, and what was not considered."""
    section(out, "Refused, and not considered")
    largest = sorted(reasons.items(), key=lambda each: -each[1])
    for text, count in largest[:_SHOWN_REASONS]:
        many = f"{number_of(count, 'layout')}{', such as' if count > 1 else ''}: "
        say(out, text, first=many)
    rest = sum(count for _, count in largest[_SHOWN_REASONS:])
    if rest:
        say(out, f"{rest:,} layouts for other reasons (--json lists all)")
    say(out, "; ".join(left_out), first="not considered: ")
