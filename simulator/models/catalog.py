"""The door for models: a name, a config.json or a list of layers becomes a Model, which runs on a
tape.
"""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import msgspec

from roofcast.hwdb.errors import BadInput, UnknownName
from roofcast.simulator import importers
from roofcast.simulator.models.families.table import FAMILIES, PICTURES
from roofcast.simulator.models.names import NETS, SHIPPED
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.tape import Tape

CONFIGS = Path(__file__).parent / "configs"
# what ends the names of released weights
_RELEASE = re.compile(r"-(hf|instruct|chat|base|it|pt|v\d+(\.\d+)?|\d{4})$")
_ID = re.compile(r"\w[\w.-]*/[\w.-]+")  # of the hub: owner and name
# tokens: where a config allows more, a forecast that says nothing takes this many
LONGEST_DEFAULT = 4096


class Description(NamedTuple):
    """What a list of models shows."""

    name: str
    family: str
    takes: str
    size: int | None
    parameters: int
    source: str


def names() -> tuple[str, ...]:
    """Every shipped name, sorted."""
    return tuple(sorted({*SHIPPED, *NETS}))


def resolve(reference, inputs=(), device: str = "gpu") -> Model:
    """A shipped name, a path of a Hugging Face config.json, of a TOML list of layers, of an ONNX
    file; my_net.py:MyNet.

    Also a torch module or a Model in hand. `inputs` are the shapes of what a traced module takes;
    `device`: the kind of device whose kernels PyTorch would run.
    """
    if isinstance(reference, Model):
        return reference
    if not isinstance(reference, str) or importers.claims(reference):
        return importers.resolve(reference, inputs, device)
    if inputs:
        raise BadInput(f"inputs: {reference} says itself what it takes; leave them out")
    if reference in SHIPPED:
        shipped = SHIPPED[reference]
        return _from_config(reference, CONFIGS / f"{reference}.json", shipped.source)
    if reference in NETS:
        return _from_net(reference)
    path = Path(reference)
    if path.suffix == ".toml":
        from roofcast.simulator.models.toml import layers

        return layers.read(path)
    if path.suffix == ".json" or path.is_dir() or path.exists():
        if path.is_dir() and (path / "config.json").is_file():
            path = path / "config.json"
        return _from_config(
            path.parent.name if path.name == "config.json" else path.stem, path, str(reference)
        )
    import difflib

    known = shipped_as(reference)
    if known and "/" in reference:
        return _saying(
            resolve(known), f"{reference}, of the Hugging Face hub, taken to be the shipped {known}"
        )
    if known:
        return resolve(known)
    close = difflib.get_close_matches(reference.lower(), names(), 3, 0.5)
    hint = f"; did you mean {', '.join(close)}?" if close else ";"
    raise UnknownName(
        f"no model {reference!r}{hint} known: roofcast models, or give a config.json or a .toml of"
        " layers"
    )


def shipped_as(reference: str) -> str | None:
    """The shipped name behind an alias, or behind an id of the Hugging Face hub: owner, release and
    training after the pretraining do not change a step.

    >>> shipped_as("meta-llama/Llama-3.1-8B-Instruct"), shipped_as("mistralai/Mistral-7B-v0.1"), shipped_as("ResNet-50")
    ('llama-3.1-8b', 'mistral-7b', 'resnet50')
    """
    from roofcast.simulator.models.aliases import ALIASES

    if "/" in reference and not _ID.fullmatch(reference):
        return None
    name, shorter = "", reference.lower().rsplit("/", 1)[-1]
    while name != shorter:
        name, shorter = shorter, _RELEASE.sub("", shorter)
        found = ALIASES.get(name, name)
        if found in SHIPPED or found in NETS:
            return found
    return None


def _saying(model: Model, text: str) -> Model:
    """The model, and what had to be assumed to know it."""

    def program(tape: Tape, batch: int, size: int | None):
        tape.said.append(text)
        model.program(tape, batch, size)

    return model._replace(program=program)


