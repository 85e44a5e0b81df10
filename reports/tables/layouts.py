"""Layouts of a search, and choices, as tables in files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roofcast.hwdb.errors import BadInput
from roofcast.reports.files import check_target, replacing
from roofcast.simulator.choose.explore import Explored

if TYPE_CHECKING:
    import pandas

SUFFIXES = (".csv", ".parquet")


def check_table(path: str) -> None:
    """Raises BadInput where a table could not be written there."""
    target = check_target(path, SUFFIXES)
    if target.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise BadInput(
                f"{path}: .parquet needs pyarrow (pip install pyarrow), or use .csv"
            ) from (None)


def write_table(rows: list[dict[str, Any]], path: str) -> None:
    """Write rows with the same keys, or with some of them, to a .csv or .parquet file."""
    import pandas

    frame: pandas.DataFrame = pandas.DataFrame(rows)
    with replacing(path) as temporary:
        if path.lower().endswith(".parquet"):
            frame.to_parquet(temporary, index=False)
        else:
            frame.to_csv(temporary, index=False)


def layouts_table(found: Explored) -> list[dict[str, Any]]:
    """One row per valid layout, the fastest first."""
    order = sorted(range(len(found.options)), key=lambda i: found.step_s[i])
    return [
        {
            **{n: "+".join(v) if isinstance(v, tuple) else v for n, v in found.options[i].items()},
            "step_time_s": float(found.step_s[i]),
            "peak_bytes": float(found.peak_bytes[i]),
            "fits": bool(found.fits[i]),
        }
        for i in order
    ]
