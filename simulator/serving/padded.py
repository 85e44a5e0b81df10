"""A model whose heads and columns are padded, so that they divide among all cores: what AWS Neuron
does where they do not.
"""

from __future__ import annotations

import math

import msgspec

from roofcast.simulator.work.model import Model


def padded(model: Model, ranks: int) -> Model:
    """The model for so many ranks; itself where it divides among them, or is not known by its
    configuration.

    Keys and values of fewer heads than ranks are copied to each rank. Widths of the attention, of
    the layers behind it and of the vocabulary grow to the next multiple; padded weights are stored,
    read and multiplied as others are (github aws-neuron/transformers-neuronx, layers/padder.py,
    and transformers_neuronx/llama/model.py: pad_interleaved, round_up_to_divisor).
    """
    c = model.config
    if model.again is None or not isinstance(c, msgspec.Struct):
        return model
    heads, groups = (getattr(c, f"num_{x}_heads", None) for x in ("attention", "key_value"))
    if not heads:
        return model
    groups = groups or heads
    copies = ranks if groups < ranks else _up(groups, ranks)
    changed = {
        "num_attention_heads": _up(max(heads, copies), copies),
        "num_key_value_heads": copies,
        "head_dim": getattr(c, "head_dim", None) or getattr(c, "hidden_size", 0) // heads,
        "intermediate_size": _up(getattr(c, "intermediate_size", 0) or 0, ranks),
        "vocab_size": _up(getattr(c, "vocab_size", 0) or 0, ranks),
    }
    known = {k: v for k, v in changed.items() if hasattr(c, k) and v}
    if all(getattr(c, k) in (v, None) for k, v in known.items()):
        return model
    return model.again(msgspec.structs.replace(c, **known))


def _up(size: int, ranks: int) -> int:
    """The next multiple of the ranks.

    >>> _up(32, 24), _up(11008, 24), _up(8, 8)
    (48, 11016, 8)
    """
    return ranks * math.ceil(size / ranks)
