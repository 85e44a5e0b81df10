"""A Keras model -> Model: traced by PyTorch, each of Keras's own layers as one library call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import roofcast.simulator.importers.spec as spec
from roofcast.hwdb.errors import BadInput, one_line
from roofcast.simulator.importers.fake import constructing
from roofcast.simulator.importers.keras_extra import keras
from roofcast.simulator.importers.keras_layers import Activation, Plain, twin
from roofcast.simulator.importers.torch_extra import F, torch
from roofcast.simulator.importers.torch_module import from_torch
from roofcast.simulator.work.model import Model

DTYPES = {"int32": "int64", "int64": "int64", "uint8": "uint8", "bool": "bool", "int8": "int8"}


class Own(torch.nn.Module):
    """A layer that Keras's own operations compute: a model, a layer of a user, a merge."""

    def __init__(self, layer: Any, call: Any):
        super().__init__()
        self.own, self.call = (layer,), call
        variables = [*layer._trainable_variables, *layer._non_trainable_variables]
        self.variables = {}
        for i, variable in enumerate(v for v in variables if v._value is not None):
            value = variable._value
            if not value.dtype.is_floating_point:
                continue
            name = f"variable{i}"
            self.variables[name] = variable
            if variable.trainable or value.requires_grad:
                made = torch.nn.Parameter(value.detach(), requires_grad=variable.trainable)
                self.register_parameter(name, made)
            else:
                self.register_buffer(name, value.detach())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own call, with the weights that stand in this module."""
        before = [(v, v._value) for v in self.variables.values()]
        try:
            for name, variable in self.variables.items():
                variable._value = getattr(self, name)
            return self.call(self.own[0], *args, **kwargs)
        finally:
            for variable, value in before:
                variable._value = value


class Net(torch.nn.Module):
    """A built Keras model as a tree of torch modules, named as Keras names its layers."""

    def __init__(self, model: Any):
        super().__init__()
        self.own = (model,)
        self.original = keras.layers.Layer.__call__
        self.twins: list[tuple[Any, Callable[..., Any]]] = []
        self._grow(self, model, set())
        self.top = (Own(model, self.original),)  # its variables are the model's own
        for name, value in self.top[0]._parameters.items():
            self.register_parameter(f"own_{name}", value)

    def _grow(self, parent: torch.nn.Module, layer: Any, seen: set[int]) -> None:
        """Add a module per layer inside `layer`, each layer once."""
        for inner in layer._layers:
            if id(inner) in seen or isinstance(inner, keras.layers.InputLayer):
                continue
            seen.add(id(inner))
            name = _free(parent, inner.name)
            one = twin(inner)
            if one is None:
                own = Own(inner, self.original)
                self._grow(own, inner, seen)
                parent.add_module(name, own)
                self.twins.append((inner, own))
                continue
            seen.update(map(id, inner._flatten_layers()))
            parent.add_module(name, one)
            self.twins.append((inner, _activated(parent, name, inner, one)))

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The model's output; a single list of inputs where it has several."""
        model = self.own[0]
        twins = {id(layer): module for layer, module in self.twins}
        original = self.original

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            module = twins.get(id(layer))
            if module is None:
                return original(layer, *args, **kwargs)
            return module(*args, **kwargs)

        if model._call_has_training_arg:
            named["training"] = self.training
        fed = inputs[0] if len(inputs) == 1 else list(inputs)
        own = self.top[0]
        own._parameters.update(
            {name.removeprefix("own_"): p for name, p in self._parameters.items()}
        )
        with _as_it_stands(), mock.patch.object(keras.layers.Layer, "__call__", call):
            return own(fed, **named)


def _activated(parent: Any, name: str, layer: Any, made: Plain) -> Callable[..., Any]:
    """The module of a layer, followed by that of its activation, which has a name of its own."""
    function = getattr(layer, "activation", None)
    kind = getattr(function, "__name__", "linear")
    if function is None or kind == "linear" or hasattr(made, "cell"):
        return made
    after = Activation(layer)
    after.__class__ = type(kind, (Activation,), {})
    parent.add_module(_free(parent, f"{name}_{kind}"), after)
    return _Chain(made, after)


