"""Spot values, typed from vendors' datasheets; the tolerance is half of the last printed digit."""

import pytest

from roofcast import hwdb

T, G, GIB = 1e12, 1e9, 2**30  # datasheets print GiB of memory as GB
SHEETS = [  # device, key, printed, half of the last digit, where it is printed
    ("h100-sxm5", "peak_flops.bf16", 989.4 * T, 0.05 * T, "NVIDIA H100 whitepaper v1.04, table 2"),
    ("h100-sxm5", "peak_flops.fp8", 1978.9 * T, 0.05 * T, "NVIDIA H100 whitepaper v1.04, table 2"),
    ("h100-sxm5", "peak_flops.tf32", 494.7 * T, 0.05 * T, "NVIDIA H100 whitepaper v1.04, table 2"),
    ("h100-sxm5", "peak_flops.fp32", 66.9 * T, 0.05 * T, "NVIDIA H100 whitepaper v1.04, table 2"),
    ("h100-sxm5", "memory.bandwidth", 3.35 * T, 0.005 * T, "NVIDIA H100 datasheet"),
    ("h100-sxm5", "memory.capacity", 80 * GIB, 0.5 * GIB, "NVIDIA H100 datasheet"),
    ("h100-sxm5", "power.tdp", 700, 5, "NVIDIA H100 datasheet"),
    ("h100-pcie", "peak_flops.bf16", 756 * T, 1 * T, "NVIDIA H100 datasheet (1513 with sparsity)"),
    ("h200-sxm", "memory.bandwidth", 4.8 * T, 0.05 * T, "NVIDIA H200 datasheet"),
    ("h200-sxm", "memory.capacity", 141 * GIB, 0.5 * GIB, "NVIDIA H200 datasheet"),
    ("a100-sxm4-80gb", "peak_flops.bf16", 312 * T, 0.5 * T, "NVIDIA A100 datasheet"),
    ("a100-sxm4-80gb", "peak_flops.tf32", 156 * T, 0.5 * T, "NVIDIA A100 datasheet"),
    ("a100-sxm4-80gb", "peak_flops.fp32", 19.5 * T, 0.05 * T, "NVIDIA A100 datasheet"),
    ("a100-sxm4-80gb", "memory.bandwidth", 2039 * G, 0.5 * G, "NVIDIA A100 datasheet"),
    ("a100-sxm4-40gb", "memory.bandwidth", 1555 * G, 0.5 * G, "NVIDIA A100 datasheet"),
    ("v100-sxm2-16gb", "peak_flops.fp16", 125 * T, 0.5 * T, "NVIDIA V100 datasheet"),
    ("v100-sxm2-16gb", "peak_flops.fp32", 15.7 * T, 0.05 * T, "NVIDIA V100 datasheet"),
    ("v100-sxm2-16gb", "memory.bandwidth", 900 * G, 0.5 * G, "NVIDIA V100 datasheet"),
    ("p100-sxm2", "vector_flops.fp16", 21.2 * T, 0.05 * T, "NVIDIA Pascal whitepaper WP-08019"),
    ("t4", "peak_flops.fp16", 65 * T, 0.5 * T, "NVIDIA T4 datasheet"),
    ("t4", "peak_flops.int8", 130 * T, 0.5 * T, "NVIDIA T4 datasheet"),
    ("rtx-3090", "peak_flops.fp16", 71 * T, 0.5 * T, "NVIDIA GA102 whitepaper v2, fp32 accumulate"),
    ("rtx-3090", "memory.bandwidth", 936 * G, 0.5 * G, "NVIDIA GA102 whitepaper v2"),
    ("rtx-4090", "peak_flops.fp16", 165.2 * T, 0.05 * T, "NVIDIA Ada whitepaper, fp32 accumulate"),
    ("rtx-4090", "memory.bandwidth", 1008 * G, 0.5 * G, "NVIDIA Ada whitepaper"),
    ("l4", "peak_flops.fp16", 121 * T, 0.5 * T, "NVIDIA L4 datasheet (242 with sparsity)"),
    ("mi300x", "peak_flops.bf16", 1307.4 * T, 0.05 * T, "AMD Instinct MI300X datasheet"),
    ("mi300x", "peak_flops.fp32", 163.4 * T, 0.05 * T, "AMD Instinct MI300X datasheet"),
    ("mi300x", "memory.bandwidth", 5.3 * T, 0.05 * T, "AMD Instinct MI300X datasheet"),
    ("mi300x", "memory.capacity", 192 * GIB, 0.5 * GIB, "AMD Instinct MI300X datasheet"),
    ("mi250x", "peak_flops.bf16", 383 * T, 0.5 * T, "AMD Instinct MI250X datasheet"),
    ("mi250x", "memory.bandwidth", 3.2768 * T, 0.0001 * T, "AMD Instinct MI250X datasheet"),
    ("tpu-v3", "peak_flops.bf16", 123 * T, 0.5 * T, "Google Cloud TPU v3 documentation"),
    ("tpu-v4", "peak_flops.bf16", 275 * T, 0.5 * T, "Jouppi 2023, ISCA, table 4"),
    ("tpu-v4", "memory.bandwidth", 1200 * G, 0.5 * G, "Google Cloud TPU v4 documentation"),
    ("tpu-v5e", "peak_flops.bf16", 197 * T, 0.5 * T, "Google Cloud TPU v5e documentation"),
    ("tpu-v5e", "memory.bandwidth", 819 * G, 1 * G, "Google Cloud TPU v5e documentation"),
    ("tpu-v5p", "peak_flops.bf16", 459 * T, 0.5 * T, "Google Cloud TPU v5p documentation"),
    ("tpu-v5p", "memory.bandwidth", 2765 * G, 0.5 * G, "Google Cloud TPU v5p documentation"),
    ("tpu-v6e", "peak_flops.bf16", 918 * T, 0.5 * T, "Google Cloud TPU v6e documentation"),
    ("trainium2", "peak_flops.bf16", 667 * T, 0.5 * T, "AWS Neuron documentation, Trainium2"),
    ("gaudi2", "memory.bandwidth", 2.45 * T, 0.005 * T, "Intel Gaudi 2 whitepaper"),
    ("rtx-4050-laptop", "peak_flops.int8", 97 * T, 0.25 * T, "NVIDIA: 194 AI TOPS, sparse"),
    ("rtx-4060-laptop", "peak_flops.int8", 116.5 * T, 0.25 * T, "NVIDIA: 233 AI TOPS, sparse"),
    ("rtx-4070-laptop", "peak_flops.int8", 160.5 * T, 0.25 * T, "NVIDIA: 321 AI TOPS, sparse"),
    ("rtx-4080-laptop", "peak_flops.int8", 271 * T, 0.25 * T, "NVIDIA: 542 AI TOPS, sparse"),
    ("rtx-4070-super", "peak_flops.int8", 284 * T, 0.25 * T, "NVIDIA: 568 AI TOPS, sparse"),
    ("rtx-4070-ti-super", "peak_flops.int8", 353 * T, 0.25 * T, "NVIDIA: 706 AI TOPS, sparse"),
    ("rtx-5060", "peak_flops.fp4", 307 * T, 0.25 * T, "NVIDIA: 614 AI TOPS, sparse"),
    ("rtx-5060-ti", "peak_flops.fp4", 379.5 * T, 0.25 * T, "NVIDIA: 759 AI TOPS, sparse"),
    ("gtx-1660-ti", "peak_flops.fp32", 5.4 * T, 0.05 * T, "NVIDIA Turing TU116, 5.4 TFLOP/s"),
    ("ryzen-5800h", "memory.bandwidth", 51.2 * G, 0.05 * G, "two channels of DDR4-3200"),
    ("i7-12700k", "memory.bandwidth", 76.8 * G, 0.05 * G, "Intel ARK, DDR5-4800"),
    ("i9-14900k", "memory.bandwidth", 89.6 * G, 0.05 * G, "Intel ARK, DDR5-5600"),
    ("core-ultra-9-285k", "memory.bandwidth", 102.4 * G, 0.05 * G, "Intel ARK, DDR5-6400"),
    ("xeon-8480", "peak_flops.bf16", 56 * 2.0e9 * 1024, 0.05 * T, "cores x ARK clock x AMX rate"),
    (
        "i9-10940x",
        "peak_flops.fp32",
        14 * 3.3e9 * 64,
        0.005 * T,
        "cores x ARK clock x AVX-512 rate",
    ),
]


@pytest.mark.parametrize(
    ("device", "key", "printed", "half", "_where"),
    SHEETS,
    ids=[f"{row[0]}-{row[1]}" for row in SHEETS],
)
def test_the_file_agrees_with_the_datasheet(device, key, printed, half, _where):
    figures = {name: figure for name, figure, _ in hwdb.figures(hwdb.device(device))}
    assert figures[key] == pytest.approx(printed, abs=half * (1 + 1e-9))


@pytest.mark.parametrize(
    ("link", "bandwidth"),
    [
        ("nvlink3", 300 * G),
        ("nvlink4", 450 * G),
        ("nvlink5", 900 * G),
        ("infiniband-ndr", 50 * G),
        ("roce-100", 12.5 * G),
    ],
)
def test_bandwidth_of_a_link_is_in_one_direction(link, bandwidth):
    assert hwdb.link(link).bandwidth == bandwidth
