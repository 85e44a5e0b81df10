"""The one entry to models: from a name, a file or a module to a Model, a program for the tape."""

from __future__ import annotations

import functools
import json
import re
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from roofcast.hwdb.errors import QUOTED, BadInput, UnknownName, quoted, shortened, unknown
from roofcast.hwdb.strict import load_json
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator import importers
from roofcast.simulator.models.architectures import (
    TASKS,
    class_of,
    family_of,
    head_of,
    labels_of,
    no_type,
    not_known,
    said_of_head,
)
from roofcast.simulator.models.config_keys import MTP, printable, unread_of
from roofcast.simulator.models.families.heads import Head
from roofcast.simulator.models.families.table import CLASSES, FAMILIES, IMAGE_FAMILIES, OLD_CLASSES
from roofcast.simulator.models.families.text_part import WRAPPED, Parts, hold, take_apart
from roofcast.simulator.models.limits import built, check_numbers
from roofcast.simulator.models.names import SHIPPED
from roofcast.simulator.models.nets import NETS
from roofcast.simulator.models.quantized import KEYS, said_of, storage_of
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.storage import Storage
from roofcast.simulator.work.tape import Tape

if TYPE_CHECKING:
    import torch

    from roofcast.simulator.importers import spec

CONFIGS = Path(__file__).parent / "configs"
TIMM = Path(__file__).parent / "vision" / "timm.json"  # names of all models of timm
# suffixes of released weights that do not change the architecture
_RELEASE = re.compile(r"-(hf|instruct|chat|base|it|pt|v\d+(\.\d+)?|\d{4})$")
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")  # owner/name on the Hugging Face Hub
WEIGHTS = (".safetensors", ".gguf", ".bin", ".ckpt", ".pth", ".npz")  # endings of their files
LONGEST_DEFAULT = 4096  # tokens: cap on the default sequence length of long-context models


class Description(NamedTuple):
    """One row of the list of models."""

    name: str
    family: str
    takes: str
    size: int | None
    parameters: int
    source: str


def names() -> tuple[str, ...]:
    """Names of all shipped models, sorted."""
    return tuple(sorted({*SHIPPED, *NETS}))


def resolve(
    reference: str | Model | torch.nn.Module, inputs: spec.Given = (), device: str = "gpu"
) -> Model:
    """The Model that `reference` stands for.

    A reference is a shipped name or an alias, the path of a Hugging Face config.json (or of its
    folder), of a TOML list of layers or of an ONNX file, `my_net.py:MyNet`, a torch module, or a
    Model. `inputs` are the shapes of the inputs of a module that is traced; `device` is the kind of
    device whose kernels PyTorch would run. Raises UnknownName for a name that is not known, and
    BadInput for a file that cannot be read.
    """
    if isinstance(reference, Model):
        return reference
    if not isinstance(reference, str) or importers.claims(reference):
        return importers.resolve(reference, inputs, device)
    if not reference.strip():
        raise BadInput("the name of a model is empty; roofcast models lists the names")
    if inputs:
        raise BadInput(f"inputs: {reference} defines the shape of its inputs; leave them out")
    if reference in SHIPPED:
        return _shipped(reference)
    if reference in NETS:
        return _from_net(reference)
    path = Path(reference)
    if path.suffix == ".toml":
        from roofcast.simulator.models.toml import layers

        return layers.read(path)
    if path.suffix in WEIGHTS and path.exists():
        beside = path.parent / "config.json"
        way = f"give {beside}" if beside.exists() else "give the config.json of the model"
        raise BadInput(f"{path}: holds weights, whose values no forecast reads; {way}")
    if path.suffix == ".json" or path.exists():
        if path.is_dir() and (path / "config.json").exists():
            path = path / "config.json"
        name = path.absolute().parent.name if path.name == "config.json" else path.stem
        return _read(name, path, str(reference))
    return _by_other_name(reference)


def _by_other_name(reference: str) -> Model:
    """The shipped model behind an alias or a Hub id; raises UnknownName with similar names."""
    known = shipped_as(reference)
    if known and "/" in reference:
        text = f"Hugging Face Hub id {reference}: the shipped model {known} is used"
        return _with_assumption(resolve(known), text)
    if known and _letters(reference) != _letters(known):
        return _with_assumption(resolve(known), f"model {reference}: taken as {known}")
    if known:
        return resolve(known)
    _refuse_of_timm(reference)
    for ending in (".toml", ".json", ".py", ".onnx"):
        if Path(f"{reference}{ending}").is_file():
            file = f"./{reference}{ending}"
            raise UnknownName(f"no model {quoted(reference)}; did you mean the file {file}?")
    listing = "roofcast models lists the names; or give a config.json or a .toml list of layers"
    from roofcast.simulator.models.aliases import several

    raise unknown("model", reference, names(), listing, several(reference))


