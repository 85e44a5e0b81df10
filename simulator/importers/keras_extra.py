"""Keras 3 on its torch backend, or one line that says how to install it."""

from __future__ import annotations

import os
import sys

from roofcast.hwdb.errors import BadInput

MISSING = "needs Keras 3 and PyTorch, which are not installed: pip install 'roofcast[keras,torch]'"

if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
try:
    import keras
except ImportError:
    raise BadInput(f"reading a Keras model {MISSING}") from None
if keras.backend.backend() != "torch":
    raise BadInput(
        f"Keras is loaded with its {keras.backend.backend()} backend; a model is traced on the"
        " torch backend: set KERAS_BACKEND=torch before keras is imported"
    )
keras.config.disable_traceback_filtering()  # errors as they are, not wrapped in Keras's own

__all__ = ["keras"]
