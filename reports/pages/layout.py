"""A step over several devices, for reading: the layout, communication, memory by pipeline stage."""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.hwdb.errors import number_of
from roofcast.hwdb.tuples import NamedTuple
from roofcast.reports.console import Justify, plain_table, say, section, show
from roofcast.reports.format import binary, percent, seconds, si
from roofcast.reports.pages.asked import edited
from roofcast.reports.parts import Console, Table, Text
from roofcast.simulator.forecast.result import Forecast, RankForecast
from roofcast.simulator.parallel.layout import Layout

# kind of traffic: as a row of the layer table, and by itself
TRAFFIC = {
    "tensor": ("comm: tensor", "tensor parallel"),
    "context": ("comm: context", "context parallel"),
    "expert": ("comm: expert", "expert parallel"),
    "expert tensor": ("comm: expert tensor", "tensor parallel within experts"),
    "data": ("comm: data", "data parallel"),
    "pipeline": ("comm: pipeline", "pipeline parallel"),
    "sharded weights": ("comm: ZeRO 3", "ZeRO 3 (FSDP)"),
    "offload": ("host-device copies", "offload"),
}
_OF_OPS = ("tensor", "context", "expert", "expert tensor")  # kinds that count as sent by an op
_RANK = (
    ("layers", "layers"),
    ("parameters", "parameters_bytes"),
    ("gradients", "gradients_bytes"),
    ("optimizer states", "optimizer_bytes"),
    ("activations", "activations_bytes"),
    ("transient", "transient_bytes"),
    ("communication buffers", "buffers_bytes"),
    ("framework", "framework_bytes"),
    ("peak", "peak_bytes"),
)  # rows of the table of pipeline stages: as in the table by kind
_MOST = 12  # pipeline stages shown, at most
_KIND, _STAGE = 23, 10  # widths of the first column of that table and of the others


def on_what(forecast: Forecast) -> str:
    """The number of devices, their name, and whether it is changed: `16 × h100-sxm5`."""
    several = f"{forecast.devices:,} × " if forecast.devices > 1 else ""
    return f"{several}{forecast.device}{edited(forecast)}"


def layout_line(layout: Layout, system: str | None = None) -> str:
    """Degrees of parallelism above one, micro-batches, and the system.

    >>> layout_line(Layout(tp=8, sp=True, pp=4, dp=2, zero=1, shard=2, micro_batches=16))
    'TP 8 with SP, PP 4 (1f1b), DP 2, ZeRO 1; 16 micro-batches of 1 sample per DP rank'
    """
    parts = []
    if layout.tp > 1:
        parts.append(f"TP {layout.tp}{' with SP' if layout.sp else ''}")
    if layout.cp > 1:
        parts.append(f"CP {layout.cp}{f' ({layout.cp_kind})' if layout.cp_kind != 'ring' else ''}")
    if layout.pp > 1:
        chunks = f", {layout.vpp} virtual stages" if layout.vpp > 1 else ""
        layers = f", layers {'+'.join(map(str, layout.stages))}" if layout.stages else ""
        parts.append(f"PP {layout.pp} ({layout.schedule}{chunks}{layers})")
    if layout.dp > 1:
        parts.append(f"DP {layout.dp}")
    if layout.ep * layout.etp > 1:
        parts.append(f"EP {layout.ep}{f' with expert TP {layout.etp}' if layout.etp > 1 else ''}")
    if layout.zero:
        within = f" in groups of {layout.shard}" if layout.shard < layout.dp * layout.cp else ""
        stays = ", weights kept gathered" if layout.zero == 3 and not layout.reshard else ""
        parts.append(f"ZeRO {layout.zero}{within}{stays}")
    if layout.offload:
        parts.append(f"{' and '.join(layout.offload)} offloaded to the host")
    count, size = layout.micro_batches, layout.micro_batch
    batches = number_of(count, "micro-batch", "micro-batches")
    batches += f" of {number_of(size, 'sample')}"
    batches += " per DP rank" if layout.dp > 1 else ""
    return f"{', '.join(parts) or 'one device'}; {batches}{f'; on {system}' if system else ''}"


class Loss(NamedTuple):
    """A part of a device's step outside the layers' forward and backward passes."""

    name: str
    time: float  # [s]
    flops: float | None = None
    moved: float | None = None  # traffic to the device's own memory [B]
    sent: float | None = None  # to other devices, beyond what the layers' rows count [B]


