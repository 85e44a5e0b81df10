"""Formats of serving: weights, products and the cache are three things.

fp8, int8, nvfp4 and mxfp4 multiply in their format where the device has it; what it has not, and
weight-only formats (int4, nf4, GGUF), are stored in few bits and multiplied in 16.
"""

from __future__ import annotations

import re

from roofcast.hwdb.errors import BadInput, listed, quoted
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.serving.released import Release, release
from roofcast.simulator.work.generation import Formats
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.storage import EXPERTS, Scheme, Storage

GGUF = {  # bits per weight of llama.cpp's types: ggml/src/ggml-common.h, block sizes
    "f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q6_k": 6.5625, "q5_k": 5.5,
    "q5_0": 5.5, "q5_1": 6.0, "q4_k": 4.5, "q4_0": 4.5, "q4_1": 5.0, "q3_k": 3.4375,
    "q2_k": 2.625, "iq4_xs": 4.25, "iq4_nl": 4.5, "iq3_s": 3.4375, "iq3_xxs": 3.0625,
    "iq2_s": 2.5625, "iq2_xs": 2.3125, "iq2_xxs": 2.0625, "iq1_s": 1.5625, "iq1_m": 1.75,
    "mxfp4": 4.25, "q8_k": 8.5,
}  # fmt: skip
# mixtures keep some matrices in more bits: bits per weight of whole files of Llama 3 8B
# (llama.cpp, tools/quantize/README.md)
MIXED = {
    "q2_k": 3.00, "q3_k_s": 3.64, "q3_k_m": 4.00, "q3_k": 4.00, "q3_k_l": 4.30, "q4_k_s": 4.67,
    "q4_k_m": 4.89, "q4_k": 4.89, "q5_k_s": 5.57, "q5_k_m": 5.70, "q5_k": 5.70, "q6_k": 6.56,
    "q4_k_xl": 4.89, "q8_k_xl": 8.5,
}  # fmt: skip
STORED = {  # weight-only formats: bits, and what a group of weights has beside them
    "int4": Storage("int4", "4 bits, groups of 128", Scheme(4, 20.0, 128)),
    "nf4": Storage("nf4", "4 bits, blocks of 64", Scheme(4, 8.0, flat=64, above=32.0)),
}
EIGHT = Storage("8 bits", "8 bits, a scale per row", Scheme(8, 32.0))
NARROW = {  # formats of products, as devices name their rates -> stored where there is none
    "fp8": ("fp8", EIGHT),
    "int8": ("int8", EIGHT),
    "nvfp4": ("fp4", Storage("nvfp4", "4 bits, groups of 16", Scheme(4, 8.0, 16))),
}
# of a checkpoint in few bits that is asked for in 16: no matrix is held in its format
UNPACKED = Storage("none", "16 bits or more", Scheme(16.0), targets=("no module",))
MXFP4 = Storage("mxfp4", "4 bits, groups of 32", Scheme(4, 8.0, 32), only=EXPERTS)
# llama.cpp, src/llama-quant.cpp, LLAMA_FTYPE_MOSTLY_MXFP4_MOE: other tensors than experts are Q8_0
IN_GGUF = MXFP4._replace(beside=Scheme(GGUF["q8_0"]), tables=True)
CACHE = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp32": 4.0, "fp4": 0.5625,
         "nvfp4": 0.5625, "q8_0": 1.0625, "q4_0": 0.5625}  # fmt: skip
KNOWN = ("bf16", "fp16", "fp32", *NARROW, "mxfp4", *STORED, "q4_k_m and other types of GGUF")
_BITS = re.compile(r"(\d+(?:\.\d+)?)[ -]?(?:bit|bpw)s?")


class Served(NamedTuple):
    """Formats of a server, and what was assumed for them."""

    formats: Formats
    cache: float  # bytes of an element of the cache
    assumptions: tuple[str, ...]
    weights: str  # format of the weights in words

    @property
    def widened(self) -> bool:
        """Whether experts in mxfp4 are multiplied in 16 bits."""
        stored = self.formats.storage
        mx = stored is not None and (stored.method == "mxfp4" or stored.how == MXFP4.how)
        return mx and stored is not None and stored.precision is None


def served(
    weights: str | None,
    cache: str | None,
    device: Device,
    model: Model | None = None,
    stack: str = "",
) -> Served:
    """Formats from names as people write them: weights fp8, nvfp4, int4, q4_k_m, "4.5 bit" ...;
    cache bf16, fp8 ...; None: weights as the model was released (under a software stack), a cache
    of 16 bits. Raises BadInput for a name that nobody serves.
    """
    width = CACHE.get((cache or "bf16").lower())
    if width is None:
        raise BadInput(f"kv {quoted(str(cache))}: known formats: {listed(tuple(CACHE))}")
    only_fp16 = device.peak_flops.get("fp16") and not device.peak_flops.get("bf16")
    sixteen = "fp16" if only_fp16 else "bf16"
    told = Release(weights, None, ())
    if model is not None and weights is None:
        told = release(model, stack)
    formats, said = _weights(told.format, sixteen, device)
    if formats.storage is not None and formats.storage.only and stack.startswith("llama.cpp"):
        formats = Formats(sixteen, IN_GGUF)
        said = ("mxfp4: weights of experts, other ones q8_0, as files of llama.cpp have them",)
    if weights is not None and weights.lower() in NARROW and stack.startswith("llama.cpp"):
        said += (f"weights {weights}: no file of llama.cpp has them; times are as if it did",)
    if formats.storage is not None and device.kind == "cpu" and stack == "openvino":
        # docs.openvino.ai, LLM inference on CPU: activations are quantized in groups as they come
        formats = formats._replace(storage=formats.storage._replace(precision="int8"))
    if model is not None and model.storage is not None:
        formats = _of_checkpoint(formats, sixteen, weights is None and told.format != "bf16")
    if (cache or "").lower() == "fp8" and device.kind == "gpu" and not device.peak_flops.get("fp8"):
        said += (f"fp8 cache: {device.id} has no fp8 units; what converting it costs is left out",)
    if (cache or "").lower() in ("fp4", "nvfp4"):
        said += ("fp4 cache: no measured server has one; what converting it costs is left out",)
    own = f"{told.stored.method} ({told.stored.how})" if told.stored else formats.precision
    return Served(formats, width, (*told.said, *said), (told.format or own).lower())


