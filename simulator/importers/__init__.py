"""Models that a person has already written: a PyTorch module traced on fake tensors, an ONNX graph
read as data.

Both doors end in the same `simulator.model.Model` as a name or a config.json does. Neither torch
nor onnx is imported before a model of theirs is asked for.
"""

from __future__ import annotations

from pathlib import Path

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.importers import spec


def claims(reference: str) -> bool:
    """Is this reference one of ours: `my_net.py:MyNet`, `my_net.py`, `model.onnx`?

    >>> claims("my_net.py:MyNet"), claims("model.onnx"), claims("gpt2")
    (True, True, False)
    """
    return ".py:" in reference or reference.endswith((".py", ".onnx"))


def resolve(reference, inputs=(), device: str = "gpu"):
    """The Model behind a reference that `claims` knows, or a module in hand. `inputs`: texts like
    64x3x32x32 or ids=64x128:int64.
    """
    if not isinstance(reference, str):
        return from_torch(reference, inputs, device=device)
    asked = [spec.parse(text) if isinstance(text, str) else text for text in inputs]
    if reference.endswith(".onnx"):
        return from_onnx(Path(reference), asked)
    if not asked:
        raise BadInput(
            f"{reference}: what does it take? give the shape of every input, for example --input"
            " 64x3x32x32 (--input 64x128:int64 for ids)"
        )
    from roofcast.simulator.importers.loader import load

    return from_torch(
        load(reference),
        asked,
        name=reference.rpartition(":")[2] or Path(reference).stem,
        device=device,
    )


def from_torch(module, inputs, **how):
    """A torch module in hand -> Model; see `simulator.importers.torch_module.from_torch`."""
    from roofcast.simulator.importers.torch_module import from_torch as traced

    return traced(module, inputs, **how)


def from_onnx(path, inputs=(), **how):
    """An ONNX file or ModelProto -> Model; see `simulator.importers.onnx_graph.from_onnx`."""
    from roofcast.simulator.importers.onnx_graph import from_onnx as read

    return read(path, inputs, **how)