def _refuse_of_timm(reference: str) -> None:
    """Raises UnknownName with the way to a model that timm has and roofcast has no name for."""
    name = reference.removeprefix("timm/").split(".")[0]
    if name in json.loads(TIMM.read_text(encoding="utf-8"))["names"]:
        raise UnknownName(
            f"no model {name!r} by name, but timm has it (pip install timm): write a file net.py of"
            f" two lines, 'import timm' and 'model = timm.create_model(\"{name}\")', and give"
            " net.py:model --input 32x3x224x224 (batch, channels, side of the image)"
        )


def _words(name: str) -> tuple[str, ...]:
    """Runs of letters and of digits of a name: the same however it is divided.

    >>> _words("qwen-2.5-72b") == _words("qwen2.5-72b")
    True
    """
    return tuple(re.findall(r"[a-z]+|\d+", name.lower()))


@functools.cache
def _by_words() -> dict[tuple[str, ...], str]:
    """The shipped names by their words, without words that two of them share."""
    found: dict[tuple[str, ...], str] = {}
    for name in names():
        found[_words(name)] = "" if _words(name) in found else name
    return found


def _letters(name: str) -> str:
    """A name without case, dashes and dots: the same for two spellings of it."""
    return re.sub(r"[\W_]", "", name.lower())


def shipped_as(reference: str) -> str | None:
    """The shipped name behind an alias or a Hugging Face Hub id; None where there is none.

    The owner, the release and fine-tuning suffixes are dropped: they do not change a step.

    >>> shipped_as("meta-llama/Llama-3.1-8B-Instruct"), shipped_as("mistralai/Mistral-7B-v0.1")
    ('llama-3.1-8b', 'mistral-7b')
    >>> shipped_as("ResNet-50")
    'resnet50'
    """
    from roofcast.simulator.models.aliases import ALIASES

    if "/" in reference and not _HUB_ID.fullmatch(reference):
        return None
    name, shorter = "", reference.lower().rsplit("/", 1)[-1]
    while name != shorter:
        name, shorter = shorter, _RELEASE.sub("", shorter)
        found = ALIASES.get(name, name)
        if found in SHIPPED or found in NETS:
            return found
        if alike := _by_words().get(_words(name)):
            return alike
        if shorter.split(".")[0] in NETS:  # timm's name with the tag of a set of weights
            return shorter.split(".")[0]
    return None


def _with_assumption(model: Model, text: str) -> Model:
    """The model, whose program also records `text` as an assumption."""

    def program(tape: Tape, batch: int, size: int | None) -> Any:
        tape.assumptions.append(text)
        return model.program(tape, batch, size)

    return model._replace(program=program)


def describe(name: str) -> Description:
    """Name, family, default size, number of parameters and source of a model."""
    from roofcast.simulator.work.precision import precision

    model = resolve(name)
    tape = model.run(Tape(precision("bf16")), 1)
    parameters = sum(w.size * w.count for w in tape.weights)
    return Description(model.name, model.family, model.takes, model.size, parameters, model.source)


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises BadInput with the reason where there is none."""
    if path.is_dir():
        raise BadInput(f"{path}: a directory without a config.json; give the file itself")
    return load_json(path, "a Hugging Face config.json, not weights")


@lru_cache(maxsize=16)
def _shipped(name: str) -> Model:
    """A shipped configuration, which a search over devices asks for again and again."""
    return _read(name, CONFIGS / f"{name}.json", SHIPPED[name])


def _read(name: str, path: Path, source: str) -> Model:
    return from_config(name, read_config(path), path, source)


def from_config(
    name: str, raw: dict[str, Any], where: Path | str = "config", source: str = ""
) -> Model:
    """The Model that the keys of a Hugging Face config.json describe.

    `where` is the file or other place that error messages name. Raises BadInput for an unknown
    model_type, a missing key, or sizes that do not fit together.
    """
    read_as: tuple[str, ...] = ()
    if "_class_name" in raw and "model_type" not in raw:
        text, kind, parts = raw, _class_name(raw, where), Parts(raw)
    else:
        raw, read_as = _by_class(raw, where)
        parts = _parts(raw, where)
        text, text_as = _by_class(parts.text, where)
        kind, read_as = text["model_type"], (*read_as, *text_as)
        if kind not in FAMILIES:
            raise not_known(where, kind, raw, (*FAMILIES, *WRAPPED))
    file = CLASSES.get(kind) or FAMILIES[kind]
    module = import_module(f"roofcast.simulator.models.families.{file}")
    try:
        config = msgspec.convert(text, module.Config)
    except msgspec.ValidationError as error:
        raise BadInput(f"{where}: {_plain(error)}") from None
    image = kind in IMAGE_FAMILIES or kind in CLASSES
    if hasattr(config, "size"):
        size = config.size
    else:
        size = config.image_size if image else min(config.context, LONGEST_DEFAULT)
    storage, left_out = _storage(raw, text, config, where)
    task, said = head_of(raw), (*read_as, *left_out, *unread_of(raw, parts, config))
    shipped = Path(where).parent == CONFIGS

    def of(config: Any) -> Model:
        check(where, config)
        return model._replace(program=partial(program, config), config=config, again=of)

    def program(config: Any, tape: Tape, batch: int, size: int | None) -> Any:
        tape.storage = None if shipped and tape.training else storage
        tape.head = Head(task, labels_of(raw)) if task in TASKS else None
        hold(tape, parts)
        if shipped:  # a fault there is one of ours
            made = module.build(tape, config, batch, size)
        else:
            made = built(where, config, lambda: module.build(tape, config, batch, size))
        if tape.storage is not None:
            tape.assumptions.append(said_of(tape))
        # a stack that trains what is left out
        deeper = tape.implementation("mtp", "none") == "train"
        kept = [line for line in said if not (deeper and line.endswith(MTP))]
        tape.assumptions.extend((*kept, *said_of_head(raw, kind, tape.headed, tape.training)))
        return made

    takes = "image" if image else "sequence"
    model = Model(
        name, kind, takes, size, partial(program, config), source=source, storage=storage,
        widened=shipped,
    )  # fmt: skip
    return of(config)


def _by_class(raw: dict[str, Any], where: Path | str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The keys with a known model_type, where theirs is not known but their class is, and what was
    assumed. Raises BadInput without a model_type and a known class.
    """
    kind, known, name = raw.get("model_type"), (*FAMILIES, *WRAPPED), class_of(raw)
    found = family_of(name, known) if name else None
    if kind is None and found is None:
        raise no_type(where, raw)
    if kind is not None and not isinstance(kind, str):
        raise BadInput(f"{where}: model_type is {quoted(kind)}; wanted one name in quotes")
    if kind in known or found is None:
        return raw, ()
    said = f"model_type {printable(kind)}: read as {found}, the family of {name} in architectures"
    return raw | {"model_type": found}, (said,)