class _Chain:
    """Two modules in a row that stand side by side in their parent."""

    def __init__(self, *modules: torch.nn.Module):
        self.modules = modules

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        first, second = self.modules
        return second(first(x, *args, **kwargs))


def _free(parent: torch.nn.Module, name: str) -> str:
    """A name that torch accepts and that the parent does not have yet."""
    name = name.replace(".", "_") or "layer"
    while name in parent._modules or hasattr(parent, name):
        name += "_"
    return name


@contextlib.contextmanager
def _as_it_stands() -> Iterator[None]:
    """Inside, Keras neither casts inputs to its own format nor asks where a tensor lies."""
    with contextlib.ExitStack() as stack:
        for owner, name in (
            (keras.DTypePolicy, "convert_input"),
            (keras.src.models.functional.Functional, "_convert_inputs_to_tensors"),
        ):
            stack.enter_context(mock.patch.object(owner, name, lambda self, x, *rest: x))
        yield


class Loss:
    """The loss that a model was compiled with, or the usual one of its last layer."""

    def __init__(self, kind: str, logits: bool):
        self.kind, self.logits = kind, logits

    def target(self, out: Any) -> torch.Tensor | None:
        """What the output is compared with."""
        if not isinstance(out, torch.Tensor):
            return None
        if self.kind == "sparse_categorical_crossentropy":
            return torch.empty(out.shape[:-1], dtype=torch.int64, device=out.device)
        return torch.empty_like(out, requires_grad=False)

    def __call__(self, out: Any, target: torch.Tensor | None = None) -> torch.Tensor:
        """A scalar; the sum where the model has several outputs."""
        if target is None:
            parts = [t for t in torch.utils._pytree.tree_leaves(out) if t.requires_grad]
            return torch.stack([t.sum() for t in parts]).sum()
        if self.kind == "sparse_categorical_crossentropy":
            return F.cross_entropy(out.reshape(-1, out.shape[-1]), target.reshape(-1))
        if self.kind == "categorical_crossentropy":
            return F.cross_entropy(out.reshape(-1, out.shape[-1]), target.reshape_as(out))
        if self.kind == "binary_crossentropy":
            call = F.binary_cross_entropy_with_logits if self.logits else F.binary_cross_entropy
            return call(out, target)
        if self.kind in ("mean_absolute_error", "mae"):
            return F.l1_loss(out, target)
        return F.mse_loss(out, target)


LOSSES = {  # names and classes of Keras -> the kernel that computes them
    "sparse_categorical_crossentropy": "sparse_categorical_crossentropy",
    "categorical_crossentropy": "categorical_crossentropy",
    "binary_crossentropy": "binary_crossentropy",
    "mse": "mse", "mean_squared_error": "mse", "mae": "mae", "mean_absolute_error": "mae",
}  # fmt: skip
USUAL = {"softmax": "sparse_categorical_crossentropy", "sigmoid": "binary_crossentropy"}


def from_keras(
    model: Any, inputs: spec.Given = (), *, name: str | None = None, device: str = "gpu"
) -> Model:
    """Model of a Keras model.

    `inputs`: shapes in Keras's order of the axes, as for a torch module; default: the model's own.
    Raises BadInput where the model has no inputs of its own and none are given, or where it leaves
    the length of an axis open.
    """
    name = name or model.name
    given = [spec.parse(i) if isinstance(i, str) else i for i in inputs]
    own = not given
    given = given or _own_inputs(model, name)
    if not model.built or model._layers and not all(layer.built for layer in model._layers):
        _build(model, given, name)
    with constructing():
        net = Net(model)
    loss, notes = _loss(model)
    notes += _unused(model)
    made = from_torch(net, given, name=name, device=device, loss=loss)

    def noted(program: Any) -> Any:
        def run(tape: Any, batch: int, size: int | None) -> None:
            tape.assumptions.extend(notes)
            program(tape, batch, size)

        return run

    return made._replace(
        family="keras",
        program=noted(made.program),
        quick=noted(made.quick),
        batch=None if own else made.batch,
        source=f"Keras {keras.__version__} on PyTorch {torch.__version__}",
    )


