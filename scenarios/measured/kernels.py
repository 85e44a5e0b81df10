"""Measured kernel times from CSV files, as arrays of the arguments of the time formulas.

Four layouts of columns are known: serving kernels of tensor-core GPUs (aiconfigurator), fp32
kernels in PyTorch (NeuSight), transformer kernels on A100 over tensor-parallel degrees (Vidur), and
DeepBench. Files may be gzipped.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from roofcast.hwdb import contents
from roofcast.hwdb.errors import BadInput, one_line, quoted

if TYPE_CHECKING:
    import pandas as pd

DEVICES = {  # device, as the files name it -> name in hwdb
    "a100_sxm": "a100-sxm4-80gb", "h100_sxm": "h100-sxm5", "h200_sxm": "h200-sxm", "l40s": "l40s",
    "b200_sxm": "b200-sxm", "gb200": "gb200", "b300_sxm": "b300-sxm", "gb300": "gb300",
    "rtx_pro_6000_server": "rtx-pro-6000", "a100": "a100-sxm4-80gb", "Tesla P4": "p4",
    "Tesla P100-PCIE-16GB": "p100-pcie-16gb", "Tesla V100-PCIE-32GB": "v100-pcie-32gb",
    "Tesla T4": "t4", "NVIDIA A100-PCIE-40GB": "a100-pcie-40gb",
    "NVIDIA A100 80GB PCIe": "a100-pcie-80gb", "AMD Instinct MI100": "mi100",
    "NV_V100": "v100-sxm2-16gb", "NV_P100": "p100-pcie-16gb", "NV_T4": "t4",
    "NV_1080Ti": "gtx-1080-ti",
}  # fmt: skip
SERVING_FORMATS = {
    "bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8", "nvfp4": "fp4", "sq": "int8",
}  # fmt: skip
# dtype and framework -> kernels that a call launches to quantize activations, as the shortest calls
# show; a memset counts half
CASTS = {
    ("fp8", "sglang"): 1.0, ("fp8", "vllm"): 1.0, ("fp8", "trtllm"): 3.5,
    ("fp8_block", "sglang"): 1.0, ("fp8_block", "trtllm"): 1.0,
    ("nvfp4", "sglang"): 1.0, ("nvfp4", "vllm"): 1.5, ("nvfp4", "trtllm"): 1.5,
    ("sq", "trtllm"): 1.5,
}  # fmt: skip
FP32_OPS = {  # op -> tensors read and written, special functions per element, kind of kernel
    "add": (3, 0, "elementwise"), "mul": (3, 0, "elementwise"), "div": (3, 0, "elementwise"),
    "addu": (2, 0, "elementwise"), "mulu": (2, 0, "elementwise"), "divu": (2, 0, "elementwise"),
    "relu": (2, 0, "elementwise"), "gelu": (2, 1, "elementwise"), "tanh": (2, 1, "elementwise"),
    "ln": (2, 0, "norm"), "softmax": (2, 1, "softmax"),
}  # fmt: skip


FROM_ZERO = (  # arguments of formulas that may be 0
    "flops", "special", "causal", "whole_rows", "unit_stride", "channels_last", "casts",
)  # fmt: skip
MOST = 1e15  # largest number of a row


class Group(NamedTuple):
    """The rows of one file, device, op and format, one array element per row."""

    file: str
    device: str  # name in hwdb
    op: str  # matmul | attention | stream | conv
    kind: str  # the file's name of the op; of a conv its phase, of a stream its class of kernel
    format: str  # number format
    # what was timed: a "kernel", a "call" of several kernels, one call between two "event"s, with
    # the launch, or calls in a "loop"
    clock: str
    args: dict[str, np.ndarray]  # of the formula in simulator/times
    seconds: np.ndarray  # measured


def read(path: str | Path) -> list[Group]:
    """Every group of rows that a formula exists for; raises BadInput for other files."""
    import pandas as pd

    path = Path(path)
    text = contents.text(path, "a CSV of measured kernels", contents.LARGEST_TABLE)
    comments = itertools.takewhile(lambda line: line.startswith("#"), io.StringIO(text))
    try:
        frame = pd.read_csv(io.StringIO(text), dtype=str, skiprows=len(list(comments)))
    except ValueError as error:  # of pandas' parser
        raise BadInput(f"{path}: cannot be read as CSV: {one_line(error)}") from None
    for columns, layout in READERS.items():
        if set(columns) <= set(frame.columns):
            _check_columns(frame, layout, path)
            groups = list(layout.reader(frame, path.name))
            for group in groups:
                _check_numbers(group, path)
            return groups
    needed = " or ".join(", ".join(columns) for columns in READERS)
    raise BadInput(f"{path}: not a known layout of measured kernels; columns needed: {needed}")


def _check_columns(frame: pd.DataFrame, layout: Layout, path: Path) -> None:
    """Convert the columns of numbers. Raises BadInput where a column is not there, or holds text
    instead of a number.
    """
    wanted = (*layout.texts, *layout.numbers)
    missing = next((column for column in wanted if column not in frame.columns), None)
    if missing is not None:
        raise BadInput(f"{path}: no column {missing!r}; this layout has: {', '.join(wanted)}")

    def number(cell: Any) -> float:
        try:
            value = float(cell)
        except ValueError:
            raise BadInput(f"{path}: column {column}: {quoted(cell)} is not a number") from None
        if abs(value) > MOST:
            raise BadInput(f"{path}: column {column}: {quoted(cell)}: at most {MOST:g} is wanted")
        return value

    for column in layout.numbers:
        frame[column] = frame[column].map(number).astype(float)


def _check_numbers(group: Group, path: Path) -> None:
    """Raises BadInput where an argument of a formula is missing or not positive."""
    for name, values in {**group.args, "measured time": group.seconds}.items():
        numbers = np.asarray(values, float)
        wrong = ~(numbers >= 0.0 if name in FROM_ZERO else numbers > 0.0)
        if wrong.any():
            raise BadInput(
                f"{path}: {group.kind}: {name} is {numbers[wrong][0]:g} in a row; wanted a number"
                " above 0"
            )


def _groups(frame: pd.DataFrame, keys: str | list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The rows of each value of the key columns, sorted."""
    yield from frame.groupby(keys, dropna=False, sort=True)


