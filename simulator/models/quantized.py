"""`quantization_config` of a config.json: how a checkpoint stores its weights.

Layouts: GPTQ and AWQ pack weights, a 16-bit scale and a zero point per group, and GPTQ the group of
each input [frantar2022]; bitsandbytes stores NF4 with an fp32 absolute maximum per 64 weights,
itself in 8 bits under double quantization [dettmers2023], and int8 with an fp32 scale per row
[dettmers2022]; MXFP4 an 8-bit exponent per 32 weights [rouhani2023]; FP8 an fp32 scale per block,
row or tensor; compressed-tensors and ModelOpt what their config_groups and quant_algo say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.formats import WIDTH, is_stored
from roofcast.simulator.work.storage import EXPERTS, Scheme, Storage
from roofcast.simulator.work.tape import Tape

KEYS = ("quantization_config", "compression_config")
_WIDEST = 16  # bits per weight that a quantized format can have
_LARGEST = 1 << 24  # weights of a group
_HALF, _FULL = 16.0, 32.0  # bits of a scale in half and in single precision
_IGNORED = ("modules_to_not_convert", "ignore", "exclude_modules", "llm_int8_skip_modules")


class _Keys:
    """The keys of a quantization_config, checked as they are read."""

    def __init__(self, raw: Mapping[str, Any], path: str):
        self.raw, self.path = raw, path

    def whole(self, *names: str, default: int, least: int = 1, most: int = _LARGEST) -> int:
        """The first of these keys that is there, a whole number from `least` to `most`."""
        for name in names:
            value = self.raw.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise BadInput(
                    f"key '{self.path}.{name}' is {str(value)[:40]}; a whole number from {least} to"
                    f" {most} is expected"
                )
            return value
        return default

    def bits(self, *names: str, default: int) -> int:
        """Bits per weight."""
        return self.whole(*names, default=default, most=_WIDEST)

    def group(self, *names: str, default: int) -> int | None:
        """Weights of a group along a row; None for -1 and 0, a row each."""
        found = self.whole(*names, default=default, least=-1)
        return found if found > 0 else None

    def part(self, name: str) -> _Keys:
        """The object behind a key; an empty one where it is missing."""
        value = self.raw.get(name)
        if value is None:
            return _Keys({}, f"{self.path}.{name}")
        if not isinstance(value, Mapping):
            kind = type(value).__name__
            raise BadInput(f"key '{self.path}.{name}' is a {kind}; an object is expected")
        return _Keys(value, f"{self.path}.{name}")

    def patterns(self, *names: str) -> tuple[str, ...]:
        """Names of modules, as any of these keys lists them."""
        found: list[str] = []
        for name in names:
            value = self.raw.get(name)
            if isinstance(value, list):
                found += [p for p in value if isinstance(p, str)]
        return tuple(dict.fromkeys(found))


def _groups(group: int | None) -> str:
    return f"groups of {group}" if group else "a scale per row"


def _gptq(k: _Keys) -> Storage:
    bits, group = k.bits("bits", "w_bit", default=4), k.group("group_size", default=128)
    scheme = Scheme(bits, _HALF + bits, group, column=_FULL)
    return Storage("", f"{bits} bits, {_groups(group)}", scheme, head=k.raw.get("lm_head") is True)


def _awq(k: _Keys) -> Storage:
    bits = k.bits("bits", "w_bit", default=4)
    group = k.group("group_size", "q_group_size", default=128)
    zero = bits if k.raw.get("zero_point", True) else 0
    return Storage("", f"{bits} bits, {_groups(group)}", Scheme(bits, _HALF + zero, group))


def _bitsandbytes(k: _Keys) -> Storage:
    if k.raw.get("load_in_4bit") or k.raw.get("_load_in_4bit"):
        block, double = k.group("bnb_4bit_blocksize", default=64), False
        double = bool(k.raw.get("bnb_4bit_use_double_quant"))
        scheme = Scheme(4, 8.0, flat=block, above=_FULL) if double else Scheme(4, _FULL, flat=block)
        kind = "nf4" if k.raw.get("bnb_4bit_quant_type") == "nf4" else "fp4"
        how = f"4 bits ({kind}), groups of {block}{', double quantization' if double else ''}"
        return Storage("", how, scheme, everywhere=True)
    how = "8 bits, a scale per row"
    return Storage("", how, Scheme(8, _FULL), "int8", everywhere=True)


def _mxfp4(k: _Keys) -> Storage:
    return Storage("", "4 bits, groups of 32", Scheme(4, 8, 32), only=EXPERTS)


def _fp8(k: _Keys) -> Storage:
    block = k.raw.get("weight_block_size")
    if block is None:
        scheme, how = Scheme(8, matrix=_FULL), "8 bits, a scale per matrix"
    else:
        rows, columns = _block(k, "weight_block_size", block)
        scheme, how = Scheme(8, _FULL, columns, rows), f"8 bits, blocks of {rows} x {columns}"
    return Storage("", how, scheme, "fp8", everywhere=True)


def _block(k: _Keys, name: str, value: object) -> tuple[int, int]:
    sides = value if isinstance(value, list) else []
    if len(sides) != 2 or not all(type(n) is int and 1 <= n <= _LARGEST for n in sides):
        raise BadInput(
            f"key '{k.path}.{name}' is {str(value)[:40]}; two positive numbers are expected"
        )
    return int(sides[0]), int(sides[1])


def _fbgemm(k: _Keys) -> Storage:
    return Storage("", "8 bits, a scale per row", Scheme(8, _FULL), "fp8", everywhere=True)


_STRATEGIES = ["block", "channel", "group", "tensor", "tensor_group"]


def _compressed(k: _Keys) -> Storage | None:
    groups = k.part("config_groups")
    each = [groups.part(name) for name in groups.raw]
    kinds = {str(sorted(g.part("weights").raw.items())) for g in each}
    if len(kinds) != 1:
        return None  # none, or several schemes side by side
    weights, inputs = each[0].part("weights"), each[0].part("input_activations")
    bits = weights.bits("num_bits", default=8)
    floating = weights.raw.get("type") == "float"
    strategy = weights.raw.get("strategy") or (
        "group" if weights.raw.get("group_size") else "tensor"
    )
    if strategy not in _STRATEGIES:
        return None
    scale = _HALF if weights.raw.get("symmetric", True) else _HALF + bits
    group: int | None = None
    if strategy in ("group", "tensor_group"):
        group = weights.group("group_size", default=16 if floating else 128)
    column = _FULL if weights.raw.get("actorder") in ("group", "dynamic") else 0.0
    if floating and bits == 4:  # NVFP4, MXFP4: 8-bit scales
        scheme = Scheme(4, 8, group, matrix=_FULL if strategy == "tensor_group" else 0.0)
    elif strategy == "block":
        rows, columns = _block(weights, "block_structure", weights.raw.get("block_structure"))
        scheme = Scheme(bits, _FULL, columns, rows)
    elif strategy == "tensor":
        scheme = Scheme(bits, matrix=scale)
    else:
        scheme = Scheme(bits, scale, group, column=column)
    wide = (
        ""
        if inputs.raw == {}
        else {(8, True): "fp8", (8, False): "int8", (4, True): "nvfp4"}.get(
            (inputs.bits("num_bits", default=16), inputs.raw.get("type") == "float")
        )
    )
    named = [p for g in each for p in g.patterns("targets")]
    targets = () if "Linear" in named else tuple(named)
    how = f"{bits} bits{' (float)' if floating else ''}, " + (
        f"groups of {group}" if group else f"a scale per {strategy}"
    )
    return Storage("", how, scheme, wide or None, targets=targets, everywhere=True)


_MODELOPT: dict[str, tuple[str, Scheme, str | None]] = {
    "FP8": ("8 bits, a scale per matrix", Scheme(8, matrix=_FULL), "fp8"),
    "FP8_PER_CHANNEL_PER_TOKEN": ("8 bits, a scale per row", Scheme(8, _FULL), "fp8"),
    "FP8_PB_WO": ("8 bits, blocks of 128 x 128", Scheme(8, _FULL, 128, 128), None),
    "NVFP4": ("4 bits, groups of 16", Scheme(4, 8, 16, matrix=_FULL), "nvfp4"),
    "W4A16_NVFP4": ("4 bits, groups of 16", Scheme(4, 8, 16, matrix=_FULL), None),
    "W4A16_AWQ": ("4 bits, groups of 128", Scheme(4, _HALF, 128), None),
    "INT4_AWQ": ("4 bits, groups of 128", Scheme(4, _HALF, 128), None),
    "W4A8_AWQ": ("4 bits, groups of 128", Scheme(4, _HALF, 128), None),
    "MXFP4": ("4 bits, groups of 32", Scheme(4, 8, 32), None),
    "W4A8_MXFP4_FP8": ("4 bits, groups of 32", Scheme(4, 8, 32), None),
    "MXFP8": ("8 bits, groups of 32", Scheme(8, 8, 32), "fp8"),
}


def _modelopt(k: _Keys) -> Storage | None:
    found = _MODELOPT.get(str(k.raw.get("quant_algo")).upper())
    if found is None:
        return _compressed(k) if k.raw.get("config_groups") else None
    how, scheme, precision = found
    return Storage("", how, scheme, precision, everywhere=True)


def _hqq(k: _Keys) -> Storage | None:
    weights = k.part("quant_config").part("weight_quant_params")
    bits = weights.bits("nbits", default=k.bits("nbits", "bits", default=4))
    group = weights.group("group_size", default=64)
    return Storage("", f"{bits} bits, {_groups(group)}", Scheme(bits, 2 * _HALF, group))


def _aqlm(k: _Keys) -> Storage:
    books, bits = (
        k.whole("num_codebooks", default=1, most=64),
        k.bits("nbits_per_codebook", default=16),
    )
    inputs = k.whole("in_group_size", default=8, most=1024)
    outputs = k.whole("out_group_size", default=1, most=1024)
    code = books * bits / (inputs * outputs)
    table = books * 2.0**bits * inputs * outputs * _HALF
    scheme = Scheme(code, _HALF, rows=outputs, matrix=table)
    return Storage("", f"{books} codebook(s) of {bits} bits per {inputs * outputs} weights", scheme)


def _quanto(k: _Keys) -> Storage | None:
    found = re.fullmatch(r"q?(?:int|float)(\d)", str(k.raw.get("weights", "int8")))
    if found is None:
        return None
    bits = int(found[1])
    group = None if bits == 8 else 128
    extra = _HALF if bits == 8 else 2 * _HALF
    return Storage(
        "", f"{bits} bits, {_groups(group)}", Scheme(bits, extra, group), everywhere=True
    )


def _eetq(k: _Keys) -> Storage:
    return Storage("", "8 bits, a scale per row", Scheme(8, _HALF))


def _torchao(k: _Keys) -> Storage | None:
    text = str(k.raw.get("quant_type"))[:2000].lower().replace("_", "")
    group = k.part("quant_type_kwargs").group("group_size", default=128)
    if "int4" in text:
        return Storage(
            "", f"4 bits, {_groups(group)}", Scheme(4, 2 * _HALF, group), everywhere=True
        )
    if "int8" in text or "float8" in text:
        product = None if "weightonly" in text else "int8" if "int8" in text else "fp8"
        how = "8 bits, a scale per row"
        return Storage("", how, Scheme(8, _FULL), product, everywhere=True)
    return None


def _bitnet(k: _Keys) -> Storage:
    return Storage("", "2 bits, a scale per matrix", Scheme(2, matrix=_HALF))


METHODS: dict[str, Callable[[_Keys], Storage | None]] = {
    "aqlm": _aqlm,
    "auto-round": _gptq,
    "awq": _awq,
    "bitnet": _bitnet,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "eetq": _eetq,
    "fbgemm_fp8": _fbgemm,
    "fp8": _fp8,
    "gptq": _gptq,
    "hqq": _hqq,
    "intel/auto-round": _gptq,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "mxfp4": _mxfp4,
    "quanto": _quanto,
    "torchao": _torchao,
}


def storage_of(raw: Mapping[str, Any], layers: int) -> tuple[Storage | None, str | None]:
    """How the checkpoint of a config.json stores its weights, and what of it is not modelled.

    layers: of the language model. (None, None) where it is not quantized. Raises BadInput for a
    quantization_config with values that cannot be.
    """
    name = next((key for key in KEYS if raw.get(key)), None)
    if name is None:
        return None, None
    value = raw[name]
    if not isinstance(value, Mapping):
        raise BadInput(f"key '{name}' is a {type(value).__name__}; an object is expected")
    keys = _Keys(value, name)
    method = value.get("quant_method") or _implied(value)
    read = METHODS.get(method.lower()) if isinstance(method, str) else None
    found = read(keys) if read else None
    if found is None:
        said = repr(str(method)[:40]) if read is None else f"{method} in several formats or in none"
        return None, f"{name}: {said} is not modelled; weights are held as other weights are"
    ignored = keys.patterns(*_IGNORED)
    return found._replace(method=str(method), ignored=ignored, layers=layers), None


def _implied(value: Mapping[str, Any]) -> str | None:
    """The method of a quantization_config that does not name it: bitsandbytes' first form, and
    compressed-tensors'.
    """
    if value.get("load_in_4bit") or value.get("load_in_8bit"):
        return "bitsandbytes"
    return "compressed-tensors" if value.get("config_groups") else None


def said_of(t: Tape) -> str:
    """What a step assumes of a checkpoint's storage, once its model has run on the tape."""
    stored = t.storage
    assert stored is not None, "the checkpoint is quantized"
    what = f"quantization_config: {stored.method}, {stored.how}"
    if t.training:
        return f"{what}: not used in training, which holds all weights in {t.precision.weights}"
    if t.asked is not None and t.asked.how != stored.how:
        return f"{what}: replaced by weights in {t.asked.how}"
    if t.tuning is not None and t.tuning.weights is not None:
        return f"{what}: replaced by weights in {t.tuning.weights}"
    if t.matrices is not None and t.precision.name != stored.precision:
        return f"{what}: replaced by precision {t.precision.name}"
    held = [(w.size * w.count, WIDTH[w.dtype]) for w in t.weights if is_stored(w.dtype)]
    weights = sum(n for n, _ in held)
    whole = sum(w.size * w.count for w in t.weights)
    bits = 8 * sum(n * width for n, width in held) / weights if weights else 0.0
    own = t.asked.precision if t.asked is not None else None
    if t.matrices is not None:
        computed = f"products in {t.precision.product}, activations quantized for them"
    elif own is not None:
        computed = f"products with activations in {own}"
    else:
        kernels = "kernels that dequantize as they multiply"
        computed = f"{kernels}, products in {t.precision.activations}"
    return (
        f"{what}: {weights:,} of {whole:,} weights in {bits:.4g} bits each, scales included; others"
        f" in {t.precision.weights}; {computed}"
    )
