"""The inputs that a user gave -> the arguments of a module's forward."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import roofcast.simulator.importers.spec as spec
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers.record import FORMATS
from roofcast.simulator.importers.spec import Input
from roofcast.simulator.importers.torch_extra import FakeTensor, torch

NUMBERS: tuple[type, ...] = (int, float, bool)
MANY = 4096  # values of a tensor in hand that are kept, for a module that depends on them
Make = Callable[[Input], torch.Tensor]


class Reading(NamedTuple):
    """One way to understand the inputs, in which each is a tensor or a value."""

    inputs: tuple[Input, ...]
    note: str = ""  # what was understood, where that was not certain


class Fields(dict[str, Any]):
    """A dict whose items are attributes too, for modules that take a record of tensors."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


# ---------------------------------------------------------------- what was given
def given(inputs: spec.Given, module: torch.nn.Module) -> tuple[Input, ...]:
    """Inputs from a list, or by argument name from a dict, of texts, Inputs, tensors, values and
    containers of those. Raises BadInput for anything else.
    """
    if isinstance(inputs, Mapping):
        return tuple(i for key, value in inputs.items() for i in _flat(value, key, None))
    if not isinstance(inputs, Iterable) or isinstance(inputs, torch.Tensor):
        raise BadInput(
            f"inputs: expected a list of shapes or tensors, got a {type(inputs).__name__}"
        )
    names = list(_parameters(module))
    found: list[Input] = []
    for place, value in enumerate(inputs):
        name = None
        if _is_container(value):
            name = names[place] if place < len(names) else f"input {place}"
        found += _flat(value, name, None)
    return tuple(found)


def _is_container(value: Any) -> bool:
    plain = isinstance(value, (list, tuple, Mapping)) and not isinstance(value, Input)
    return plain or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _flat(value: Any, name: str | None, of: type | None) -> list[Input]:
    """One value, or the items of a container under names with dots."""
    if isinstance(value, str) and of is None:
        return [spec.parse(f"{name}={value}" if name else value)]
    if isinstance(value, Input):
        return [value._replace(name=name or value.name)]
    if isinstance(value, torch.Tensor):
        return [Input(name, tuple(value.shape), *_format(value), of)]
    if value is None or isinstance(value, (*NUMBERS, str)):
        return [Input(name, (), None, repr(value), of)]
    if not _is_container(value):
        raise BadInput(
            f"input {name or ''}: expected a tensor or a shape like 64x3x32x32, got a"
            f" {type(value).__name__}"
        )
    record = type(value) if not isinstance(value, Mapping) and _fields(type(value)) else None
    if dataclasses.is_dataclass(value):
        items = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif record:
        items = list(value._asdict().items())
    else:
        items = [(str(i), item) for i, item in enumerate(value)]
    return [i for key, item in items for i in _flat(item, f"{name}.{key}", record)]


def _format(t: torch.Tensor) -> tuple[str | None, str | None]:
    """Our name of a tensor's format, None if it is floating-point; its values, if they are few."""
    if t.dtype.is_floating_point:
        return None, None
    dtype = FORMATS.get(t.dtype, "int64")
    known = not isinstance(t, FakeTensor) and t.device.type == "cpu" and 0 < t.numel() <= MANY
    if not known or t.dtype.is_complex or t.dim() > 1:
        return dtype, None
    return dtype, repr(t.tolist())


