"""The parts of onnx that an import uses, or one line that says how to install it."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput

try:
    import onnx
except ImportError:
    raise BadInput(
        "reading an .onnx file needs the onnx package, which is not installed: pip install"
        " 'roofcast[onnx]'"
    ) from None

from google.protobuf.message import EncodeError
from onnx import inliner, numpy_helper, shape_inference

__all__ = ["EncodeError", "inliner", "numpy_helper", "onnx", "shape_inference"]
