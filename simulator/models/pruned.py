"""Structured pruning: a smaller net, from shares of its heads, inner widths, layers, experts or
channels that are removed [li2016] [michel2019].

Keys of a configuration, or arguments of a net, are made smaller; heads keep their width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

Changes = dict[str, Any]
HEADS = ("num_attention_heads", "n_head", "num_heads")
GROUPS = ("num_key_value_heads", "num_kv_heads")
OF_A_HEAD = ("head_dim", "kept_head_dim", "v_head_dim", "d_kv")  # widths that heads keep
WIDTHS = (
    "intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "encoder_ffn_dim",
    "decoder_ffn_dim", "moe_intermediate_size", "shared_expert_intermediate_size",
    "shared_intermediate_size", "moe_shared_expert_intermediate_size",
)  # fmt: skip
LAYERS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
    "num_decoder_layers", "num_single_layers", "depth",
)  # fmt: skip
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_k", "moe_top_k")
# families of nets -> the argument that their channels are proportional to, and its default
CHANNELS: dict[str, tuple[str, Any]] = {
    "resnet": ("kept", 1.0), "vgg": ("kept", 1.0), "efficientnet": ("width", 1.0),
    "densenet": ("growth", 32), "convnext": ("widths", ()),
}  # fmt: skip
STACKED = ("vit", "mixer")  # families of nets whose argument `depth` counts layers
MULTIPLE = 8  # to which inner widths are rounded, as matrix units want them
EXAMPLE = "heads=25%, ffn=25%, layers=25%, experts=50% or channels=25%"
_SHARE = re.compile(r"(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*%")


def shares_of(text: str) -> dict[str, float]:
    """The fraction of each part that is removed. Raises BadInput.

    >>> shares_of("heads=25%, layers=50%")
    {'heads': 0.25, 'layers': 0.5}
    """
    found: dict[str, float] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        match = _SHARE.fullmatch(word)
        if match is None or match[1] not in PARTS:
            raise BadInput(f"prune {quoted(word)}: {EXAMPLE} is wanted, several with commas")
        share = float(match[2]) / 100
        if not 0 < share < 1:
            raise BadInput(f"prune {word}: a percentage above 0 and below 100 is wanted")
        if match[1] in found:
            raise BadInput(f"prune {text}: {match[1]} is given twice")
        found[match[1]] = share
    if not found:
        raise BadInput(f"prune {quoted(text)}: {EXAMPLE} is wanted")
    return found


def pruned(model: Model, text: str) -> Model:
    """The net without what `text` removes, such as "heads=25%,ffn=25%".

    Raises BadInput where it has no such part, or where the rest cannot be a net.
    """
    shares = shares_of(text)
    if model.again is None:
        raise BadInput(
            f"prune {text}: {model.name} is taken as it is; make it smaller in the model itself, or"
            " give a name or a config.json"
        )
    smaller, said = model, []
    before = _counted(model)
    for part, share in shares.items():
        assert smaller.again is not None, "checked"
        changes = PARTS[part](smaller.config, share, model)
        if len(changes) > 1 and part in ("ffn", "experts"):
            changes = _with_effect(smaller, changes)
        at = _counted(smaller)
        if changes:
            smaller = smaller.again(_changed(smaller.config, changes))
        if not changes or _counted(smaller)[0] >= at[0]:
            raise BadInput(f"prune {part}={100 * share:g}%: {_none(model, part)}")
        said += [_word(name, model.config, value) for name, value in changes.items()]
    after = _counted(smaller)
    words = ", ".join(filter(None, said))
    line = (
        f"pruned {text}: {words + '; ' if words else ''}{after[0]:,} of {before[0]:,} parameters"
        f" ({100 * (after[0] / before[0] - 1):+.0f} %), {100 * (after[1] / before[1] - 1):+.0f} %"
        " FLOP; its accuracy, and the training that restores it, are not forecast"
    )
    return with_line(smaller, line)


def _with_effect(model: Model, changes: Changes) -> Changes:
    """Of changes, those that make the net smaller: a net may ignore keys of its configuration."""
    again, whole = model.again, _counted(model)[0]
    assert again is not None, "the caller checks it"
    return {
        name: value
        for name, value in changes.items()
        if _counted(again(_changed(model.config, {name: value})))[0] < whole
    }


def with_line(model: Model, line: str) -> Model:
    """The model, whose program also records `line` as an assumption."""

    def program(tape: Tape, batch: int, size: int | None) -> Any:
        tape.assumptions.append(line)
        return model.program(tape, batch, size)

    return model._replace(program=program)


def _counted(model: Model) -> tuple[int, float]:
    """Parameters, and FLOPs of a forward on one sample."""
    tape = model.run(Tape(precision("bf16"), training=False), 1)
    weights = sum(w.size * w.count for w in tape.weights)
    return weights, sum(k.matrix * k.count for k in tape.kernels)


def _changed(config: Any, changes: Changes) -> Any:
    if isinstance(config, Mapping):
        return {**config, **changes}
    try:
        return msgspec.structs.replace(config, **changes)
    except ValueError as error:  # of a configuration that checks itself
        raise BadInput(f"prune: what is left cannot be a net: {error}") from None


def _given(config: Any, names: tuple[str, ...]) -> Changes:
    """Keys of these names with a value that is a size, or sizes of layers."""
    fields = config if isinstance(config, Mapping) else getattr(config, "__struct_fields__", ())
    known = {n: config[n] if isinstance(config, Mapping) else getattr(config, n)
             for n in names if n in fields}  # fmt: skip
    return {n: v for n, v in known.items() if v is not None and v is not msgspec.UNSET}


def _left(count: int, share: float, part: str, least: int = 1) -> int:
    """What is left of `count`; at least one is removed."""
    left = min(round(count * (1 - share)), count - 1)
    if left < least:
        raise BadInput(
            f"prune {part}={100 * share:g}%: {left} of {count} would be left; at least {least} must"
        )
    return left


def _heads(config: Any, share: float, model: Model) -> Changes:
    heads, groups = _given(config, HEADS), _given(config, GROUPS)
    fields = getattr(config, "__struct_fields__", ())
    widths = [name for name in OF_A_HEAD if name in fields]
    if not heads or not widths or ("num_heads" in heads and "d_kv" not in widths):
        return {}
    (name, count), *_ = heads.items()
    of_groups = next((v for v in groups.values() if isinstance(v, int)), None)
    whole = of_groups or getattr(config, "groups", None) or count
    if not isinstance(whole, int) or whole == 1 or count % whole:
        whole = count  # keys and values that all heads share stay
    left = _left(whole, share, "heads")
    found: Changes = {name: count // whole * left}
    found |= {key: left for key, value in groups.items() if value == whole}
    if groups and not any(value == whole for value in groups.values()) and whole != count:
        found[next(iter(groups))] = left
    width = _head_width(config, count)
    if "v_head_dim" not in widths and "d_kv" not in widths and width:
        found[widths[0]] = width
    return found


def _head_width(config: Any, heads: int) -> int | None:
    """The width of a head, where the configuration does not say it but heads divide its width."""
    for name in ("head_dim", "dim", "head_size"):
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    width = getattr(config, "hidden_size", None) or getattr(config, "n_embd", None)
    return width // heads if isinstance(width, int) else None


def _ffn(config: Any, share: float, model: Model) -> Changes:
    found = _given(config, WIDTHS)
    fields = getattr(config, "__struct_fields__", ())
    if "n_inner" in fields and "n_inner" not in found:
        found["n_inner"] = 4 * config.n_embd

    def narrower(width: Any) -> Any:
        if isinstance(width, (list, tuple)):
            return type(width)(narrower(each) for each in width)
        unit = MULTIPLE if width >= 8 * MULTIPLE else 1
        return max(unit, int(width * (1 - share)) // unit * unit)

    return {n: narrower(v) for n, v in found.items() if isinstance(v, (int, list, tuple)) and v}


def _layers(config: Any, share: float, model: Model) -> Changes:
    if isinstance(config, Mapping) and model.family not in STACKED:
        return {}
    found: Changes = {}
    for name, count in _given(config, LAYERS).items():
        if isinstance(count, int) and not isinstance(count, bool) and count > 1:
            left = found[name] = _left(count, share, "layers")
            # what is said of every layer, of the first ones that are left
            every = getattr(config, "__struct_fields__", ())
            lists = ((key, getattr(config, key)) for key in every)
            found |= {k: v[:left] for k, v in lists if isinstance(v, list) and len(v) == count}
    return found


def _experts(config: Any, share: float, model: Model) -> Changes:
    chosen = [v for v in _given(config, CHOSEN).values() if isinstance(v, int)]
    least = max(chosen, default=1)
    found = {n: v for n, v in _given(config, EXPERTS).items() if isinstance(v, int) and v > 1}
    more = {n: v for n, v in found.items() if v > least}  # a key that its net ignores may be small
    return {n: _left(v, share, "experts", least) for n, v in (more or found).items()}


def _channels(config: Any, share: float, model: Model) -> Changes:
    argument, usual = CHANNELS.get(model.family, ("", None))
    if not argument or not isinstance(config, Mapping):
        return {}
    value = config.get(argument, usual)
    if isinstance(value, (list, tuple)):
        return {argument: tuple(max(8, int(v * (1 - share)) // 8 * 8) for v in value)}
    smaller = value * (1 - share)
    return {argument: smaller if isinstance(value, float) else max(1, int(smaller))}


PARTS: dict[str, Callable[[Any, float, Model], Changes]] = {
    "heads": _heads, "ffn": _ffn, "layers": _layers, "experts": _experts, "channels": _channels,
}  # fmt: skip


def _word(name: str, config: Any, value: Any) -> str:
    """A change in words: num_hidden_layers 24 of 32."""
    if name in OF_A_HEAD or not isinstance(value, int):
        return ""
    old = _given(config, (name,)).get(name)
    return f"{name} {value:,} of {old:,}" if isinstance(old, int) else f"{name} {value:,}"


def _none(model: Model, part: str) -> str:
    """Why a part cannot be pruned."""
    if part == "channels" and isinstance(model.config, Mapping):
        known = ", ".join(CHANNELS)
        if model.family in CHANNELS:
            return f"so few that rounding leaves all channels of {model.name}; prune more"
        return f"channels of {model.name} are not modelled; those of {known} are"
    if part == "heads" and _given(model.config, HEADS):
        return f"the heads of {model.name} set the width of its layers; prune ffn or layers"
    has = (name for name, change in PARTS.items() if change(model.config, 0.25, model))
    others = [name for name in has if name != part]
    more = f"; it has {', '.join(others)}" if others else ""
    return f"{model.name} has no {part} that its configuration counts{more}"
