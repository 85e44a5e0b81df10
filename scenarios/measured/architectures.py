"""The model of a table row that describes a language model by its architecture columns.

A model name whose configuration is known (published/names.toml) gives that configuration; the width
of its experts comes from there, never from a column that may hold the width of the dense layers.
Any other row is written as the equivalent Hugging Face configuration.
"""

from __future__ import annotations

import functools
import math
import re
import tomllib
from pathlib import Path
from typing import Any

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.tuples import NamedTuple
from roofcast.scenarios.measured.cells import Row, number, text
from roofcast.simulator.models import Model, from_config, resolve
from roofcast.simulator.models.catalog import CONFIGS, read_config

NAMES = Path(__file__).parent / "published" / "names.toml"
VOCABULARY = 51200  # default: GPT-2's, padded for tensor parallelism as Megatron pads it
# activation column -> hidden_act, of MLPs with a gate and without
GATED = {"swiglu": "silu", "geglu": "gelu_pytorch_tanh", "silu": "silu"}
PLAIN = {
    "gelu": "gelu_pytorch_tanh", "relu": "relu", "squared-relu": "relu2", "relu2": "relu2",
    "squared_relu": "relu2",
}  # fmt: skip
# letters and digits of an activation -> one of the above
SPELLED = {
    "squaredrelu": "relu2", "relusquared": "relu2", "sqrelu": "relu2", "swish": "swiglu",
    "siglu": "swiglu", "gatedsilu": "swiglu", "gatedgelu": "geglu", "gelutanh": "gelu",
    "gelunew": "gelu", "fastgelu": "gelu", "quickgelu": "gelu", "gelupytorchtanh": "gelu",
}  # fmt: skip
# architectures that the columns of a table can describe; any other model is taken by its name
PLAIN_TYPES = ("llama", "gpt2", "mistral", "mixtral", "starcoder2", "opt", "mpt", "bloom")
# words of a model's name that say nothing of its architecture
TASKS = re.compile(r"\((.*?)\)|pre-?train\w*|fine-?tun\w*|\bsft\b|\binstruct\b|\bproxy\b")
SHORTEST = 8  # letters and digits of a name that may stand for a longer one
# columns that replace a key of a known configuration: benchmarks drop layers and pad vocabularies
COLUMNS = {"layers": "num_hidden_layers", "vocab": "vocab_size"}
Config = dict[str, Any]  # a Hugging Face configuration


class Names(NamedTuple):
    """The sections of published/names.toml: what tables write -> names of this project."""

    devices: dict[str, str]
    systems: dict[str, str]
    stacks: dict[str, str]
    models: dict[str, Config]  # `like`: a shipped configuration; other keys differ from it


@functools.cache
def names() -> Names:
    """The names that tables of training runs use."""
    return Names(**tomllib.loads(NAMES.read_text(encoding="utf-8")))


def model_of(row: Row, sequence: int, assumptions: list[str], dropout: float = 0.0) -> Model:
    """The model of a row, for sequences of `sequence` tokens.

    Each default that the row leaves open is appended to `assumptions`. Raises BadInput where the
    architecture is not given or not supported.
    """
    name = text(row, "model_name") or text(row, "model") or "model"
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    known = next((keys for start, keys in names().models.items() if start in plain), None)
    if known is None:
        known = _by_name(name, row)
    config = known_config(known, row) if known else own_config(row, sequence, assumptions, dropout)
    return _built(name, tuple(sorted((k, _frozen(v)) for k, v in config.items())))


@functools.lru_cache(maxsize=512)
def _built(name: str, items: tuple[tuple[str, Any], ...]) -> Model:
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in items}
    return from_config(name, config, f"model {name}")


def _by_name(name: str, row: Row) -> Config | None:
    """The shipped model that `name` spells, where the columns could not describe it; None where the
    row has another width.
    """
    shipped = shipped_name(name)
    if shipped is None:
        return None
    config = _plain_config(shipped)
    width = number(row, "hidden")
    if config.get("model_type") in PLAIN_TYPES or (width and width != config.get("hidden_size")):
        return None
    return {"like": shipped}


