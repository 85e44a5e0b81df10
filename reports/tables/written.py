"""Tables of a search or a choice, in files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roofcast.hwdb.errors import BadInput
from roofcast.reports.files import check_target, replacing

if TYPE_CHECKING:
    import pandas

SUFFIXES = (".csv", ".parquet")


def check_table(path: str, page: bool = False) -> None:
    """Raises BadInput where a table could not be written there; page: or a page (.html)."""
    target = check_target(path, (*SUFFIXES, ".html") if page else SUFFIXES)
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
