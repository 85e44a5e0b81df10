"""Two pools of devices, for reading: which one binds, and what passes between them."""

from __future__ import annotations

from roofcast.reports.console import Justify, fitted_table, say, section, show
from roofcast.reports.format import binary, digits, percent, seconds, si
from roofcast.reports.parts import Console
from roofcast.simulator.serving.result import Pool, Pools, ServingForecast


def pools_of(f: ServingForecast) -> Pools:
    """The pools of a forecast that has two."""
    if f.pools is None:
        raise ValueError("a forecast of one pool")
    return f.pools


def layout(pool: Pool) -> str:
    """Degrees above 1 of an instance, and how many there are."""
    words = [f"{name} {n}" for name, n in pool.layout.items() if n > 1]
    if pool.instances > 1:
        words.append(f"{pool.instances} instances")
    return ", ".join(words) or "one device"


def where(f: ServingForecast) -> str:
    """The devices of both pools."""
    p = pools_of(f)
    parts = [
        f"{each.devices} {each.device} for {name} ({layout(each)})"
        for name, each in (("prefill", p.prefill), ("decode", p.decode))
    ]
    return " and ".join(parts)


def show_pools(out: Console, f: ServingForecast) -> None:
    """Print what each pool serves, which binds, and the transfer."""
    p = pools_of(f)
    section(out, "Pools")
    columns: list[tuple[str, Justify]] = [
        ("", "left"), ("devices", "right"), ("most requests/s", "right"), ("this load", "right"),
        ("peak memory", "right"), ("power", "right"),
    ]  # fmt: skip
    rows = [
        [
            name,
            f"{each.devices:,}",
            digits(each.highest_requests_per_s),
            percent(each.use),
            binary(each.peak_bytes),
            si(each.power_w, "W") if each.power_w is not None else "",
        ]
        for name, each in (("prefill", p.prefill), ("decode", p.decode))
    ]
    use = f.requests_per_s / p.transfer_requests_per_s
    link = ["transfer", "", digits(p.transfer_requests_per_s), percent(use), "", ""]
    show(out, fitted_table(out.width - 2, columns, [rows[0], link, rows[1]], ("power",)))
    say(out, "peak memory and power: of a device", style="dim")
    what = "the link" if p.binds == "transfer" else f"the {p.binds} pool"
    balanced = p.balanced_share * f.devices
    share = f"both pools serve as much with {percent(p.balanced_share)} of the devices for prefill"
    near = f" ({digits(balanced)} of {f.devices})"
    say(out, f"{what} binds; {share}{near if p.prefill.device == p.decode.device else ''}")
    speed = si(p.transfer_bytes_per_s, "B/s")
    say(
        out,
        f"transfer: {binary(p.transfer_bytes)} of KV cache per prompt, {seconds(p.transfer_s)} not"
        f" hidden behind the prompt, at {speed} per device",
    )
