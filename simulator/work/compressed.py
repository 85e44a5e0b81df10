"""What compressed weights of an inference step assume, in sentences: few bits, 2 of 4, zeros."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.formats import WIDTH, is_stored
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Weight
from roofcast.simulator.work.tuning import HELD, Tuning

GIB = 2.0**30
MASK = 1 / 8  # bytes per weight of a bitmap that says which are zero


def said_of_weights(t: Tape, tuning: Tuning, model: str) -> list[str]:
    """What the format and the zeros of weights assume, once a model has run for inference.

    Raises BadInput where a model has no weights that could be compressed.
    """
    said = []
    stored = [w for w in t.weights if is_stored(w.dtype)]
    if tuning.sparse:
        said.append(_of_two_in_four(t, stored, model))
    elif HELD.get(tuning.weights or ""):
        said.append(_of_format(t, stored, tuning.weights or "", model))
    if tuning.zeros:
        said.append(_of_zeros(t, tuning.zeros))
    return said


def _of_format(t: Tape, stored: list[Weight], name: str, model: str) -> str:
    if not stored:
        raise BadInput(
            f"weights {name}: {model} has no matrices of linear layers, which alone are stored so;"
            " use --precision int8 for convolutions"
        )
    held = HELD[name]
    assert held is not None, "the caller asks for formats that are stored"
    return (
        f"weights {name}, {held.how}: {_counted(t, stored)} in {_bits(stored):.4g} bits each,"
        f" scales included; others in {t.precision.weights}; kernels widen them as they multiply,"
        f" products in {t.precision.autocast or t.precision.activations}"
    )


def _of_two_in_four(t: Tape, stored: list[Weight], model: str) -> str:
    if not stored:
        raise BadInput(
            f"sparsity 2:4: {model} has no matrices of linear layers, whose products alone are"
            " modelled with it; leave it out"
        )
    return (
        f"sparsity 2:4: {_counted(t, stored)} keep 2 of every 4, in {_bits(stored):.3g} bits per"
        " weight with the indices; embeddings, heads, norms and convolutions are dense"
    )


def _of_zeros(t: Tape, zeros: float) -> str:
    whole = sum(w.size * w.count * WIDTH[w.dtype] for w in t.weights)
    packed = sum(w.size * w.count * (WIDTH[w.dtype] * (1 - zeros) + MASK) for w in t.weights)
    shown = f"{packed / GIB:.3g} GiB instead of {whole / GIB:.3g}"
    gain = shown if packed < whole else "no less"
    return (
        f"sparsity {100 * zeros:g}%: no kernel skips scattered zeros, so that FLOPs, time and"
        " memory are those of the dense net; packed as the other values and a bit per weight, as"
        f" for a download, its weights would take {gain}"
    )


def _counted(t: Tape, stored: list[Weight]) -> str:
    some = sum(w.size * w.count for w in stored)
    return f"{some:,} of {sum(w.size * w.count for w in t.weights):,} weights"


def _bits(stored: list[Weight]) -> float:
    """Mean bits of a weight."""
    bytes_ = sum(w.size * w.count * WIDTH[w.dtype] for w in stored)
    return 8 * bytes_ / sum(w.size * w.count for w in stored)
