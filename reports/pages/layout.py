"""A step over several devices, for reading: the layout, communication, memory by pipeline stage."""

from __future__ import annotations

from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from roofcast.reports.console import plain_table, say, section, show
from roofcast.reports.format import binary, percent, seconds, si
from roofcast.simulator.forecast.result import Forecast
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
_STAGES = 12  # shown; of more, the first, the last and the most loaded


def on_what(forecast: Forecast) -> str:
    """The device, and the number of devices: `16 × h100-sxm5`."""
    return f"{forecast.devices:,} × {forecast.device}" if forecast.devices > 1 else forecast.device


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
    batches = f"{count:,} micro-batch{'es' if count > 1 else ''}"
    batches += f" of {size:,} sample{'s' if size > 1 else ''}"
    batches += " per DP rank" if layout.dp > 1 else ""
    return f"{', '.join(parts) or 'one device'}; {batches}{f'; on {system}' if system else ''}"


class Loss(NamedTuple):
    """A part of a device's step outside the layers."""

    name: str
    time: float  # [s]
    flops: float | None = None
    moved: float | None = None  # traffic to the device's own memory [B]
    sent: float | None = None  # to other devices, beyond what the layers' rows count [B]


def losses(forecast: Forecast) -> list[Loss]:
    """The optimizer update, exposed communication by kind, waits, the bubble, stage imbalance."""
    update = [p for p in forecast.points if p.phase == "update"]
    flops, moved = (sum(getattr(p, field) for p in update) or None for field in ("flops", "bytes"))
    rows = [Loss("optimizer", forecast.update_s, flops, moved)]
    for kind, sent in forecast.communication_bytes.items():
        counted = kind in _OF_OPS or kind == "offload"
        exposed = forecast.exposed_communication_s.get(kind, 0.0)
        name = TRAFFIC.get(kind, (f"comm: {kind}",))[0]
        rows.append(Loss(name, exposed, sent=None if counted else sent))
    rows.append(Loss("waiting for the host", forecast.waiting_for_host_s or 0.0))
    rows += between(forecast)
    rows.append(Loss("pipeline bubble", (forecast.bubble_fraction or 0.0) * forecast.step_time_s))
    rows.append(Loss("uneven stages", forecast.uneven_stages_s or 0.0))
    return [row for row in rows if row.time > 0.0005 * forecast.step_time_s or row.sent]


def between(forecast: Forecast) -> list[Loss]:
    """Host time between two steps, if there is any."""
    seconds_ = forecast.between_steps_s
    return [Loss("host between steps", seconds_)] if seconds_ > 0 else []


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
    if "activations" in layout.offload:
        exposed = forecast.exposed_communication_s.get("offload", 0.0)
        shown = f"{seconds(exposed)} exposed" if exposed > 0 else "fully overlapped"
        parts.append(f"activation copies: {shown}")
    if "optimizer" in layout.offload:
        parts.append(f"optimizer update on the host: {seconds(forecast.update_s)}")
    return "; ".join(parts)


def stages_section(out: Console, forecast: Forecast) -> None:
    """Memory by pipeline stage, if there are several."""
    if len(forecast.ranks) > 1:
        section(out, "Memory by pipeline stage, per device")
        show(out, stage_table(forecast))
        note = "saved: activations of all micro-batches in flight; "
        note += "other: transient, communication buffers, framework"
        say(out, note, style="dim")


def stage_table(forecast: Forecast) -> Table:
    """A row per stage; of many stages the first, the last and the most loaded."""
    titles = ("stage", "layers", "weights", "gradients", "optimizer", "saved", "other", "peak")
    table = plain_table(*((title, "right") for title in titles))
    ranks = forecast.ranks
    fullest = max(range(len(ranks)), key=lambda i: ranks[i].peak_bytes)
    shown = range(len(ranks)) if len(ranks) <= _STAGES else sorted({0, fullest, len(ranks) - 1})
    for i in shown:
        rank = ranks[i]
        held = (
            rank.parameters_bytes,
            rank.gradients_bytes,
            rank.optimizer_bytes,
            rank.activations_bytes,
            rank.transient_bytes + rank.buffers_bytes + rank.framework_bytes,
            rank.peak_bytes,
        )
        cells = map(Text, (str(rank.stage), str(rank.layers), *map(binary, held)))
        table.add_row(*cells, style="bold" if i == fullest else None)
    return table
