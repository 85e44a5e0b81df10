"""roofcast validate"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from roofcast.reports.option_types import Once
from roofcast.reports.options import print_json

if TYPE_CHECKING:
    import pandas as pd

    from roofcast.reports.pages.validation import Shipped
    from roofcast.reports.tables.validation import Checked
    from roofcast.scenarios.measured.scores import Scored


class Asked(NamedTuple):
    """Files by what is in them: all empty where what is shipped is asked for."""

    single: tuple[str, ...]  # runs of one device, or of few that share a batch
    many: tuple[str, ...]  # training runs on many devices
    kernels: tuple[str, ...]
    machines: tuple[str, ...]  # kernels that roofcast crosscheck kept
    shipped: bool


class Found(NamedTuple):
    """What was asked for, beside its forecasts."""

    checked: list[Checked]
    many: list[Scored]
    kernels: pd.DataFrame | None


@click.command("validate", cls=Once)
@click.option(
    "--runs",
    multiple=True,
    metavar="FILE",
    help=(
        "Measured runs, .csv or .csv.gz: of single nets, with columns model, device, precision,"
        " mode, batch_per_device, step_time_ms ...; or of language models on many devices, with"
        " columns n_devices, device, layers, hidden, seq_len, global_batch_seqs, tp, pp,"
        " iter_time_s ... (docs/usage.md describes the columns). May be repeated."
    ),
)
@click.option(
    "--ops",
    multiple=True,
    metavar="FILE",
    help="Measured kernels, .csv or .csv.gz, in one of the known layouts. May be repeated.",
)
@click.option(
    "--serving",
    metavar="FILE",
    help=(
        "Measured servers of generated text, .csv or .csv.gz, with columns model, engine, device,"
        " n_devices, tp, w_prec, load_kind, load, input_len, output_len, ttft_s, tpot_s ..."
        " (docs/serving.md describes them); shipped: the tables that come with Roofcast."
    ),
)
@click.option(
    "--finetune",
    multiple=True,
    metavar="FILE",
    help=(
        "Measured fine-tuning, .csv or .csv.gz, with columns model, method, device, seq,"
        " micro_batch, peak_mem_gib, samples_per_s ... (docs/finetuning.md); shipped: the tables"
        " that come with Roofcast. Goes with -o and --json alone. May be repeated."
    ),
)
@click.option(
    "--power",
    metavar="FILE",
    help=(
        "Measured watts and joules, .csv or .csv.gz, with columns kind, device, workload, model,"
        " avg_power_w ... (docs/energy.md describes the columns)."
    ),
)
@click.option(
    "--campaigns",
    multiple=True,
    metavar="FILE",
    help=(
        "Whole trainings, .csv or .csv.gz, with columns model, device, devices, tokens or samples,"
        " device_hours ... (docs/campaigns.md): device-hours, energy and goodput of each. May be"
        " repeated."
    ),
)
@click.option("-o", "--output", metavar="FILE", help="Write every row and its forecast (.csv).")
@click.option(
    "--plot",
    metavar="FILE",
    help="Draw the errors: forecast / measured of every run, by source (.png, .svg, .pdf).",
)
@click.option(
    "--constants",
    is_flag=True,
    help="List every constant that steers forecasts: kind, value, unit, meaning, source.",
)
@click.option(
    "--blind-like",
    is_flag=True,
    help=(
        "Errors, bias and coverage of the shipped runs when their source, the family of their"
        " device or their software is left out, each in turn."
    ),
)
@click.option(
    "--refit",
    is_flag=True,
    help="With --blind-like: forecast and refit now (minutes), not from the shipped table.",
)
@click.option(
    "--regret",
    is_flag=True,
    help=(
        "How much slower than the best measured run is what forecasts would choose, where one model"
        " and batch was measured under three or more layouts or devices; of the shipped training"
        " runs, or those of --runs."
    ),
)
@click.option(
    "--write",
    metavar="FILE",
    help="Rewrite, in place, the tables between the <!-- table: NAME --> markers of FILE.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    runs: tuple[str, ...],
    ops: tuple[str, ...],
    serving: str | None,
    finetune: tuple[str, ...],
    power: str | None,
    campaigns: tuple[str, ...],
    output: str | None,
    plot: str | None,
    constants: bool,
    blind_like: bool,
    refit: bool,
    regret: bool,
    write: str | None,
    as_json: bool,
) -> None:
    """Compare forecasts with measured runs and kernels.

    Without --runs and --ops: the measurements that come with Roofcast.
    """
    tables = {
        "--serving": serving, "--finetune": finetune, "--power": power, "--campaigns": campaigns,
    }  # fmt: skip
    if given := [name for name, value in tables.items() if value]:
        if len(given) > 1 or any((runs, ops, plot, constants, blind_like, refit, regret, write)):
            raise click.UsageError(
                f"{given[0]} goes with -o and --json alone: leave the others out"
            )
        from roofcast.reports.measured_tables import show_table

        _check_targets(output, None)
        show_table(given[0], tables[given[0]], output, as_json)
        return
    if refit and not blind_like:
        raise click.UsageError("--refit goes with --blind-like")
    if constants or write or blind_like:
        several = sum(map(bool, (constants, write, blind_like))) > 1
        if several or runs or ops or output or plot:
            raise click.UsageError(
                "--constants, --blind-like and --write go alone: leave out --runs, --ops, -o,"
                " --plot"
            )
        _print_left_out(refit, as_json) if blind_like else _alone(write, as_json)
        return
    if regret:
        _print_regret(runs, as_json, given=bool(ops or output or plot))
        return
    _measured(runs, ops, output, plot, as_json)


def _measured(
    runs: tuple[str, ...], ops: tuple[str, ...], output: str | None, plot: str | None, as_json: bool
) -> None:
    """Runs and kernels beside their forecasts: those of files, else the shipped ones."""
    _check_targets(output, plot)
    if output and runs and ops:
        raise click.UsageError("-o writes one table: give either --runs or --ops")
    asked = _sorted(runs, ops)
    if output and asked.many and asked.single:
        raise click.UsageError("-o writes one table: give --runs of one layout of columns")
    for path in asked.machines:
        _print_machine(path, as_json)
    if not (asked.shipped or asked.single or asked.many or asked.kernels):
        return
    found = _forecast(asked, output)
    if output:
        _write_rows(found, output)
    if plot:
        from roofcast.reports.pictures.validation import draw

        draw(found.checked or [scored for scored in found.many if scored.counts], plot)
    _print(found, asked.shipped, as_json)


def _alone(write: str | None, as_json: bool) -> None:
    """--constants and --write, which go with no file of measurements."""
    if write:
        from roofcast.reports.console import tell
        from roofcast.reports.pages.accuracy import write as write_tables

        names = write_tables(write)
        print_json({"tables": names}) if as_json else tell(f"{write}: {', '.join(names)}")
        return
    from roofcast.reports.pages.constants import print_constants, to_json

    print_json(to_json()) if as_json else print_constants()


def _print_left_out(refit: bool, as_json: bool) -> None:
    """--blind-like; refit: not from the shipped table of errors."""
    from roofcast.reports.pages.left_out import print_left_out, to_json
    from roofcast.reports.tables.left_out import LeftOut
    from roofcast.simulator.forecast import interval

    residuals = interval.residuals()
    if refit:
        from roofcast.scenarios.fits.left_out import known, rows
        from roofcast.scenarios.measured.nets import blind, shipped

        residuals = interval.columns(rows(known((*shipped(), *blind()))))
    found = LeftOut(residuals)
    print_json(to_json(found)) if as_json else print_left_out(found)


def _print_regret(runs: tuple[str, ...], as_json: bool, given: bool) -> None:
    """--regret, which goes with files of training runs alone."""
    from roofcast.hwdb.errors import BadInput
    from roofcast.reports.pages import training_runs
    from roofcast.reports.pages.regret import print_regret
    from roofcast.scenarios.measured.regret import by_source, regrets, without_source
    from roofcast.simulator.forecast.interval import residuals

    if given:
        raise click.UsageError("--regret goes with --runs alone: leave out --ops, -o and --plot")
    for path in runs:
        if not training_runs.claims(path):
            raise BadInput(
                f"{path}: --regret wants training runs, with the columns of their layouts"
            )
    scored = training_runs.check_files(runs)
    found = regrets(scored)
    if not found:
        raise BadInput("--regret: no model and batch was measured under three or more layouts")
    lines = by_source(found)
    unseen = [] if runs else regrets(without_source(scored, residuals()))
    left_out = by_source(unseen) if unseen else []
    if as_json:
        both = {"regret": lines, "left_out": left_out}
        print_json({name: [line._asdict() for line in each] for name, each in both.items()})
        return
    print_regret(lines, left_out)


def _sorted(runs: tuple[str, ...], ops: tuple[str, ...]) -> Asked:
    """The files by what is in them."""
    from roofcast.reports.pages import training_runs
    from roofcast.reports.tables import kernels

    many = tuple(path for path in runs if training_runs.claims(path))
    machines = tuple(path for path in ops if kernels.claims(path))
    return Asked(
        tuple(path for path in runs if path not in many),
        many,
        tuple(path for path in ops if path not in machines),
        machines,
        shipped=not runs and not ops,
    )


def _check_targets(output: str | None, plot: str | None) -> None:
    """Refuse a file that cannot be written, before the work. Raises BadInput."""
    from roofcast.reports.files import PICTURES, check_target

    if output:
        check_target(output, (".csv",))
    if plot:
        check_target(plot, PICTURES)


def _forecast(asked: Asked, output: str | None) -> Found:
    """The forecasts. What is shipped: with -o its runs of single devices alone, as one table."""
    from roofcast.reports.pages import training_runs
    from roofcast.reports.tables import validation
    from roofcast.scenarios.measured.nets import shipped, shipped_kernels

    everything = asked.shipped and not output
    many = training_runs.check_files(asked.many) if asked.many or everything else []
    checked = validation.check_files(shipped() if asked.shipped else asked.single)
    kernels = None
    if asked.kernels or everything:
        kernels = validation.kernels(asked.kernels or shipped_kernels())
    return Found(checked, many, kernels)


def _write_rows(found: Found, output: str) -> None:
    """Every row and its forecast, as one table."""
    from roofcast.reports.pages import training_runs
    from roofcast.reports.tables import validation

    if found.many:
        training_runs.write(found.many, output)
    elif found.kernels is not None:
        validation.write_kernels(found.kernels, output)
    else:
        validation.write_runs(found.checked, output)


def _print(found: Found, shipped: bool, as_json: bool) -> None:
    from roofcast.reports.pages import training_runs, validation

    if as_json:
        more = {"training_runs": training_runs.to_json(found.many)} if found.many else {}
        print_json(validation.to_json(found.checked, found.kernels) | more)
        return
    if found.many:
        training_runs.print_part(found.many, shipped)
    if found.checked or found.kernels is not None:
        listed = {scored.run.source for scored in found.many}
        known = _shipped() if shipped else None
        validation.print_validation(found.checked, found.kernels, listed, known)


def _shipped() -> Shipped:
    """Whether fits read each shipped run, and forecasts of the runs kept for blind tests."""
    from roofcast.reports.pages.validation import Shipped
    from roofcast.reports.tables import validation
    from roofcast.reports.tables.accuracy import status_of
    from roofcast.scenarios.measured.nets import blind, read, shipped

    statuses = [status_of(run, path) for path in shipped() for run in read(path)]
    return Shipped(statuses, validation.check_files(blind()))


def _print_machine(path: str, as_json: bool) -> None:
    """A table that roofcast crosscheck --kernels kept, with the device files beside it."""
    from roofcast.reports.pages.crosscheck import print_crosscheck
    from roofcast.reports.tables import kernels
    from roofcast.simulator.machine.crosscheck.steps import to_json

    for threads, name, rows, bare in kernels.check(path):
        if as_json:
            print_json(to_json(rows, []) | {"device": name, "threads": threads})
        else:
            print_crosscheck(name, rows, [], bare)