# ---------------------------------------------------------------- what it may mean
def readings(module: torch.nn.Module, inputs: Sequence[Input]) -> list[Reading]:
    """The ways to understand the inputs, the likeliest first; one where nothing is open.

    step=3 is the number 3 where the module says so, or its default value is a number. Where it
    says nothing, it may also be a tensor of that value for each sample, or one of 3 elements.
    """
    types = _types(module)
    named = _merged(list(_named(module, inputs)))
    kinds = [_kind(types.get((i.name or "").split(".")[0])) if i.name else "" for i in named]
    sure = [
        _settled(i, kind) if i.either or _bare(i, kind) else i
        for i, kind in zip(named, kinds, strict=True)
    ]
    lists = [i for i in sure if _is_list(i)]
    if lists and not any(i.either for i in sure):
        of = ", ".join(str(i.name) for i in lists)
        note = f"the values of {of} are taken as a tensor"
        as_tensors = tuple(_as_tensor(i) if i in lists else i for i in sure)
        return [Reading(tuple(sure)), Reading(as_tensors, note)]
    open_ = [i for i in sure if i.either]
    if not open_:
        return [Reading(tuple(sure))]
    batch = spec.axes(sure).batch
    names = ", ".join(f"{i.name}={i.literal}" for i in open_)
    ways = {
        f"{names} is taken as a number": _as_number,
        f"{names} is taken as a tensor with this value for each sample": (
            lambda i: i._replace(shape=(batch,), dtype="int64")
        ),
        f"{names} is taken as the length of a tensor": lambda i: i._replace(literal=None),
    }
    return [
        Reading(tuple(way(i) if i.either else i for i in sure), note) for note, way in ways.items()
    ]


def _as_number(i: Input) -> Input:
    return i._replace(shape=(), dtype=None)


def _is_list(i: Input) -> bool:
    """Whether this is a list of numbers without a shape."""
    return (
        i.literal is not None
        and not i.shape
        and isinstance(i.value, (list, tuple))
        and bool(i.value)
        and all(isinstance(n, NUMBERS) for n in i.value)
    )


def _as_tensor(i: Input) -> Input:
    whole = all(isinstance(n, int) for n in i.value)
    return i._replace(shape=(len(i.value),), dtype="int64" if whole else "fp32")


def _bare(i: Input, kind: str) -> bool:
    """Whether a shape of one axis is given for a parameter that is a number."""
    return kind == "number" and i.literal is None and i.dtype is None and len(i.shape) == 1


def _settled(i: Input, kind: str) -> Input:
    """The input as its parameter's type says."""
    if kind == "number":
        return i._replace(shape=(), literal=i.literal or str(i.shape[0]))
    return i._replace(literal=None) if kind == "tensor" else i


def _kind(annotation: Any) -> str:
    """What a parameter takes by its annotation or default value: number, tensor, or "" unknown."""
    if annotation in NUMBERS:
        return "number"
    arguments = typing.get_args(annotation)
    if arguments and any(a in NUMBERS for a in arguments) and torch.Tensor not in arguments:
        return "number"
    text = annotation if isinstance(annotation, str) else ""
    if text.split(" ")[0] in ("int", "float", "bool"):
        return "number"
    tensor = annotation is torch.Tensor or torch.Tensor in arguments or "Tensor" in text
    return "tensor" if tensor else ""


def _parameters(module: torch.nn.Module) -> dict[str, inspect.Parameter]:
    """The parameters of forward that have a name of their own."""
    try:
        found = inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return {}
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in found.values()):
        return {}
    return {name: p for name, p in found.items() if p.kind not in variable}


def names(module: torch.nn.Module, count: int) -> list[str]:
    """Names of the first arguments of forward, for messages."""
    known = list(_parameters(module))
    return [known[i] if i < len(known) else f"input {i + 1}" for i in range(count)]


def _types(module: torch.nn.Module) -> dict[str, Any]:
    """The types of the parameters, from annotations or, without one, from defaults."""
    try:
        hints = typing.get_type_hints(module.forward)
    except Exception:  # annotations are any code of the user
        hints = {}
    found = {}
    for name, p in _parameters(module).items():
        found[name] = hints.get(name, None if p.annotation is p.empty else p.annotation)
        if found[name] is None and type(p.default) in NUMBERS:
            found[name] = type(p.default)
    return found


