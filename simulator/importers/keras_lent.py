"""While a user's file loads, `tensorflow.keras` is Keras 3, and nothing is trained or downloaded.

Most Keras code says `import tensorflow as tf` and uses `tf.keras` alone. Such a file runs without
TensorFlow: the name is lent to a module that holds Keras. Anything else of TensorFlow is refused in
one line.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from roofcast.hwdb.errors import BadInput

IMPORTS = re.compile(r"^\s*(?:import|from)\s+(tensorflow|tf_keras|keras)\b", re.MULTILINE)
SKIPPED = ("fit", "evaluate", "predict", "summary", "save", "save_weights", "load_weights")


def imports_keras(path: Path) -> bool:
    """Whether a Python file imports Keras, by itself or as tf.keras."""
    try:
        return bool(IMPORTS.search(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return False


class Lent(ModuleType):
    """The name `tensorflow`: Keras, and nothing else."""

    __path__: list[str] = []
    __version__ = "2.16.0"  # from this version on, tf.keras is Keras 3

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise BadInput(
            f"the file uses tf.{name}; of TensorFlow only tf.keras is understood (as Keras 3 on"
            " PyTorch); put the net into a file that uses nothing else"
        )


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """`tensorflow.keras.x`, `tensorflow.python.keras.x` and `tf_keras.x` are `keras.x`."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        """A spec for the names that are lent."""
        if re.match(r"(tensorflow|tf_keras)(\.|$)", name):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> ModuleType:
        """The module of Keras behind a lent name."""
        import keras

        if spec.name == "tensorflow":
            made = Lent(spec.name)
            made.keras = keras  # type: ignore[attr-defined]
            return made
        behind = re.sub(r"^(tensorflow\.(python\.)?keras|tf_keras)", "keras", spec.name)
        if not behind.startswith("keras"):
            raise BadInput(
                f"the file imports {spec.name}; of TensorFlow only tensorflow.keras is understood"
                " (as Keras 3 on PyTorch)"
            )
        return _Alias(importlib.import_module(behind), spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: the module is loaded already."""


class _Alias(ModuleType):
    """A module of Keras under another name."""

    __path__: list[str] = []

    def __init__(self, behind: ModuleType, name: str):
        super().__init__(name)
        self.__dict__["_behind"] = behind

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_behind"], name)


@contextlib.contextmanager
def lent() -> Iterator[None]:
    """Inside, a file that imports Keras or tf.keras loads, and trains nothing."""
    from unittest import mock  # it imports asyncio

    from roofcast.simulator.importers.keras_extra import keras

    finder = _Finder()
    before = {n for n in sys.modules if n.split(".")[0] in ("tensorflow", "tf_keras")}
    with contextlib.ExitStack() as stack:
        asked = (
            keras.src.utils.module_utils.tensorflow
        )  # where Keras asks whether TensorFlow is there
        stack.enter_context(mock.patch.object(asked, "_available", False))
        for name in SKIPPED:
            patch = mock.patch.object(keras.Model, name, lambda *args, **kwargs: mock.MagicMock())
            stack.enter_context(patch)
        if "tensorflow" not in sys.modules:
            sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            if finder in sys.meta_path:
                sys.meta_path.remove(finder)
                for name in list(sys.modules):
                    if name.split(".")[0] in ("tensorflow", "tf_keras") and name not in before:
                        del sys.modules[name]
