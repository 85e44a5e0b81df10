"""DeepSeek V2, V3 (R1) and V3.2, Kimi K2, GLM-4.7-Flash and GLM-5.

Latent attention, in V3.2 and GLM-5 over chosen keys; dense first layers, then shared and routed
experts. transformers trains no multi-token prediction; `implementations={"mtp": "train"}` adds it.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import indexer, routers, transformer
from roofcast.simulator.models.families.routers import Routing
from roofcast.simulator.models.families.transformer import (
    causal_loss,
    gated,
    gated_mlp,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, moe, norm, pointwise
from roofcast.simulator.work.ops.latent import Latent, absorbed
from roofcast.simulator.work.tape import Tape, Value

Tables = tuple[Value, ...]  # cos and sin (V3), or one table of complex numbers (V2)
Kind = tuple[bool, bool]  # whether a layer has experts, and an indexer of its own
CHOSEN_KEYS = ("deepseek_v32", "glm_moe_dsa")  # attention over keys that an indexer chooses
GLM = ("glm4_moe_lite", "glm_moe_dsa")


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's DeepseekV2Config, DeepseekV3Config, GlmMoeDsaConfig ..."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    n_routed_experts: int
    num_experts_per_tok: int
    n_shared_experts: int | None = None
    first_k_dense_replace: int | None = None
    q_lora_rank: int | None = 1536
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    n_group: int | None = None
    topk_group: int | None = None
    topk_method: str | None = None
    norm_topk_prob: bool = True
    rope_interleave: bool = True
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float = 0.0
    max_position_embeddings: int | None = None
    num_nextn_predict_layers: int = 1
    tie_word_embeddings: bool = False
    mlp_layer_types: list[str] | None = None
    index_n_heads: int | None = None
    index_head_dim: int = 128
    index_topk: int = 2048
    indexer_types: list[str] | None = None  # of each layer: full, or shared with an earlier one
    index_topk_pattern: str | list[str] | None = None
    index_topk_freq: int = 1
    index_skip_topk_offset: int = 2

    def __post_init__(self) -> None:
        routers.check(self.routing)
        for key in ("mlp_layer_types", "indexer_types", "index_topk_pattern"):
            routers.check_length(key, getattr(self, key), self.num_hidden_layers)
        if self.index is not None:
            indexer.check(self.index, self.qk_rope_head_dim, self.q_lora_rank)
            if not self.kind(0)[1]:
                raise ValueError("'indexer_types': the first layer needs an indexer of its own")

    @property
    def expert_width(self) -> int:
        """Inner width of an expert."""
        return self.moe_intermediate_size

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings or (4096 if self.third else 2048)

    @property
    def third(self) -> bool:
        """Whether the model is built as DeepSeek V3 is."""
        return self.model_type != "deepseek_v2"

    @property
    def routing(self) -> Routing:
        """What the router needs to know."""
        groups, best = (1, 1) if self.model_type in GLM else (8, 4)
        if not self.third and self.topk_method != "group_limited_greedy":
            return Routing(self.n_routed_experts, self.num_experts_per_tok, groups=0)
        return Routing(
            self.n_routed_experts,
            self.num_experts_per_tok,
            self.norm_topk_prob,
            self.n_group or groups,
            self.topk_group or best,
        )

    @property
    def index(self) -> indexer.Sizes | None:
        """Sizes of the indexer; None where attention is over all keys."""
        if self.model_type not in CHOSEN_KEYS:
            return None
        heads = self.index_n_heads or (32 if self.model_type == "glm_moe_dsa" else 64)
        return indexer.Sizes(heads, self.index_head_dim, self.index_topk)

    def kind(self, layer: int) -> Kind:
        """Whether a layer has experts, and whether it has an indexer of its own."""
        if self.mlp_layer_types:
            sparse = self.mlp_layer_types[layer] == "sparse"
        else:
            default = {"deepseek_v2": 0, "glm4_moe_lite": 1}.get(self.model_type, 3)
            first = self.first_k_dense_replace
            sparse = layer >= (default if first is None else first)
        return sparse, self.index is not None and self._indexed(layer)

    def _indexed(self, layer: int) -> bool:
        pattern = self.indexer_types or self.index_topk_pattern
        if pattern:
            return pattern[layer] in ("full", "F")
        since = max(layer - self.index_skip_topk_offset + 1, 0)
        return since % max(self.index_topk_freq, 1) == 0

    @property
    def shared_width(self) -> int:
        """Inner width of the shared experts together."""
        return self.moe_intermediate_size * (self.n_shared_experts or (1 if self.third else 2))

    @property
    def head_dim(self) -> int:
        """Width of a head, which need not divide the width of the model."""
        return self.dim

    @property
    def dim(self) -> int:
        """Width of a query or key head: the rotated and the other elements."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, latent attention, norm, MLP or experts], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            embedded = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        make_tables = rotary_tables if c.third else complex_table
        tables = make_tables(t, sequence, c.qk_rope_head_dim)
        masked = c.index is not None and not indexer.is_selected(t)
        mask = transformer.causal_masks(t, sequence, batch, always=masked)()
        kinds = [c.kind(layer) for layer in range(c.num_hidden_layers)]
        x = transformer.layers(
            t, "layers", kinds, lambda x, kind: block(t, c, x, tables, mask, kind), embedded
        )
        if t.implementation("mtp", "none") == "train" and c.third:
            predict_further(t, c, x, embedded, table, tables, mask)
        state_assumptions(t, c, sequence)
        x = normed(t, "norm", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def state_assumptions(t: Tape, c: Config, sequence: int) -> None:
    """What of the configuration runs otherwise than its keys suggest."""
    further = c.num_nextn_predict_layers if c.third else 0
    if further and t.implementation("mtp", "none") != "train":
        t.assumptions.append(
            f"num_nextn_predict_layers {further}: multi-token prediction is not counted, as in"
            " transformers"
        )
    if c.index is not None and sequence > c.index_topk and not indexer.is_selected(t):
        t.assumptions.append(
            f"index_topk {c.index_topk}: attention runs as in transformers, over all {sequence}"
            " keys with a mask"
        )


def predict_further(
    t: Tape, c: Config, x: Value, embedded: Value, table: Value, tables: Tables, mask: Value | None
) -> None:
    """Multi-token prediction [deepseek2024], with a loss per further token.

    The normalized state and embedding are concatenated and projected; one more layer and the shared
    head follow.
    """
    kind = (True, c.index is not None)
    for depth in range(c.num_nextn_predict_layers):
        with t.scope(f"mtp.{depth}"):
            joined = pointwise.concat(t, [normed(t, "hnorm", x), normed(t, "enorm", embedded)], -1)
            with t.op("eh_proj", "linear"):
                x = linear.linear(t, joined, c.hidden_size, bias=False)
            x = t.repeat("layer", 1, lambda x: block(t, c, x, tables, mask, kind), x)
            causal_loss(t, normed(t, "norm", x), c.vocab_size, weight=table)


def normed(t: Tape, name: str, x: Value) -> Value:
    """RMSNorm of x [batch, tokens, width], as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x)


def block(t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, kind: Kind) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    sparse, indexed = kind
    h = normed(t, "input_layernorm", x)
    with t.scope("self_attn"):
        h = self_attention(t, c, h, tables, mask, indexed)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "post_attention_layernorm", x)
    with t.scope("mlp"):
        bias = c.mlp_bias and not c.third
        if sparse:
            h = sparse_mlp(t, c, h, bias)
        else:
            width, act = c.intermediate_size, c.hidden_act
            h = gated_mlp(t, h, width, c.hidden_size, activation=act, bias=bias)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)


def complex_table(t: Tape, sequence: int, dim: int) -> tuple[Value]:
    """A table of complex numbers of unit length, one per position and pair of elements."""
    with t.op("rotary_emb", "rotary"):
        table = t.new((1, sequence, dim // 2, 2), "fp32")
        t.emit("elementwise", (), (table,), vector=table.size, special=table.size)
    return (table,)


def turn_complex(t: Tape, x: Value, table: Value) -> Value:
    """Rotary embedding of x [B, H, S, D]: as complex numbers in fp32, times the table."""
    full = t.cast(x, "fp32")
    out = t.new(x.shape, "fp32", x.grad)
    flops, read = 3 * x.size, out.bytes + table.bytes
    t.emit("elementwise", (full, table), (out,), vector=flops)
    if x.grad:
        t.save(table)
        t.backward("elementwise", vector=flops, read=read, written=out.bytes, product="fp32")
    return t.cast(out, x.dtype)


def turn(t: Tape, c: Config, x: Value, tables: Tables) -> Value:
    """Rotary embedding of x [batch, heads, tokens, dim], in the form of the model's version."""
    return rotate(t, x, *tables) if c.third else turn_complex(t, x, *tables)


def self_attention(
    t: Tape, c: Config, x: Value, tables: Tables, mask: Value | None, indexed: bool
) -> Value:
    """Multi-head latent attention; x and the result are [batch, tokens, width]."""
    heads, batch = c.num_attention_heads, x.shape[0]
    low = low_rank_queries(t, c, x)
    q = queries(t, c, low)
    with t.op("kv_a_proj_with_mqa", "linear"):
        width = c.kv_lora_rank + c.qk_rope_head_dim
        latent = linear.linear(t, x, width, bias=c.attention_bias, parallel=False)
        latent = t.enter(latent) if latent.split == "tokens" else latent
    # heads and tokens of this rank
    heads, length = (t.share(heads, "the attention heads") if q.split else heads), q.shape[1]
    kv = normed(t, "kv_a_layernorm", t.view(latent, batch, length, c.kv_lora_rank))
    plain, rotated = c.qk_nope_head_dim, c.qk_rope_head_dim
    if t.generates == "decode" or t.absorbs:
        return decoded(t, c, x, (q, low, latent), tables, heads, indexed)
    with t.op("rotary", "rotary"):
        q_turned = turn(t, c, t.view(q, batch, heads, length, rotated), tables)
        k_turned = turn(t, c, t.view(latent, batch, 1, length, rotated), tables)
        q = pointwise.concat(t, [t.view(q, batch, heads, length, plain), q_turned], -1)
    with t.op("kv_b_proj", "linear"):
        kv = linear.linear(t, kv, c.num_attention_heads * (plain + c.v_head_dim), bias=False)
        k = t.view(kv, batch, heads, length, plain)
        k = pointwise.concat(t, [k, t.view(k_turned, batch, heads, length, rotated)], -1)
        v = t.view(kv, batch, heads, length, c.v_head_dim)
    keys = None
    if c.index is not None:
        keys, mask = chosen_keys(t, c.index, x, low, tables, mask, (batch, length), indexed)
    with t.op("attention", "attention"):
        h = attention.attention(
            t,
            q,
            k,
            v,
            causal=True,
            mask=mask,
            keys=keys,
            softmax_fp32=True,
            dropout=c.attention_dropout,
            by_heads=True,
            cache=c.kv_lora_rank + c.qk_rope_head_dim + (c.index_head_dim if indexed else 0),
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)


def decoded(
    t: Tape,
    c: Config,
    x: Value,
    parts: tuple[Value, Value, Value],
    tables: Tables,
    heads: int,
    indexed: bool,
) -> Value:
    """The same of new tokens over a cache of latents. parts: queries, what they are projections
    of, and the latent.
    """
    (q, low, latent), rotated = parts, c.qk_rope_head_dim
    batch, length = q.shape[:2]
    with t.op("rotary", "rotary"):
        turn(t, c, t.view(q, batch, heads, length, rotated), tables)
        turn(t, c, t.view(latent, batch, 1, length, rotated), tables)
    if indexed and c.index is not None:
        indexer.choose(t, c.index, x, low, (tables[0], tables[1]))
    keys = None if c.index is None else c.index.keys
    extra = c.index_head_dim if indexed else 0
    sizes = Latent(heads, c.qk_nope_head_dim, rotated, c.v_head_dim, c.kv_lora_rank, extra)
    h = absorbed(t, q, sizes, keys)
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=c.attention_bias)


