"""Helpers: TOML nets as text, and what a tape counts of a model."""

from __future__ import annotations

from pathlib import Path

from roofcast.simulator.models.toml import layers
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

CONV = "kind = 'conv'\nchannels = 8\nkernel = 3"


def net(folder: Path, text: str) -> Model:
    """The model that a file of this text describes."""
    path = folder / "net.toml"
    path.write_text(text, encoding="utf-8")
    return layers.read(path)


def stack(*kinds: str, before: str = "input = [3, 32, 32]") -> str:
    """The text of a file with one [[layers]] table per argument: stack("kind = 'relu'", ...)."""
    return before + "\n" + "\n".join(f"[[layers]]\n{kind}" for kind in kinds)


def shape_out(model: Model, batch: int = 2, size: int | None = None) -> tuple[int, ...]:
    """Shape of the model's output in inference."""
    tape = Tape(precision("fp32"), training=False)
    return model.program(tape, batch, model.size if size is None else size).shape


def trace(
    model: Model,
    policy: str = "fp32",
    batch: int = 2,
    training: bool = True,
    size: int | None = None,
) -> Tape:
    """The tape of one step."""
    return model.run(Tape(precision(policy), training=training), batch, size)


def parameters(tape: Tape) -> int:
    """Number of parameters."""
    return sum(w.size * w.count for w in tape.weights)


def counts(tape: Tape) -> tuple[int, dict[str, float], dict[str, float]]:
    """Parameters, matrix FLOPs per phase, bytes saved for backward per kind of tensor."""
    flops = {
        phase: sum(k.matrix * k.count for k in tape.kernels if k.phase == phase)
        for phase in ("forward", "backward")
    }
    saved = {
        kind: sum(e[1] * e[2] for e in tape.saved.values() if e[3] == kind)
        for kind in ("activation", "input", "weight_copy")
    }
    return parameters(tape), flops, saved