def _columns(rows: pd.DataFrame, **columns: str) -> dict[str, np.ndarray]:
    """Arguments of a formula from the columns that hold them."""
    return {argument: rows[column].to_numpy(float) for argument, column in columns.items()}


def _seconds(milliseconds: pd.Series) -> np.ndarray:
    return milliseconds.to_numpy() * 1e-3


def _serving(frame: pd.DataFrame, file: str) -> Iterator[Group]:
    """aiconfigurator-core: one call of a framework in a replayed CUDA graph.

    vLLM's fp8_block calls were not replayed: each holds 60 to 340 us of the host. They are left
    out, and so are generic attention kernels.
    """
    gemm = frame[(frame.op == "gemm") & frame.gemm_dtype.isin(SERVING_FORMATS) & (frame.m > 0)]
    gemm = gemm[(gemm.gemm_dtype != "fp8_block") | (gemm.backend_dir != "vllm")]
    for (system, dtype), rows in _groups(gemm, ["system", "gemm_dtype"]):
        args = _columns(rows, m="m", n="n", k="k") | {"batch": np.ones(len(rows))}
        if dtype != "bfloat16":
            args["casts"] = np.array([CASTS.get((dtype, f), 1.0) for f in rows.backend_dir])
            args["whole_rows"] = np.full(len(rows), dtype == "fp8")
        device, kind, format = DEVICES.get(system, system), f"gemm {dtype}", SERVING_FORMATS[dtype]
        measured = _seconds(rows.latency_ms)
        yield Group(file, device, "matmul", kind, format, "call", args, measured)
    fused = frame[(frame.attn_dtype == "bfloat16") & (frame.isl > 0)]
    fused = fused[fused.kv_cache_dtype.isin(["bfloat16", np.nan])]
    generic = fused.kernel_source.isin(["vllm_triton_attn", "triton"])
    fused = fused[(fused.backend_dir != "trtllm") & ~generic]
    for op in ("context_attention", "encoder_attention"):
        for system, rows in _groups(fused[fused.op == op], "system"):
            device, measured = DEVICES.get(system, system), _seconds(rows.latency_ms)
            args = _attention_args(rows, op == "context_attention")
            yield Group(file, device, "attention", op, "bf16", "call", args, measured)