def _named(module: torch.nn.Module, inputs: Sequence[Input]) -> Iterable[Input]:
    """The inputs, with a name for those in order where that is needed.

    It is where one of the first parameters is given by name, or takes a number.
    """
    first = [i.name.split(".")[0] for i in inputs if i.name]
    parameters, types = _parameters(module), _types(module)
    unnamed = sum(i.name is None for i in inputs)
    values = {
        i.name for i in inputs if i.name and i.literal is not None and (i.either or not i.shape)
    }
    order = [name for name in parameters if name not in first]
    if unnamed > len(order):  # the value of an input that is given in order
        order = [name for name in parameters if name not in set(first) - values]
    leading = list(parameters)[:unnamed]
    needed = any(n in first or _kind(types.get(n)) == "number" for n in leading)
    names = iter(order if needed else ())
    for i in inputs:
        yield i if i.name else i._replace(name=next(names, None))


def _merged(inputs: list[Input]) -> list[Input]:
    """Inputs of which a shape and, by the same name, values were given, as one."""
    shapes = {i.name: n for n, i in enumerate(inputs) if i.name and i.shape and i.literal is None}
    merged: list[Input | None] = list(inputs)
    for n, i in enumerate(inputs):
        at = shapes.get(i.name or "")
        if i.literal is not None and i.dtype is None and at is not None:
            whole = "int64" if "." not in i.literal else None
            dtype = inputs[at].dtype or whole
            merged[at] = inputs[at]._replace(literal=i.literal, dtype=dtype)
            merged[n] = None
    return [i for i in merged if i is not None]


# ---------------------------------------------------------------- the arguments themselves
def arguments(
    module: torch.nn.Module, inputs: Sequence[Input], make: Make
) -> tuple[list[Any], dict[str, Any]]:
    """What forward is called with: inputs without a name by position, and the others by name.

    make: makes the tensor of an input.
    """

    def value(i: Input) -> Any:
        return make(i) if i.tensor else i.value

    placed = [value(i) for i in inputs if not i.name]
    tree: dict[str, Any] = {}
    records: dict[str, type] = {}
    for i in inputs:
        if not i.name:
            continue
        *outer, last = i.name.split(".")
        node = tree
        for part in outer:
            node = node.setdefault(part, Fields())
            if not isinstance(node, Fields):
                raise BadInput(f"input {i.name}: {part} is given as a tensor or a value as well")
        node[last] = value(i)
        if i.of is not None:
            records[".".join(outer)] = i.of
    types = _types(module)
    named = {key: _built(item, types.get(key), key, records) for key, item in tree.items()}
    return placed, named


def _built(item: Any, annotation: Any, path: str, records: Mapping[str, type]) -> Any:
    """A dict of parts as the list or the record that it is, by its keys or by the annotation."""
    if not isinstance(item, Fields):
        return item
    record = records.get(path) or next(
        (t for t in (annotation, *typing.get_args(annotation)) if _fields(t)), None
    )
    hints = typing.get_type_hints(record) if record else {}
    parts = Fields({k: _built(v, hints.get(k), f"{path}.{k}", records) for k, v in item.items()})
    if record is not None and set(parts) <= set(_fields(record)):
        return record(**parts)
    if all(key.isdecimal() for key in parts):
        ordered = [parts[key] for key in sorted(parts, key=int)]
        is_tuple = annotation is tuple or typing.get_origin(annotation) is tuple
        return tuple(ordered) if is_tuple else ordered
    return parts


def _fields(t: Any) -> tuple[str, ...]:
    """The fields of a class of records: a NamedTuple or a dataclass; none of anything else."""
    if not isinstance(t, type):
        return ()
    if dataclasses.is_dataclass(t):
        return tuple(f.name for f in dataclasses.fields(t))
    return tuple(getattr(t, "_fields", ())) if issubclass(t, tuple) else ()


def filled(i: Input, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of the shape with the values of the literal, which repeat where it has fewer."""
    value = i.value
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    try:
        flat = torch.tensor(values, dtype=dtype).flatten()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise BadInput(
            f"input {spec.written([i])}: the values are no number or list of numbers"
        ) from None
    count = max(torch.Size(i.shape).numel(), 1)
    if not flat.numel():
        raise BadInput(f"input {spec.written([i])}: no values")
    repeated = list(itertools.islice(itertools.cycle(range(flat.numel())), count))
    return flat[torch.tensor(repeated)].reshape(i.shape)
