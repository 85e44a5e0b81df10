"""Numbers for reading: three significant digits, SI prefixes, everyday units of time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

_PREFIXES = (
    (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""),
    (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"),
)  # fmt: skip
# from how many seconds on a unit of time is used
_DURATIONS = ((365.25 * 86400.0, "years"), (2 * 86400.0, "days"), (2 * 3600.0, "h"), (120.0, "min"))
_SCALES = {"years": 365.25 * 86400.0, "days": 86400.0, "h": 3600.0, "min": 60.0}
_BINARY = (
    (2.0**60, "Ei"), (2.0**50, "Pi"), (2.0**40, "Ti"), (2.0**30, "Gi"), (2.0**20, "Mi"),
    (2.0**10, "Ki"), (1.0, ""),
)  # fmt: skip
_WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))


def digits(value: float, significant: int = 3) -> str:
    """`value` to `significant` digits, without an exponent between 1e-4 and 1e6.

    >>> digits(1234.5), digits(12.345), digits(0.0123), digits(99.96)
    ('1234', '12.3', '0.0123', '100')
    """
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.{significant - 1}e}"))))
    if not -4 <= magnitude < 6:
        return f"{value:.{significant - 1}e}"
    return f"{value:.{max(significant - 1 - magnitude, 0)}f}"


def si(value: float | None, unit: str = "", significant: int = 3) -> str:
    """A number with an SI prefix and its unit; a dash for None.

    >>> si(3.35e12, "B/s"), si(80e9, "B"), si(0, "B"), si(999.9e9, "FLOP"), si(None, "B")
    ('3.35 TB/s', '80.0 GB', '0 B', '1.00 TFLOP', '—')
    """
    if value is None:
        return "—"
    if value == 0 or not math.isfinite(value):
        return f"{digits(value)} {unit}".rstrip()
    rounded = abs(float(f"{value:.{significant - 1}e}"))
    scale, prefix = next(((s, p) for s, p in _PREFIXES if rounded >= s), _PREFIXES[-1])
    return f"{digits(value / scale, significant)} {prefix}{unit}".rstrip()


def binary(value: float | None, significant: int = 3) -> str:
    """An amount of memory in powers of two: an "80 GB" card has 80 GiB. For traffic, see `si`.

    >>> binary(85899345920), binary(50 * 2**20), binary(1023.9 * 2**20), binary(0), binary(None)
    ('80.0 GiB', '50.0 MiB', '1.00 GiB', '0 B', '—')
    """
    if value is None:
        return "—"
    scale, prefix = next(((s, p) for s, p in _BINARY if abs(value) >= 0.9995 * s), _BINARY[-1])
    return f"{digits(value / scale, significant)} {prefix}B"


def of(part: float, whole: float) -> str:
    """One amount of memory out of another; a common unit is printed once.

    >>> of(83.2e9, 85899345920), of(2**20, 2**30)
    ('77.5 of 80.0 GiB', '1.00 MiB of 1.00 GiB')
    """
    number, unit = binary(part).split()
    return (
        f"{number} of {binary(whole)}"
        if binary(whole).endswith(f" {unit}")
        else f"{number} {unit} of {binary(whole)}"
    )


def seconds(value: float | None) -> str:
    """A duration below 1000 s with an SI prefix; a longer one as `duration` prints it.

    >>> seconds(0.0123), seconds(4.2e-6), seconds(75.0)
    ('12.3 ms', '4.20 µs', '75.0 s')
    """
    if value is not None and value >= 1000:
        return duration(value)
    return si(value, "s")


def duration(value: float | None, like: float | None = None) -> str:
    """A long duration in minutes, hours, days or years.

    like: the duration whose unit is taken, as that of the estimate is for its interval.

    >>> duration(1.3 * 86400 * 30), duration(5400.0), duration(12.0), duration(3e8)
    ('39.0 days', '90.0 min', '12.0 s', '9.51 years')
    >>> duration(2.3 * 86400), duration(2.3 * 86400, like=40 * 3600.0)
    ('2.30 days', '55.2 h')
    """
    if value is None:
        return "—"
    for least, unit in _DURATIONS:
        if (value if like is None else like) >= least:
            return f"{digits(value / _SCALES[unit])} {unit}"
    return si(value, "s")


def percent(value: float | None) -> str:
    """A fraction as a percentage.

    >>> percent(0.4712), percent(0.0312), percent(0.0001), percent(1.2), percent(1e9)
    ('47 %', '3.1 %', '< 0.1 %', '120 %', '> 9999 %')
    """
    if value is None:
        return "—"
    if 0 < value < 0.0005:
        return "< 0.1 %"
    if value >= 100:
        return "> 9999 %"
    return (
        f"{value:.0%}".replace("%", " %")
        if value >= 0.0995 or value == 0
        else f"{100 * value:.1f} %"
    )


def words(value: float) -> str:
    """A large count in words, small ones in full.

    >>> words(8030261248), words(25557032), words(61706)
    ('8.03 billion', '25.6 million', '61,706')
    """
    for scale, word in _WORDS:
        if value >= scale:
            return f"{digits(value / scale)} {word}"
    return f"{value:,.0f}"


def many(value: float) -> str:
    """A count with the suffixes of parameter counts: k, M, B, T.

    >>> many(8030261248), many(25557032), many(64)
    ('8.03 B', '25.6 M', '64.0')
    """
    return si(value).replace("G", "B")


def long_count(value: float) -> str:
    """A count in full, large ones with the suffix that they are typed with.

    >>> long_count(1e12), long_count(1.28e6), long_count(300e9), long_count(25000)
    ('1T', '1.28M', '300B', '25,000')
    """
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if value >= scale:
            return f"{value / scale:.12g}{suffix}"
    return f"{value:,.12g}"


def money(usd: float) -> str:
    """US dollars.

    >>> money(1234567.0), money(12.3), money(0.042)
    ('$1.23 million', '$12.30', '$0.0420')
    """
    if usd >= 1e6:
        return f"${words(usd)}"
    if usd >= 1000:
        return f"${usd:,.0f}"
    return f"${usd:.2f}" if usd >= 1 or usd == 0 else f"${digits(usd)}"


def hourly(usd: float) -> str:
    """US dollars of an hour: all digits that count, to a hundredth of a cent.

    >>> hourly(3.195), hourly(2.0), hourly(0.0426)
    ('$3.195', '$2.00', '$0.0426')
    """
    text = f"{usd:,.4f}".rstrip("0")
    return f"${text.ljust(len(text.partition('.')[0]) + 3, '0')}"


def energy(joules: float) -> str:
    """Energy in watt-hours.

    >>> energy(3.6e9), energy(7.2e5)
    ('1.00 MWh', '200 Wh')
    """
    return si(joules / 3600.0, "Wh")


_BLOCKS = {"layers", "layer", "blocks", "block", "h"}  # lists of blocks, as models name them


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Module paths by their last two components, without the list that holds the blocks, unless
    that makes two of them equal.

    >>> short_names(["model.layers.mlp.up_proj", "model.layers.norm", "net.layer1.1-2.conv1"])
    ... # doctest: +NORMALIZE_WHITESPACE
    {'model.layers.mlp.up_proj': 'mlp.up_proj', 'model.layers.norm': 'norm',
     'net.layer1.1-2.conv1': 'layer1.1-2.conv1'}
    """
    short = {name: _ending(name.split(".")) for name in names}
    ambiguous = {each for each, times in Counter(short.values()).items() if times > 1}
    return {name: name if each in ambiguous else each for name, each in short.items()}


def _ending(parts: list[str]) -> str:
    """The last two components, or three if the last but one starts with a digit; the last alone
    inside a list of blocks.
    """
    if len(parts) > 1 and parts[-2] in _BLOCKS:
        return parts[-1]
    return ".".join(parts[-3 if len(parts) > 2 and parts[-2][:1].isdigit() else -2 :])


def rate(value: float) -> str:
    """A rate with a thousands separator, or three digits if it is small."""
    return f"{value:,.0f}" if value >= 1000 else digits(value)