def _attention_args(rows: pd.DataFrame, causal: bool) -> dict[str, np.ndarray]:
    args = _columns(rows, batch="batch_size", heads="num_heads", head_dim="head_dim")
    args |= _columns(rows, q_len="isl", kv_len="isl", kv_heads="num_key_value_heads")
    args["kv_heads"] = np.where(args["kv_heads"] > 0, args["kv_heads"], args["heads"])
    window = rows.window_size.fillna(0).to_numpy(float)
    window = np.where(window > 0, window, np.inf)
    return args | {"causal": np.full(len(rows), causal), "window": window}


def _fp32(frame: pd.DataFrame, file: str) -> Iterator[Group]:
    """NeuSight: fp32 PyTorch ops between two CUDA events, the gap of the host included."""
    for (name, op), rows in _groups(frame, ["device", "op"]):
        device, measured = DEVICES.get(name, name), _seconds(rows.latency_ms)
        ones = np.ones(len(rows))
        if op == "bmm":
            args = _columns(rows, batch="B", m="M", n="K", k="N")
            yield Group(file, device, "matmul", op, "fp32", "event", args, measured)
        elif op == "linear":
            m = rows.B.to_numpy(float) * rows.M.to_numpy(float)
            args = _columns(rows, n="K", k="N") | {"m": m, "batch": ones}
            yield Group(file, device, "matmul", op, "fp32", "event", args, measured)
        elif op == "conv":
            args = _columns(rows, batch="B", c_in="conv_cin", c_out="conv_cout")
            pixels, taps = (rows[c].to_numpy(float) ** 2 for c in ("conv_in", "conv_k"))
            args |= {"pixels_in": pixels, "pixels_out": pixels, "taps": taps, "groups": ones}
            args["unit_stride"] = rows.conv_stride.to_numpy() == 1
            yield Group(file, device, "conv", "forward", "fp32", "event", args, measured)
        elif op in FP32_OPS:
            passes, special, kind = FP32_OPS[op]
            size = rows.B.to_numpy(float) * rows.H.to_numpy(float)
            args = {"bytes": 4.0 * passes * size, "flops": size, "special": special * size}
            yield Group(file, device, "stream", kind, "fp32", "event", args, measured)


def _transformer(frame: pd.DataFrame, file: str) -> Iterator[Group]:
    """Vidur: durations of single fp16 kernels on A100."""
    for name, rows in _groups(frame[frame.gemm_M > 0], "device"):
        args = _columns(rows, m="gemm_M", n="gemm_N", k="gemm_K") | {"batch": np.ones(len(rows))}
        device, measured = DEVICES.get(name, name), _seconds(rows.time_ms_mean)
        yield Group(file, device, "matmul", "gemm", "fp16", "kernel", args, measured)
    tp, hidden = frame.num_tensor_parallel_workers, frame.n_embd * 2.0
    heads = frame.n_head + np.maximum(frame.n_kv_head, tp)
    rotary = frame.n_embd / frame.n_head * heads / tp * 2.0
    tensors = np.where(frame.use_gated_mlp.isin(["True", "true", "1"]), 3, 2)
    bytes_per_token = {  # op -> kind of kernel, and the bytes it moves for each token
        "add": ("elementwise", 3 * hidden),
        "emb": ("gather", 2 * hidden),
        "input_layernorm": ("rms_norm", 2 * hidden),
        "post_attention_layernorm": ("rms_norm", 2 * hidden),
        "attn_rope": ("rope", 2 * rotary),
        "mlp_act": ("gated", tensors * frame.n_expanded_embd / tp * 2.0),
    }
    for op, (kind, per_token) in bytes_per_token.items():
        moved = per_token * frame.num_tokens.astype(float)
        for name, rows in _groups(frame[frame.op == op], "device"):
            device, measured = DEVICES.get(name, name), _seconds(rows.time_ms_mean)
            zeros = np.zeros(len(rows))
            args = {"bytes": moved[rows.index].to_numpy(float), "flops": zeros, "special": zeros}
            yield Group(file, device, "stream", kind, "fp16", "kernel", args, measured)


