"""Ceilings of a CUDA device by PyTorch: products, attention, norm, elementwise, copies, launches.
Jobs and sampling are those of the CPU (sampling.py), each job waiting for the device at its end,
and the clock is that of the wall.

The logic was tested on CPU tensors and a made-up clock; it has not been run on a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from roofcast.simulator.machine import device_file
from roofcast.simulator.machine.sampling import Job, Rate

FORMATS = ("fp32", "tf32", "bf16", "fp16")


class Gpu(NamedTuple):
    """What PyTorch says of a device."""

    name: str
    cores: int | None  # streaming multiprocessors
    memory: int | None  # bytes


def available() -> str:
    """Empty where a CUDA device can be used, else why not."""
    from importlib.util import find_spec

    if not find_spec("torch"):
        return "PyTorch is not installed (pip install roofcast[torch])"
    import torch

    return "" if torch.cuda.is_available() else "PyTorch finds no CUDA device"


def described(torch: Any) -> Gpu:
    """The first CUDA device."""
    told = torch.cuda.get_device_properties(0)
    return Gpu(
        told.name, getattr(told, "multi_processor_count", None), getattr(told, "total_memory", None)
    )


def jobs(
    torch: Any, where: str = "cuda", scale: float = 1.0, wait: Callable[[], object] | None = None
) -> list[Job]:
    """Every ceiling. `where`: the device of the tensors; `scale`: of every edge; `wait` returns
    when the device has done its work.
    """
    wait = wait or torch.cuda.synchronize
    kinds = {
        "fp32": torch.float32,
        "tf32": torch.float32,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
    }

    def edge(size: int) -> int:
        return max(8, int(size * scale) // 8 * 8)

    def job(
        key: str,
        amount: float,
        run: Callable[[], object],
        before: Callable[[], object] = lambda: None,
    ) -> Job:
        def times(repeats: int) -> None:
            before()
            for _ in range(repeats):
                run()
            wait()

        return Job(key, 1, amount, times)

    def tf32(allowed: bool) -> Callable[[], None]:
        return lambda: torch.set_float32_matmul_precision("high" if allowed else "highest")

    def product(name: str, size: int) -> Job:
        n = edge(size)
        a, b = (torch.randn(n, n, device=where).to(kinds[name]) for _ in range(2))
        return job(
            f"matmul {name} {size}", 2.0 * n**3, lambda: torch.mm(a, b), tf32(name == "tf32")
        )

    made = [product(name, size) for name in FORMATS for size in (4096, 8192)]
    tokens, depth = edge(2048), 64
    q, k, v = (torch.randn(4, 16, tokens, depth, device=where).to(torch.bfloat16) for _ in range(3))
    attend = torch.nn.functional.scaled_dot_product_attention
    made.append(job("attention bf16", 4.0 * 4 * 16 * tokens**2 * depth, lambda: attend(q, k, v)))
    n = edge(8192)
    x, y = (torch.randn(n, n, device=where) for _ in range(2))
    z = torch.empty_like(x)
    weight = torch.ones(n, device=where)
    whole = float(x.numel() * x.element_size())
    made.append(job("norm", 2.0 * whole, lambda: torch.nn.functional.layer_norm(x, (n,), weight)))
    made.append(job("elementwise", 3.0 * whole, lambda: torch.add(x, y, out=z)))
    made.append(job("copy", 2.0 * whole, lambda: z.copy_(x)))
    small = torch.zeros(1, device=where)
    made.append(job("launch", 1.0, lambda: small.add_(1.0)))
    return made


def text(gpu: Gpu, found: Mapping[str, Rate], stamp: str) -> str:
    """The device file: as of a CPU, the best that was measured stands where other files have
    printed rates, and says so.
    """
    best = {
        name: max(
            (key for key in found if key.startswith(f"matmul {name} ")),
            key=lambda key: found[key].value,
        )
        for name in FORMATS
        if any(key.startswith(f"matmul {name} ") for key in found)
    }
    stream = max(
        (key for key in ("norm", "elementwise", "copy") if key in found),
        key=lambda key: found[key].value,
    )
    notes = [
        "every rate was measured, none is printed: what would be a printed roof is the best that a"
        " kernel reached"
    ]
    notes.append(
        f"two halves of the rounds differ by {device_file.disagreement(found):.1%} (median over the"
        " ceilings)"
    )
    lines = [
        f"name = {device_file.quoted(gpu.name)}",
        'vendor = "NVIDIA"',
        'kind = "gpu"',
        'core = "SM"',
    ]
    lines += [f"notes = {json.dumps(notes)}", ""]
    if gpu.cores:
        lines.append(f"cores = {device_file.told(gpu.cores)}")
    lines += ["", "[peak_flops]  # measured [FLOP/s]"]
    lines += [
        f"{name} = {device_file.entry(found[key].value, key, found[key])}"
        for name, key in best.items()
    ]
    if "fp32" in best:
        lines += [
            "",
            "[vector_flops]",
            (
                "fp32 ="
                f" {device_file.entry(found[best['fp32']].value, best['fp32'], found[best['fp32']])}"
            ),
        ]
    lines += [
        "",
        "[memory]",
        f"bandwidth = {device_file.entry(found[stream].value, stream, found[stream])}",
    ]
    if gpu.memory:
        lines.append(f"capacity = {device_file.told(gpu.memory)}")
    lines += ["", "[achieved]  # shares of the rates above"]
    for name, key in best.items():
        if name != "fp16":  # long products of either 16-bit format hold the same share
            longest = f"matmul {name} 8192"
            lines.append(
                f"sustained_{name} ="
                f" {device_file.entry(found[longest].value / found[key].value, longest, found[longest])}"
            )
    if "elementwise" in found:
        share = found["elementwise"].value / found[stream].value
        lines.append(f"stream = {device_file.entry(share, 'elementwise', found['elementwise'])}")
    if "launch" in found:
        lines.append(
            "kernel_interval ="
            f" {device_file.entry(1.0 / found['launch'].value, 'launch', found['launch'])}"
        )
    lines += [
        "",
        "[sources]",
        f"measured = {device_file.quoted(stamp)}",
        'host = "what PyTorch says of the device"',
    ]
    return "\n".join(lines) + "\n"
