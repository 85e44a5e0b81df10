"""An .onnx file -> ModelProto, checked, or one line that says what is wrong with it.

A file is only data, and may be anyone's: it is read from the disk only if it is a regular file of
at most 2 GiB, the limit of protobuf; files of weights beside it only if they lie in its folder.
Of these, only tensors that can be shapes are read; of the others, the sizes are checked.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from roofcast.hwdb.errors import BadInput, one_line
from roofcast.simulator.importers.onnx_call import quoted
from roofcast.simulator.importers.onnx_checks import (
    check_size,
    check_text,
    checked,
    elements_of,
    tensors_of,
    width_of,
)
from roofcast.simulator.importers.onnx_extra import onnx

LARGEST_FILE = (1 << 31) - 1  # bytes that protobuf can read
SCANNED = 2 << 20  # bytes from where on the entries of a file are counted before it is parsed
ENTRIES = 200_000  # nodes, tensors and values of the largest graph
READ = 1 << 17  # bytes of the largest tensor that is read from another file
PREFIX = b"version https://git-lfs"
MAGIC = {
    PREFIX: "is a Git LFS pointer; fetch the file itself with git lfs pull",
    b"PK\x03\x04": "is not an ONNX model but a zip archive",
    b"\x89HDF": "is not an ONNX model but an HDF5 file",
    b"<": "is not an ONNX model but a page of HTML or XML",
    b"{": "is not an ONNX model but JSON",
}


def read(path: Path) -> onnx.ModelProto:
    """The model of a file. Raises BadInput if it cannot be read or is not sound."""
    size = _size(path)
    try:
        with path.open("rb") as file:
            _check_head(path, file.read(32))
        if size > SCANNED:
            _check_entries(path)
        proto = onnx.load_model_from_string(path.read_bytes())
    except BadInput:
        raise
    except Exception as error:  # of protobuf, its parsers or the file system
        raise BadInput(
            f"{path}: is not an ONNX model, or was cut off ({one_line(error)[:120]})"
        ) from None
    check_size(proto, str(path))
    check_text(proto, str(path))
    for tensor in tensors_of(proto, str(path)):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _external(path, tensor)
    return checked(proto, str(path))


def _size(path: Path) -> int:
    """Bytes of the file, if it is one."""
    try:
        if path.is_dir():
            raise BadInput(f"{path}: is a folder; expected an ONNX file in it")
        if not path.exists():
            raise BadInput(f"{path}: no such file; expected an ONNX model")
        if not path.is_file():
            raise BadInput(f"{path}: is a device or a pipe; expected an ONNX file")
        size = path.stat().st_size
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {one_line(error)[:120]}") from None
    if size > LARGEST_FILE:
        raise BadInput(
            f"{path}: has {size:,} bytes, more than protobuf can hold (2 GiB); save the weights as"
            " external data"
        )
    return size


def _check_head(path: Path, head: bytes) -> None:
    """Whether the first bytes can be those of a ModelProto."""
    for magic, problem in MAGIC.items():
        if head.startswith(magic):
            raise BadInput(f"{path}: is not an ONNX model, or was cut off: it {problem}")
    # a field of a ModelProto: a number (wire type 0) or bytes (2)
    if head and (not head[0] >> 3 or head[0] & 7 not in (0, 2)):
        raise BadInput(f"{path}: is not an ONNX model, or was cut off: no field at its start")


def _check_entries(path: Path) -> None:
    """Refuse a graph of so many small messages that parsing takes many times the file's size."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for field, start, end in _fields(data, 0, len(data)):
            if field == 7:  # the graph
                for n, _ in enumerate(_fields(data, start, end)):
                    if n > ENTRIES:
                        raise BadInput(
                            f"{path}: the graph has more than {ENTRIES:,} nodes and tensors"
                        )


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field of a message in the wire format of protobuf."""
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 2:
            length, at = _varint(data, at)
        elif wire == 0:
            _, after = _varint(data, at)
            length = after - at
        else:
            length = {1: 8, 5: 4}.get(wire, end)  # else: no message; protobuf will say so
        yield key >> 3, at, min(at + length, end)
        at += length


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of variable length and the place after it. Raises IndexError where it is cut off."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128 or shift > 63:
            return value, at


# ------------------------------------------------------------------ weights in other files
def _external(path: Path, tensor: onnx.TensorProto) -> None:
    """Check that a tensor in another file is there; read it if it can be a shape."""
    name = quoted(tensor.name or "of a Constant")
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    file = _beside(path, location, f"{path}: tensor {name}")
    needed = -(-elements_of(tensor, str(path)) * width_of(tensor, str(path)) // 8)
    try:
        offset = int(entries.get("offset", "") or 0)
        length = int(entries.get("length", "") or needed)
    except ValueError:
        raise BadInput(
            f"{path}: tensor {name}: its offset or length in {quoted(location)} is no whole number"
        ) from None
    if offset < 0 or length != needed:
        raise BadInput(
            f"{path}: tensor {name} states {length:.6g} bytes from {offset:.6g} on in"
            f" {quoted(location)}; its shape and format need {needed:,}"
        )
    held = file.stat().st_size
    if offset + needed > held:
        raise BadInput(
            f"{path}: tensor {name} ends at byte {offset + needed:,} of {quoted(location)}, which"
            f" has {held:,}; was it cut off?"
        )
    if needed > READ:
        return
    with file.open("rb") as data:
        data.seek(offset)
        tensor.raw_data = data.read(needed)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _beside(path: Path, location: str, what: str) -> Path:
    """The file of weights, in the model's folder.

    A symbolic link may lead out of the folder only to where one leads that is the model itself, as
    in caches of downloads.
    """
    parts = PurePosixPath(location.replace("\\", "/"))
    if not location or "\0" in location:
        raise BadInput(f"{what} is external data without the name of its file")
    if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
        raise BadInput(
            f"{what} is external data in {quoted(location)}, outside of the model's folder; only"
            " files beside the model are read"
        )
    file = path.parent / parts
    try:
        target = file.resolve()
        folders = (path.parent.resolve(), path.resolve().parent)
        if not any(target.is_relative_to(folder) for folder in folders):
            raise BadInput(
                f"{what} is external data in {quoted(location)}, a link that leads out of the"
                " model's folder; only files beside the model are read"
            )
        if not file.exists():
            raise BadInput(
                f"{what} is external data in {quoted(location)}, which is missing; put it beside"
                " the model"
            )
        if not file.is_file():
            raise BadInput(f"{what} is external data in {quoted(location)}, which is no file")
    except (OSError, RuntimeError) as error:
        raise BadInput(f"{what}: {quoted(location)}: {one_line(error)[:80]}") from None
    return file
