"""`my_net.py:MyNet` -> a torch module. Loading a .py runs it: load only files that you trust.

The module is constructed without its weights: large tensors are fake from the start and
initializers do nothing, so a model that is too large for this machine is constructed in seconds.
Small tensors are real, so that a constructor may look at their values.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import roofcast.simulator.importers.higher_order as higher_order
import roofcast.simulator.importers.user_code as user_code
from roofcast.hwdb.errors import BadInput, UnknownName
from roofcast.simulator.importers.cuda_answers import one_gpu
from roofcast.simulator.importers.cuda_dispatch import OnCpu
from roofcast.simulator.importers.fake import constructing
from roofcast.simulator.importers.torch_extra import torch


def load(reference: str) -> torch.nn.Module:
    """The module that `path:Name` names.

    Name is a Module class or a function that can be called without arguments, or an instance. It
    may be left out if the file defines one Module. Raises BadInput or UnknownName.
    """
    path_text, _, name = reference.rpartition(":") if ".py:" in reference else (reference, "", "")
    path = Path(path_text)
    with user_code.quiet(), user_code.limited(str(path), user_code.LOADING, user_code.LOADING):
        with constructing(), OnCpu(), one_gpu(), higher_order.as_python():
            found = _named(_run(path), path, name)
            return _constructed(found, f"{path}:{name}" if name else str(path))


def _run(path: Path) -> ModuleType:
    """The file as an imported Python module."""
    if not path.is_file():
        raise BadInput(
            f"{path}: no such file; give a Python file and a name in it, my_net.py:MyNet"
        )
    spec = importlib.util.spec_from_file_location(f"roofcast_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise BadInput(f"{path}: not Python at line {error.lineno}: {error.msg}") from None
    except (UnicodeDecodeError, ValueError) as error:
        if user_code.line_of(error):
            raise user_code.reported(f"{path}: fails when it is loaded", error) from None
        raise BadInput(f"{path}: cannot be read as Python: {user_code.said(error)}") from None
    except SystemExit:
        raise BadInput(
            f"{path}: ends the program when it is loaded; move the code that runs under if __name__"
            ' == "__main__":'
        ) from None
    except Exception as error:
        raise user_code.reported(f"{path}: fails when it is loaded", error) from None
    finally:
        sys.path.remove(folder)
    return module


def _is_module(value: Any) -> bool:
    """Whether this is a torch module, or a class of them."""
    if inspect.isclass(value):
        return issubclass(value, torch.nn.Module)
    return isinstance(value, torch.nn.Module)


def _named(module: ModuleType, path: Path, name: str) -> Any:
    """The object called `name`; without a name, the only torch module that the file defines."""
    own = {
        k: v
        for k, v in vars(module).items()
        if not k.startswith("_")
        and (
            getattr(v, "__module__", module.__name__) == module.__name__
            or (_is_module(v) and not inspect.isclass(v))
        )
    }
    nets = sorted(k for k, v in own.items() if _is_module(v))
    if not name:
        if len(nets) == 1:
            return own[nets[0]]
        listed = f"modules here: {', '.join(nets)}" if nets else "it defines no torch module"
        raise BadInput(f"{path}: no name given; write {path}:NAME; {listed}")
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, own, 3, 0.5)
        hint = f"modules here: {', '.join(nets) or 'none'}"
        if close:
            hint = f"did you mean {' or '.join(close)}?"
        raise UnknownName(f"no name {name!r} in {path}; {hint}")
    return getattr(module, name)


def _constructed(found: Any, where: str) -> torch.nn.Module:
    """The instance itself, or the result of calling a class or a function."""
    if isinstance(found, torch.nn.Module):
        return found
    if not callable(found):
        raise BadInput(
            f"{where}: is a {type(found).__name__}; expected a torch.nn.Module class, a function"
            " that returns one, or an instance"
        )
    needed = _needed_arguments(found)
    if needed:
        raise BadInput(
            f"{where}: needs arguments ({', '.join(needed)}); give them defaults, or name a"
            " function without arguments that calls it"
        )
    try:
        made = found()
    except (Exception, SystemExit) as error:
        raise user_code.reported(f"{where}: cannot be constructed", error) from None
    if not isinstance(made, torch.nn.Module):
        raise BadInput(f"{where}: returns a {type(made).__name__}; expected a torch.nn.Module")
    return made


def _needed_arguments(function: Any) -> list[str]:
    """Arguments without defaults; none if Python does not know the signature."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variable]
