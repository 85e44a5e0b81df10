"""`roofcast compress`: one net in every compressed form, each as `predict` forecasts it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.hwdb.records import Device
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.recipes import without_few_bits
from roofcast.simulator.forecast.resolve import named, resolve
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.models.pruned import pruned
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.precision import precision

REFUSED = ("weights", "sparsity", "prune", "teacher", "lora", "freeze", "train")
WHOLE = "as it is"
ACCURACY = (
    "accuracy: no forecast says what a net loses when it is compressed; measure it on your task"
)
TRAINING = "the training that pruning, 2:4 and distillation need before the net is as good again"
NOT_SAID = (ACCURACY, TRAINING, "how long quantizing, pruning or packing the weights takes")


class Variant(NamedTuple):
    """A compressed form of a net."""

    name: str
    options: dict[str, str]  # fields of a Scenario that differ from the net as it is
    needs: str  # of the device and its software
    forecast: Forecast | None  # None where it is refused
    refused: str = ""  # why


class Compressed(NamedTuple):
    """A net in its compressed forms; the first is the net as it is."""

    scenario: Scenario
    variants: tuple[Variant, ...]

    @property
    def whole(self) -> Forecast:
        """The net as it is."""
        found = self.variants[0].forecast
        assert found is not None, "a net that cannot be forecast as it is raises"
        return found

    def scenario_of(self, variant: Variant) -> Scenario:
        """The scenario of a form, as `predict` takes it."""
        return msgspec.structs.replace(self.scenario, **variant.options)


def compress(scenario: Scenario) -> Compressed:
    """The net of a scenario of inference as it is, and in every compressed form.

    Raises BadInput for a scenario that trains or is compressed already, and whatever `predict`
    raises for the net as it is.
    """
    for field in REFUSED:
        value = getattr(scenario, field)
        if value is not None:
            raise BadInput(
                f"{field} {value}: compress tries every form itself; leave it out, or use predict"
            )
    if scenario.mode != "infer":
        raise BadInput(f"mode {scenario.mode}: compress forecasts inference; leave it out")
    names = named(scenario)
    found = [Variant(WHOLE, {}, _products(names.device, _precision(scenario)), forecast(scenario))]
    for name, options, needs, refused in _forms(scenario, names.model, names.device):
        found.append(_variant(scenario, name, options, needs, refused))
    return Compressed(scenario, tuple(found))


def table(found: Compressed) -> list[dict[str, Any]]:
    """One row per form, in SI units; options as a Scenario has them."""
    rows = []
    for v in found.variants:
        row: dict[str, Any] = {"form": v.name, "needs": v.needs, "refused_because": v.refused}
        f = v.forecast
        if f is not None:
            row |= {
                "parameters": f.parameters,
                "weights_bytes": f.memory.parameters_bytes,
                "peak_bytes": f.memory.peak_bytes,
                "fits": f.memory.fits,
                "step_time_s": f.step_time_s,
                "low_s": f.low_s,
                "high_s": f.high_s,
                "times_faster": found.whole.step_time_s / f.step_time_s,
                "energy_j": f.step_energy_j,
            }
        rows.append(row | {f"option_{key}": value for key, value in v.options.items()})
    return rows


def _variant(
    scenario: Scenario, name: str, options: dict[str, str], needs: str, refused: str
) -> Variant:
    if refused:
        return Variant(name, options, needs, None, refused)
    try:
        made = forecast(msgspec.structs.replace(scenario, **options))
    except RoofcastError as error:
        return Variant(name, options, needs, None, str(error))
    return Variant(name, options, needs, made)


def reasons(found: Compressed) -> dict[str, list[str]]:
    """Why forms are refused -> their names."""
    by_reason: dict[str, list[str]] = {}
    for v in found.variants:
        if v.forecast is None:
            by_reason.setdefault(v.refused, []).append(v.name)
    return by_reason


def _precision(scenario: Scenario) -> str:
    """The precision of the net as it is."""
    return resolve(scenario).recipe.precision


def _products(device: Device, name: str) -> str:
    product = precision(name).product
    has = product in device.peak_flops or product in device.vector_flops
    return f"{product} products{'' if has else ', which it lacks'}"


# a name, the options, what it needs, and why it is refused before a forecast
_Form = tuple[str, dict[str, str], str, str]


def _forms(scenario: Scenario, model: Model, device: Device) -> Iterator[_Form]:
    asked = resolve(scenario)
    base, stack = asked.recipe.precision, asked.recipe.stack
    sixteen = next((f for f in ("bf16", "fp16") if f in device.peak_flops), None)
    if precision(base).weights == "fp32" and sixteen:
        yield sixteen, {"precision": sixteen}, f"{sixteen} products", ""
    eight = "int8-fp32" if device.kind == "cpu" or not sixteen else "int8"
    narrow = [("int8", eight), ("fp8", "fp8"), ("nvfp4", "nvfp4")]
    for name, of in narrow:
        if of != base:
            product = precision(of).product
            needs = f"{product} products, and kernels of the stack that use them"
            refused = _lacking(device, name, product) or without_few_bits(of, model, stack, device)
            yield name, {"precision": of}, needs, refused
    widening = "kernels that widen weights as they multiply"
    for name in ("int8", "int4"):
        yield f"{name} weights", {"weights": name}, widening, _quantized(base, name)
    skips = "units that skip zeros"
    zeros = {"sparsity": "2:4"} | ({"weights": "bf16"} if model.storage else {})
    yield "2:4", zeros, skips, ""
    if "int8" in device.peak_flops and eight == "int8" != base:
        refused = without_few_bits(eight, model, stack, device)
        yield "2:4, int8", {"sparsity": "2:4", "precision": eight}, f"{skips} in int8", refused
    for text in _prunable(model):
        part, _, share = text.partition("=")
        name = f"{share} narrower ffn" if part == "ffn" else f"{share} fewer {part}"
        yield name, {"prune": text}, "no support of the device: a smaller net", ""
    for text in _prunable(model, ("layers=50%", "channels=50%"))[:1]:
        part = text.partition("=")[0]
        needs = (
            "no support of the device: a smaller net, to be trained; its step: predict"
            f" {scenario.model} --prune {text} --teacher {scenario.model}"
        )
        yield f"student, half the {part}", {"prune": text}, needs, ""


def _lacking(device: Device, name: str, product: str) -> str:
    """Why products of a format gain nothing on a device; "" where they run."""
    if product in device.peak_flops:
        return ""
    return f"{device.id} has no {name} products; weights alone can be in few bits (--weights)"


def _quantized(base: str, name: str) -> str:
    if precision(base).matrices is None:
        return ""
    return f"precision {base} holds weights in few bits already; leave --precision out"


def _prunable(
    model: Model,
    parts: tuple[str, ...] = ("heads=25%", "ffn=25%", "layers=25%", "experts=25%", "channels=25%"),
) -> list[str]:
    """Of prunings, those that the net has the parts for."""
    found = []
    for text in parts:
        try:
            pruned(model, text)
        except BadInput:
            continue
        found.append(text)
    return found
