"""`architectures` of a config.json: the family behind a class, and the head that the class has."""

from __future__ import annotations

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
    import difflib

    text = str(kind)[:_LONGEST]
    close = difflib.get_close_matches(text, sorted(known), 3, 0.6)
    nearest = f"nearest known: {', '.join(close)}; " if close else ""
    name = class_of(raw) or "AutoModelForCausalLM"
    made = f"t.{name[:_LONGEST]}(t.AutoConfig.from_pretrained('config.json'))"
    of = "any module of transformers"
    if raw.get("auto_map"):  # the class is no part of transformers
        of = "the module whose code lies beside the file (auto_map)"
        trust = "trust_remote_code=True"
        made = (
            "t.AutoModelForCausalLM.from_config("
            f"t.AutoConfig.from_pretrained('.', {trust}), {trust})"
        )
    return BadInput(
        f"{str(where)[-_LONGEST:]}: model_type {quoted(kind)} is not known; {nearest}{of} runs as"
        f" a .py: write net.py with `import transformers as t; net = lambda: {made}`, then give"
        " net.py:net --input 1x128:int64; or list its layers in a .toml"
    )


def no_type(where: object, raw: Mapping[str, Any]) -> BadInput:
    """The refusal of a .json without a model_type: what to give instead, where it is an adapter of
    PEFT or a configuration of timm.
    """
    if "peft_type" in raw:
        base, targets = raw.get("base_model_name_or_path"), raw.get("target_modules")
        of = f" of {quoted(base)}" if isinstance(base, str) else ""
        rank = raw.get("r") if isinstance(raw.get("r"), int) else "RANK"
        names = [x for x in targets if isinstance(x, str)] if isinstance(targets, list) else []
        which = f" --lora-targets {','.join(names)[:_LONGEST]}" if names else ""
        what = (
            f"the adapters of PEFT, not a model: give the base model{of} and --lora {rank}{which}"
        )
    elif isinstance(raw.get("architecture"), str):
        what = f"a configuration of timm: give its name, {quoted(raw['architecture'])}"
    else:
        what = (
            "no 'model_type', and no known class in 'architectures'; a Hugging Face config.json has"
            " one, for example llama"
        )
    return BadInput(f"{where}: {what}")