def _of_checkpoint(formats: Formats, sixteen: str, as_it_is: bool) -> Formats:
    """The formats of a checkpoint that is stored in few bits itself: as it is, else as asked for.

    It keeps its own scheme, and its modules in 16 bits, where that is multiplied in 16 bits.
    """
    if as_it_is:
        return Formats(sixteen) if formats.storage is EIGHT else formats
    plain = formats.storage is None and formats.precision in ("bf16", "fp16", "fp32")
    return Formats(formats.precision, UNPACKED) if plain else formats


def _weights(weights: str | None, sixteen: str, device: Device) -> tuple[Formats, tuple[str, ...]]:
    name = (weights or "bf16").lower().removeprefix("gguf:").replace(" ", "")
    if name in ("bf16", "fp16", "f16"):
        return Formats(sixteen), ()
    if name in ("fp32", "f32"):
        return Formats("fp32"), ()
    if name in ("fp4", "w4a4"):
        name = "nvfp4"
    if name in ("w4a16", "awq", "gptq"):
        name = "int4"
    if name == "mxfp4":
        if device.peak_flops.get("fp4"):  # units that take fp4 weights and fp8 activations
            said = "mxfp4: weights of experts, multiplied with fp8 activations at the fp8 rate"
            return Formats(sixteen, MXFP4._replace(precision="fp8")), (said,)
        return Formats(sixteen, MXFP4), ("mxfp4: weights of experts, multiplied in 16 bits",)
    if name in NARROW:
        needs, storage = NARROW[name]
        if device.peak_flops.get(needs):
            return Formats(name), ()
        lacks = f"{device.id} has no {needs} matrix products: {name} weights multiplied in 16 bits"
        return Formats(sixteen, storage), (lacks,)
    if name in STORED:
        return Formats(sixteen, STORED[name]), (f"{name}: weights alone, multiplied in 16 bits",)
    bits = _bits(name)
    if bits is None:
        raise BadInput(f"weights {quoted(str(weights))}: known formats: {listed(KNOWN)}")
    storage = Storage("gguf", f"{bits:g} bits", Scheme(bits), head=True, everywhere=True)
    if device.kind == "cpu" and bits < 16.0 and device.peak_flops.get("int8"):
        said = f"{name}: {bits:g} bits per weight, the head too; integer dot products"
        return Formats(sixteen, storage._replace(precision="int8")), (said,)
    return Formats(sixteen, storage), (f"{name}: {bits:g} bits per weight, the head too",)


def _bits(name: str) -> float | None:
    """Bits per weight of a GGUF type, of a mixture, or written out.

    >>> _bits("q4_k_m"), _bits("q8_0"), _bits("4.5bit"), _bits("q9")
    (4.89, 8.5, 4.5, None)
    """
    written = _BITS.fullmatch(name)
    if written:
        bits = float(written[1])
        return bits if 1.0 <= bits <= 16.0 else None
    return MIXED.get(name) or GGUF.get(name)


def fewer_bits(weights: str | None, share: float = 1.0, stack: str = "") -> str:
    """What would make weights smaller than in the formats that were given, below `share` of their
    bytes, as a message adds it; empty where nothing usual would.

    >>> fewer_bits(None), fewer_bits("bf16,fp8"), fewer_bits("int4")
    (', or fewer bits (--weights fp8, int4)', ', or fewer bits (--weights int4)', '')
    >>> fewer_bits("bf16", 0.4), fewer_bits("fp8", 0.4), fewer_bits("bf16", 0.4, "llama.cpp")
    (', or fewer bits (--weights int4)', '', ', or fewer bits (--weights q4_k_m)')
    """
    usual = {"bf16": 16.0, "fp16": 16.0, "fp32": 32.0, "fp8": 8.0, "int8": 8.0}
    names = [name.strip().lower() for name in (weights or "bf16").split(",")]
    least = min(usual.get(name) or _bits(name) or 4.0 for name in names)
    known = ("q8_0", "q4_k_m") if stack.startswith("llama.cpp") else ("fp8", "int4")
    less = [n for n in known if (usual.get(n) or _bits(n) or 4.0) < share * least]
    return f", or fewer bits (--weights {', '.join(less)})" if less else ""
