"""Which numbers a configuration may hold: the checks that every family shares, one line each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from roofcast.hwdb.errors import BadInput, RoofcastError, listed, one_line, quoted

MOST = 10**12  # of any size; no memory holds a dimension like that
MOST_LAYERS = 10_000  # of one stack of layers, as in a TOML list of layers
MOST_ITEMS = 10_000  # of a list

# keys that count layers, which a program visits one by one
_LAYERS = re.compile(r"(num_|n_)?(\w+_)?layers?|depths?")
SWITCHED = ("qwen", "smollm3")  # families whose windows a switch turns off
# keys whose value stands for nothing where it is 0, whatever the family; others may be switched off
_POSITIVE = re.compile(
    r"vocab_size|hidden_size|n_embd|n_layer|n_head|num_hidden_layers|num_attention_heads"
    r"|intermediate_size|sliding_window|head_dim|d_model|d_kv|d_ff|patch_size|image_size"
    r"|\w*kernel(_size|_dim)?|state_size|expand|num_channels|num_key_value_heads|num_heads|n_heads"
    r"|(encoder|decoder)_attention_heads"
)
_SHARE = re.compile(r"\w*drop(out|path)?(_\w+)?|\w*_pdrop|\w*_dropout")
UNFORESEEN = (
    ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError,
)  # fmt: skip


def _unused(config: msgspec.Struct) -> bool:
    """Whether a config has the switch `use_sliding_window`, and it is off."""
    kind = getattr(config, "model_type", None) or ""
    return kind.startswith(SWITCHED) and not getattr(config, "use_sliding_window", True)


def check_numbers(where: Path | str, config: msgspec.Struct) -> None:
    """Raises BadInput unless sizes are whole numbers within MOST, not 0 where they cannot be, and
    floats are finite and not negative, those of dropout at most 1. `where` is for messages.
    """
    for key, value in _numbers(where, config):
        name = key.partition("[")[0]
        if isinstance(value, float):
            share = _SHARE.fullmatch(name) is not None
            if not (math.isfinite(value) and 0 <= value <= (1 if share else math.inf)):
                wanted = "a number from 0 to 1" if share else "a finite number, at least 0"
                raise BadInput(f"{where}: key '{key}' is {value:g}; wanted {wanted}")
        elif name.endswith("_id") or (value in (0, -1) and key in getattr(config, "UNSET", ())):
            continue  # as Hugging Face writes None
        elif value == 0 and key == "sliding_window" and _unused(config):
            continue  # as transformers writes a window that is not used
        elif value < 0 or (value == 0 and _POSITIVE.fullmatch(key)):
            raise BadInput(
                f"{where}: key '{key}' is {quoted(value, 30)}; it must be a positive number"
            )
        elif value > (most := MOST_LAYERS if _LAYERS.fullmatch(name) else MOST):
            raise BadInput(
                f"{where}: key '{key}' is {quoted(value, 30)}; it can be at most {most:,}"
            )


def _numbers(where: Path | str, config: msgspec.Struct) -> Iterator[tuple[str, int | float]]:
    """Keys and numbers of a configuration and of the configurations within; of lists, the items."""
    for field in config.__struct_fields__:
        value = getattr(config, field)
        if isinstance(value, msgspec.Struct):
            yield from _numbers(where, value)
        elif isinstance(value, list | tuple):
            if len(value) > MOST_ITEMS:
                raise BadInput(
                    f"{where}: key '{field}' has {len(value):,} items; it can have at most"
                    f" {MOST_ITEMS:,}"
                )
            yield from ((f"{field}[{i}]", n) for i, n in enumerate(value) if _number(n))
        elif _number(value):
            yield field, value


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def built(where: Path | str, config: msgspec.Struct, build: Callable[[], Any]) -> Any:
    """What `build` returns; where the numbers of a configuration do not fit together in a way that
    no check foresees, BadInput instead of the error of the arithmetic.
    """
    try:
        return build()
    except RoofcastError:
        raise
    except ZeroDivisionError:
        zeros = [key for key, value in _numbers(where, config) if value == 0]
        raise BadInput(
            f"{where}: a size is 0 that others are divided by; keys that are 0:"
            f" {listed(zeros) or 'none, but two that cancel'}"
        ) from None
    except IndexError:
        raise BadInput(
            f"{where}: a list has fewer items than the model has layers; make them equal"
        ) from None
    except UNFORESEEN as error:
        raise BadInput(
            f"{where}: its keys do not fit together ({one_line(error)}); compare them with the"
            " published config.json of the family"
        ) from None
