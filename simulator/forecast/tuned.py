"""From a scenario to what trains: adapters, frozen parts and their format; refusals of what cannot
be.
"""

from __future__ import annotations

from typing import Any

from roofcast.hwdb.errors import BadInput, quoted, unknown
from roofcast.simulator.choices import ADAPTERS, WEIGHTS
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.models.encoders import TARGETS
from roofcast.simulator.models.families.diffusion import ADAPTED
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.step import Step
from roofcast.simulator.work.tuning import ALL, ATTENTION, EXPRESSION, HELD, MLP, Tuning, checked

TRACED = ("torch", "onnx")  # families of models that are run as they are
OF_LORA = ("lora_targets", "lora_precision", "lora_dropout", "dora")
OF_PROMPTS = ("prompt_tuning", "prefix_tuning")
OF_TRAINING = ("lora", *OF_PROMPTS, "freeze", "train")
MOST = 10**6  # virtual tokens


def tuning_of(s: Scenario, model: Model, name: str, assumptions: list[str]) -> Tuning | None:
    """What a scenario trains; None where all weights do. name: of its precision.

    Raises BadInput or UnknownName for what cannot be.
    """
    given = [f for f in (*OF_TRAINING, *OF_LORA, "weights") if getattr(s, f) is not None]
    if not given:
        return None
    _check(s, model, given)
    _check_prompts(s, model)
    tuning = checked(
        Tuning(
            rank=s.lora,
            targets=_targets(s, model),
            asked=tuple(filter(None, map(str.strip, (s.lora_targets or "").split(","))))
            if _names_layers(s.lora_targets)
            else (),
            precision=s.lora_precision,
            dropout=s.lora_dropout or 0.0,
            freeze=s.freeze,
            train=s.train,
            weights=s.weights,
            dora=bool(s.dora),
            prompt=s.prompt_tuning or 0,
            prefix=s.prefix_tuning or 0,
        )
    )
    assumptions += _said(s, model, name)
    if s.weights is not None:
        _check_weights(s, name)
    return tuning


def _targets(s: Scenario, model: Model) -> str:
    """The layers with an adapter; those of CLIP among them where it trains with a denoiser."""
    targets = s.lora_targets or ADAPTED.get(model.family, ALL)
    listed = _names_layers(targets) and "," in targets
    return f"{targets},{TARGETS}" if s.train_text_encoder and listed else targets


def _names_layers(targets: str | None) -> bool:
    """Whether targets are a list of names, no word for several layers and no expression."""
    words = (ALL, ATTENTION, MLP)
    return targets is not None and targets not in words and not EXPRESSION.search(targets)


def _check(s: Scenario, model: Model, given: list[str]) -> None:
    """Refuses fields that do not go together, or with the model."""
    first = _as_given(s, given[0])
    for field in ("lora_targets", "freeze", "train"):
        if getattr(s, field) is not None and not getattr(s, field).strip(" ,"):
            raise BadInput(f"{field}: no name is given; roofcast count {model.name} lists them")
    for field, known in (("weights", WEIGHTS), ("lora_precision", ADAPTERS)):
        value = getattr(s, field)
        if value is not None and value not in known:
            raise unknown(field, value, known, f"known: {', '.join(known)}")
    if model.family in TRACED:
        raise BadInput(
            f"{first}: {model.name} is taken as it is; freeze its weights (requires_grad = False)"
            " or add adapters (PEFT) in the model itself, or give a name or a config.json"
        )
    training = [f for f in given if f in (*OF_TRAINING, *OF_LORA)]
    if s.mode == "infer" and training:
        raise BadInput(
            f"{_as_given(s, training[0])}: an inference step trains nothing; leave it out or use"
            " --mode train"
        )
    _check_frozen(s)
    of_lora = [f for f in given if f in OF_LORA]
    if of_lora and s.lora is None:
        raise BadInput(
            f"{_as_given(s, of_lora[0])}: there are no adapters; give their rank, for example"
            " --lora 16"
        )
    if s.mode == "train" and not training:
        raise BadInput(
            f"{first}: it is the format of weights that do not train, and all do; use --lora 16,"
            " --freeze, or --mode infer"
        )


