"""What a forecast of a measured row took from it, as columns: they show whether what the row says
was understood.
"""

from __future__ import annotations

from roofcast import hwdb
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.software import kernels
from roofcast.simulator.software import stack as stacks
from roofcast.simulator.times.rates import family_name

COLUMNS = ("recompute_policy", "first_k_dense", "overlap", "kernel_generation")


def heard(scenario: Scenario) -> dict[str, str]:
    """COLUMNS of a scenario; empty where a column does not apply.

    recompute_policy: as --recompute takes it; first_k_dense: dense layers before those of experts;
    overlap: kinds of traffic that the stack hides better than by default; kernel_generation: the
    generation of matrix instructions that attention uses on the device.
    """
    dense = getattr(getattr(scenario.model, "config", None), "first_k_dense_replace", None)
    stack = stacks.stack(scenario.stack) if scenario.stack else None
    return {
        "recompute_policy": scenario.recompute if scenario.mode == "train" else "",
        "first_k_dense": "" if dense is None else str(dense),
        "overlap": " ".join(sorted(stack.overlap)) if stack else "",
        "kernel_generation": generation(scenario, stack) if stack else "",
    }


def generation(scenario: Scenario, stack: stacks.Stack) -> str:
    """Generation of the instructions of fused attention; "" off NVIDIA's GPUs, and where the scores
    are written to memory.
    """
    how = scenario.attention or stack.implementations.get("attention")
    family = family_name(hwdb.device(scenario.device))
    own = kernels.generation_of(family)
    if how == "eager" or own is None:
        return ""
    name = stack.kernels.get("attention")
    return (name and kernels.written_for(kernels.attention_kernel(name), family)) or own