def chosen_keys(
    t: Tape,
    sizes: indexer.Sizes,
    x: Value,
    low: Value,
    tables: Tables,
    mask: Value | None,
    tokens: tuple[int, int],
    indexed: bool,
) -> tuple[int | None, Value | None]:
    """The number of keys that attention reads (None: all), and the mask it reads them with.

    A layer without an indexer of its own takes the indices of an earlier one.
    """
    length = tokens[1] * t.parallel.cp
    cos, sin = tables
    if indexed:
        ids = indexer.choose(t, sizes, x, low, (cos, sin))
    else:
        ids = t.new((*tokens, min(sizes.keys, length)), "int32")
    if indexer.is_selected(t):
        return ids.shape[-1], None
    assert mask is not None, "a masked attention has a mask"
    with t.op("index_mask", "mask"):
        return None, indexer.mask_of(t, ids, mask, length)


def low_rank_queries(t: Tape, c: Config, x: Value) -> Value:
    """What the queries are a projection of: x, or x after a low-rank projection and a norm."""
    if c.q_lora_rank is None:
        return x
    with t.op("q_a_proj", "linear"):
        q = linear.linear(t, x, c.q_lora_rank, bias=c.attention_bias, parallel=False)
    return normed(t, "q_a_layernorm", q)


def queries(t: Tape, c: Config, low: Value) -> Value:
    """Queries of all heads [batch, tokens, heads * dim]."""
    with t.op("q_proj" if c.q_lora_rank is None else "q_b_proj", "linear"):
        return linear.linear(t, low, c.num_attention_heads * c.dim, bias=False)


