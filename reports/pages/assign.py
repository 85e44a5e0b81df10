"""A plan of jobs on a pool, for reading."""

from __future__ import annotations

from roofcast.hwdb.errors import number_of
from roofcast.reports.console import Justify, fitted_table, page, say, section, show
from roofcast.reports.format import duration, money, percent
from roofcast.reports.pages.search import words_of
from roofcast.reports.parts import Console
from roofcast.simulator.choose.assigned import Assigned, Run, Total


def print_assigned(found: Assigned) -> None:
    """Print the plan, what is left, and the greedy plan beside it."""
    with page() as out:
        jobs = number_of(len(found.plan) + len(found.left), "job")
        title = f"{jobs} on {number_of(sum(h.count for h in found.pool), 'device')}"
        say(out, f"{title}: most priority, then least {found.goal}", indent=0, style="bold")
        _totals(out, found)
        section(out, "Plan, by start")
        columns: list[tuple[str, Justify]] = [
            ("job", "fold"), ("devices", "left"), ("start", "right"), ("end", "right"),
            ("deadline", "right"), ("cost", "right"), ("priority", "right"),
        ]  # fmt: skip
        rows = [_row(run) for run in found.plan]
        spare = ("priority", "cost", "deadline")
        show(out, fitted_table(out.width - 2, columns, rows, spare))
        _left(out, found)
        section(out, "Pool")
        columns = [("device", "left"), ("count", "right"), ("used", "right"), ("price", "right")]
        table = [
            [h.device, f"{h.count:,}", percent(h.used),
             "unknown" if h.usd_per_hour is None else f"{money(h.usd_per_hour)}/h"]
            for h in found.pool
        ]  # fmt: skip
        show(out, fitted_table(out.width - 2, columns, table, ("price",)))
        for h in found.pool:
            say(out, h.price, first=f"price of {h.device}: ")
        section(out, "Layouts")
        for run in found.plan:
            say(out, f"--batch {run.batch} {words_of(run.options)}", first=f"{run.job}: ")
        section(out, "Assumed")
        for line in found.assumptions:
            say(out, line)


def _totals(out: Console, found: Assigned) -> None:
    columns: list[tuple[str, Justify]] = [("", "left"), ("makespan", "right"), ("cost", "right")]
    columns += [("finished", "right"), ("unfinished priority", "right")]
    rows = [_total("this plan", found.total), _total("greedy", found.greedy)]
    out.print()
    show(out, fitted_table(out.width - 2, columns, rows, ("unfinished priority",)))
    out.print()
    if found.best:
        say(out, "proven the best with times rounded up to slots")
    elif found.gap is not None:
        say(out, f"not proven the best: at most {percent(found.gap)} of the {found.goal} is left")
    else:
        say(out, "not proven the best")
    say(out, "greedy: by priority, then deadline, each where it ends first", style="dim")


def _total(name: str, t: Total) -> list[str]:
    usd = "unknown" if t.cost_usd is None else money(t.cost_usd)
    return [name, duration(t.makespan_s), usd, str(t.finished), f"{t.unfinished_priority:g}"]


def _row(run: Run) -> list[str]:
    return [
        run.job,
        f"{run.devices:,} × {run.device}",
        duration(run.start_s) if run.start_s else "now",
        duration(run.end_s),
        "—" if run.deadline_s is None else duration(run.deadline_s),
        "unknown" if run.cost_usd is None else money(run.cost_usd),
        f"{run.priority:g}",
    ]


def _left(out: Console, found: Assigned) -> None:
    for title, refused in (("Refused", True), ("Left out", False)):
        these = [each for each in found.left if each.refused is refused]
        if these:
            section(out, title)
        for each in these:
            say(out, each.why, first=f"{each.job}: ")