def losses(forecast: Forecast) -> list[Loss]:
    """The optimizer update, exposed communication by kind, waits, the bubble, stage imbalance.

    On one device without a layout: the update, and host time between steps.
    """
    update = [p for p in forecast.points if p.phase == "update"]
    flops, moved = (sum(getattr(p, field) for p in update) or None for field in ("flops", "bytes"))
    rows = [Loss("optimizer", forecast.update_s, flops, moved)]
    for kind, sent in forecast.communication_bytes.items():
        counted = kind in _OF_OPS or kind == "offload"
        exposed = forecast.exposed_communication_s.get(kind, 0.0)
        name = TRAFFIC.get(kind, (f"comm: {kind}",))[0]
        rows.append(Loss(name, exposed, sent=None if counted else sent))
    rows.append(Loss("waiting for the host", forecast.waiting_for_host_s or 0.0))
    rows.append(Loss("host between steps", forecast.between_steps_s))
    rows.append(Loss("pipeline bubble", (forecast.bubble_fraction or 0.0) * forecast.step_time_s))
    rows.append(Loss("uneven stages", forecast.uneven_stages_s or 0.0))
    return [row for row in rows if row.time > 0.0005 * forecast.step_time_s or row.sent]


def devices_section(out: Console, forecast: Forecast) -> None:
    """Communication and the pipeline bubble; offload; memory by stage."""
    layout = forecast.layout
    assert layout is not None, "only a forecast with a layout has this section"
    sent = {kind: n for kind, n in forecast.communication_bytes.items() if n > 0}
    offloaded = sent.pop("offload", None)
    if sent or layout.pp > 1:
        section(out, "Communication, per device and step")
    if sent:
        table = plain_table(("kind", "left"), ("sent", "right"), ("exposed", "right"))
        for kind, n in sent.items():
            exposed = forecast.exposed_communication_s.get(kind, 0.0)
            name = TRAFFIC.get(kind, ("", kind))[1]
            table.add_row(name, si(n, "B"), seconds(exposed) if exposed > 0 else "none")
        show(out, table)
    if layout.pp > 1:
        say(out, f"pipeline bubble: {percent(forecast.bubble_fraction)} of the step")
    if offloaded is not None:
        section(out, "Offload to the host" + (", per device" if forecast.devices > 1 else ""))
        say(out, _offload_cost(forecast, layout, offloaded))
    stages_section(out, forecast)


def _offload_cost(forecast: Forecast, layout: Layout, moved: float) -> str:
    """Traffic between device and host, its exposed time, the time of an update on the host."""
    parts = [f"{si(moved, 'B')} per step between device and host"]
    copied = [w for w in ("activations", "parameters") if w in layout.offload]
    if copied:
        exposed = forecast.exposed_communication_s.get("offload", 0.0)
        shown = f"{seconds(exposed)} exposed" if exposed > 0 else "fully overlapped"
        parts.append(f"copies of {' and '.join(copied)}: {shown}")
    if "optimizer" in layout.offload:
        parts.append(f"optimizer update on the host: {seconds(forecast.update_s)}")
    return "; ".join(parts)


def offloaded(forecast: Forecast) -> str:
    """What of a device lies in host memory and on drives, and the host memory there is for it."""
    host, drives = (forecast.offloaded_bytes.get(where, 0.0) for where in ("host", "nvme"))
    there = forecast.host_memory_bytes
    of = f" of {binary(there)}" if there is not None else ""
    parts = [f"{binary(host)}{of} in host memory"] if host else []
    parts += [f"{binary(drives)} on NVMe drives"] if drives else []
    each = " per device" if forecast.devices > 1 else ""
    return f"offloaded{each}: {', '.join(parts)}"


def stages_section(out: Console, forecast: Forecast) -> None:
    """Memory by pipeline stage, if there are several."""
    if len(forecast.ranks) > 1:
        section(out, "Memory by pipeline stage, per device")
        stages = _shown(forecast.ranks, min(_MOST, (out.width - 2 - _KIND) // _STAGE))
        show(out, _stage_table(stages))
        note = "stage 0 is the first; activations: of all micro-batches in flight"
        left = len(forecast.ranks) - len(stages)
        say(out, note + ("; --json lists all stages" if left else ""), style="dim")


def _shown(ranks: Sequence[RankForecast], room: int) -> list[RankForecast]:
    """All stages, or as many as there is room for: the first ones, the most loaded, the last."""
    fullest = max(ranks, key=lambda rank: rank.peak_bytes)
    always = {0, fullest.stage, len(ranks) - 1}
    others = [rank.stage for rank in ranks if rank.stage not in always]
    chosen = always | set(others[: max(room - len(always), 0)])
    return [rank for rank in ranks if rank.stage in chosen]


def _stage_table(ranks: Sequence[RankForecast]) -> Table:
    """A column per stage, a row per kind of memory, without empty kinds."""
    columns: list[tuple[str, Justify]] = [("", "left")]
    table = plain_table(*columns, *((f"stage {rank.stage}", "right") for rank in ranks))
    for name, field in _RANK:
        values = [getattr(rank, field) for rank in ranks]
        if any(values):
            cells = map(str if field == "layers" else binary, values)
            style = "bold" if field == "peak_bytes" else None
            table.add_row(*map(Text, (name, *cells)), style=style)
    return table
