"""How far frameworks are from each other on the same product, and forecasts from each of them and
from their median.

    pip download --no-deps aiconfigurator-core==0.12.0 ; pip install pyarrow
    python benchmarks/frameworks.py aiconfigurator_core-*.whl

The wheel (PyPI, Apache-2.0) holds products that SGLang, TensorRT-LLM and vLLM timed on one GPU;
3000 shapes a device and format that all of them timed are drawn. Fits use a subset of its bf16
products on A100, H100, L40S and B200.
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
DRAWN = 3000
OLD = "0.5.6.post2"  # an older SGLang beside the present one


def products(wheel: str) -> pd.DataFrame:
    """System, framework, format, m, n, k and milliseconds of every product of the wheel."""
    parts = []
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if "/gemm/" in name and name.endswith("gemm_perf.parquet"):
                _, _, _, system, _, framework, version, _ = name.split("/")
                table = pd.read_parquet(
                    io.BytesIO(archive.read(name)), columns=["gemm_dtype", "m", "n", "k", "latency"]
                )
                parts.append(table.assign(system=system, framework=framework, old=version == OLD))
    table = pd.concat(parts)
    table = table[
        (table.latency > 0)
        & ~table.old
        & table.gemm_dtype.isin(FORMATS)
        & table.system.isin(DEVICES)
    ]
    # calls that hold a host's 60 to 340 us
    return table[(table.gemm_dtype != "fp8_block") | (table.framework != "vllm")]


def errors(
    system: str, dtype: str, framework: str, shapes: pd.DataFrame, milliseconds
) -> np.ndarray:
    """|predicted / measured - 1| of the products."""
    args = {key: shapes[key].to_numpy(float) for key in ("m", "n", "k")} | {
        "batch": np.ones(len(shapes))
    }
    if dtype != "bfloat16":
        args |= {
            "casts": np.full(len(shapes), CASTS[dtype, framework]),
            "whole_rows": np.full(len(shapes), dtype == "fp8"),
        }
    device = hwdb.device(DEVICES[system])
    group = Group(
        "",
        device.id,
        "matmul",
        f"gemm {dtype}",
        FORMATS[dtype],
        "call",
        args,
        np.asarray(milliseconds) * 1e-3,
    )
    table = rows(group, device)
    return 100.0 * np.abs(table.predicted / table.seconds - 1.0).to_numpy()


def main(wheel: str) -> None:
    """Print the tables of the file `wheel`."""
    print("median / mean of |difference| in percent")
    random = np.random.default_rng(0)
    for (dtype, system), table in products(wheel).groupby(["gemm_dtype", "system"]):
        wide = table.pivot_table(
            index=["m", "n", "k"], columns="framework", values="latency"
        ).dropna()
        if not len(wide):
            continue
        wide = wide.iloc[random.permutation(len(wide))[:DRAWN]]
        shapes, middle = wide.index.to_frame(index=False), wide.median(axis=1)
        said = []
        for framework in wide:
            apart, ours = (
                100.0 * (wide[framework] / middle - 1.0).abs(),
                errors(system, dtype, framework, shapes, wide[framework]),
            )
            said.append(
                f"{framework} {apart.median():.1f} / {apart.mean():.1f} from the median, ours"
                f" {np.median(ours):.1f} / {ours.mean():.1f}"
            )
        if dtype == "bfloat16":  # calls of other formats launch other casts
            ours = errors(system, dtype, "", shapes, middle)
            said.append(f"median: ours {np.median(ours):.1f} / {ours.mean():.1f}")
        print(f"{dtype:10s} {DEVICES[system]:16s} {len(wide):5d}  " + ";  ".join(said))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel")
    main(parser.parse_args().wheel)
