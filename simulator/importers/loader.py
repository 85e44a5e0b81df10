"""`my_net.py:MyNet` -> a torch module. Loading a .py runs it: load only files that you trust.

The module is made without its weights: large tensors are fake from the start, whatever fills them
does nothing, so a model too large for this machine is made in seconds. Small ones are real, so that
a constructor may look at them.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from pathlib import Path

from roofcast.hwdb.errors import BadInput, UnknownName, one_line
from roofcast.simulator.importers.fake import constructing, torch


def load(reference: str):
    """The module that `path:Name` names: a Module class that needs no arguments, a function that
    makes one, or an instance.
    """
    path_text, _, name = reference.rpartition(":") if ".py:" in reference else (reference, "", "")
    path = Path(path_text)
    with constructing():
        found = _named(_run(path), path, name)
        return _made(found, path, name)


def _run(path: Path):
    if not path.is_file():
        raise BadInput(
            f"{path}: no such file; give a Python file and a name in it, my_net.py:MyNet"
        )
    spec = importlib.util.spec_from_file_location(f"roofcast_user_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise BadInput(f"{path}: not Python at line {error.lineno}: {error.msg}") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as Python: {one_line(error)}") from None
    except Exception as error:
        raise BadInput(f"{path}: fails when it is loaded: {one_line(error)}") from None
    except SystemExit:
        raise BadInput(
            f"{path}: ends the program when it is loaded; put what runs under if __name__ =="
            ' "__main__":'
        ) from None
    finally:
        sys.path.remove(folder)
    return module


def _named(module, path: Path, name: str):
    own = {
        k: v
        for k, v in vars(module).items()
        if not k.startswith("_") and getattr(v, "__module__", module.__name__) == module.__name__
    }
    nets = sorted(
        k
        for k, v in own.items()
        if isinstance(v, torch.nn.Module) or (inspect.isclass(v) and issubclass(v, torch.nn.Module))
    )
    if not name:
        if len(nets) == 1:
            return own[nets[0]]
        raise BadInput(
            f"{path}: which of it? write {path}:NAME"
            + (
                f"; modules here: {', '.join(nets)}"
                if nets
                else "; no torch module is defined in it"
            )
        )
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, own, 3, 0.5)
        hint = (
            f"did you mean {' or '.join(close)}?"
            if close
            else f"modules here: {', '.join(nets) or 'none'}"
        )
        raise UnknownName(f"no name {name!r} in {path}; {hint}")
    return getattr(module, name)


def _made(found, path: Path, name: str):
    where = f"{path}:{name}" if name else str(path)
    if isinstance(found, torch.nn.Module):
        return found
    if not callable(found):
        raise BadInput(
            f"{where}: is a {type(found).__name__}; a torch.nn.Module class, a function that makes"
            " one or an instance is wanted"
        )
    try:
        needed = [
            p.name for p in inspect.signature(found).parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]  # fmt: skip
    except (TypeError, ValueError):
        needed = []
    if needed:
        raise BadInput(
            f"{where}: needs arguments ({', '.join(needed)}); give them defaults, or name a"
            " function without arguments that makes it"
        )
    try:
        made = found()
    except Exception as error:
        raise BadInput(f"{where}: cannot be made: {one_line(error)}") from None
    if not isinstance(made, torch.nn.Module):
        raise BadInput(f"{where}: makes a {type(made).__name__}; a torch.nn.Module is wanted")
    return made
