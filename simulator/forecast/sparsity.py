"""From a scenario to the zeros among its weights: 2 of every 4, which some devices skip, or
scattered ones, which none does; refusals of what cannot be.
"""

from __future__ import annotations

import re

from roofcast.hwdb import constants
from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.records import Device
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.times.rates import family_name
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tuning import Tuning

TWO_OF_FOUR = "2:4"
FORMATS = ("bf16", "fp16", "fp8", "int8")  # of products that skip zeros
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def with_sparsity(
    s: Scenario,
    model: Model,
    device: Device | None,
    name: str,
    tuning: Tuning | None,
    assumptions: list[str],
) -> Tuning | None:
    """The tuning with the zeros that a scenario asks for. name: of the precision.

    Raises BadInput for what cannot be.
    """
    if s.sparsity is None:
        return tuning
    zeros = 0.0 if s.sparsity == TWO_OF_FOUR else _share(s.sparsity)
    if s.mode == "train":
        raise BadInput(
            f"sparsity {s.sparsity}: training with masks (ASP, SR-STE, torchao's 2:4 training) is"
            " not modelled; forecast it dense, which its time is near, or use --mode infer"
        )
    tuning = tuning or Tuning()
    if zeros:
        return tuning._replace(zeros=zeros)
    _check_net(s, model, name)
    _check_device(s, device, name)
    assert device is not None, "checked"
    rate = constants.family(family_name(device)).sparse
    assert rate is not None, "checked"
    assumptions.append(
        f"sparsity 2:4 on {device.id}: products at up to {rate.value:g} times the dense rate"
        " (printed), less where operands arrive too slowly; under PyTorch without graphs each call"
        " describes the product to the library again (0.26 ms of the host)"
    )
    return tuning._replace(sparse=True)


def has_sparse(device: Device) -> bool:
    """Whether a device multiplies weights of which 2 in 4 are kept, faster than dense ones."""
    return constants.family(family_name(device)).sparse is not None


def _share(text: str) -> float:
    """The fraction of zeros that a percentage says."""
    found = _PERCENT.fullmatch(text.strip())
    if found is None:
        raise BadInput(
            f"sparsity {quoted(text)}: 2:4 (two of every four weights are zero) or a percentage of"
            " scattered zeros is wanted, for example 50%"
        )
    share = float(found[1]) / 100
    if not 0 < share < 1:
        raise BadInput(f"sparsity {text}: a percentage above 0 and below 100 is wanted")
    return share


def _check_net(s: Scenario, model: Model, name: str) -> None:
    if s.weights not in (None, "bf16"):
        raise BadInput(
            f"sparsity 2:4 with weights {s.weights}: kernels that do both are not modelled; leave"
            " one of them out"
        )
    if model.storage is not None and s.weights is None and precision(name).matrices is None:
        raise BadInput(
            f"sparsity 2:4: {model.name} stores quantized weights ({model.storage.method}); give"
            " --weights bf16 too"
        )
    if model.family in ("torch", "onnx"):
        raise BadInput(
            f"sparsity 2:4: {model.name} is taken as it is; give a name, a config.json or a .toml"
        )


def _check_device(s: Scenario, device: Device | None, name: str) -> None:
    if device is None:
        raise BadInput("sparsity 2:4: a device is needed, which tells whether it skips zeros")
    if not has_sparse(device):
        known = sorted(d for d in ("a100-sxm4-80gb", "l4", "h100-sxm5", "b200-sxm", "mi300x"))
        raise BadInput(
            f"sparsity 2:4: {device.id} has no units that skip zeros (NVIDIA's have from Ampere on,"
            f" AMD's from CDNA 3); use {', '.join(known)}, or --prune"
        )
    product = precision(name).product
    if product not in FORMATS or product not in device.peak_flops:
        raise BadInput(
            f"sparsity 2:4 in precision {name}: {device.id} skips zeros in"
            f" {', '.join(f for f in FORMATS if f in device.peak_flops)}; use one of these"
        )