@functools.cache
def shipped_name(name: str) -> str | None:
    """The shipped configuration that `name` spells, or alone begins with it; None without one.

    >>> shipped_name("gemma3-12b"), shipped_name("LLAMA3.1_405B"), shipped_name("Nemotron_3_Nano")
    ('gemma-3-12b', 'llama-3.1-405b', 'nemotron-3-nano-30b-a3b')
    """
    plain = _letters(TASKS.sub(" ", name.lower()))
    spelled = {_letters(path.stem): path.stem for path in CONFIGS.glob("*.json")}
    longer = [stem for key, stem in spelled.items() if key.startswith(plain)]
    alone = longer[0] if len(longer) == 1 and len(plain) >= SHORTEST else None
    return spelled.get(plain, alone)


def _letters(words: str) -> str:
    return re.sub(r"[^a-z0-9]", "", words.lower())


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def known_config(known: Config, row: Row) -> Config:
    """A shipped configuration, its keys replaced by those of `known` and by columns of the row."""
    config = _plain_config(str(known["like"])) | {k: v for k, v in known.items() if k != "like"}
    for column, key in COLUMNS.items():
        value = number(row, column)
        if value:
            config[key] = value
    dense = first_dense(row) or config.get("first_k_dense_replace")
    if dense and "first_k_dense_replace" in config:
        config["first_k_dense_replace"] = dense
    if dense and dense >= config["num_hidden_layers"]:
        config["first_k_dense_replace"] = config["num_hidden_layers"] - 1
    return config


def head_dim(row: Row) -> int | None:
    """Width of a head, of the column head_dim or of the notes; None where neither says it.

    >>> head_dim({"notes": "remat_policy=full; head_dim 256 (base.yml)"}), head_dim({})
    (256, None)
    """
    stated = number(row, "head_dim")
    found = re.search(r"head_dim\s*[=:]?\s*(\d+)", text(row, "notes"))
    return stated or (int(found[1]) if found else None)


def first_dense(row: Row) -> int | None:
    """Dense layers before those of experts: of the column first_k_dense, or of the notes.

    >>> first_dense({"notes": "first_k_dense_replace=1"}), first_dense({"first_k_dense": "3"})
    (1, 3)
    """
    stated = number(row, "first_k_dense")
    if stated is not None:
        return stated
    notes = text(row, "notes")
    found = re.search(r"first[_ -]k[_ -]dense\w*\s*[=:]?\s*(\d+)", notes) or re.search(
        r"first (\d+) (?:layers? )?(?:are )?dense", notes
    )
    return int(found[1]) if found else None


def _plain_config(name: str) -> Config:
    """The keys of a shipped configuration that hold plain values or lists."""
    config = read_config(CONFIGS / f"{name}.json")
    return {k: v for k, v in config.items() if isinstance(v, str | int | float | bool | list)}


def own_config(row: Row, sequence: int, assumptions: list[str], dropout: float) -> Config:
    """The configuration that the architecture columns describe.

    Mixtral's with experts, Llama's with a gated MLP; without a gate GPT-2's, or StarCoder2's where
    GPT-2's cannot express the heads or the activation.
    """
    layers, hidden = number(row, "layers"), number(row, "hidden")
    if not layers or not hidden:
        return _shipped_config(row)
    heads = number(row, "heads")
    if not heads:
        heads = _usual_heads(hidden, number(row, "tp") or 1)
        assumptions.append(f"{heads} heads of {hidden // heads} (not given)")
    activation = _activation(row, hidden, assumptions)
    gated = activation in GATED
    width = number(row, "ffn_hidden")
    if not width:
        width = 256 * -(-8 * hidden // 768) if gated else 4 * hidden
        assumptions.append(f"MLP {width} wide (not given)")
    vocabulary = number(row, "vocab")
    if not vocabulary:
        vocabulary = VOCABULARY
        assumptions.append(f"vocabulary of {vocabulary} (not given)")
    tied = text(row, "tied_embeddings").lower()
    if not tied:
        head = "own head" if gated else "head tied to the embedding"
        assumptions.append(f"{head} (not given)")
    shared = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": number(row, "kv_heads") or heads,
        "intermediate_size": width,
        "max_position_embeddings": sequence,
        "tie_word_embeddings": tied == "yes" if tied else not gated,
    }
    width_of_head = head_dim(row)
    if hidden % heads:
        shared["head_dim"] = 128
    if width_of_head and width_of_head * heads != hidden:
        shared["head_dim"] = width_of_head
    experts = number(row, "experts")
    if experts and experts > 1:
        assumptions.append(f"experts {width} wide, as the MLP column has it")
        return _mixture(shared, activation, experts, number(row, "topk") or 2)
    if gated:
        return shared | {"model_type": "llama", "hidden_act": GATED[activation]}
    return _ungated(shared, activation, dropout)


