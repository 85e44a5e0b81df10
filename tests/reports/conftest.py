"""A forecast made by hand: a transformer's step from its shapes and two rates, so that printing and
drawing can be tested without the engine.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from roofcast.reports.pictures.roofs import Machine, Roof
from roofcast.simulator.forecast.result import (
    Forecast,
    LayerForecast,
    MemoryForecast,
    Point,
    RankForecast,
)
from roofcast.simulator.parallel.layout import Layout


def compute(label: str, printed: float, achieved: float | None) -> Roof:
    """A compute roof of the formats in its label."""
    formats = tuple(label.removesuffix(" vector").split(", "))
    return Roof(kind="compute", label=label, precisions=formats, printed=printed, achieved=achieved)


def memory(label: str, printed: float, achieved: float | None = None) -> Roof:
    return Roof(kind="memory", label=label, printed=printed, achieved=achieved)


H100 = Machine(
    name="h100-sxm5",
    roofs=(
        compute("fp8", 1978.9e12, 1430e12),
        compute("bf16, fp16", 989.4e12, 795e12),
        compute("tf32", 494.7e12, 397e12),
        compute("fp32 vector", 66.9e12, 55e12),
        compute("fp64 vector", 33.5e12, None),
        memory("L2", 5.5e12),
        memory("DRAM", 3.35e12, 2.8e12),
    ),
)
RTX3090 = Machine(
    name="rtx-3090",
    roofs=(
        compute("bf16, fp16", 71.2e12, 57e12),
        compute("fp32 vector", 35.6e12, 30e12),
        memory("DRAM", 936e9, 860e9),
    ),
)
HIDDEN, INNER, KV, VOCABULARY = 4096, 14336, 1024, 128256  # of Llama 3 8B


class Row(NamedTuple):
    """Work of one repetition of an op [FLOP, B]."""

    name: str
    op: str
    count: int
    parameters: int
    forward: float
    backward: float
    forward_bytes: float
    backward_bytes: float
    saved: float
    unit: str


def linear(t: int, name: str, k: int, n: int, count: int) -> Row:
    """A product of t tokens with a matrix [k x n]."""
    flops, moved = 2 * t * k * n, 2 * (t * k + k * n + t * n)
    return Row(
        name, "linear", count, k * n, flops, 2 * flops, moved, 2 * moved, 2 * t * k, "matrix"
    )


def vectors(
    t: int, name: str, op: str, count: int, width: int, per_element: float, passes: int,
    parameters: int = 0, saved: float = 2,
) -> Row:  # fmt: skip
    """A pointwise op on t x width elements."""
    n = t * width
    flops, moved = per_element * n, passes * n
    return Row(
        name, op, count, parameters, flops, 2 * flops, 2 * moved, 3 * moved, saved * n, "vector"
    )


def attention(batch: int, sequence: int, count: int) -> Row:
    """Causal attention."""
    t, flops = batch * sequence, 4 * batch * sequence * sequence * HIDDEN / 2
    moved = 2 * (2 * t * HIDDEN + 2 * t * KV)
    name = "layers.self_attn.attention"
    return Row(name, "attention", count, 0, flops, 2.5 * flops, moved, 2 * moved, moved, "matrix")


def llama_rows(batch: int, sequence: int, layers: int) -> list[Row]:
    """The ops of a model like Llama 3 8B."""
    t, h = batch * sequence, HIDDEN
    norms = ("input_layernorm", "post_attention_layernorm")
    return [
        vectors(t, "embed_tokens", "embedding", 1, h, 0, 2, VOCABULARY * h, 0),
        *(vectors(t, f"layers.{norm}", "rms_norm", layers, h, 4, 6, h, 6) for norm in norms),
        linear(t, "layers.self_attn.q_proj", h, h, layers),
        linear(t, "layers.self_attn.k_proj", h, KV, layers),
        linear(t, "layers.self_attn.v_proj", h, KV, layers),
        vectors(t, "layers.self_attn.rope", "rotary", layers, h + KV, 6, 5),
        attention(batch, sequence, layers),
        linear(t, "layers.self_attn.o_proj", h, h, layers),
        linear(t, "layers.mlp.gate_proj", h, INNER, layers),
        linear(t, "layers.mlp.up_proj", h, INNER, layers),
        vectors(t, "layers.mlp.silu", "silu_mul", layers, INNER, 6, 3, 0, 4),
        linear(t, "layers.mlp.down_proj", INNER, h, layers),
        vectors(t, "layers.residual", "add", 2 * layers, h, 1, 3, 0, 0),
        vectors(t, "norm", "rms_norm", 1, h, 4, 6, h, 6),
        linear(t, "lm_head", h, VOCABULARY, 1),
        vectors(t, "loss", "cross_entropy", 1, VOCABULARY, 5, 6, 0, 8),
    ]


class Clock:
    """Times of ops on a machine: the longer of compute and memory time, plus 4 us per launch."""

    def __init__(self, machine: Machine):
        self.matrix = next(r for r in machine.roofs if "bf16" in r.precisions)
        self.vector = next(r for r in machine.roofs if "fp32" in r.precisions)
        self.memory = next(r for r in machine.roofs if r.label == "DRAM")

    def timed(self, row: Row, flops: float, moved: float) -> tuple[float, float, str]:
        """Seconds, lower bound and limit of all repetitions of a pass."""
        roof = self.matrix if row.unit == "matrix" else self.vector
        slow = max(
            flops / (roof.achieved or roof.printed),
            moved / (self.memory.achieved or self.memory.printed),
        )
        compute_s, stream_s = flops / roof.printed, moved / self.memory.printed
        bound = row.unit if compute_s > stream_s else "memory"
        return row.count * (slow + 4e-6), row.count * max(compute_s, stream_s), bound

    def layer(self, row: Row) -> LayerForecast:
        """An op as a forecast has it, the update of its weights included."""
        forward, forward_bound, bound = self.timed(row, row.forward, row.forward_bytes)
        backward, backward_bound, _ = self.timed(row, row.backward, row.backward_bytes)
        moved = row.count * row.parameters * 28
        update = moved / self.memory.printed / 0.85
        return LayerForecast(
            name=row.name,
            op=row.op,
            count=row.count,
            parameters=row.count * row.parameters,
            flops=row.count * (row.forward + row.backward + 12.0 * row.parameters),
            bytes=row.count * (row.forward_bytes + row.backward_bytes) + moved,
            saved_bytes=row.count * row.saved,
            time_s=forward + backward + update,
            forward_s=forward,
            backward_s=backward,
            update_s=update,
            lower_bound_s=forward_bound + backward_bound + moved / self.memory.printed,
            bound=bound,
        )

    def points(self, row: Row) -> list[Point]:
        """An op as the points of a roofline, the update of its weights included."""
        passes = (
            ("forward", row.forward, row.forward_bytes),
            ("backward", row.backward, row.backward_bytes),
        )
        points = [
            Point(
                name=row.name,
                op=row.op,
                phase=phase,
                unit=row.unit,
                precision="bf16" if row.unit == "matrix" else "fp32",
                flops=row.count * flops,
                bytes=row.count * moved,
                time_s=self.timed(row, flops, moved)[0],
            )
            for phase, flops, moved in passes
        ]
        return [*points, *self.update(row)]

    def update(self, row: Row) -> list[Point]:
        """The update of an op's weights as a point, if it has any."""
        weights = row.count * row.parameters
        kind = dict(op=row.op, phase="update", unit="vector", precision="fp32")
        time = self.layer(row).update_s
        numbers = dict(flops=12.0 * weights, bytes=28.0 * weights, time_s=time)
        return [Point(name=row.name, **kind, **numbers)] if weights else []


