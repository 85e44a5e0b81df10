"""TorchScript: modules of torch.jit.script and torch.jit.trace, and archives of them.

A scripted module keeps its tensors in C++, where they are set one by one. An archive is loaded by
PyTorch's own reader, which unpickles no Python objects, onto the meta device: its weights are not
read. Its code runs in PyTorch's interpreter; load only archives that you trust.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from roofcast.hwdb.errors import BadInput, one_line
from roofcast.simulator.importers.torch_extra import torch

LARGEST_CODE = 1 << 28  # bytes of an archive that are not weights


def load(path: Path) -> torch.nn.Module:
    """The module of a TorchScript archive. Raises BadInput for any other file."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected a TorchScript archive of torch.jit.save")
    _checked(path)
    try:
        module = torch.jit.load(str(path), map_location="meta")
    except Exception as error:
        raise BadInput(f"{path}: cannot be read as TorchScript: {one_line(error)[:200]}") from None
    return module


def _checked(path: Path) -> None:
    """Raises BadInput unless the file is an archive of TorchScript with sizes that can be."""
    way = "name the module in Python instead, my_net.py:MyNet"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise BadInput(f"{path}: no TorchScript archive, or cut off; {way}") from None
    names = ["/".join(e.filename.split("/")[1:]) for e in entries]
    if any(name.startswith("models/") or name == "archive_format" for name in names):
        raise BadInput(
            f"{path}: an exported program; name a function that returns"
            " torch.export.load(...).module() instead, my_net.py:make"
        )
    if "constants.pkl" not in names or not any(name.startswith("code/") for name in names):
        raise BadInput(f"{path}: holds weights or a pickled object, no TorchScript; {way}")
    other = sum(
        e.file_size
        for e, name in zip(entries, names, strict=True)
        if not name.startswith(("data/", "constants/", "tensors/"))
    )
    packed = any(e.compress_size * 100 < e.file_size for e in entries if e.file_size > 1 << 20)
    if other > LARGEST_CODE or packed:
        raise BadInput(f"{path}: an archive of {other / 1e9:.1f} GB of code, or packed; not read")


def is_scripted(module: torch.nn.Module) -> bool:
    """Whether a module's tensors lie in C++."""
    return isinstance(module, torch.jit.ScriptModule)


@contextlib.contextmanager
def substituted(
    module: torch.nn.Module, of: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Inside, a scripted module holds the substitutes of its own parameters and buffers."""
    inner: Any = module._c
    before: dict[str, torch.Tensor] = {}
    kinds: tuple[Any, ...] = (torch._C.ParameterDict, torch._C.BufferDict)
    for kind in kinds:
        before.update(dict(kind(inner).items()))
    try:
        for name, tensor in before.items():
            inner.setattr(name, of(tensor))
        yield
    finally:
        for name, tensor in before.items():
            inner.setattr(name, tensor)
