"""Configurations of the decoders in `sparse`, and the facts that set their layers apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from roofcast.simulator.models.families import routers
from roofcast.simulator.models.families.routers import Routed, Routing
from roofcast.simulator.work.tape import Tape, Value

Kind = tuple[int | None, bool]  # attention window, whether the layer has experts


class Facts(NamedTuple):
    """What sets the layers of a model_type apart, beyond the sizes in its configuration."""

    router: Callable[[Tape, Routing, Value], Routed] = routers.softmax
    norms: str = "llama"  # flavor of the RMSNorms, or "layer_norm"
    after: bool = False  # norms follow attention and MLP instead of preceding them
    qk_norm: str | None = None  # head: each head apart; heads: all together; turned: after rotary
    rotary: str = "half"  # half; part: of a head, concatenated; pairs: in fp32; fp32: fp32 tables
    qkv_bias: bool = False
    out_bias: bool = True  # whether attention_bias covers the output projection
    shared: str = "added"  # added, or gated by a sigmoid of its own
    normalised: bool = False  # whether weights of experts always sum to one
    scaled: bool = False  # whether embeddings, residuals and logits have multipliers
    defaults: dict[str, Any] = {}  # noqa: RUF012  Hugging Face's, where they differ between types


FACTS = {
    "glm4_moe": Facts(
        routers.sigmoid_in_groups,
        rotary="part",
        out_bias=False,
        defaults={
            "num_key_value_heads": 8, "n_routed_experts": 128, "num_experts_per_tok": 8,
            "moe_intermediate_size": 1408, "n_shared_experts": 1, "first_k_dense_replace": 1,
            "norm_topk_prob": True, "partial_rotary_factor": 0.5,
            "max_position_embeddings": 131072, "num_nextn_predict_layers": 1,
        },
    ),
    "minimax_m2": Facts(
        routers.sigmoid,
        rotary="part",
        qk_norm="heads",
        normalised=True,
        defaults={
            "num_key_value_heads": 8, "head_dim": 128, "num_local_experts": 256,
            "num_experts_per_tok": 8, "max_position_embeddings": 196608,
        },
    ),
    "qwen2_moe": Facts(
        qkv_bias=True,
        shared="gated",
        defaults={
            "num_key_value_heads": 16, "num_experts": 60, "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
            "max_position_embeddings": 32768,
        },
    ),
    "olmoe": Facts(
        qk_norm="heads",
        defaults={
            "num_experts": 64, "num_experts_per_tok": 8, "max_position_embeddings": 4096,
        },
    ),
    "flex_olmo": Facts(
        norms="gpt_oss",
        after=True,
        qk_norm="heads",
        rotary="fp32",
        defaults={
            "num_experts": 7, "num_experts_per_tok": 5, "max_position_embeddings": 4096,
        },
    ),
    "phimoe": Facts(
        routers.sparse_mixer,
        norms="layer_norm",
        defaults={
            "num_key_value_heads": 8, "num_local_experts": 16, "num_experts_per_tok": 2,
            "max_position_embeddings": 131072,
        },
    ),
    "granitemoe": Facts(
        routers.softmax_of_chosen,
        scaled=True,
        defaults={
            "num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 2048,
        },
    ),
    "ernie4_5_moe": Facts(
        routers.softmax_biased,
        rotary="pairs",
        defaults={
            "num_key_value_heads": 4, "moe_num_experts": 64, "moe_k": 6,
            "moe_intermediate_size": 1536, "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1, "tie_word_embeddings": True,
            "max_position_embeddings": 131072,
        },
    ),
    "hunyuan_v1_moe": Facts(
        qk_norm="turned",
        normalised=True,
        defaults={"num_experts": 1, "moe_topk": 1, "max_position_embeddings": 2048},
    ),
    "dots1": Facts(
        routers.sigmoid_in_groups,
        qk_norm="head",
        defaults={
            "moe_intermediate_size": 1408, "sliding_window": 4096, "max_window_layers": 62,
            "max_position_embeddings": 2048,
        },
    ),
}  # fmt: skip


class Config(msgspec.Struct, frozen=True):
    """Keys of the Hugging Face configurations of `FACTS`; those that a type lacks stay None."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int | None = None
    attention_bias: bool = False
    qkv_bias: bool | None = None
    use_bias: bool = False
    lm_head_bias: bool = False
    attention_dropout: float = 0.0
    tie_word_embeddings: bool | None = None
    partial_rotary_factor: float | None = None
    rotary_dim: int | None = None
    rope_parameters: dict[str, Any] | None = None
    use_qk_norm: bool = False
    clip_qkv: float | None = None
    sliding_window: int | None = None
    use_sliding_window: bool | None = None
    max_window_layers: int | None = None
    layer_types: list[str] | None = None
    n_routed_experts: int | None = None  # the number of experts, by its four names
    num_experts: int | list[int] | None = None
    num_local_experts: int | None = None
    moe_num_experts: int | None = None
    num_experts_per_tok: int | None = None  # experts per token, by its three names
    moe_topk: int | list[int] | None = None
    moe_k: int | None = None
    moe_intermediate_size: int | list[int] | None = None  # Hunyuan's list is not used
    n_shared_experts: int | None = None
    moe_num_shared_experts: int | None = None
    shared_expert_intermediate_size: int | None = None
    norm_topk_prob: bool | None = None
    n_group: int | None = None
    topk_group: int | None = None
    first_k_dense_replace: int | None = None
    decoder_sparse_step: int = 1
    mlp_only_layers: list[int] | None = None
    moe_layer_start_index: int | None = None
    moe_layer_end_index: int | None = None
    moe_layer_interval: int = 1
    input_jitter_noise: float = 0.0
    num_nextn_predict_layers: int | None = None
    num_mtp_modules: int | None = None

    def __post_init__(self) -> None:
        for key, value in self.facts.defaults.items():
            if getattr(self, key) is None:
                msgspec.structs.force_setattr(self, key, value)
        for key in ("num_experts", "moe_topk"):
            self._same_in_all_layers(key)
        for key in ("decoder_sparse_step", "moe_layer_interval"):
            if getattr(self, key) < 1:
                raise ValueError(f"'{key}' is {getattr(self, key)}; give a positive number")
        routers.check_length("layer_types", self.layer_types, self.num_hidden_layers)
        routers.check(self.routing)
        if self.num_attention_heads and not 0 < self.rotary_width <= self.dim:
            raise ValueError(
                f"rotary embeddings of {self.rotary_width} of {self.dim} elements of a head"
            )

    def _same_in_all_layers(self, key: str) -> None:
        """Replace a list with one entry per layer, all equal, by that entry."""
        value = getattr(self, key)
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise ValueError(f"'{key}' differs between layers; one number for all is supported")
            msgspec.structs.force_setattr(self, key, value[0])

    @property
    def facts(self) -> Facts:
        """What sets the layers of this model_type apart."""
        return FACTS[self.model_type]

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_position_embeddings or 2048

    @property
    def groups(self) -> int:
        """Number of key-value heads."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def dim(self) -> int:
        """Width of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def rotary_width(self) -> int:
        """Elements of a head that rotary embeddings rotate."""
        if self.facts.rotary != "part":
            return self.dim
        given = (self.rope_parameters or {}).get("partial_rotary_factor")
        if given is None and self.rotary_dim is not None:
            return self.rotary_dim
        return int(self.dim * (given or self.partial_rotary_factor or 1.0))

    @property
    def biases(self) -> tuple[bool, bool]:
        """Whether the projections of q, k and v have a bias, and that of the output."""
        given = self.facts.qkv_bias if self.qkv_bias is None else self.qkv_bias
        both = self.attention_bias or self.use_bias
        return both or (self.facts.qkv_bias and given), both and self.facts.out_bias

    @property
    def qk_norm(self) -> str | None:
        """How queries and keys are normalized; None where they are not."""
        return self.facts.qk_norm or ("head" if self.use_qk_norm else None)

    @property
    def routing(self) -> Routing:
        """What the router needs to know."""
        counts = (
            self.n_routed_experts, self.num_experts, self.num_local_experts, self.moe_num_experts
        )  # fmt: skip
        chosen = self.num_experts_per_tok, self.moe_topk, self.moe_k
        return Routing(
            next((n for n in counts if isinstance(n, int)), 0),
            next((n for n in chosen if isinstance(n, int)), 0),
            self.facts.normalised or bool(self.norm_topk_prob),
            self.n_group or 1,
            self.topk_group or 1,
            self.input_jitter_noise,
        )

    @property
    def expert_width(self) -> int:
        """Inner width of an expert."""
        width = self.moe_intermediate_size
        if width is None or isinstance(width, list) or self.model_type == "hunyuan_v1_moe":
            return self.intermediate_size
        return width

    @property
    def shared_width(self) -> int:
        """Inner width of the shared experts together; 0 where there are none."""
        if self.model_type == "hunyuan_v1_moe":
            return self.intermediate_size
        shared = self.n_shared_experts or self.moe_num_shared_experts or 0
        return self.shared_expert_intermediate_size or shared * self.expert_width

    def kind(self, layer: int) -> Kind:
        """The attention window of a layer (None: all tokens), and whether it has experts."""
        return self._window(layer), self._sparse(layer)

    def _window(self, layer: int) -> int | None:
        if not self.sliding_window or self.use_sliding_window is False:
            return None
        if self.layer_types:
            windowed = self.layer_types[layer] == "sliding_attention"
        elif self.model_type == "dots1":
            windowed = layer >= (self.max_window_layers or 0)
        elif self.model_type == "qwen2_moe":  # every second of the first layers
            most = 28 if self.max_window_layers is None else self.max_window_layers
            windowed = bool(self.use_sliding_window) and layer % 2 == 0 and layer < most
        else:
            windowed = self.model_type == "phimoe"
        return self.sliding_window if windowed else None

    def _sparse(self, layer: int) -> bool:
        if self.model_type == "ernie4_5_moe":
            last = self.moe_layer_end_index
            last = self.num_hidden_layers - 1 if last in (None, -1) else last
            inside = (self.moe_layer_start_index or 0) <= layer <= last
            return inside and (layer + 1) % self.moe_layer_interval == 0
        if layer in (self.mlp_only_layers or ()) or (layer + 1) % self.decoder_sparse_step:
            return False
        return layer >= (self.first_k_dense_replace or 0)
