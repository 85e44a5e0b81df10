"""The format of weights that a server loads where no other is asked for."""

from __future__ import annotations

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.models.released import released_in, told_of
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.storage import Storage

NO_FP8 = (
    "llama.cpp",
    "exllama",
    "mlx",
    "mlc",
    "openvino",
)  # how stacks begin whose files have no such type


class Release(NamedTuple):
    """Weights as a server loads them where no format is asked for."""

    format: str | None  # as --weights takes it; None: 16 bits, or as `stored` has it
    stored: Storage | None  # of the checkpoint itself, in a format that has no name of its own
    said: tuple[str, ...]


def release(model: Model, stack: str) -> Release:
    """The format of a model's weights under a software stack."""
    if model.storage is None:
        return Release(None, None, ())
    found, told = released_in(model), told_of(model)
    if found is None:
        said = f"weights as released (not given; {told}); --weights gives another"
        return Release(None, model.storage, (said,))
    if found == "fp8" and stack.startswith(NO_FP8):
        said = f"weights bf16 (not given; {told}, which files of {stack} do not have)"
        return Release("bf16", None, (f"{said}; --weights gives another",))
    return Release(found, None, (f"weights {found} (not given; {told}); --weights gives another",))


def names_of(weights: str | None, model: Model, stack: str) -> str | None:
    """The format that is asked for, else that of the release; None: 16 bits, or of its own."""
    return weights or release(model, stack).format
