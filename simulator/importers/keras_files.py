"""`.keras` and `.h5` files -> a Keras model without its weights. No code of a file is run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from roofcast.hwdb.errors import BadInput, one_line
from roofcast.simulator.importers.fake import constructing
from roofcast.simulator.importers.keras_extra import keras

LONGEST = 1 << 26  # bytes of a description; those of large models have about a million
SUFFIXES = (".keras", ".h5", ".hdf5")
SAVED_MODEL = (
    "a TensorFlow SavedModel holds a compiled graph; save the model in Keras's own format,"
    " model.save('my_net.keras'), and give that file"
)


def read(path: Path) -> Any:
    """The model of a file, its weights not read. Raises BadInput with the reason otherwise."""
    if path.is_dir() or path.suffix == ".pb":
        raise BadInput(f"{path}: {SAVED_MODEL}")
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    described = _from_zip(path) if zipfile.is_zipfile(path) else _from_hdf5(path)
    if not isinstance(described, dict):
        raise BadInput(f"{path}: its description is not a JSON object; is this a Keras file?")
    for name, module in _classes(described):
        if module.split(".")[0] not in ("keras", "builtins", "tensorflow", "tf_keras"):
            raise BadInput(
                f"{path}: {name[:80]!r} of {module[:80]!r} is not a class of Keras, and no code of"
                " a file is run; give the .py that builds the net: my_net.py:model"
            )
    try:
        return _made(described, legacy=not zipfile.is_zipfile(path))
    except Exception as error:
        raise BadInput(f"{path}: cannot be built: {_why(error)}") from None


def _classes(described: Any) -> Iterator[tuple[str, str]]:
    """Name and module of every class that a description names, however deep."""
    waiting = [described]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            module, name = found.get("module"), found.get("class_name")
            if isinstance(module, str):
                yield str(name), module
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def _made(described: dict[str, Any], legacy: bool) -> Any:
    from keras.src.legacy.saving import saving_options, saving_utils

    with constructing():
        if not legacy:
            return keras.saving.deserialize_keras_object(described, safe_mode=True)
        with saving_options.keras_option_scope(use_legacy_config=True):
            with keras.src.saving.serialization_lib.SafeModeScope(True):
                return saving_utils.model_from_config(described)


def _why(error: Exception) -> str:
    text = one_line(error)
    if "lambda" in text.lower():
        return "a Lambda layer holds Python code, which is not run; give the .py of the net"
    if "custom" in text.lower() or "Could not locate" in text:
        return f"{text[:160]}; give the .py that defines the class: my_net.py:model"
    return text


def _from_zip(path: Path) -> Any:
    """The description in a `.keras` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("config.json")
            if entry.file_size > LONGEST:
                raise BadInput(f"{path}: its config.json claims {entry.file_size:,} bytes")
            with archive.open(entry) as file:
                return json.loads(file.read(LONGEST))
    except KeyError:
        raise BadInput(f"{path}: no config.json inside; a .keras file has one") from None
    except (ValueError, RecursionError):
        raise BadInput(f"{path}: its config.json is not JSON") from None
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise BadInput(f"{path}: cannot be read: {one_line(error)}") from None


def _from_hdf5(path: Path) -> Any:
    """The description in an `.h5` file."""
    try:
        import h5py
    except ImportError:
        raise BadInput(f"{path}: reading HDF5 needs h5py: pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except OSError as error:
        raise BadInput(f"{path}: neither a .keras nor an HDF5 file: {one_line(error)}") from None
    if text is None:
        raise BadInput(
            f"{path}: holds weights alone, no model; save the whole model with model.save, or give"
            " the .py that builds it"
        )
    try:
        return json.loads(text)
    except (ValueError, RecursionError, TypeError):
        raise BadInput(f"{path}: its model_config is not JSON") from None
