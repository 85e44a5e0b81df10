"""`architectures` of a config.json: the family behind a class, and the head that the class has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

from roofcast.hwdb.errors import BadInput, quoted

_CLASS = re.compile(r"[A-Za-z_]\w{0,79}")
_HEAD = re.compile(r"(For[A-Z]\w*|LMHeadModel|WithLMHead\w*|DoubleHeadsModel|Model)$")
# heads of the classes that families are counted with
_OWN = re.compile(
    r"For(CausalLM|ConditionalGeneration|MaskedLM|PreTraining|ImageClassification"
    r"|DepthEstimation|ObjectDetection|SemanticSegmentation|SpeechSeq2Seq|CTC"
    r"|ZeroShotImageClassification)\w*$|LMHead|MTModel$"
)
TASKS = {"sequence", "tokens", "answer", "none"}
_TASKS = {
    "ForSequenceClassification": "sequence",
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "answer",
    "Model": "none",
}
# families that are counted without a head
_WHOLE = {
    "clip", "hubert", "sam", "siglip", "siglip2", "unispeech", "unispeech-sat", "wav2vec2",
    "wavlm",
}  # fmt: skip
_LONGEST = 60  # characters of a name in a message


def class_of(raw: Mapping[str, Any]) -> str | None:
    """The class that a config.json names first; None without one."""
    listed = raw.get("architectures")
    first = listed[0] if isinstance(listed, list) and listed else None
    return first if isinstance(first, str) and _CLASS.fullmatch(first) else None


def family_of(name: str, known: Collection[str]) -> str | None:
    """The model_type among `known` whose class a name is.

    >>> family_of("DeepseekV3ForCausalLM", ["deepseek_v2", "deepseek_v3"])
    'deepseek_v3'
    """
    stem = _letters(_HEAD.sub("", name))
    return next((kind for kind in known if _letters(kind) == stem), None) if stem else None


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def head_of(raw: Mapping[str, Any]) -> str | None:
    """What head a class has: None for the one that its family is counted with, else sequence,
    tokens, answer, none, or other.

    >>> head_of({"architectures": ["LlamaForSequenceClassification"]}), head_of({})
    ('sequence', None)
    """
    name = class_of(raw)
    if name is None or _OWN.search(name):
        return None
    found = _HEAD.search(name)
    return _TASKS.get(found[1], "other") if found else None


def labels_of(raw: Mapping[str, Any]) -> int:
    """Classes that a classifier tells apart: those of id2label, num_labels, or two."""
    named, number = raw.get("id2label"), raw.get("num_labels")
    if isinstance(named, dict) and named:
        return len(named)
    whole = isinstance(number, int) and not isinstance(number, bool) and 0 < number < 1 << 24
    return int(number) if whole and number else 2


def said_of_head(raw: Mapping[str, Any], kind: str, made: bool, training: bool) -> tuple[str, ...]:
    """The line where the class that a config.json names has another head than was counted.

    made: whether the class's own head was counted.
    """
    task, name = head_of(raw), class_of(raw)
    if task == "none" and made and training:
        return (f"architectures: {name} has no head and no loss; the step starts from its output",)
    if task is None or made or (task == "none" and kind in _WHOLE):
        return ()
    return (f"architectures: {name} is counted with the usual head and loss of {kind}",)


def not_known(
    where: object, kind: object, raw: Mapping[str, Any], known: Collection[str]
) -> BadInput:
    """The refusal of a model_type: the nearest known ones, and how to run its module instead."""
    text = str(kind)[:_LONGEST]
    close = difflib.get_close_matches(text, sorted(known), 3, 0.6)
    nearest = f"nearest known: {', '.join(close)}; " if close else ""
    name = class_of(raw) or "AutoModelForCausalLM"
    return BadInput(
        f"{str(where)[-_LONGEST:]}: model_type {quoted(kind)} is not known; {nearest}any module of"
        " transformers runs as a .py: write net.py with `import transformers as t; net = lambda:"
        f" t.{name[:_LONGEST]}(t.AutoConfig.from_pretrained('config.json'))`, then give"
        " net.py:net --input 1x128:int64; or list its layers in a .toml"
    )
