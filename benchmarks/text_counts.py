"""Count text and audio families with transformers, encoder-decoders and encoders among them.

    python benchmarks/text_counts.py counts > tests/simulator/oracle/families_text.csv
    python benchmarks/text_counts.py parameters > tests/simulator/oracle/parameters_text.csv

Needs an environment with torch (a CPU build will do) and transformers, not Roofcast. Models are
built on the meta device: nothing is held or timed. What is counted, and how, is in
hybrid_counts.py.

counts      one step of every configuration of oracle/configurations_text.json; `counts NAME` only
            those of one model_type
parameters  of every shipped configuration of these families, tied weights once
"""

from __future__ import annotations

import csv
import json
import sys
from typing import Any
from unittest import mock

import torch
import torch.fx.experimental._config
import torch.nn.functional as F
import transformers
from hybrid_counts import (
    COLUMNS,
    FORMATS,
    ORACLE,
    ROOT,
    VERSIONS,
    Watch,
    aten,
    fused_attention,
    grouped_product,
    key,
)
from torch.utils.flop_counter import FlopCounterMode

CASES = ORACLE / "configurations_text.json"
SEQ2SEQ = transformers.models.auto.modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
MASKED = transformers.models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
WAVE = {"wavlm", "wav2vec2-conformer", "unispeech", "unispeech-sat", "data2vec-audio"}
HEARD = {  # of which only the parameters are compared: their towers do not run
    "phi4_multimodal", "qwen2_5_omni_thinker", "qwen2_audio", "qwen3_omni_moe_thinker", "voxtral",
}  # fmt: skip
SPARSE = {"led", "longformer"}
CAUSAL = {"xglm"}  # families of MASKED that Roofcast counts as decoders


class Held(Watch):
    """Every check of values holds: no token is padding, every number is finite. But no token
    attends to all others, and none is padding: the first two checks of the models of SPARSE.
    """

    checks = iter(())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            return next(self.checks, 1)
        return super().__torch_dispatch__(func, types, args, kwargs)


def dropped(
    x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """Dropout as a CUDA build runs it: a kernel that keeps a mask of bools."""
    return torch.native_dropout(x, p, True)[0] if training and p > 0 else x


def maker(config: dict[str, Any]) -> Any:
    """The class of transformers that a configuration is counted with."""
    kind, named = config["model_type"], config.get("architectures")
    if named:
        return getattr(transformers, named[0])._from_config
    if kind in WAVE:
        return transformers.AutoModel.from_config
    if kind in SEQ2SEQ:
        return transformers.AutoModelForSeq2SeqLM.from_config
    if kind in MASKED and kind not in CAUSAL:
        return transformers.AutoModelForMaskedLM.from_config
    return transformers.AutoModelForCausalLM.from_config


def built(config: dict[str, Any], attention: str, dtype: torch.dtype) -> torch.nn.Module:
    """The model that transformers builds of a config.json, on the meta device."""
    keys = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    made = transformers.AutoConfig.for_model(config["model_type"], **keys)
    if made.is_encoder_decoder and getattr(made, "decoder_start_token_id", None) is None:
        made.decoder_start_token_id = 0
    how = "eager" if attention == "eager" else "sdpa"
    with torch.device("meta"):
        model = maker(config)(made, attn_implementation=how, dtype=dtype)
    model.tie_weights()
    return model


def inputs_of(case: dict[str, Any], model: torch.nn.Module, dtype: torch.dtype) -> dict[str, Any]:
    """What a step is given."""
    batch, length = case["batch"], case["sequence"]
    name = type(model).__name__

    def ids(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int64, device="meta")

    if case["config"]["model_type"] in WAVE:
        return {"input_values": torch.zeros(batch, length, dtype=dtype, device="meta")}
    if name.endswith("ForSequenceClassification"):
        one = model.config.num_labels == 1  # which is a number, with a square error
        labels = torch.zeros((batch, 1), dtype=dtype, device="meta") if one else ids(batch)
        return {"input_ids": ids(batch, length), "labels": labels}
    if name.endswith("ForQuestionAnswering"):
        ends = {"start_positions": ids(batch), "end_positions": ids(batch)}
        return {"input_ids": ids(batch, length), **ends}
    first = ids(batch, length)
    causal = name.endswith(("ForCausalLM", "LMHeadModel"))
    return {"input_ids": first, "labels": first if causal else ids(batch, length)}


def count(case: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    dtype = FORMATS[case["precision"]]
    model = built(case["config"], case["attention"], dtype).train()
    model.config.use_cache = False
    given = inputs_of(case, model, dtype)
    own = {key(p) for p in model.parameters()}
    skipped, watch = own | {key(b) for b in model.buffers()}, Held(own)
    watch.checks = iter((0, 0) if case["config"]["model_type"] in SPARSE else ())
    entered = {key(x) for x in given.values()}
    saved: dict[int, Any] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if key(t) not in skipped:
            saved[key(t)] = t.untyped_storage()
        return t

    more = {aten._grouped_mm: grouped_product}
    forward, backward = (FlopCounterMode(display=False, custom_mapping=more) for _ in range(2))
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
    with hooks, forward, watch:
        out = model(**given)
        loss = getattr(out, "loss", None)
        if loss is None:  # an encoder alone: the square error of what it returns
            target = torch.zeros_like(out[0])
            entered.add(key(target))
            given["target"] = target
            loss = F.mse_loss(out[0], target)
    sizes = dict.fromkeys(COLUMNS[-3:], 0)
    for k, storage in saved.items():
        kind = "input_" if k in entered else "weight_copy_" if k in watch.copies else ""
        sizes[f"saved_{kind}bytes"] += storage.nbytes()
    with backward, watch:
        loss.backward()
    return {
        **{k: case[k] for k in ("batch", "sequence", "precision", "attention")},
        "model": json.dumps(case["config"]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "flops_forward": forward.get_total_flops(),
        "flops_backward": backward.get_total_flops() - watch.excess,
        **sizes,
    }


def counts(cases: list[dict[str, Any]]) -> None:
    """The table of counts, on stdout."""
    print(f"# {VERSIONS}; small configurations of ours; training mode, no padding mask, no cache.")
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for case in cases:
        if sys.argv[2:] and case["config"]["model_type"] not in sys.argv[2:]:
            continue
        writer.writerow(count(case))
        sys.stdout.flush()


def parameters(cases: list[dict[str, Any]]) -> None:
    """The table of parameters, on stdout."""
    kinds = {case["config"]["model_type"] for case in cases} | HEARD
    print(f"# {VERSIONS}; on the meta device.")
    print("model,parameters")
    for path in sorted((ROOT / "simulator" / "models" / "configs").glob("*.json")):
        config = json.loads(path.read_text())
        if config.get("model_type") in kinds:
            model = built(config, "eager", torch.bfloat16)
            print(f"{path.stem},{sum(p.numel() for p in model.parameters())}", flush=True)


if __name__ == "__main__":
    torch.fx.experimental._config.meta_nonzero_assume_all_nonzero = True  # no label is missing
    with (
        mock.patch.object(F, "scaled_dot_product_attention", fused_attention),
        mock.patch.object(F, "dropout", dropped),
        mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda ids: None),
    ):
        given = json.loads(CASES.read_text())
        {"counts": counts, "parameters": parameters}[sys.argv[1]](given)
