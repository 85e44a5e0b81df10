"""Measured kernel times from CSV files, as arrays in the formulas' own arguments.

Four layouts of columns are known by their heads: serving kernels of tensor-core GPUs
(aiconfigurator), fp32 kernels in PyTorch (NeuSight), transformer kernels on A100 over
tensor-parallel degrees (Vidur), DeepBench. Gzipped or not.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from roofcast.hwdb.errors import BadInput

DEVICES = {  # as the files name them -> name in hwdb
    "a100_sxm": "a100-sxm4-80gb", "h100_sxm": "h100-sxm5", "h200_sxm": "h200-sxm", "l40s": "l40s",
    "b200_sxm": "b200-sxm", "gb200": "gb200", "b300_sxm": "b300-sxm", "gb300": "gb300",
    "rtx_pro_6000_server": "rtx-pro-6000", "a100": "a100-sxm4-80gb", "Tesla P4": "p4",
    "Tesla P100-PCIE-16GB": "p100-pcie-16gb", "Tesla V100-PCIE-32GB": "v100-pcie-32gb",
    "Tesla T4": "t4", "NVIDIA A100-PCIE-40GB": "a100-pcie-40gb",
    "NVIDIA A100 80GB PCIe": "a100-pcie-80gb", "AMD Instinct MI100": "mi100",
    "NV_V100": "v100-sxm2-16gb", "NV_P100": "p100-pcie-16gb", "NV_T4": "t4",
    "NV_1080Ti": "gtx-1080-ti",
}  # fmt: skip


class Group(NamedTuple):
    """Rows of one file, device, op and format: arguments of the op's formula and the seconds
    measured.
    """

    file: str
    device: str  # name in hwdb
    op: str  # matmul | attention | stream | conv
    kind: str  # what the file calls it; for conv its phase, for stream its class of kernel
    format: str
    # what was timed: "kernel", a "call" of several kernels, an "event" pair with the host's gap, a
    # "loop"
    clock: str
    args: dict[str, np.ndarray]
    seconds: np.ndarray


def read(path: str | Path) -> list[Group]:
    """Every group of rows of the file that a formula exists for."""
    path = Path(path)
    try:
        frame = pd.read_csv(path, low_memory=False, skiprows=_head(path))
    except (OSError, EOFError, ValueError) as error:
        raise BadInput(f"{path.name}: cannot be read as CSV: {error}") from None
    for head, reader in READERS.items():
        if set(head) <= set(frame.columns):
            return list(reader(frame, path.name))
    raise BadInput(
        f"{path.name}: not a known layout of measured kernels; columns needed: "
        + " or ".join(", ".join(h) for h in READERS)
    )


def _head(path: Path) -> int:
    """Lines of comment before the columns."""
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8")
    ) as file:
        return next((i for i, line in enumerate(file) if not line.startswith("#")), 0)


def _groups(frame, keys):
    yield from frame.groupby(keys, dropna=False, sort=True)


def _columns(rows, **names) -> dict[str, np.ndarray]:
    return {to: rows[column].to_numpy(float) for to, column in names.items()}


# dtype and framework -> kernels its call launches to quantize activations, read off the shortest
# calls; a memset counts half
CASTS = {
    ("fp8", "sglang"): 1.0,
    ("fp8", "vllm"): 1.0,
    ("fp8", "trtllm"): 3.5,
    ("fp8_block", "sglang"): 1.0,
    ("fp8_block", "trtllm"): 1.0,
    ("nvfp4", "sglang"): 1.0,
    ("nvfp4", "vllm"): 1.5,
    ("nvfp4", "trtllm"): 1.5,
    ("sq", "trtllm"): 1.5,
}


def _serving(frame, file):
    """aiconfigurator-core: one framework call in a replayed CUDA graph. vLLM's fp8_block calls were
    not: a host's 60 to 340 us in each.
    """
    formats = {"bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8", "nvfp4": "fp4", "sq": "int8"}
    gemm = frame[(frame.op == "gemm") & frame.gemm_dtype.isin(formats) & (frame.m > 0)]
    gemm = gemm[(gemm.gemm_dtype != "fp8_block") | (gemm.backend_dir != "vllm")]
    for (system, dtype), rows in _groups(gemm, ["system", "gemm_dtype"]):
        args = _columns(rows, m="m", n="n", k="k") | {"batch": np.ones(len(rows))}
        if dtype != "bfloat16":
            args["casts"] = np.array([CASTS[dtype, framework] for framework in rows.backend_dir])
            args["whole_rows"] = np.full(len(rows), dtype == "fp8")
        device, measured = DEVICES.get(system, system), rows.latency_ms.to_numpy() * 1e-3
        yield Group(file, device, "matmul", f"gemm {dtype}", formats[dtype], "call", args, measured)
    fused = frame[
        (frame.attn_dtype == "bfloat16")
        & frame.kv_cache_dtype.isin(["bfloat16", np.nan])
        & (frame.isl > 0)
    ]
    # nor generic kernels
    fused = fused[
        (fused.backend_dir != "trtllm") & ~fused.kernel_source.isin(["vllm_triton_attn", "triton"])
    ]
    for op in ("context_attention", "encoder_attention"):
        for system, rows in _groups(fused[fused.op == op], "system"):
            args = _columns(
                rows,
                batch="batch_size",
                heads="num_heads",
                kv_heads="num_key_value_heads",
                head_dim="head_dim",
            )
            args["kv_heads"] = np.where(args["kv_heads"] > 0, args["kv_heads"], args["heads"])
            args |= _columns(rows, q_len="isl", kv_len="isl") | {
                "causal": np.full(len(rows), op == "context_attention")
            }
            window = rows.window_size.fillna(0).to_numpy(float)
            args["window"] = np.where(window > 0, window, np.inf)
            yield Group(
                file,
                DEVICES.get(system, system),
                "attention",
                op,
                "bf16",
                "call",
                args,
                rows.latency_ms.to_numpy() * 1e-3,
            )


FP32_PASSES = {  # tensors read and written, special functions an element, class of kernel
    "add": (3, 0, "elementwise"),
    "mul": (3, 0, "elementwise"),
    "div": (3, 0, "elementwise"),
    "addu": (2, 0, "elementwise"),
    "mulu": (2, 0, "elementwise"),
    "divu": (2, 0, "elementwise"),
    "relu": (2, 0, "elementwise"),
    "gelu": (2, 1, "elementwise"),
    "tanh": (2, 1, "elementwise"),
    "ln": (2, 0, "norm"),
    "softmax": (2, 1, "softmax"),
}


def _fp32(frame, file):
    """NeuSight: fp32 PyTorch ops between two CUDA events, host gap included."""
    for (name, op), rows in _groups(frame, ["device", "op"]):
        device, ones, seconds = (
            DEVICES.get(name, name),
            np.ones(len(rows)),
            rows.latency_ms.to_numpy() * 1e-3,
        )
        if op == "bmm":
            args = _columns(rows, batch="B", m="M", n="K", k="N")
            yield Group(file, device, "matmul", op, "fp32", "event", args, seconds)
        elif op == "linear":
            args = _columns(rows, n="K", k="N") | {
                "m": rows.B.to_numpy(float) * rows.M.to_numpy(float),
                "batch": ones,
            }
            yield Group(file, device, "matmul", op, "fp32", "event", args, seconds)
        elif op == "conv":
            args = _columns(rows, batch="B", c_in="conv_cin", c_out="conv_cout")
            side = rows.conv_in.to_numpy(float)
            args |= {
                "pixels_in": side**2,
                "pixels_out": side**2,
                "taps": rows.conv_k.to_numpy(float) ** 2,
                "groups": ones,
            }
            args["unit_stride"] = rows.conv_stride.to_numpy() == 1
            yield Group(file, device, "conv", "forward", "fp32", "event", args, seconds)
        elif op in FP32_PASSES:
            passes, special, kind = FP32_PASSES[op]
            size = rows.B.to_numpy(float) * rows.H.to_numpy(float)
            args = {"bytes": 4.0 * passes * size, "flops": size, "special": special * size}
            yield Group(file, device, "stream", kind, "fp32", "event", args, seconds)


def _transformer(frame, file):
    """Vidur: durations of single fp16 kernels on A100."""
    for name, rows in _groups(frame[frame.gemm_M > 0], "device"):
        args = _columns(rows, m="gemm_M", n="gemm_N", k="gemm_K") | {"batch": np.ones(len(rows))}
        yield Group(
            file,
            DEVICES.get(name, name),
            "matmul",
            "gemm",
            "fp16",
            "kernel",
            args,
            rows.time_ms_mean.to_numpy() * 1e-3,
        )
    tokens, tp = frame.num_tokens.astype(float), frame.num_tensor_parallel_workers
    hidden = frame.n_embd * 2.0
    rotary = (
        frame.n_embd / frame.n_head * (frame.n_head + np.maximum(frame.n_kv_head, tp)) / tp * 2.0
    )
    moved = {
        "add": ("elementwise", 3 * hidden),
        "emb": ("gather", 2 * hidden),
        "input_layernorm": ("rms_norm", 2 * hidden),
        "post_attention_layernorm": ("rms_norm", 2 * hidden),
        "attn_rope": ("rope", 2 * rotary),
        "mlp_act": (
            "gated",
            np.where(frame.use_gated_mlp, 3, 2) * frame.n_expanded_embd / tp * 2.0,
        ),
    }
    for op, (kind, bytes_a_token) in moved.items():
        total = pd.Series(bytes_a_token, index=frame.index) * tokens
        for name, rows in _groups(frame[frame.op == op], "device"):
            args = {
                "bytes": total[rows.index].to_numpy(float),
                "flops": np.zeros(len(rows)),
                "special": np.zeros(len(rows)),
            }
            yield Group(
                file,
                DEVICES.get(name, name),
                "stream",
                kind,
                "fp16",
                "kernel",
                args,
                rows.time_ms_mean.to_numpy() * 1e-3,
            )


def _deepbench(frame, file):
    """DeepBench: mean of a loop of library calls; NCHW."""
    formats = {"Float": "fp32", "16 bit inputs, 16 bit multiplication, 32 bit addition": "fp16"}
    phases = {"conv_fwd": "forward", "conv_bwd_input": "input", "conv_bwd_weight": "weight"}
    kept = frame[
        frame.device.isin(DEVICES)
        & frame.precision.isin(formats)
        & frame.op.isin(["gemm", *phases])
    ]
    for (name, precision, op), rows in _groups(kept, ["device", "precision", "op"]):
        seconds, ones = rows.time_ms.to_numpy() * 1e-3, np.ones(len(rows))
        if op == "gemm":
            args = _columns(rows, m="M", n="N", k="K") | {"batch": ones}
            yield Group(
                file,
                DEVICES.get(name, name),
                "matmul",
                "gemm",
                formats[precision],
                "loop",
                args,
                seconds,
            )
            continue
        args = _columns(rows, batch="N", c_in="conv_C", c_out="conv_K") | {"groups": ones}
        args["pixels_in"] = (rows.conv_W * rows.conv_H).to_numpy(float)
        args["pixels_out"] = (rows.out_w * rows.out_h).to_numpy(float)
        args["taps"] = (rows.filt_w * rows.filt_h).to_numpy(float)
        args["unit_stride"] = ((rows.stride_w == 1) & (rows.filt_w == 3)).to_numpy()
        args["channels_last"] = np.zeros(len(rows), bool)
        yield Group(
            file,
            DEVICES.get(name, name),
            "conv",
            phases[op],
            formats[precision],
            "loop",
            args,
            seconds,
        )


READERS = {
    ("op", "system", "gemm_dtype", "m", "n", "k", "latency_ms"): _serving,
    ("op", "device", "B", "M", "N", "K", "H", "conv_cin", "latency_ms"): _fp32,
    (
        "op",
        "device",
        "num_tensor_parallel_workers",
        "gemm_M",
        "gemm_N",
        "gemm_K",
        "time_ms_mean",
    ): _transformer,
    ("op", "device", "precision", "filt_w", "filt_h", "transA", "time_ms"): _deepbench,
}