def memory_of(parameters: float, kept: float) -> MemoryForecast:
    """Memory of a step on a device of 80 GiB."""
    peak = 16.0 * parameters + kept + 2.1e9
    return MemoryForecast(
        parameters_bytes=2.0 * parameters,
        gradients_bytes=2.0 * parameters,
        optimizer_bytes=12.0 * parameters,
        activations_bytes=kept,
        transient_bytes=0.6e9,
        framework_bytes=1.5e9,
        peak_bytes=peak,
        peak_moment="end of forward",
        capacity_bytes=80.0 * 2**30,
        fits=peak <= 80.0 * 2**30,
        largest_batch=None,
    )


def transformer_step(
    machine: Machine = H100, batch: int = 1, sequence: int = 8192, layers: int = 32, **changes
) -> Forecast:
    """A step like Llama 3 8B's in bf16 on a machine, with any field of the forecast changed."""
    rows, clock, t = llama_rows(batch, sequence, layers), Clock(machine), batch * sequence
    ops = [clock.layer(row) for row in rows]
    points = [point for row in rows for point in clock.points(row)]
    total = sum(op.parameters for op in ops)
    step = sum(op.time_s for op in ops)
    kept = float(sum(op.saved_bytes for op in ops))
    matrix = float(sum(row.count * row.forward for row in rows if row.unit == "matrix"))
    mfu = 3.2 * matrix / step / clock.matrix.printed
    values = dict(
        model="llama-3-8b", device=machine.name, mode="train", batch=batch, sequence=sequence,
        image=None, precision="bf16", optimizer="adamw", recompute="none", attention="flash",
        stack="pytorch-eager",
        step_time_s=step,
        lower_bound_s=sum(op.lower_bound_s for op in ops),
        forward_s=sum(op.forward_s for op in ops),
        backward_s=sum(op.backward_s for op in ops),
        update_s=sum(op.update_s for op in ops),
        host_s=0.021,
        samples_per_s=batch / step, tokens_per_s=t / step, mfu=mfu, hfu=mfu,
        parameters=total,
        flops_forward=matrix, flops_backward=2.2 * matrix, flops_recompute=0.0, flops_other=1e12,
        bytes_forward=float(sum(row.count * row.forward_bytes for row in rows)),
        bytes_backward=float(sum(row.count * row.backward_bytes for row in rows)),
        saved_bytes=kept, saved_input_bytes=8.0 * t, saved_weight_copy_bytes=0.0,
        memory=memory_of(total, kept),
        layers=tuple(ops),
        points=tuple(points),
        diagnosis=(
            "Matrix products take most of the step, near what the chip sustains: more FLOP/s would"
            " help, more bandwidth would not."
        ),
        assumptions=("achieved fraction of the matrix peak: the Hopper family's default",),
    )  # fmt: skip
    return Forecast(**(values | changes))