def _deepbench(frame: pd.DataFrame, file: str) -> Iterator[Group]:
    """DeepBench: mean of a loop of library calls, images in NCHW."""
    formats = {"Float": "fp32", "16 bit inputs, 16 bit multiplication, 32 bit addition": "fp16"}
    phases = {"conv_fwd": "forward", "conv_bwd_input": "input", "conv_bwd_weight": "weight"}
    kept = frame[frame.device.isin(DEVICES) & frame.op.isin(["gemm", *phases])]
    kept = kept[kept.precision.isin(formats)]
    for (name, precision, op), rows in _groups(kept, ["device", "precision", "op"]):
        device, format, measured = DEVICES[name], formats[precision], _seconds(rows.time_ms)
        ones = np.ones(len(rows))
        if op == "gemm":
            args = _columns(rows, m="M", n="N", k="K") | {"batch": ones}
            yield Group(file, device, "matmul", "gemm", format, "loop", args, measured)
            continue
        args = _columns(rows, batch="N", c_in="conv_C", c_out="conv_K") | {"groups": ones}
        args["pixels_in"] = (rows.conv_W * rows.conv_H).to_numpy(float)
        args["pixels_out"] = (rows.out_w * rows.out_h).to_numpy(float)
        args["taps"] = (rows.filt_w * rows.filt_h).to_numpy(float)
        args["unit_stride"] = ((rows.stride_w == 1) & (rows.filt_w == 3)).to_numpy()
        args["channels_last"] = np.zeros(len(rows), bool)
        yield Group(file, device, "conv", phases[op], format, "loop", args, measured)


class Layout(NamedTuple):
    """How a table of known columns is read."""

    reader: Callable[[pd.DataFrame, str], Iterator[Group]]
    texts: tuple[str, ...]  # columns of text that it must have
    numbers: tuple[str, ...]  # columns that it must have and that hold numbers


# columns by which a layout is known -> the layout
READERS: dict[tuple[str, ...], Layout] = {
    ("op", "system", "gemm_dtype", "m", "n", "k", "latency_ms"): Layout(_serving, (
        "op", "system", "backend_dir", "kernel_source", "gemm_dtype", "attn_dtype",
        "kv_cache_dtype",
    ), (
        "m", "n", "k", "latency_ms", "batch_size", "isl", "num_heads", "num_key_value_heads",
        "head_dim", "window_size",
    )),
    ("op", "device", "B", "M", "N", "K", "H", "conv_cin", "latency_ms"): Layout(_fp32, (
        "op", "device",
    ), (
        "B", "M", "N", "K", "H", "conv_cin", "conv_cout", "conv_k", "conv_in", "conv_stride",
        "latency_ms",
    )),
    (
        "op", "device", "num_tensor_parallel_workers", "gemm_M", "gemm_N", "gemm_K", "time_ms_mean",
    ): Layout(_transformer, ("op", "device", "use_gated_mlp"), (
        "num_tensor_parallel_workers", "gemm_M", "gemm_N", "gemm_K", "time_ms_mean", "num_tokens",
        "n_head", "n_kv_head", "n_embd", "n_expanded_embd",
    )),
    ("op", "device", "precision", "filt_w", "filt_h", "transA", "time_ms"): Layout(_deepbench, (
        "op", "device", "precision",
    ), (
        "filt_w", "filt_h", "time_ms", "M", "N", "K", "conv_C", "conv_K", "conv_W", "conv_H",
        "out_w", "out_h", "stride_w",
    )),
}  # fmt: skip