def _own_inputs(model: Any, name: str) -> list[spec.Input]:
    """The inputs that the model declares, one sample of each."""
    declared = getattr(model, "inputs", None)
    if not declared:
        raise BadInput(
            f"{name}: the Keras model does not say the shape of its inputs; give each, batch first,"
            " for example --input 64x32x32x3 (--input 64x128:int64 for ids)"
        )
    found = []
    for tensor in declared:
        shape = (tensor.shape[0] or 1, *tensor.shape[1:])
        if None in shape:
            open_ = "x".join("?" if n is None else str(n) for n in shape)
            raise BadInput(
                f"{name}: input {tensor.name} is {open_}: the model leaves an axis open; give the"
                f" shape, for example --input {open_.replace('?', '128')}"
            )
        dtype = DTYPES.get(str(tensor.dtype))
        if dtype is None and _only_ids(model, tensor):
            dtype = "int64"
        found.append(spec.Input(None, shape, dtype))
    return found


def _only_ids(model: Any, tensor: Any) -> bool:
    """Whether every layer that reads an input is an embedding."""
    readers = [
        op
        for op in getattr(model, "operations", model._layers)
        for node in op._inbound_nodes
        if any(t is tensor for t in node.input_tensors)
    ]
    return bool(readers) and all(isinstance(r, keras.layers.Embedding) for r in readers)


def _build(model: Any, given: list[spec.Input], name: str) -> None:
    """Let Keras make the weights, which it does when it first sees the shapes."""
    specs = [keras.KerasTensor(i.shape, i.dtype or "float32") for i in given]
    try:
        with constructing():
            model.build([s.shape for s in specs] if len(specs) > 1 else specs[0].shape)
            model(specs if len(specs) > 1 else specs[0])
    except Exception as error:
        text = one_line(error)
        raise BadInput(f"{name}: fails on input {spec.written(given)}: {text}") from None


def _loss(model: Any) -> tuple[Loss | None, list[str]]:
    """The loss of training, and what is assumed of it."""
    compiled = getattr(model, "loss", None)
    kind = getattr(compiled, "name", None) or getattr(compiled, "__name__", None) or compiled
    if isinstance(kind, str) and kind in LOSSES:
        said: dict[str, Any] = getattr(compiled, "get_config", dict)()
        return Loss(LOSSES[kind], bool(said.get("from_logits"))), []
    if len(getattr(model, "outputs", None) or [0]) > 1:
        return Loss("sum", False), ["the loss is the sum of the outputs: the model has several"]
    last = [layer for layer in model._flatten_layers() if hasattr(layer, "activation")]
    ending = getattr(last[-1].activation, "__name__", "") if last else ""
    usual = USUAL.get(ending, "mse")
    if compiled is not None:
        return Loss(usual, False), [f"loss {str(kind)[:80]!r} is not modelled: taken as {usual}"]
    return Loss(usual, False), [f"the model is not compiled: loss {usual}, the usual one"]


def _unused(model: Any) -> list[str]:
    """What the file says and the forecast does not follow."""
    notes = []
    policies = {layer.dtype_policy.name for layer in model._flatten_layers()} - {"float32"}
    if policies:
        listed = ", ".join(sorted(policies))
        notes.append(f"Keras's dtype policy {listed} is not followed; --precision says the format")
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        notes.append(f"compiled with {optimizer.name}; the forecast takes --optimizer")
    if any(getattr(layer, "mask_zero", False) for layer in model._flatten_layers()):
        notes.append("mask_zero: every token is computed, padding too")
    return notes
