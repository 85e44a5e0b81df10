"""Calibrate a CUDA device with PyTorch: products, attention, norms, elementwise, copies, launches.

Sampling is that of the CPU (sampling.py) with wall time; each job ends by waiting for the device.
The logic was tested on CPU tensors with a simulated clock; it has not been run on a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import NamedTuple

from roofcast.simulator.machine.device_file import (
    NO_DATASHEET,
    disagreement,
    entry,
    quoted,
    reported,
)
from roofcast.simulator.machine.sampling import Job, Rate

FORMATS = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
HEADS, HEAD_DIM = (4, 16), 64  # batch and heads of the attention job


class Gpu(NamedTuple):
    """What PyTorch reports about a device."""

    name: str
    cores: int | None  # streaming multiprocessors
    memory: int | None  # bytes


def available() -> str:
    """Why no CUDA device can be used; empty if one can."""
    from importlib.util import find_spec

    if not find_spec("torch"):
        return "PyTorch is not installed (pip install roofcast[torch])"
    import torch

    return "" if torch.cuda.is_available() else "PyTorch finds no CUDA device"


def described(torch: ModuleType) -> Gpu:
    """The first CUDA device; `torch` is the imported module."""
    found = torch.cuda.get_device_properties(0)
    cores = getattr(found, "multi_processor_count", None)
    return Gpu(found.name, cores, getattr(found, "total_memory", None))


def jobs(
    torch: ModuleType,
    where: str = "cuda",
    scale: float = 1.0,
    wait: Callable[[], object] | None = None,
) -> list[Job]:
    """The jobs for every ceiling.

    `torch` is the imported module, `where` the device of the tensors, `scale` multiplies every
    edge length, and `wait` returns when the device has finished its work.
    """
    wait = wait or torch.cuda.synchronize
    made = [
        _product(torch, where, scale, wait, name, size) for name in FORMATS for size in (4096, 8192)
    ]
    tokens = _edge(2048, scale)
    shape = (*HEADS, tokens, HEAD_DIM)
    q, k, v = (torch.randn(*shape, device=where).to(torch.bfloat16) for _ in range(3))
    attend = torch.nn.functional.scaled_dot_product_attention
    flops = 4.0 * HEADS[0] * HEADS[1] * tokens**2 * HEAD_DIM
    made.append(_job("attention bf16", flops, lambda: attend(q, k, v), wait))
    n = _edge(8192, scale)
    x, y = (torch.randn(n, n, device=where) for _ in range(2))
    z = torch.empty_like(x)
    weight = torch.ones(n, device=where)
    size = float(x.numel() * x.element_size())
    norm = torch.nn.functional.layer_norm
    made.append(_job("norm", 2.0 * size, lambda: norm(x, (n,), weight), wait))
    made.append(_job("elementwise", 3.0 * size, lambda: torch.add(x, y, out=z), wait))
    made.append(_job("copy", 2.0 * size, lambda: z.copy_(x), wait))
    small = torch.zeros(1, device=where)
    made.append(_job("launch", 1.0, lambda: small.add_(1.0), wait))
    return made


def _edge(size: int, scale: float) -> int:
    return max(8, int(size * scale) // 8 * 8)


def _job(
    key: str,
    amount: float,
    run: Callable[[], object],
    wait: Callable[[], object],
    before: Callable[[], object] = lambda: None,
) -> Job:
    def times(repeats: int) -> None:
        before()
        for _ in range(repeats):
            run()
        wait()

    return Job(key, 1, amount, times)


def _product(
    torch: ModuleType, where: str, scale: float, wait: Callable[[], object], name: str, size: int
) -> Job:
    n = _edge(size, scale)
    dtype, precision = getattr(torch, FORMATS[name]), "high" if name == "tf32" else "highest"
    a, b = (torch.randn(n, n, device=where).to(dtype) for _ in range(2))
    return _job(
        f"matmul {name} {size}",
        2.0 * n**3,
        lambda: torch.mm(a, b),
        wait,
        before=lambda: torch.set_float32_matmul_precision(precision),
    )


def text(gpu: Gpu, found: Mapping[str, Rate], stamp: str) -> str:
    """The TOML text of the device file.

    As for a CPU, the best measured rates stand in place of datasheet rates, marked as measured.
    """
    best = {}
    for name in FORMATS:
        products = [key for key in found if key.startswith(f"matmul {name} ")]
        if products:
            best[name] = max(products, key=lambda key: found[key].value)
    streams = [key for key in ("norm", "elementwise", "copy") if key in found]
    stream = max(streams, key=lambda key: found[key].value)
    halves = f"two halves of the rounds differ by {disagreement(found):.1%}"
    notes = json.dumps([NO_DATASHEET, f"{halves} (median over the ceilings)"])
    lines = [
        f"name = {quoted(gpu.name)}",
        'vendor = "NVIDIA"',
        'kind = "gpu"',
        'core = "SM"',
        f"notes = {notes}",
        "",
    ]
    if gpu.cores:
        lines.append(f"cores = {reported(gpu.cores)}")
    lines += ["", "[peak_flops]  # measured [FLOP/s]"]
    lines += [f"{name} = {_figure(found, key)}" for name, key in best.items()]
    if "fp32" in best:
        lines += ["", "[vector_flops]", f"fp32 = {_figure(found, best['fp32'])}"]
    lines += ["", "[memory]", f"bandwidth = {_figure(found, stream)}"]
    if gpu.memory:
        lines.append(f"capacity = {reported(gpu.memory)}")
    lines += ["", "[achieved]  # fractions of the rates above", *_achieved(found, best, stream)]
    lines += ["", "[sources]", f"measured = {quoted(stamp)}"]
    lines.append('host = "reported by PyTorch"')
    return "\n".join(lines) + "\n"


def _achieved(found: Mapping[str, Rate], best: dict[str, str], stream: str) -> list[str]:
    """The entries of [achieved]: fractions of the peaks, and the interval between kernels."""
    lines = []
    for name, key in best.items():
        if name != "fp16":  # both 16-bit formats have the same sustained fraction
            longest = f"matmul {name} 8192"
            fraction = found[longest].value / found[key].value
            lines.append(f"sustained_{name} = {entry(fraction, longest, found[longest])}")
    if "elementwise" in found:
        fraction = found["elementwise"].value / found[stream].value
        lines.append(f"stream = {entry(fraction, 'elementwise', found['elementwise'])}")
    if "launch" in found:
        interval = entry(1.0 / found["launch"].value, "launch", found["launch"])
        lines.append(f"kernel_interval = {interval}")
    return lines


def _figure(found: Mapping[str, Rate], key: str) -> str:
    return entry(found[key].value, key, found[key])