def sparse_mlp(t: Tape, c: Config, h: Value, bias: bool) -> Value:
    """Mixture of experts: each token through its routed experts and the shared ones."""
    x = t.view(h, h.shape[0] * h.shape[1], c.hidden_size)
    with t.op("gate", "router"):
        route = routers.sigmoid_in_groups if c.third else route_v2
        scores, ids = route(t, c.routing, x)
    with t.op("experts", "experts"):
        width, experts = c.moe_intermediate_size, c.n_routed_experts

        def gate(y: Value) -> Value:
            return gated(t, y, c.hidden_act)

        out = moe.gated_experts(t, x, scores, ids, experts, width, gate)
    with t.scope("shared_experts"):
        shared = gated_mlp(t, h, c.shared_width, c.hidden_size, activation=c.hidden_act, bias=bias)
    with t.op("sum", "add"):
        return pointwise.add(t, t.view(out, *h.shape), shared)


def route_v2(t: Tape, r: Routing, x: Value) -> tuple[Value, Value]:
    """Softmax over all experts, then the top k, from the best groups if there are groups."""
    scores = norm.softmax(t, routers.logits_fp32(t, r, x), dtype="fp32")
    if r.groups:
        scores = moe.within_groups(t, scores, r.groups, r.best_groups, 1)
    scores, ids = moe.top_k(t, scores, r.chosen)
    return pointwise.scale(t, scores), ids
