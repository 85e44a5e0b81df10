"""Models in code that exists: a PyTorch module traced on fake tensors, an ONNX graph read as data.

Both become a `simulator.work.model.Model`, as a name or a config.json does. Neither torch nor onnx
is imported before such a model is requested.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roofcast.hwdb.errors import BadInput

if TYPE_CHECKING:
    import onnx
    import torch

    from roofcast.simulator.importers import spec
    from roofcast.simulator.work.model import Model


ARCHIVES = (".pt", ".pth", ".pt2", ".torchscript")  # of PyTorch; of them TorchScript is read


def claims(reference: str) -> bool:
    """Whether a reference names an importable model: `my_net.py:MyNet`, `my_net.py`, `model.onnx`,
    or a TorchScript archive, `model.pt`.

    >>> claims("my_net.py:MyNet"), claims("model.onnx"), claims("gpt2")
    (True, True, False)
    """
    suffixes = (".py", ".onnx", *ARCHIVES)
    return ".py:" in reference or reference.endswith(suffixes) or _keras_file(reference)


def _keras_file(reference: str) -> bool:
    """Whether a reference names a file or folder that Keras or TensorFlow wrote."""
    folder = Path(reference, "saved_model.pb")
    return reference.endswith((".keras", ".h5", ".hdf5", ".pb")) or folder.is_file()


def resolve(
    reference: str | torch.nn.Module, inputs: spec.Given = (), device: str = "gpu"
) -> Model:
    """The Model of a reference that `claims` accepts, or of a torch module.

    `inputs`: texts like 64x3x32x32 or ids=64x128:int64. `device`: the kind of device whose kernels
    PyTorch would run, gpu, tpu or cpu. Raises BadInput or UnknownName.
    """
    if not isinstance(reference, str):
        return from_torch(reference, inputs, device=device)
    if reference.endswith(".onnx"):
        return from_onnx(Path(reference), inputs)
    from roofcast.simulator.importers import spec
    from roofcast.simulator.importers.keras_lent import imports_keras

    given = [spec.parse(text) if isinstance(text, str) else text for text in inputs]
    keras = _keras_file(reference) or imports_keras(Path(_path(reference)))
    if not given and not keras:
        raise BadInput(
            f"{reference}: inputs are missing; give the shape of each, for example --input"
            " 64x3x32x32 (--input 64x128:int64 for ids)"
        )
    try:
        changed = Path(_path(reference)).stat().st_mtime_ns
    except OSError:
        changed = 0
    return _loaded(reference, tuple(given), device, changed)


def _path(reference: str) -> str:
    """The file of a reference."""
    return reference.rpartition(".py:")[0] + ".py" if ".py:" in reference else reference


@functools.lru_cache(maxsize=2)
def _loaded(reference: str, given: tuple[spec.Input, ...], device: str, changed: int) -> Model:
    """The Model of a file, which is loaded and traced once for all that is asked of it."""
    if _keras_file(reference):
        from roofcast.simulator.importers.keras_files import read

        return from_keras(read(Path(reference)), given, name=Path(reference).stem, device=device)
    from roofcast.simulator.importers.keras_lent import imports_keras

    if imports_keras(Path(_path(reference))):
        return _written_in_keras(reference, given, device)
    if reference.endswith(ARCHIVES):
        from roofcast.simulator.importers.scripted import load as archive

        return from_torch(archive(Path(reference)), given, name=Path(reference).stem, device=device)
    from roofcast.simulator.importers.loader import load

    name = reference.rpartition(":")[2] if ".py:" in reference else Path(reference).stem
    return from_torch(load(reference), given, name=name, device=device)


def _written_in_keras(reference: str, given: tuple[spec.Input, ...], device: str) -> Model:
    """The Model that a Python file with Keras defines: of Keras, or a torch module beside it."""
    from roofcast.simulator.importers.keras_lent import lent
    from roofcast.simulator.importers.loader import load

    name = reference.rpartition(":")[2] if ".py:" in reference else Path(reference).stem
    with lent():
        found = load(reference)
    if hasattr(found, "_flatten_layers"):
        return from_keras(found, given, name=name, device=device)
    return from_torch(found, given, name=name, device=device)


def from_keras(
    model: Any, inputs: spec.Given = (), *, name: str | None = None, device: str = "gpu"
) -> Model:
    """The Model of a Keras model; see `simulator.importers.keras_model.from_keras`."""
    from roofcast.simulator.importers.keras_model import from_keras as traced

    return traced(model, inputs, name=name, device=device)


def from_torch(
    module: torch.nn.Module,
    inputs: spec.Given,
    *,
    name: str | None = None,
    device: str = "gpu",
    loss: Callable[[Any], torch.Tensor] | None = None,
) -> Model:
    """The Model of a torch module; see `simulator.importers.torch_module.from_torch`."""
    from roofcast.simulator.importers.torch_module import from_torch as traced

    return traced(module, inputs, name=name, device=device, loss=loss)


def from_onnx(
    path: str | Path | onnx.ModelProto,
    inputs: Iterable[str | spec.Input] = (),
    *,
    dims: dict[str, int] | None = None,
    name: str | None = None,
) -> Model:
    """The Model of an ONNX file or ModelProto; see `simulator.importers.onnx_graph.from_onnx`."""
    from roofcast.simulator.importers.onnx_graph import from_onnx as read

    return read(path, inputs, dims=dims, name=name)
