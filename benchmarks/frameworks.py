"""How much frameworks differ on the same matrix product, and how far forecasts are from each.

    pip download --no-deps aiconfigurator-core==0.12.0 ; pip install pyarrow
    python benchmarks/frameworks.py aiconfigurator_core-*.whl

The wheel (PyPI, Apache-2.0) holds products that SGLang, TensorRT-LLM and vLLM timed on one GPU. For
each device and format, 3000 shapes that all of them timed are drawn. Prints each framework's
difference from the median of the frameworks, and the error of the forecast of each and of the
median. The kernel constants are fitted to a subset of the bf16 products on A100, H100, L40S and
B200.
"""

from __future__ import annotations

import argparse
import io
import zipfile

import numpy as np
import pandas as pd

from roofcast import hwdb
from roofcast.scenarios.measured.kernel_errors import rows
from roofcast.scenarios.measured.kernels import CASTS, DEVICES, Group

FORMATS = {"bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8", "nvfp4": "fp4"}
DRAWN = 3000  # shapes
OLD = "0.5.6.post2"  # an older SGLang, left out


def products(wheel: str) -> pd.DataFrame:
    """System, framework, format, m, n, k and milliseconds of every product in the wheel."""
    columns, parts = ["gemm_dtype", "m", "n", "k", "latency"], []
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if "/gemm/" in name and name.endswith("gemm_perf.parquet"):
                _, _, _, system, _, framework, version, _ = name.split("/")
                table = pd.read_parquet(io.BytesIO(archive.read(name)), columns=columns)
                parts.append(table.assign(system=system, framework=framework, old=version == OLD))
    table = pd.concat(parts)
    known = table.gemm_dtype.isin(FORMATS) & table.system.isin(DEVICES)
    table = table[(table.latency > 0) & ~table.old & known]
    # vLLM's fp8_block calls each hold 60 to 340 us of the host
    return table[(table.gemm_dtype != "fp8_block") | (table.framework != "vllm")]


def errors(
    system: str, dtype: str, framework: str, shapes: pd.DataFrame, milliseconds: pd.Series
) -> np.ndarray:
    """|predicted / measured - 1| of the products [%]."""
    args = {key: shapes[key].to_numpy(float) for key in ("m", "n", "k")}
    args["batch"] = np.ones(len(shapes))
    if dtype != "bfloat16":
        args["casts"] = np.full(len(shapes), CASTS[dtype, framework])
        args["whole_rows"] = np.full(len(shapes), dtype == "fp8")
    device, measured = hwdb.device(DEVICES[system]), np.asarray(milliseconds) * 1e-3
    kind, format = f"gemm {dtype}", FORMATS[dtype]
    table = rows(Group("", device.id, "matmul", kind, format, "call", args, measured), device)
    return 100.0 * np.abs(table.predicted / table.seconds - 1.0).to_numpy()


def main(wheel: str) -> None:
    """Print one line per format and device."""
    print("median / mean of |difference| in percent")
    random = np.random.default_rng(0)
    for (dtype, system), table in products(wheel).groupby(["gemm_dtype", "system"]):
        wide = table.pivot_table(index=["m", "n", "k"], columns="framework", values="latency")
        wide = wide.dropna()
        if not len(wide):
            continue
        wide = wide.iloc[random.permutation(len(wide))[:DRAWN]]
        shapes, middle = wide.index.to_frame(index=False), wide.median(axis=1)
        parts = []
        for framework in wide:
            apart = 100.0 * (wide[framework] / middle - 1.0).abs()
            ours = errors(system, dtype, framework, shapes, wide[framework])
            parts.append(
                f"{framework} {apart.median():.1f} / {apart.mean():.1f} from the median,"
                f" forecast {np.median(ours):.1f} / {ours.mean():.1f}"
            )
        if dtype == "bfloat16":  # in other formats, each framework launches other casts
            ours = errors(system, dtype, "", shapes, middle)
            parts.append(f"median: forecast {np.median(ours):.1f} / {ours.mean():.1f}")
        print(f"{dtype:10s} {DEVICES[system]:16s} {len(wide):5d}  " + ";  ".join(parts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel")
    main(parser.parse_args().wheel)
