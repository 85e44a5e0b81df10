"""A forecast made by hand: a transformer's step from its shapes and two rates, so that what is
printed can be tested without the engine.
"""

from __future__ import annotations

import pytest

from roofcast.reports.pictures.roofs import Machine, Roof
from roofcast.simulator.forecast.result import (
    Forecast,
    LayerForecast,
    MemoryForecast,
    Point,
    RankForecast,
)
from roofcast.simulator.parallel.layout import Layout

H100 = Machine(
    name="h100-sxm5",
    roofs=(
        Roof(kind="compute", label="fp8", precisions=("fp8",), printed=1978.9e12, achieved=1430e12),
        Roof(
            kind="compute",
            label="bf16, fp16",
            precisions=("bf16", "fp16"),
            printed=989.4e12,
            achieved=795e12,
        ),
        Roof(kind="compute", label="tf32", precisions=("tf32",), printed=494.7e12, achieved=397e12),
        Roof(
            kind="compute",
            label="fp32 vector",
            precisions=("fp32",),
            printed=66.9e12,
            achieved=55e12,
        ),
        Roof(
            kind="compute",
            label="fp64 vector",
            precisions=("fp64",),
            printed=33.5e12,
            achieved=None,
        ),
        Roof(kind="memory", label="L2", printed=5.5e12),
        Roof(kind="memory", label="DRAM", printed=3.35e12, achieved=2.8e12),
    ),
)
RTX3090 = Machine(
    name="rtx-3090",
    roofs=(
        Roof(
            kind="compute",
            label="bf16, fp16",
            precisions=("bf16", "fp16"),
            printed=71.2e12,
            achieved=57e12,
        ),
        Roof(
            kind="compute",
            label="fp32 vector",
            precisions=("fp32",),
            printed=35.6e12,
            achieved=30e12,
        ),
        Roof(kind="memory", label="DRAM", printed=936e9, achieved=860e9),
    ),
)