def _check_frozen(s: Scenario) -> None:
    """Refuses a part to freeze where all other weights are frozen already."""
    if s.freeze is None:
        return
    if s.train is not None:
        raise BadInput(
            f"freeze {quoted(s.freeze)} with train {quoted(s.train)}: only what train names trains;"
            " leave one of them out"
        )
    for field in ("lora", *OF_PROMPTS):
        if getattr(s, field) is not None:
            more = "; --lora-targets says which layers have them" if field == "lora" else ""
            raise BadInput(
                f"freeze {quoted(s.freeze)} with {_as_given(s, field)}: all weights of the model"
                f" but those of the adapters are frozen; leave freeze out{more}"
            )


def _as_given(s: Scenario, field: str) -> str:
    """A field with its value; a flag has none."""
    value = getattr(s, field)
    return field if value is True else f"{field} {value}"


def _check_prompts(s: Scenario, model: Model) -> None:
    """Refuses virtual tokens that cannot be."""
    given = [f for f in OF_PROMPTS if getattr(s, f) is not None]
    if not given:
        return
    first = _as_given(s, given[0])
    if not 1 <= getattr(s, given[0]) <= MOST:
        raise BadInput(f"{first}: virtual tokens, 1 to {MOST:,}, are wanted, for example 20")
    if len(given) > 1 or s.lora is not None:
        other = given[1] if len(given) > 1 else "lora"
        raise BadInput(f"{first}: with {other} it is another method; leave one of them out")
    if model.takes != "sequence" or hasattr(model.config, "d_kv") or _has_decoder(model):
        raise BadInput(
            f"{first}: modelled for models with one stack of layers over text; {model.name} is not;"
            " use --lora 16"
        )
    if s.prefix_tuning is not None and s.recompute != "none":
        raise BadInput(
            f"{first} with recompute {s.recompute}: PEFT refuses prefix tuning under checkpoints,"
            " whose layers would not see its keys and values; leave one of them out"
        )
    if (s.cp or 1) > 1:
        raise BadInput(f"{first} with --cp {s.cp}: every rank would have all of them; use --cp 1")


def _has_decoder(model: Model) -> bool:
    """Whether a model has an encoder and a decoder."""
    return hasattr(model.config, "decoder_layers") and hasattr(model.config, "encoder_layers")


def _check_weights(s: Scenario, name: str) -> None:
    """Refuses formats of weights that a precision rules out."""
    p = precision(name)
    if s.mode == "infer" and p.matrices is not None:
        raise BadInput(
            f"weights {s.weights}: precision {name} says how weights are held; leave one of them"
            " out"
        )
    if s.weights == "bf16" and p.weights == "fp16":
        raise BadInput(
            f"weights bf16: precision {name} holds the other weights in fp16; use --precision bf16"
            " or amp-bf16"
        )


def _said(s: Scenario, model: Model, name: str) -> list[str]:
    """What the adapters and the format of frozen weights assume, in sentences."""
    p, said = precision(name), []
    if s.prompt_tuning is not None:
        said.append(
            f"prompt tuning: {s.prompt_tuning} virtual tokens lengthen each sequence, the head and"
            " the loss too; fp32, as PEFT; rates count the tokens of samples"
        )
    if s.prefix_tuning is not None:
        said.append(
            f"prefix tuning: {s.prefix_tuning} virtual keys and values in each layer, fp32 tables"
            " without PEFT's projection; attention without a mask of its own"
        )
    if s.lora is not None:
        if s.lora_targets is None and model.family in ADAPTED:
            said.append("lora_targets (not given): those of diffusers' training scripts")
        elif s.lora_targets is None:
            said.append("lora_targets all (not given): linear layers but heads and routers")
        if s.lora_precision is None:
            said.append(
                f"adapters in {p.weights} (lora_precision not given; PEFT's own default is fp32)"
            )
        if (s.tp or 1) > 1:
            said.append(
                "adapters under tensor parallelism: the half beside a whole input or output is on"
                " every rank, its gradient's small all-reduce is left out"
            )
    held = HELD.get(s.weights or "")
    own = None if model.widened else model.storage
    stored = own if held is None and s.weights is None else held
    if stored is None or s.mode == "infer":
        return said
    wide = p.autocast or p.activations
    return [
        *said,
        f"frozen matrices stored in {stored.how}; dequantized to {wide} before each product, and"
        f" again in backward; embeddings, heads, norms and biases in {p.weights}",
    ]


def tuned_fields(step: Step) -> dict[str, Any]:
    """Fields of a Forecast on what trains."""
    tuning, training = step.recipe.tuning, step.recipe.mode == "train"
    return {
        "trainable_parameters": int(step.trainable_parameters) if training else None,
        "lora": tuning.rank if tuning else None,
        "adapted": step.adapted,
        "weights": tuning.weights if tuning else None,
    }