def _activation(row: Row, hidden: int, assumptions: list[str]) -> str:
    """The activation column; where it is empty, SwiGLU for experts and MLPs of uneven width."""
    activation = text(row, "activation").lower()
    activation = SPELLED.get(_letters(activation), activation)
    activation = _letters(activation) if _letters(activation) in PLAIN | GATED else activation
    if not activation:
        width = number(row, "ffn_hidden") or 4 * hidden
        gated = bool(number(row, "experts")) or width % hidden != 0
        activation = "swiglu" if gated else "gelu"
        assumptions.append(f"activation {activation} (not given)")
    if activation not in GATED | PLAIN:
        known = ", ".join(sorted(GATED | PLAIN))
        raise BadInput(f"activation {quoted(activation)} is not known; known: {known}")
    return activation


def _mixture(shared: Config, activation: str, experts: int, chosen: int) -> Config:
    """Mixtral's configuration."""
    return shared | {
        "model_type": "mixtral",
        "hidden_act": GATED.get(activation, "silu"),
        "num_local_experts": experts,
        "num_experts_per_tok": chosen,
    }


def _ungated(shared: Config, activation: str, dropout: float) -> Config:
    """GPT-2's configuration; StarCoder2's for grouped heads, odd head widths, squared ReLU;
    Nemotron's for a head width that is not hidden / heads.
    """
    heads, hidden = shared["num_attention_heads"], shared["hidden_size"]
    grouped = shared["num_key_value_heads"] != heads
    if "head_dim" in shared and hidden % heads == 0:
        return shared | {"model_type": "nemotron", "hidden_act": PLAIN[activation]}
    if grouped or activation.startswith(("squared", "relu2")) or hidden % heads:
        return shared | {
            "model_type": "starcoder2",
            "hidden_act": PLAIN[activation],
            "use_bias": activation == "gelu",
        }
    return {
        "model_type": "gpt2",
        "vocab_size": shared["vocab_size"],
        "n_embd": hidden,
        "n_layer": shared["num_hidden_layers"],
        "n_head": heads,
        "n_inner": shared["intermediate_size"],
        "n_positions": shared["max_position_embeddings"],
        "activation_function": PLAIN[activation],
        "tie_word_embeddings": shared["tie_word_embeddings"],
        "resid_pdrop": dropout,
        "embd_pdrop": dropout,
        "attn_pdrop": dropout,
    }


def _usual_heads(hidden: int, tp: int) -> int:
    """The number of heads whose width is nearest to 128, divisible by the tensor-parallel degree.

    >>> _usual_heads(4096, 1), _usual_heads(13824, 8), _usual_heads(14400, 8)
    (32, 96, 120)
    """
    possible = [n for n in range(1, hidden + 1) if hidden % n == 0 and n % tp == 0] or [1]
    return min(possible, key=lambda n: abs(math.log(hidden / n / 128)))


def _shipped_config(row: Row) -> Config:
    """The configuration of the shipped model that a row without an architecture names."""
    name = (text(row, "model_name") or text(row, "model")).lower()
    if not name:
        raise BadInput(
            "layers, hidden: the architecture is not given; add them, or a model_name that roofcast"
            " models lists"
        )
    shipped = shipped_name(name)
    if shipped:
        return _plain_config(shipped)
    model = resolve(name)
    if not (CONFIGS / f"{model.name}.json").is_file():
        raise BadInput(f"model {quoted(name)} has no configuration; give layers and hidden")
    return _plain_config(model.name)
