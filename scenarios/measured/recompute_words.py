"""What tables say of recomputation -> the `recompute` of a scenario.

The columns recompute_policy and recompute name it; where they say only that something is
recomputed, the notes of the row say what: MaxText's remat_policy, torchtitan's layer or op,
Megatron's recompute_modules and recompute_num_layers. Words mean what the row's framework means by
them (simulator/work/policies.toml).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from roofcast.hwdb.errors import RoofcastError
from roofcast.scenarios.measured.cells import Row, text
from roofcast.simulator.work.policies import named
from roofcast.simulator.work.recompute import policy

UNSTATED = "no recomputation (not given)"
NOTHING = ("", "unknown", "?", "n/a")
NONE = ("none", "no", "off", "false", "0")
# of Megatron's --recompute-modules, the parts of a layer that run again; moe_act is inside the op
# of the experts, and mlp is that of the few dense layers of a mixture
MODULES = {
    "mla_up_proj": ("q_b_proj", "kv_b_proj", "rotary"),
    "layernorm": ("layernorm",),
    "moe_act": (),
    "mlp": (),
    "core_attn": ("attention",),
    "shared_experts": ("shared_experts",),
}
# of MaxText's `custom`, the results kept on the device -> roles
TENSORS = {
    "query_proj": "qkv", "key_proj": "qkv", "value_proj": "qkv", "qkv_proj": "qkv",
    "context": "context", "out_proj": "attn_out", "mlpwi": "mlp_in", "mlpwi_0": "mlp_in",
    "mlpwi_1": "mlp_in", "mlpwo": "mlp_out",
}  # fmt: skip
# least recomputation first: what a run that ran may have done, by the start of its stack's name
LADDERS = {
    "maxtext": (
        "none", "minimal_with_context", "save_dot_except_mlpwi", "save_qkv_proj", "full"
    ),
    "fsdp-torchtitan": ("none", "selective-ops", "full"),
    "te-nemo": ("none", "selective", "discard:q_b_proj,kv_b_proj,rotary", "full"),
    "megatron-bridge": ("none", "selective", "discard:q_b_proj,kv_b_proj,rotary", "full"),
    "": ("none", "selective", "full"),
}  # fmt: skip


def ladder(stack: str) -> Sequence[str]:
    """Policies of a stack, from the least recomputation to the most."""
    return next(steps for start, steps in LADDERS.items() if stack.startswith(start))


def recompute_of(row: Row, assumptions: list[str]) -> str:
    """The `recompute` value of a scenario; "none" where the row says nothing that is known."""
    found = _stated(row, assumptions)
    return (named()[found].is_ or found) if found in named() else found


def _stated(row: Row, assumptions: list[str]) -> str:
    cell = (text(row, "recompute_policy") or text(row, "recompute")).lower()
    notes, framework = text(row, "notes"), text(row, "framework").lower()
    if cell in NOTHING:
        assumptions.append(UNSTATED)
        return "none"
    if cell in NONE:
        return "none"
    if ":" in cell and _valid(cell):
        return cell
    if "maxtext" in framework:
        found = _maxtext(cell, notes)
    elif "titan" in framework:
        found = _torchtitan(cell, notes)
    else:
        found = _megatron(cell, notes, text(row, "model_name"))
    if found:
        return found
    if _valid(cell):
        return cell
    if "full" in cell or cell in ("yes", "true", "on") or "checkpointing" in cell:
        return "full"
    return "selective" if "selective" in cell else "none"


def _valid(cell: str) -> bool:
    try:
        policy(cell)
    except RoofcastError:
        return False
    return True


def _maxtext(cell: str, notes: str) -> str:
    """A remat_policy, of the cell or the notes; "" for none. `custom` keeps what it lists."""
    stated = re.search(r"remat_policy\s*[=:]?\s*([\w ,:]*\w)", notes)
    words = re.sub(r"^remat_policy\s*[=:]?\s*", "", cell)
    if words in ("selective", "yes") and stated:
        words = stated[1].lower()
    name = re.match(r"\w+", words)
    if name and name[0] == "custom":
        kept = [TENSORS[tensor] for tensor in re.findall(r"\w+", words) if tensor in TENSORS]
        return "keep:" + ",".join(dict.fromkeys(kept)) if kept else "full"
    return name[0] if name and name[0] in named() else ""


def _torchtitan(cell: str, notes: str) -> str:
    """Selective by op, which recomputes most of a layer, or by layer; "" for other words."""
    if "selective" not in cell:
        return ""
    words = f"{cell} {notes}".lower()
    layers = re.search(r"selective[\s,(:=_-]*(\d+)", words)
    if layers:
        return f"every:{layers[1]}" if int(layers[1]) > 1 else "full"
    return "selective-layer" if re.search(r"selective[\s,(:=_-]*layer", words) else "selective-ops"


def _megatron(cell: str, notes: str, model: str) -> str:
    """--recompute-modules and --recompute-num-layers of the cell or the notes; "" for others."""
    number = re.search(r"recompute[_-]num[_-]layers\s*[=:]?\s*(\d+)", notes)
    if cell == "full" and number:
        return f"block:{number[1]}"
    words = f"{cell} {notes}"
    listed = re.search(r"recompute[_-]modules\s*[=:]?\s*(\[[^\]]*\])", words)
    listed = listed or re.search(r"recompute[_-]modules\s*[=:]?\s*([\w, ]+)", words)
    modules = [m for m in re.findall(r"\w+", listed[1] if listed else cell) if m in MODULES]
    if not modules or cell in ("none", "full"):
        return ""
    parts = [part for module in modules for part in MODULES[module]]
    if parts == ["attention"]:
        return "selective"
    if not re.search(r"v3|r1|k2|671", model.lower()):  # only these compress their queries
        parts = [part for part in parts if part != "q_b_proj"]
    return "discard:" + ",".join(dict.fromkeys(parts)) if parts else "none"