def transformer_step(
    machine: Machine = H100, batch: int = 1, sequence: int = 8192, layers: int = 32, **changes
) -> Forecast:
    """Llama-3-8B-like step in bf16: every op takes the longer of its compute and memory time at the
    achieved rates, plus 4 us a launch.
    """
    hidden, inner, kv, vocabulary = 4096, 14336, 1024, 128256
    matrix = next(r for r in machine.roofs if "bf16" in r.precisions)
    vector = next(r for r in machine.roofs if "fp32" in r.precisions)
    memory = next(r for r in machine.roofs if r.label == "DRAM")
    t = batch * sequence
    # name, op, count, parameters, forward FLOPs, backward FLOPs, forward bytes, backward bytes,
    # saved, unit
    rows = []

    def linear(name, k, n, count):
        flops, moved = 2 * t * k * n, 2 * (t * k + k * n + t * n)
        rows.append(
            (name, "linear", count, k * n, flops, 2 * flops, moved, 2 * moved, 2 * t * k, "matrix")
        )

    def vectors(name, op, count, width, per_element, passes, parameters=0, saved=2):
        n = t * width
        rows.append(
            (
                name,
                op,
                count,
                parameters,
                per_element * n,
                2 * per_element * n,
                2 * passes * n,
                3 * passes * n,
                saved * n,
                "vector",
            )
        )

    vectors("embed_tokens", "embedding", 1, hidden, 0, 2, vocabulary * hidden, 0)
    for part in ("input_layernorm", "post_attention_layernorm"):
        vectors(f"layers.{part}", "rms_norm", layers, hidden, 4, 6, hidden, 6)
    linear("layers.self_attn.q_proj", hidden, hidden, layers)
    linear("layers.self_attn.k_proj", hidden, kv, layers)
    linear("layers.self_attn.v_proj", hidden, kv, layers)
    vectors("layers.self_attn.rope", "rotary", layers, hidden + kv, 6, 5)
    attention = 4 * batch * sequence * sequence * hidden / 2
    moved = 2 * (2 * t * hidden + 2 * t * kv)
    rows.append(
        (
            "layers.self_attn.attention",
            "attention",
            layers,
            0,
            attention,
            2.5 * attention,
            moved,
            2 * moved,
            moved,
            "matrix",
        )
    )
    linear("layers.self_attn.o_proj", hidden, hidden, layers)
    linear("layers.mlp.gate_proj", hidden, inner, layers)
    linear("layers.mlp.up_proj", hidden, inner, layers)
    vectors("layers.mlp.silu", "silu_mul", layers, inner, 6, 3, 0, 4)
    linear("layers.mlp.down_proj", inner, hidden, layers)
    vectors("layers.residual", "add", 2 * layers, hidden, 1, 3, 0, 0)
    vectors("norm", "rms_norm", 1, hidden, 4, 6, hidden, 6)
    linear("lm_head", hidden, vocabulary, 1)
    vectors("loss", "cross_entropy", 1, vocabulary, 5, 6, 0, 8)

    def timed(flops, moved, count, unit):
        rate = matrix if unit == "matrix" else vector
        compute, stream = flops / rate.printed, moved / memory.printed
        slow = (
            max(
                flops / (rate.achieved or rate.printed), moved / (memory.achieved or memory.printed)
            )
            + 4e-6
        )
        return count * slow, count * max(compute, stream), unit if compute > stream else "memory"

    forecasts, points = [], []
    for name, op, count, parameters, f, b, fm, bm, saved, unit in rows:
        forward, forward_bound, bound = timed(f, fm, count, unit)
        backward, backward_bound, _ = timed(b, bm, count, unit)
        update, moved = count * parameters * 28 / memory.printed / 0.85, count * parameters * 28
        precision = "bf16" if unit == "matrix" else "fp32"
        for phase, flops, bytes_, time in (
            ("forward", f, fm, forward),
            ("backward", b, bm, backward),
        ):
            points.append(
                Point(
                    name=name,
                    op=op,
                    phase=phase,
                    unit=unit,
                    precision=precision,
                    flops=count * flops,
                    bytes=count * bytes_,
                    time_s=time,
                )
            )
        forecasts.append(
            LayerForecast(
                name=name,
                op=op,
                count=count,
                parameters=count * parameters,
                flops=count * (f + b),
                bytes=count * (fm + bm) + moved,
                saved_bytes=count * saved,
                time_s=forward + backward + update,
                forward_s=forward,
                backward_s=backward,
                update_s=update,
                lower_bound_s=forward_bound + backward_bound + moved / memory.printed,
                bound=bound,
            )
        )
    total = sum(layer.parameters for layer in forecasts)
    update = sum(layer.update_s for layer in forecasts)
    points.append(
        Point(
            name="optimizer",
            op="adamw",
            phase="update",
            unit="vector",
            precision="fp32",
            flops=12.0 * total,
            bytes=28.0 * total,
            time_s=update,
        )
    )
    step = sum(layer.time_s for layer in forecasts)
    kept = float(sum(layer.saved_bytes for layer in forecasts))
    matrix_forward = float(
        sum(count * f for _, _, count, _, f, _, _, _, _, unit in rows if unit == "matrix")
    )
    peak = 16.0 * total + kept + 2.1e9
    values = dict(
        model="llama-3-8b",
        device=machine.name,
        mode="train",
        batch=batch,
        sequence=sequence,
        image=None,
        precision="bf16",
        optimizer="adamw",
        recompute="none",
        attention="flash",
        stack="pytorch-eager",
        step_time_s=step,
        lower_bound_s=sum(layer.lower_bound_s for layer in forecasts),
        forward_s=sum(layer.forward_s for layer in forecasts),
        backward_s=sum(layer.backward_s for layer in forecasts),
        update_s=update,
        host_s=0.021,
        samples_per_s=batch / step,
        tokens_per_s=t / step,
        mfu=3.2 * matrix_forward / step / matrix.printed,
        hfu=3.2 * matrix_forward / step / matrix.printed,
        parameters=total,
        flops_forward=matrix_forward,
        flops_backward=2.2 * matrix_forward,
        flops_recompute=0.0,
        flops_other=1e12,
        bytes_forward=float(sum(r[2] * r[6] for r in rows)),
        bytes_backward=float(sum(r[2] * r[7] for r in rows)),
        saved_bytes=kept,
        saved_input_bytes=8.0 * t,
        saved_weight_copy_bytes=0.0,
        memory=MemoryForecast(
            parameters_bytes=2.0 * total,
            gradients_bytes=2.0 * total,
            optimizer_bytes=12.0 * total,
            activations_bytes=kept,
            transient_bytes=0.6e9,
            framework_bytes=1.5e9,
            peak_bytes=peak,
            peak_moment="end of forward",
            capacity_bytes=80.0 * 2**30,
            fits=peak <= 80.0 * 2**30,
            largest_batch=None,
        ),
        layers=tuple(forecasts),
        points=tuple(points),
        diagnosis=(
            "Matrix products take most of the step, near what the chip sustains: more FLOP/s would"
            " help, more bandwidth would not."
        ),
        assumptions=(
            "achieved fraction of the matrix peak: the Hopper family's default",
            "no interval: single-device residuals are not yet fitted",
        ),
    )
    return Forecast(**(values | changes))


@pytest.fixture(scope="session")
def machines() -> dict[str, Machine]:
    """Two devices, as a roofline sees them."""
    return {machine.name: machine for machine in (H100, RTX3090)}


@pytest.fixture(scope="session")
def step(machines):
    """Makes a forecast by hand: of a step on the device of that name, with any field changed."""
    return lambda device="h100-sxm5", **asked: transformer_step(machines[device], **asked)


@pytest.fixture(scope="session")
def spread(step):
    """Makes a forecast of 16 devices by hand, four pipeline stages, with any field changed."""
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
    """A forecast made by hand."""
    return step()
