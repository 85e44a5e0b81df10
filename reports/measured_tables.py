"""Tables of measurements of one kind beside their forecasts, as `roofcast validate` prints them:
serving, fine-tuning, power, whole trainings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from roofcast.reports.options import print_json


def show_table(option: str, given: Any, output: str | None, as_json: bool) -> None:
    """Forecast a table and print its errors; with `output`, write every row with its forecast.

    option: --serving, --finetune, --power or --campaigns; given: its value, a file or several.
    """
    found, page = _TABLES[option](given)
    if output:
        page["write"](found, output)
    if as_json:
        print_json(page["to_json"](found))
    else:
        page["show"](found)


def _serving(path: str) -> tuple[Any, dict[str, Any]]:
    from roofcast.reports.pages import serving_validation as page

    return page.check(path), dict(write=page.write, to_json=page.to_json, show=page.print_part)


def _finetune(paths: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    from roofcast.reports.pages.finetune import print_finetune
    from roofcast.reports.tables import finetune as table
    from roofcast.scenarios.measured.finetune.rows import shipped

    found = table.check_files(shipped() if paths == ("shipped",) else paths)
    return found, dict(write=table.write, to_json=table.to_json, show=print_finetune)


def _power(path: str) -> tuple[Any, dict[str, Any]]:
    from roofcast.reports.pages import power as page
    from roofcast.scenarios.measured.power_answers import answers

    return answers(Path(path)), dict(write=page.write, to_json=page.to_json, show=page.print_power)


def _campaigns(paths: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    from roofcast.reports.pages import campaigns as page

    found = page.check_files(paths)
    return found, dict(write=page.write, to_json=page.to_json, show=page.print_campaigns)


_TABLES: dict[str, Callable[[Any], tuple[Any, dict[str, Any]]]] = {
    "--serving": _serving,
    "--finetune": _finetune,
    "--power": _power,
    "--campaigns": _campaigns,
}
