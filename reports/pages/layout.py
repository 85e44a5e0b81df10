"""Several devices for reading: how the step is cut, what is lost to it, what each pipeline stage
holds.
"""

from __future__ import annotations

from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from roofcast.reports.console import plain_table, say, section, show
from roofcast.reports.format import binary, percent, seconds, si
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.parallel.layout import Layout

# kinds of traffic that stand with the ops that send it
_OF_OPS = ("tensor", "context", "expert", "expert tensor")
_STAGES = 12  # shown; of more, the first, the last and the fullest


def on_what(forecast: Forecast) -> str:
    """The device, and how many of it.

    16 × h100-sxm5
    """
    return f"{forecast.devices:,} × {forecast.device}" if forecast.devices > 1 else forecast.device


def layout_line(layout: Layout, system: str | None = None) -> str:
    """Degrees that are more than one, the micro-batches, and where it all stands.

    >>> layout_line(Layout(tp=8, sp=True, pp=4, dp=2, zero=1, shard=2, micro_batches=16))
    'tensor 8 with sequence parallel, pipeline 4 (1f1b), data 2, ZeRO 1; 16 micro-batches of 1'
    """
    parts = []
    if layout.tp > 1:
        parts.append(f"tensor {layout.tp}{' with sequence parallel' if layout.sp else ''}")
    if layout.cp > 1:
        parts.append(
            f"context {layout.cp}{f' ({layout.cp_kind})' if layout.cp_kind != 'ring' else ''}"
        )
    if layout.pp > 1:
        chunks = f", {layout.vpp} virtual stages" if layout.vpp > 1 else ""
        layers = f", layers {'+'.join(map(str, layout.stages))}" if layout.stages else ""
        parts.append(f"pipeline {layout.pp} ({layout.schedule}{chunks}{layers})")
    if layout.dp > 1:
        parts.append(f"data {layout.dp}")
    if layout.ep * layout.etp > 1:
        parts.append(f"expert {layout.ep}{f' of tensor {layout.etp}' if layout.etp > 1 else ''}")
    if layout.zero:
        within = f" in groups of {layout.shard}" if layout.shard < layout.dp * layout.cp else ""
        stays = ", weights stay gathered" if layout.zero == 3 and not layout.reshard else ""
        parts.append(f"ZeRO {layout.zero}{within}{stays}")
    if layout.offload:
        parts.append(f"{' and '.join(layout.offload)} with the host")
    batches = (
        f"{layout.micro_batches} micro-batch{'es' if layout.micro_batches > 1 else ''} of"
        f" {layout.micro_batch}"
    )
    return f"{', '.join(parts) or 'one device'}; {batches}{f'; in {system}' if system else ''}"


class Loss(NamedTuple):
    """What a device does in a step beside its layers."""

    name: str
    time: float  # [s]
    flops: float | None = None
    moved: float | None = None  # to and from its own memory [B]
    sent: float | None = None  # beyond what the layers' rows say [B]


def losses(forecast: Forecast) -> list[Loss]:
    """Update, traffic by kind that nothing hides, waits for the host, the pipeline bubble, uneven
    stages.
    """
    update = [p for p in forecast.points if p.phase == "update"]
    rows = [
        Loss(
            "optimizer",
            forecast.update_s,
            sum(p.flops for p in update) or None,
            sum(p.bytes for p in update) or None,
        )
    ]
    for kind, sent in forecast.communication_bytes.items():
        rest = None if kind in _OF_OPS else sent
        name = "copies to the host" if kind == "offload" else f"sent: {kind}"
        rows.append(
            Loss(
                name,
                forecast.exposed_communication_s.get(kind, 0.0),
                sent=None if kind == "offload" else rest,
            )
        )
    rows.append(Loss("waiting for the host", forecast.waiting_for_host_s or 0.0))
    rows += between(forecast)
    rows.append(Loss("pipeline bubble", (forecast.bubble_fraction or 0.0) * forecast.step_time_s))
    rows.append(Loss("uneven stages", forecast.uneven_stages_s or 0.0))
    return [row for row in rows if row.time > 0.0005 * forecast.step_time_s or row.sent]


def between(forecast: Forecast) -> list[Loss]:
    """What the host needs between two steps."""
    return [Loss("between steps", forecast.between_steps_s)] if forecast.between_steps_s > 0 else []


def devices_section(out: Console, forecast: Forecast) -> None:
    """What is sent and what of it nothing hides; the bubble; memory by stage."""
    moved = {kind: sent for kind, sent in forecast.communication_bytes.items() if sent > 0}
    if moved or forecast.layout.pp > 1:
        section(out, "Between the devices" if forecast.devices > 1 else "Between device and host")
    for kind, sent in moved.items():
        exposed = forecast.exposed_communication_s.get(kind, 0.0)
        shown = f", {seconds(exposed)} of it exposed" if exposed > 0 else ", all of it hidden"
        if kind == "offload":
            say(
                out,
                f"offload: {si(sent, 'B')} a step to and from the"
                f" host{_offloaded(forecast, exposed)}",
            )
        else:
            say(out, f"{kind}: a device sends {si(sent, 'B')} a step{shown}")
    if forecast.layout.pp > 1:
        say(out, f"pipeline bubble: {percent(forecast.bubble_fraction)} of the step")
    stages_section(out, forecast)


def _offloaded(forecast: Forecast, exposed: float) -> str:
    """What offload costs: the copies that nothing hides, the update on the host."""
    parts = []
    if "activations" in forecast.layout.offload:
        parts.append(
            f"{seconds(exposed)} of activations' exposed"
            if exposed > 0
            else "activations' all hidden"
        )
    if "optimizer" in forecast.layout.offload:
        parts.append(f"{seconds(forecast.update_s)} for the update there")
    return f": {', '.join(parts)}"


def stages_section(out: Console, forecast: Forecast) -> None:
    """Memory by pipeline stage, where there are several."""
    if len(forecast.ranks) > 1:
        section(out, "Memory by pipeline stage, of one device of it")
        show(out, stage_table(forecast))
        say(
            out,
            "kept: activations of all micro-batches in flight; other: transient, communication"
            " buffers, framework",
            style="dim",
        )


def stage_table(forecast: Forecast) -> Table:
    """A row a stage, of many the first, the last and the fullest."""
    columns = (
        ("stage", "right"),
        ("layers", "right"),
        ("weights", "right"),
        ("gradients", "right"),
        ("optimizer", "right"),
    )
    table = plain_table(*columns, ("kept", "right"), ("other", "right"), ("peak", "right"))
    ranks = forecast.ranks
    fullest = max(range(len(ranks)), key=lambda i: ranks[i].peak_bytes)
    shown = range(len(ranks)) if len(ranks) <= _STAGES else sorted({0, fullest, len(ranks) - 1})
    for i in shown:
        rank = ranks[i]
        other = rank.transient_bytes + rank.buffers_bytes + rank.framework_bytes
        held = (
            rank.parameters_bytes,
            rank.gradients_bytes,
            rank.optimizer_bytes,
            rank.activations_bytes,
            other,
            rank.peak_bytes,
        )
        style = "bold" if i == fullest else None
        table.add_row(
            *map(Text, (str(rank.stage), str(rank.layers), *map(binary, held))), style=style
        )
    return table