@pytest.fixture(scope="session")
def machines() -> dict[str, Machine]:
    """Two devices as a roofline shows them."""
    return {machine.name: machine for machine in (H100, RTX3090)}


@pytest.fixture(scope="session")
def step(machines):
    """A function that makes a forecast on the device of that name, with any field changed."""
    return lambda device="h100-sxm5", **asked: transformer_step(machines[device], **asked)


@pytest.fixture(scope="session")
def spread(step):
    """A function that makes a forecast of 16 devices, four pipeline stages, any field changed."""
    layout = Layout(tp=2, sp=True, pp=4, dp=2, zero=1, shard=2, micro_batches=8)
    ranks = tuple(
        RankForecast(
            stage=stage,
            layers=8,
            parameters_bytes=2e9,
            gradients_bytes=2e9,
            optimizer_bytes=6e9,
            activations_bytes=(4 - stage) * 3e9,
            transient_bytes=1e9,
            buffers_bytes=0.5e9,
            framework_bytes=1.5e9,
            peak_bytes=13e9 + (4 - stage) * 3e9,
        )
        for stage in range(4)
    )
    together = dict(
        devices=16,
        layout=layout,
        tokens_per_s_per_device=700.0,
        bubble_fraction=0.2,
        ranks=ranks,
        exposed_communication_s={"tensor": 0.03, "data": 0.01},
        communication_bytes={"tensor": 4e10, "data": 3e9, "pipeline": 1e9},
    )
    return lambda **changes: step(step_time_s=1.5, **(together | changes))


@pytest.fixture
def forecast(step) -> Forecast:
    """A training step on one H100."""
    return step()


SAME, OFF = 24, 0.002  # levels by which a pixel may differ (other fonts); share that may by more


@pytest.fixture(scope="session")
def alike():
    """A function that fails unless two PNGs have the same texts, numbers among them, and look the
    same.
    """

    def compared(stored: bytes, now: bytes) -> None:
        one, other = (Image.open(io.BytesIO(each)) for each in (stored, now))
        assert one.info["Description"] == other.info["Description"], "make docs draws it anew"
        assert one.size == other.size
        pixels = [np.asarray(image.convert("RGB"), dtype=int) for image in (one, other)]
        assert (np.abs(pixels[0] - pixels[1]).max(axis=2) > SAME).mean() <= OFF

    return compared
