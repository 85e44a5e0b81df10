"""Write the table of prices from a collection of public quotes.

    python -m roofcast.scenarios.fits.prices QUOTES.csv[.gz]

QUOTES: one quote per row, with the columns kind, roofcast_device, device_as_printed, provider,
gpus_per_instance, region, date, price_usd, unit, source, note. Writes hwdb/prices/quotes.csv and
hwdb/prices/sources.csv, and prints how many rows were left out, by reason.

Left out: quotes of no device of hwdb; models, assumptions and estimates, which are not quotes;
services that sell calls or seconds, not machines; quotes without a source that can be cited; spot
prices not below the same list's on-demand price (placeholders); on-demand prices below the same
list's spot price (another product's); prices per hour above MOST (placeholders); boards of two
dies where hwdb has the die.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.market import FOLDER, KINDS, PROVIDER_CLASS

MOST = 100.0  # USD per device-hour; catalogues print 700 where there is no offer
HEAD = """\
# Public prices, one quote per row: rent [USD per device-hour], purchase [USD per device]. An empty
# date: the list is not dated; its commits are of late 2025 to 2026. `source` is a key of
# sources.csv. Written by `python -m roofcast.scenarios.fits.prices`.
"""
SOURCES_HEAD = """\
# Where the quotes of quotes.csv were read. Written by `python -m roofcast.scenarios.fits.prices`.
"""
OF_FILE = {  # kinds of the collection: ours
    "rent_on_demand": "on-demand",
    "rent_spot": "spot",
    "rent_reserved_1y": "reserved-1y",
    "rent_reserved_3y": "reserved-3y",
    "purchase_launch": "launch",
    "purchase_market": "market",
    "server": "server",
}
NO_QUOTE = ("model", "assumed", "estimate")  # words in the name of a provider
COLUMNS = ("device", "kind", "usd", "date", "provider", "class", "region", "source")


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a collection. Raises BadInput where it cannot be read."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        return list(csv.DictReader(io.StringIO(text)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: not a table of quotes: {error}") from None


def why_not(row: dict[str, str]) -> str:
    """Why a row is left out by itself; empty where it is kept."""
    kind, device, provider = row["kind"], row["roofcast_device"], row["provider"]
    if kind not in OF_FILE:
        return "not a price of a device"
    if device not in hwdb.devices():
        return "no device of hwdb"
    if not row["price_usd"]:
        return "no price"
    if any(word in provider.lower() for word in NO_QUOTE) or "estimate" in row["note"]:
        return "a model or an estimate"
    if "index id" in row["source"]:
        return "no source that can be cited"
    rented = OF_FILE[kind] in KINDS[:4]
    if row["unit"] != ("USD/device-h" if rented else "USD/device"):
        return "another unit"
    if rented and provider not in PROVIDER_CLASS:
        return "sells calls or seconds, not machines"
    if rented and float(row["price_usd"]) > MOST:
        return "a placeholder"
    if device == "k80" and not rented:
        return "sold per board of two dies"
    if device.startswith("tpu-") and not rented:
        return "not for sale"
    return ""


def consistent(rows: list[dict[str, str]]) -> tuple[list[dict[str, str]], int]:
    """The rows without spot prices that are not below on-demand prices of the same list, and
    without on-demand prices below them; and how many were left out.
    """
    key = ("source", "provider", "roofcast_device", "gpus_per_instance")
    by_list: dict[tuple, dict[str, float]] = {}
    for row in rows:
        found = by_list.setdefault(tuple(row[k] for k in key), {})
        found[row["kind"]] = float(row["price_usd"])
    kept = []
    for row in rows:
        found = by_list[tuple(row[k] for k in key)]
        spot, full = found.get("rent_spot"), found.get("rent_on_demand")
        wrong = spot is not None and full is not None and spot >= full
        drop = "rent_spot" if wrong and spot == full else "rent_on_demand"
        if not (wrong and row["kind"] == drop):
            kept.append(row)
    return kept, len(rows) - len(kept)


def written(rows: Iterable[dict[str, str]]) -> tuple[str, str]:
    """The text of quotes.csv, and of sources.csv."""
    sources: dict[str, str] = {}
    lines = []
    for row in rows:
        where = row["source"].removeprefix("page ")
        source = sources.setdefault(where, f"s{len(sources) + 1}")
        kind = OF_FILE[row["kind"]]
        of_class = PROVIDER_CLASS.get(row["provider"], "") if kind in KINDS[:4] else ""
        usd = f"{float(row['price_usd']):.6g}"
        region = row["region"].replace("all regions (daily median over offers)", "")
        line = (row["roofcast_device"], kind, usd, row["date"], row["provider"], of_class, region)
        lines.append((*line, source))
    quotes, cited = io.StringIO(), io.StringIO()
    csv.writer(quotes, lineterminator="\n").writerows([COLUMNS, *sorted(lines)])
    table = [("source", "where"), *((key, where) for where, key in sources.items())]
    csv.writer(cited, lineterminator="\n").writerows(table)
    return HEAD + quotes.getvalue(), SOURCES_HEAD + cited.getvalue()


def main() -> None:
    """Read the file that is given, write the two tables, print what was left out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("quotes", type=Path)
    rows = rows_of(parser.parse_args().quotes)
    reasons = Counter(why_not(row) for row in rows)
    kept, contradicting = consistent([row for row in rows if not why_not(row)])
    reasons["contradicts the same list's other price"] = contradicting
    quotes, sources = written(kept)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "quotes.csv").write_text(quotes, encoding="utf-8")
    (FOLDER / "sources.csv").write_text(sources, encoding="utf-8")
    print(f"{len(kept)} of {len(rows)} quotes kept; left out:")
    for why, count in reasons.most_common():
        if why:
            print(f"  {count:5d}  {why}")


if __name__ == "__main__":
    main()
