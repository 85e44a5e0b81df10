"""roofcast validate"""

import click

from roofcast.reports.options import print_json


@click.command("validate")
@click.option(
    "--runs",
    multiple=True,
    metavar="FILE",
    help=(
        "Measured runs, .csv or .csv.gz: model, device, precision, mode, batch_per_device,"
        " step_time_ms ...; of many devices: n_devices, device, layers, hidden, seq_len,"
        " global_batch_seqs, tp, pp, iter_time_s ... (scenarios/measured/published/README.md)."
    ),
)
@click.option(
    "--ops",
    multiple=True,
    metavar="FILE",
    help="Measured kernels, .csv or .csv.gz, in one of the four known layouts of columns.",
)
@click.option("-o", "--output", metavar="FILE", help="Write every row with its forecast (.csv).")
@click.option("--plot", metavar="FILE", help="Draw predicted against measured (.png, .svg, .pdf).")
@click.option(
    "--constants",
    is_flag=True,
    help="Print every fitted constant with its meaning, unit, value and source instead.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def command(runs, ops, output, plot, constants, as_json) -> None:
    """How far forecasts are from measured runs and kernels: those that are shipped, or those of
    your own files.
    """
    if constants:
        from roofcast.reports.pages.constants import constant_rows, print_constants

        rows = constant_rows()
        print_json({"constants": rows, "number": len(rows)}) if as_json else print_constants(rows)
        return
    from roofcast.reports.files import check_target
    from roofcast.reports.pages import validation as validation_text
    from roofcast.reports.tables import validation

    if output:
        check_target(output, (".csv",))
        if runs and ops:
            raise click.UsageError("-o takes one table; give --runs or --ops, not both")
    if plot:
        check_target(plot, (".png", ".svg", ".pdf"))
    from roofcast.reports.tables import kernels as kernel_table
    from roofcast.scenarios.measured.nets import shipped, shipped_kernels

    own = [path for path in ops if kernel_table.claims(path)]
    if own:
        ops = tuple(path for path in ops if path not in own)
        _kernels_of_machines(own, as_json)
        if not runs and not ops:
            return
    all_shipped = not runs and not ops
    from roofcast.reports.pages import training_runs as validation_llm

    spread = [path for path in runs if validation_llm.claims(path)]
    runs = [path for path in runs if path not in spread]
    many = validation_llm.check_files(spread) if spread or (all_shipped and not output) else []
    if output and spread:
        if runs or ops:
            raise click.UsageError("-o takes one table; give runs of one kind")
        validation_llm.write(many, output)
        output = None
    checked = validation.check_files(runs or (shipped() if all_shipped else ()))
    table = (
        validation.kernels(ops or shipped_kernels())
        if ops or (all_shipped and not output)
        else None
    )
    if output:
        (
            validation.write_runs(checked, output)
            if table is None
            else validation.write_kernels(table, output)
        )
    if plot:
        from roofcast.reports.pictures.validation import draw

        draw(checked, plot)
    if as_json:
        print_json(
            validation_text.to_json(checked, table)
            | ({"training_runs": validation_llm.to_json(many)} if many else {})
        )
        return
    if many:
        validation_llm.print_part(many, all_shipped)
    if checked or table is not None:
        validation_text.print_validation(checked, table, {scored.run.source for scored in many})


def _kernels_of_machines(paths, as_json: bool) -> None:
    """Tables that roofcast crosscheck --kernels kept: forecasts from the device files beside
    them.
    """
    from roofcast.reports.pages.crosscheck import print_crosscheck
    from roofcast.reports.tables import kernels as kernel_table
    from roofcast.simulator.machine.crosscheck.steps import to_json

    for path in paths:
        for threads, name, rows, bare in kernel_table.check(path):
            (
                print_json(to_json(rows, []) | {"device": name, "threads": threads})
                if as_json
                else print_crosscheck(name, rows, [], bare)
            )
