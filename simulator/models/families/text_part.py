"""Multimodal models: the language model inside their config.json, and their towers.

A step is one over text tokens: the language model runs, the towers' weights are held in memory. A
model_type is supported by an entry of WRAPPED.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.models.families import towers, towers_audio, towers_qwen
from roofcast.simulator.models.families.towers import Op, Tower
from roofcast.simulator.work.tape import Tape

Choice = type[Tower] | Mapping[str, type[Tower]]  # or by the model_type of the tower's part


class Wrapped(NamedTuple):
    """What a multimodal model_type consists of."""

    text: str | None  # model_type of the language model; None: its own part names it
    towers: Mapping[str, Choice]  # key of the config.json -> tower; others are said, not counted
    tied: bool | None = None  # transformers' default for the whole; None: as the language model
    newline: bool = False  # a learned embedding ends a row of patches
    optional: bool = False  # a tower that is left out is not there, instead of the default one
    inside: str = ""  # key of the part that holds all others, in a config of several models


_LLAVA: dict[str, type[Tower]] = {
    "clip_vision_model": towers.LlavaClip,
    "pixtral": towers.Pixtral,
    "siglip_vision_model": towers.LlavaSiglip,
}
_OMNI: dict[str, type[Tower]] = {
    "vision_config": towers_qwen.Qwen25,
    "audio_config": towers_audio.Qwen25Omni,
}
_OMNI3: dict[str, type[Tower]] = {
    "vision_config": towers_qwen.Qwen3,
    "audio_config": towers_audio.Qwen3Omni,
}
WRAPPED = {
    "gemma3": Wrapped("gemma3_text", {"vision_config": towers.Gemma3}, tied=True),
    "gemma3n": Wrapped(
        "gemma3n_text",
        {"vision_config": towers_audio.Gemma3nVision, "audio_config": towers_audio.Gemma3nAudio},
        tied=True,
    ),
    "gemma4": Wrapped(
        "gemma4_text",
        {"vision_config": towers_audio.Gemma4Vision, "audio_config": towers_audio.Gemma4Audio},
        tied=True,
        optional=True,
    ),
    "idefics3": Wrapped(None, {"vision_config": towers.Idefics3}),
    "kimi_k25": Wrapped(None, {}),
    "internvl": Wrapped(None, {"vision_config": towers.InternVL}),
    "llama4": Wrapped("llama4_text", {"vision_config": towers.Llama4}),
    "llava": Wrapped(None, {"vision_config": _LLAVA}),
    "llava_next": Wrapped(None, {"vision_config": _LLAVA}, newline=True),
    "llava_onevision": Wrapped(None, {"vision_config": _LLAVA}, newline=True),
    "mistral3": Wrapped(None, {"vision_config": towers.Mistral3}),
    "paligemma": Wrapped(None, {"vision_config": towers.PaliGemma}),
    "phi4_multimodal": Wrapped(
        "phi3", {"vision_config": towers_audio.Phi4Vision, "audio_config": towers_audio.Phi4Audio}
    ),
    "qwen2_5_omni": Wrapped("qwen2", _OMNI, inside="thinker_config"),
    "qwen2_5_omni_thinker": Wrapped("qwen2", _OMNI),
    "qwen2_5_vl": Wrapped("qwen2", {"vision_config": towers_qwen.Qwen25}),
    "qwen2_audio": Wrapped("qwen2", {"audio_config": towers_audio.Qwen2Audio}),
    "qwen2_vl": Wrapped("qwen2", {"vision_config": towers_qwen.Qwen2}),
    "qwen3_vl": Wrapped("qwen3", {"vision_config": towers_qwen.Qwen3}),
    "qwen3_vl_moe": Wrapped("qwen3_moe", {"vision_config": towers_qwen.Qwen3}),
    "qwen3_5": Wrapped("qwen3_5_text", {"vision_config": towers_qwen.Qwen35}),
    "qwen3_5_moe": Wrapped("qwen3_5_moe_text", {"vision_config": towers_qwen.Qwen35}),
    "qwen3_omni_moe": Wrapped("qwen3_moe", _OMNI3, inside="thinker_config"),
    "qwen3_omni_moe_thinker": Wrapped("qwen3_moe", _OMNI3),
    "smolvlm": Wrapped(None, {"vision_config": towers.Idefics3}),
    "voxtral": Wrapped("llama", {"audio_config": towers_audio.Voxtral}),
}
DEFAULT_TEXT = {
    "idefics3": "llama", "internvl": "qwen2", "llava": "llama", "llava_next": "llama",
    "llava_onevision": "qwen2", "mistral3": "mistral", "paligemma": "gemma", "smolvlm": "llama",
}  # fmt: skip
DEFAULT_VISION = {
    "llava": "clip_vision_model", "llava_next": "clip_vision_model",
    "llava_onevision": "siglip_vision_model",
}  # fmt: skip
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
          "num_attention_heads", "num_key_value_heads", "head_dim")  # fmt: skip
# transformers' defaults, which published multimodal configs leave out
SIZES = {
    "gemma": (256000, 3072, 24576, 28, 16, 16, 256),
    "gemma3_text": (262208, 2304, 9216, 26, 8, 4, 256),
    "llama": (32000, 4096, 11008, 32, 32, None, None),
    "mistral": (32000, 4096, 14336, 32, 32, 8, None),
    "qwen2": (151936, 4096, 22016, 32, 32, 32, None),
}
_TEXT = "text_config"
_MOST = 4  # parts that are named


class Parts(NamedTuple):
    """A config.json taken apart."""

    text: dict[str, Any]  # keys of the language model, model_type of a family among them
    ops: tuple[Op, ...] = ()  # of the towers that are counted
    said: tuple[str, ...] = ()  # what is assumed, or left out
    held: tuple[str, ...] = ()  # keys of the towers that are counted


def take_apart(raw: dict[str, Any]) -> Parts:
    """The language model's keys of a multimodal config.json, and its towers.

    Keys of any other config are returned as they are. Raises BadInput for parts that are no
    objects, and msgspec.ValidationError for keys of a tower of a wrong type.
    """
    kind = raw.get("model_type")
    entry = WRAPPED.get(kind) if isinstance(kind, str) else None
    if entry is None or not isinstance(kind, str):
        return Parts(raw)
    whole = _part(raw, entry.inside) if entry.inside else raw
    text = dict(_part(whole, _TEXT) if _TEXT in whole else whole)  # older configs: no part
    text["model_type"] = entry.text or text.get("model_type") or DEFAULT_TEXT.get(kind)
    sizes = SIZES.get(str(text["model_type"]), ()) if _TEXT in whole else ()
    for key, size in zip(_SIZES, sizes, strict=False):
        text.setdefault(key, size)
    stated = [p["tie_word_embeddings"] for p in (whole, text) if "tie_word_embeddings" in p]
    if stated or entry.tied is not None:
        text["tie_word_embeddings"] = any(stated) if stated else entry.tied
    ops, held = [], []
    for key, choice in entry.towers.items():
        if entry.optional and whole.get(key) is None:
            continue
        part = _part(whole, key) if whole.get(key) is not None else {}
        named = part.get("model_type") or DEFAULT_VISION.get(kind)
        tower = choice.get(str(named)) if isinstance(choice, Mapping) else choice
        if tower is not None:
            tower_of = msgspec.convert(part, tower)
            towers.check(key, tower_of)
            found = tower_of.ops(_width(text), whole)
            ops += [op for op in found if any(map(_size, op.shapes))]
            held.append(key)
    if entry.newline:
        ops.append(Op("image_newline", "embedding", ((_width(text),),)))
    left_out = [key for key in _parts_of(raw, entry.inside) if key.rpartition(".")[2] not in held]
    said = [f"{key[:40]}: not run and not counted; text tokens only" for key in left_out[:_MOST]]
    return Parts(text, tuple(ops), tuple(said), tuple(held))


def _part(whole: Mapping[str, Any], key: str) -> dict[str, Any]:
    part = whole.get(key)
    if not isinstance(part, dict):
        raise BadInput(f"key '{key}' is a {type(part).__name__}; an object is expected")
    return part


def _width(text: Mapping[str, Any]) -> int:
    """Width of the language model [elements]."""
    width = text.get("hidden_size")
    if not isinstance(width, int) or width < 1:
        raise BadInput("key 'hidden_size' of the language model: a positive number is expected")
    return width


def _parts_of(raw: Mapping[str, Any], inside: str) -> Iterator[str]:
    """Keys of the parts of a config.json that are no language model: towers, talkers."""
    for key, value in raw.items():
        if key == inside and isinstance(value, dict):
            yield from (f"{inside}.{inner}" for inner in _parts_of(value, ""))
        elif (
            key.endswith("_config")
            and key.isprintable()
            and isinstance(value, dict)
            and key not in _NO_TOWER
        ):
            yield key


_NO_TOWER = {_TEXT, "quantization_config", "compression_config", "generation_config"}


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _format(t: Tape, op: Op, shape: tuple[int, ...]) -> str | None:
    """Format of a tower's weight; None: that of all weights."""
    matrix = op.kind == "linear" and len(shape) == 3
    if not matrix or t.training or t.storage is None or t.precision.matrices is not None:
        return None
    return t.storage.tower_format(shape[-2], shape[-1])


def hold(t: Tape, parts: Parts) -> None:
    """The towers' weights on the tape: in memory, in no kernel, and not trained."""
    for op in parts.ops:
        with t.op(op.name, op.kind):
            for shape in op.shapes:
                if _size(shape):
                    t.parameter(*shape, trainable=False, dtype=_format(t, op, shape))
    if parts.ops:
        n = sum(_size(shape) for op in parts.ops for shape in op.shapes)
        fate = "not run and not trained" if t.training else "not run"
        towers = " and ".join(parts.held)
        t.assumptions.append(
            f"{towers}: tower of {n:,} parameters in memory, {fate}: the step reads text tokens"
        )
    t.assumptions.extend(parts.said)
