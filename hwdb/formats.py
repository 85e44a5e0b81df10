"""Number formats: bytes per element."""

WIDTH = {
    "fp64": 8,
    "fp32": 4,
    "tf32": 4,  # stored as fp32
    "bf16": 2,
    "fp16": 2,
    "fp8": 1,
    "fp6": 0.75,
    "fp4": 0.5625,  # NVFP4: 4 bits, and 8 bits of scale for every 16 elements
    "mxfp4": 0.53125,  # 4 bits, and 8 bits of scale for every 32 elements [rouhani2023]
    # 4 bits, and 16 bits of scale and 4 of zero for every 128 elements [frantar2022]
    "int4": 0.51953125,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "int32": 4,
    "int64": 8,
}