def _storage(
    raw: dict[str, Any], text: dict[str, Any], config: Any, where: Path | str
) -> tuple[Storage | None, tuple[str, ...]]:
    """How the checkpoint stores its weights, and what of that is not modelled."""
    of = raw if any(raw.get(key) for key in KEYS) else text
    layers = getattr(config, "num_hidden_layers", None)
    try:
        storage, left_out = storage_of(of, layers if isinstance(layers, int) else 1)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    return storage, (left_out,) if left_out else ()


def _parts(raw: dict[str, Any], where: Path | str) -> Parts:
    """The parts of a config.json. Raises BadInput that names the file."""
    try:
        return take_apart(raw)
    except msgspec.ValidationError as error:
        raise BadInput(f"{where}: {_plain(error)}") from None
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def _class_name(raw: dict[str, Any], where: Path | str) -> str:
    """The class of a configuration of diffusers; BadInput where it is not known."""
    kind = raw["_class_name"]
    if isinstance(kind, str) and isinstance(raw.get("norm_type"), str):
        kind = OLD_CLASSES.get(kind, {}).get(raw["norm_type"], kind)
    if not isinstance(kind, str) or kind not in CLASSES:
        raise BadInput(
            f"{where}: _class_name {quoted(kind)} is not known; known: {', '.join(sorted(CLASSES))}"
        )
    return kind


def _plain(error: msgspec.ValidationError) -> str:
    """msgspec's message in the words of our own."""
    text = str(error).replace("Object missing required field", "missing key").replace("`", "'")
    return shortened(text.replace(" - at '$.", ", at key '"), 2 * QUOTED)


def check(path: Path | str, config: msgspec.Struct) -> None:
    """Raises BadInput unless sizes are positive and heads divide widths. `path` is for messages."""
    check_numbers(path, config)
    width = getattr(config, "hidden_size", None) or getattr(config, "n_embd", None)
    heads = getattr(config, "num_attention_heads", None) or getattr(config, "n_head", None)
    own = getattr(config, "head_dim", None) or getattr(config, "kept_head_dim", None)
    if width and heads and not own and width % heads:
        raise BadInput(
            f"{path}: {width} (hidden size) is not divisible by {heads} (attention heads), and no"
            " 'head_dim' is given"
        )
    groups = getattr(config, "num_key_value_heads", None)
    if heads and groups and heads % groups:
        raise BadInput(
            f"{path}: {heads} attention heads cannot be divided evenly among {groups} key-value"
            " heads"
        )


def _from_net(name: str) -> Model:
    net = NETS[name]
    module = import_module(f"roofcast.simulator.models.{net.module}")

    family = net.module.rpartition(".")[2]

    def of(arguments: dict[str, Any]) -> Model:
        def program(tape: Tape, batch: int, size: int | None) -> Any:
            return module.build(tape, batch, size, **arguments)

        made = Model(name, family, net.takes, net.size, program, arguments, net.source)
        return made._replace(again=of)

    return of(net.arguments)
