"""Number formats: bytes per element."""

_BITS = "-bit"  # end of the name of a format that is known by its bits per element alone


def stored_in(bits: float) -> str:
    """The format of elements stored in so many bits each, scales included.

    >>> stored_in(4.25), WIDTH["4.25-bit"], is_stored("4.25-bit"), is_stored("fp8")
    ('4.25-bit', 0.53125, True, False)
    """
    return f"{bits!r}{_BITS}"


def is_stored(name: str) -> bool:
    """Whether a format is one of storage alone, that no unit computes in."""
    return name.endswith(_BITS)


class _Widths(dict[str, float]):
    """Bytes by name of a format; those of storage are in their name."""

    def __missing__(self, name: str) -> float:
        if not is_stored(name):
            raise KeyError(name)
        return float(name.removesuffix(_BITS)) / 8


WIDTH: dict[str, float] = _Widths(
    {
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
)
