"""From the architecture columns of a table of training runs to a model.

A name whose configuration is known (published/names.toml) gives it: the width of experts comes from
there, never from a column that may hold the dense width. Any other row is written as the Hugging
Face configuration it amounts to.
"""

from __future__ import annotations

import functools
import math
import re
import tomllib
from pathlib import Path

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models import Model, from_config, resolve
from roofcast.simulator.models.catalog import CONFIGS, read_config

NAMES = Path(__file__).parent / "published" / "names.toml"
# where no column says: GPT-2's, padded for tensor parallelism, as Megatron has it
VOCABULARY = 51200
GATED = {"swiglu": "silu", "geglu": "gelu_pytorch_tanh", "silu": "silu"}
PLAIN = {
    "gelu": "gelu_pytorch_tanh",
    "relu": "relu",
    "squared-relu": "relu2",
    "relu2": "relu2",
    "squared_relu": "relu2",
}
# of a row -> keys that a known configuration takes from it: proxies have fewer layers, vocabularies
# are padded
COLUMNS = {"layers": ("num_hidden_layers",), "vocab": ("vocab_size",)}


@functools.cache
def names() -> dict[str, dict]:
    """What tables call devices, systems, stacks and models."""
    return tomllib.loads(NAMES.read_text(encoding="utf-8"))


def number(row, key: str) -> int | None:
    """A whole number of a column; None where it is empty."""
    text = (row.get(key) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{key} {text!r}: a number is wanted") from None
    if value != int(value) or value < 0:
        raise BadInput(f"{key} {text}: a whole number is wanted")
    return int(value)


def model_of(row, sequence: int, said: list[str], dropout: float = 0.0) -> Model:
    """The model of a row; what the row left out is added to `said`."""
    name = (row.get("model_name") or row.get("model") or "model").strip()
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    known = next((keys for start, keys in names()["models"].items() if start in plain), None)
    raw = known_config(known, row) if known else own_config(row, sequence, said, dropout)
    return _built(name, tuple(sorted((k, _frozen(v)) for k, v in raw.items())))


@functools.lru_cache(maxsize=512)
def _built(name: str, raw: tuple) -> Model:
    return from_config(
        name, {k: list(v) if isinstance(v, tuple) else v for k, v in raw}, f"model {name}"
    )


def _frozen(value):
    return tuple(value) if isinstance(value, list) else value


def known_config(known: dict, row) -> dict:
    """A shipped configuration with the keys that differ, and the layers and vocabulary that the row
    names.
    """
    raw = read_config(CONFIGS / f"{known['like']}.json") | {
        k: v for k, v in known.items() if k != "like"
    }
    raw = {k: v for k, v in raw.items() if isinstance(v, str | int | float | bool | list)}
    for column, keys in COLUMNS.items():
        value = number(row, column)
        if value:
            raw.update(dict.fromkeys(keys, value))
    dense = raw.get("first_k_dense_replace")
    if dense and dense >= raw["num_hidden_layers"]:
        raw["first_k_dense_replace"] = raw["num_hidden_layers"] - 1
    return raw


def _usual_heads(hidden: int, tp: int) -> int:
    """Heads as near to 128 wide as divide the width, and are divided by tensor parallelism.

    >>> _usual_heads(4096, 1), _usual_heads(13824, 8), _usual_heads(14400, 8)
    (32, 96, 120)
    """
    possible = [n for n in range(1, hidden + 1) if hidden % n == 0 and n % tp == 0] or [1]
    return min(possible, key=lambda n: abs(math.log(hidden / n / 128)))


def own_config(row, sequence: int, said: list[str], dropout: float) -> dict:
    """Layers, widths and heads as a configuration: Llama's where the MLP is gated, else GPT-2's or
    StarCoder2's; Mixtral's with experts.
    """
    layers, hidden, heads = (number(row, key) for key in ("layers", "hidden", "heads"))
    if not layers or not hidden:
        name = (row.get("model_name") or row.get("model") or "").strip().lower()
        if name:
            return _shipped(name)
        raise BadInput(
            "layers, hidden: the architecture is not given; add them, or a model_name that roofcast"
            " models lists"
        )
    if not heads:
        heads = _usual_heads(hidden, number(row, "tp") or 1)
        said.append(f"{heads} heads of {hidden // heads} (not given)")
    activation = (row.get("activation") or "").strip().lower()
    gated = activation in GATED
    if not activation:
        gated = (
            bool(number(row, "experts")) or (number(row, "ffn_hidden") or 4 * hidden) % hidden != 0
        )
        activation = "swiglu" if gated else "gelu"
        said.append(f"activation {activation} (not given)")
    if activation not in GATED | PLAIN:
        raise BadInput(
            f"activation {activation!r} is not known; known: {', '.join(sorted(GATED | PLAIN))}"
        )
    width = number(row, "ffn_hidden")
    if not width:
        width = 256 * -(-8 * hidden // 768) if gated else 4 * hidden
        said.append(f"MLP {width} wide (not given)")
    vocabulary = number(row, "vocab")
    if not vocabulary:
        vocabulary = VOCABULARY
        said.append(f"vocabulary of {vocabulary} (not given)")
    groups = number(row, "kv_heads") or heads
    tied = (row.get("tied_embeddings") or "").strip().lower()
    if not tied:
        said.append(f"{'own head' if gated else 'head tied to the embedding'} (not given)")
    shared = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "intermediate_size": width,
        "max_position_embeddings": sequence,
        "tie_word_embeddings": tied == "yes" if tied else not gated,
    }
    if hidden % heads:
        shared["head_dim"] = 128
    experts = number(row, "experts")
    if experts and experts > 1:
        said.append(f"experts {width} wide, as the MLP column has it")
        return shared | {
            "model_type": "mixtral",
            "hidden_act": GATED.get(activation, "silu"),
            "num_local_experts": experts,
            "num_experts_per_tok": number(row, "topk") or 2,
        }
    if gated:
        return shared | {"model_type": "llama", "hidden_act": GATED[activation]}
    if groups != heads or activation.startswith(("squared", "relu2")) or hidden % heads:
        return shared | {
            "model_type": "starcoder2",
            "hidden_act": PLAIN[activation],
            "use_bias": activation == "gelu",
        }
    return {
        "model_type": "gpt2",
        "vocab_size": vocabulary,
        "n_embd": hidden,
        "n_layer": layers,
        "n_head": heads,
        "n_inner": width,
        "n_positions": sequence,
        "activation_function": PLAIN[activation],
        "tie_word_embeddings": shared["tie_word_embeddings"],
        "resid_pdrop": dropout,
        "embd_pdrop": dropout,
        "attn_pdrop": dropout,
    }


def _shipped(name: str) -> dict:
    """The configuration of a shipped model of that name."""
    model = resolve(name)
    path = CONFIGS / f"{model.name}.json"
    if not path.is_file():
        raise BadInput(f"model {name!r} has no configuration; give layers and hidden")
    return {
        k: v for k, v in read_config(path).items() if isinstance(v, str | int | float | bool | list)
    }
