"""Decoders whose layers are mixtures of experts, each described by a record of facts.

GLM-4.5 to 4.7, MiniMax M2, Qwen2-MoE, OLMoE, FlexOlmo, Phi-3.5-MoE, Granite MoE, Ernie 4.5 MoE,
Hunyuan MoE, dots.llm1.
"""

from __future__ import annotations

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.routers import jittered
from roofcast.simulator.models.families.sparse_config import Config, Kind
from roofcast.simulator.models.families.transformer import (
    Tables,
    gated,
    gated_mlp,
    heads_of,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

__all__ = ["Config", "build"]


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    for key in ("num_nextn_predict_layers", "num_mtp_modules"):
        if getattr(c, key):
            text = "multi-token prediction is not counted, as in transformers"
            t.assumptions.append(f"{key} {getattr(c, key)}: {text}")
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
            x = pointwise.scale(t, x) if c.facts.scaled else x
        tables = rotary_tables(
            t, sequence, c.rotary_width, wide=c.facts.rotary in ("fp32", "pairs")
        )
        masks = transformer.causal_masks(t, sequence, batch)
        kinds = [c.kind(layer) for layer in range(c.num_hidden_layers)]
        x = transformer.layers(
            t, "layers", kinds, lambda x, kind: block(t, c, x, tables, masks, kind), x
        )
        x = normed(t, c, "norm", x)
    tied = table if c.tie_word_embeddings else None
    bias = c.lm_head_bias or c.use_bias
    return transformer.causal_loss(
        t, x, c.vocab_size, weight=tied, bias=bias, scaled=c.facts.scaled
    )


def normed(t: Tape, c: Config, name: str, x: Value) -> Value:
    """The model's norm of x [batch, tokens, width], as an op called `name`."""
    if c.facts.norms == "layer_norm":
        return transformer.normed(t, name, x)
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, flavor=c.facts.norms)


def block(
    t: Tape, c: Config, x: Value, tables: Tables, masks: transformer.Masks, kind: Kind
) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    window, sparse = kind
    after = c.facts.after
    h = x if after else normed(t, c, "input_layernorm", x)
    with t.scope("self_attn"):
        h = self_attention(t, c, h, tables, masks(window), window)
    h = normed(t, c, "post_attention_layernorm", h) if after else h
    x = residual(t, c, "residual_attn", x, h)
    h = x if after else normed(t, c, "post_attention_layernorm", x)
    with t.scope("mlp"):
        if sparse:
            h = sparse_mlp(t, c, h)
        else:
            h = mlp(t, c, h, c.intermediate_size)
    h = normed(t, c, "post_feedforward_layernorm", h) if after else h
    return residual(t, c, "residual_mlp", x, h)


def residual(t: Tape, c: Config, name: str, x: Value, h: Value) -> Value:
    """x + h, with h scaled first where the model has a residual multiplier."""
    with t.op(name, "add"):
        return pointwise.add(t, x, pointwise.scale(t, h) if c.facts.scaled else h)


def mlp(t: Tape, c: Config, h: Value, width: int) -> Value:
    """A gated MLP of that inner width."""
    return gated_mlp(t, h, width, c.hidden_size, activation=c.hidden_act, bias=c.use_bias)


def turn(t: Tape, c: Config, x: Value, tables: Tables) -> Value:
    """Rotary embedding of x [batch, heads, tokens, dim]."""
    how = c.facts.rotary
    if how == "pairs":  # tables are rearranged for every layer, and applied to x in fp32
        x_full = t.cast(x, "fp32")
        return t.cast(rotate(t, x_full, *tables), x.dtype)
    return t.cast(rotate(t, x, *tables, partial=how == "part"), x.dtype)


def self_attention(
    t: Tape, c: Config, h: Value, tables: Tables, mask: Value | None, window: int | None
) -> Value:
    """Self-attention; h and the result are [batch, tokens, width]."""
    in_bias, out_bias = c.biases
    heads = {"q_proj": c.num_attention_heads, "k_proj": c.groups, "v_proj": c.groups}
    found: list[Value] = []
    for name, n in heads.items():
        with t.op(name, "linear"):
            y = linear.linear(t, h, n * c.dim, bias=in_bias, whole=c.dim)
        if c.qk_norm == "heads" and name != "v_proj":
            y = normed_whole(t, c, name.replace("proj", "norm"), y)
        if c.clip_qkv is not None:
            with t.op(name, "clamp"):
                y = pointwise.unary(t, "clamp", y)
        found.append(heads_of(t, y, n, c.dim, shared=bool(found)))
    q, k, v = found
    if c.qk_norm == "head":
        q, k = normed(t, c, "q_norm", q), normed(t, c, "k_norm", k)
    with t.op("rotary", "rotary"):
        if c.facts.rotary == "pairs":
            cos, sin = (pointwise.copy(t, table) for table in tables)
            tables = cos, sin
        q, k = turn(t, c, q, tables), turn(t, c, k, tables)
    if c.qk_norm == "turned":
        q, k = normed(t, c, "q_norm", q), normed(t, c, "k_norm", k)
    with t.op("attention", "attention"):
        h = attention.attention(
            t,
            q,
            k,
            v,
            causal=True,
            mask=mask,
            softmax_fp32=True,
            window=window,
            dropout=c.attention_dropout,
            by_heads=c.facts.rotary == "part",
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=out_bias)


def normed_whole(t: Tape, c: Config, name: str, x: Value) -> Value:
    """RMSNorm over all heads; tensor-parallel ranks add up the squares of their own."""
    if x.split == "features":
        squares = t.new(x.shape[:-1], "fp32").bytes
        with t.op(name, "rms_norm"):
            t.send("all_reduce", "tp", squares)
            if t.training:
                t.send("all_reduce", "tp", squares, phase="backward")
    return normed(t, c, name, x)


def sparse_mlp(t: Tape, c: Config, h: Value) -> Value:
    """Each token through its routed experts, and through the shared ones if there are any."""
    if c.input_jitter_noise:
        with t.op("jitter", "mul"):
            h = jittered(t, h, c.input_jitter_noise)
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    routing = c.routing
    with t.op("gate", "router"):
        scores, ids = c.facts.router(t, routing, x)
    with t.op("experts", "experts"):
        out = moe.gated_experts(
            t, x, scores, ids, routing.experts, c.expert_width, lambda y: gated(t, y, c.hidden_act)
        )
    out = t.view(out, *h.shape)
    if not c.shared_width:
        return out
    with t.scope("shared_experts"):
        shared = mlp(t, c, h, c.shared_width)
        if c.facts.shared == "gated":
            with t.op("gate", "linear"):
                share = linear.linear(t, h, 1, bias=False, parallel=False)
                shared = pointwise.mul(t, pointwise.unary(t, "sigmoid", share), shared)
    with t.op("sum", "add"):
        return pointwise.add(t, out, shared)