def describe(name: str) -> Description:
    """Name, family, default size, parameters."""
    from roofcast.simulator.work.precision import precision

    model = resolve(name)
    tape = model.run(Tape(precision("bf16")), 1)
    return Description(
        name,
        model.family,
        model.takes,
        model.size,
        sum(w.size * w.count for w in tape.weights),
        model.source,
    )


def read_config(path: Path) -> dict:
    """A JSON object from a file, or one line that says what it is instead."""
    if path.is_dir():
        raise BadInput(f"{path}: a directory without a config.json; give the file itself")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise BadInput(
            f"{path}: not text; a Hugging Face config.json is wanted, not weights"
        ) from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path}: not valid JSON at line {error.lineno} ({error.msg}); is the file cut off?"
        ) from None
    if not isinstance(raw, dict):
        raise BadInput(f"{path}: a JSON object is wanted, found a {type(raw).__name__}")
    return raw


def _from_config(name: str, path: Path, source: str) -> Model:
    return from_config(name, read_config(path), path, source)


def from_config(name: str, raw: dict, where: Path | str = "config", source: str = "") -> Model:
    """The model that the keys of a Hugging Face config.json describe. `where` they come from starts
    each message.
    """
    kind = raw.get("model_type")
    if kind is None:
        raise BadInput(
            f"{where}: no 'model_type'; a Hugging Face config.json has one (known:"
            f" {', '.join(sorted(FAMILIES))})"
        )
    if kind not in FAMILIES:
        raise BadInput(
            f"{where}: model_type {kind!r} is not known; known: {', '.join(sorted(FAMILIES))}; or"
            " list its layers in a .toml"
        )
    module = import_module(f"roofcast.simulator.models.families.{FAMILIES[kind]}")
    try:
        config = msgspec.convert(raw, module.Config)
    except msgspec.ValidationError as error:
        raise BadInput(f"{where}: {_plain(error)}") from None
    check(where, config)
    picture = kind in PICTURES
    size = config.image_size if picture else min(config.context, LONGEST_DEFAULT)
    return Model(
        name,
        kind,
        "image" if picture else "sequence",
        size,
        lambda t, b, s: module.build(t, config, b, s),
        config,
        source,
    )


def _plain(error: msgspec.ValidationError) -> str:
    """msgspec's sentence with the key in front."""
    text = str(error).replace("Object missing required field", "missing key").replace("`", "'")
    return text.replace(" - at '$.", ", at key '")


def check(path: Path | str, config):
    """Sizes are positive, heads divide widths."""
    for field in config.__struct_fields__:
        value = getattr(config, field)
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and value <= 0
            and field not in ("pad_token_id",)
            and not field.endswith("_id")
        ):
            if value < 0 or field in (
                "vocab_size",
                "hidden_size",
                "n_embd",
                "n_layer",
                "n_head",
                "num_hidden_layers",
                "num_attention_heads",
                "intermediate_size",
            ):
                raise BadInput(f"{path}: key '{field}' is {value}; a positive number is wanted")
    width = getattr(config, "hidden_size", None) or getattr(config, "n_embd", None)
    heads = getattr(config, "num_attention_heads", None) or getattr(config, "n_head", None)
    if width and heads and not getattr(config, "head_dim", None) and width % heads:
        raise BadInput(
            f"{path}: {width} (hidden size) is not divisible by {heads} (attention heads), and no"
            " 'head_dim' is given"
        )
    groups = getattr(config, "num_key_value_heads", None)
    if heads and groups and heads % groups:
        raise BadInput(
            f"{path}: {heads} attention heads cannot share {groups} key-value heads evenly"
        )


def _from_net(name: str) -> Model:
    net = NETS[name]
    module = import_module(f"roofcast.simulator.models.{net.module}")
    return Model(
        name,
        net.module.rpartition(".")[2],
        net.takes,
        net.size,
        lambda t, b, s: module.build(t, b, s, **net.arguments),
        net.arguments,
        net.source,
    )
