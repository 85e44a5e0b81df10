"""Keys of a config.json: what a formula reads, what costs nothing, and the rest, which is said."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from roofcast.simulator.models.families.text_part import Parts
from roofcast.simulator.models.quantized import KEYS

# keys that change no shape and no kernel: names, ids, initial values, constants of norms and of
# rotary embeddings, factors that a kernel multiplies anyhow, and what steers generation
FREE = frozenset(
    """
    _attn_implementation _commit_hash _name_or_path _num_labels activation_scheme adapter_attn_dim
    add_bos_token add_cross_attention add_eos_token architectures attention_multiplier
    attn_implementation attn_scale attn_temperature_tuning auto_map aux_loss_alpha bad_words_ids
    begin_suppress_tokens beta_fast chat_template chunk_size_feed_forward ckpt_name
    cross_attention_hidden_size diversity_penalty do_sample dtype early_stopping
    embedding_multiplier encoder_no_repeat_ngram_size ep_size exponential_decay_length_penalty
    finetuning_task floor_scale forced_bos_token_id forced_eos_token_id gradient_checkpointing
    id2label ignore_index initial_context_length initializer_range is_decoder is_encoder_decoder
    keys_to_ignore_at_inference label2id layer_norm_eps layer_norm_epsilon length_penalty
    lm_head_multiplier logit_scale logits_scaling max_length max_new_tokens min_length mscale
    n_ctx n_positions no_repeat_ngram_size norm_eps norm_epsilon num_beam_groups num_beams
    num_labels num_logits_to_keep num_return_sequences original_max_position_embeddings
    output_attentions output_hidden_states output_past output_router_logits output_scores
    pad_token pooler_fn prefix pretraining_tp problem_type pruned_heads query_pre_attn_scalar
    remove_invalid_values reorder_and_upcast_attn repetition_penalty rescale_prenorm_residual
    residual_multiplier return_dict return_dict_in_generate rms_norm_eps rope_interleave
    rope_local_base_freq rope_parameters rope_scaling rope_theta rope_type rotary_emb_base
    routed_scaling routed_scaling_factor router_aux_loss_coef router_z_loss_coef
    scale_attn_by_inverse_layer_idx scale_attn_weights scale_embedding scoring_func sep_token
    seq_aux summary_activation summary_first_dropout summary_proj_to_labels summary_type
    summary_use_proj suppress_tokens swiglu_limit task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder time_step_floor time_step_limit time_step_max time_step_min
    tokenizer_class top_k top_p topk_method torch_dtype torchscript transformers.js_config
    transformers_version typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache
    use_flash_attention use_mamba_kernels use_return_dict vlm_config yarn
    """.split()
)
# keys that cost nothing at this value
FREE_AT: dict[str, object] = {"moe_layer_freq": 1, "attention_type": "default", "head_in_index": -1}
_OF_DETR = """
    backbone_kwargs bbox_cost bbox_loss_coefficient class_cost dice_loss_coefficient
    eos_coefficient giou_cost giou_loss_coefficient mask_loss_coefficient max_position_embeddings
    num_hidden_layers use_pretrained_backbone
""".split()
FREE_IN = {  # module of a family -> keys that its formulas do not need
    "depth_anything": {"max_depth"},
    "convnext": {"out_features", "out_indices", "stage_names"},
    "detr": set(_OF_DETR),  # weights of its loss and of its matching
    "deepseek": {"head_dim", "num_key_value_heads", "qk_head_dim"},  # latent attention
    "gpt_oss": {"experts_per_token", "hidden_act"},  # one gate
    "pixart": {"interpolation_scale", "norm_num_groups"},
    "resnet": {"out_features", "out_indices", "stage_names"},
    "sam": {"scale", "tie_word_embeddings"},
    "segformer": {"downsampling_rates", "image_size", "semantic_loss_ignore_index"},
    "mpt": {"expansion_ratio", "no_bias"},  # transformers' MLP is 4 times as wide, without biases
    "sparse_config": {"router_jitter_noise"},  # Phi's: the threshold of its router, in one kernel
}
_ENDINGS = (
    "_token_id", "_token_ids", "_token_index", "_token", "_eps", "_epsilon", "_std", "_init",
    "_initializer_range", "_initializer_factor", "_init_scheme", "_loss_coef", "_loss_weight",
    "_theta", "_base_freq", "_cache_dtype", "_method_name", "_factor", "_revision", "_version",
)  # fmt: skip
_BEGINNINGS = ("initializer_", "rope_", "mup_", "_", "summary_", "mask_time_", "mask_feature_")
# of keys beside a language model's own, in a config without a part for it
_OF_TOWERS = ("vision_", "video_", "image_", "audio_", "mm_", "multimodal_", "projector_")
LAYER_TYPES = {
    "attention", "chunked_attention", "compressed_attention", "conv", "full_attention", "hybrid",
    "linear_attention", "mamba", "moe", "mlp", "recurrent", "sliding_attention",
    "deepseek_sparse_attention",
}  # fmt: skip
MTP = "layers of multi-token prediction are not counted, as transformers does not load them"
_LISTED = 8  # keys named in a line


def unread(raw: Mapping[str, Any], read: Iterable[str]) -> list[str]:
    """Keys of a config.json that no formula reads and that may cost something.

    A key that is off (null, false, 0 or empty) costs nothing.
    """
    known = {*read, "model_type"}
    return [
        key
        for key, value in raw.items()
        if key not in known and key not in FREE and FREE_AT.get(key) != value
        and value not in (None, False, 0, "", [], {})
        and not key.endswith(_ENDINGS) and not key.startswith(_BEGINNINGS)
    ]  # fmt: skip


def unread_of(raw: Mapping[str, Any], parts: Parts, config: Any) -> tuple[str, ...]:
    """The lines on keys of a config.json that its model leaves out."""
    text = parts.text
    free = FREE_IN.get(type(config).__module__.rpartition(".")[2], set())
    keys = unread(text, (*config.__struct_fields__, *KEYS, *parts.held, *free))
    if text is not raw:
        keys = [key for key in keys if not key.startswith(_OF_TOWERS)]
    more = text.get("num_nextn_predict_layers")
    own = "num_nextn_predict_layers" in config.__struct_fields__  # the family says it
    deeper = isinstance(more, int) and not isinstance(more, bool) and more > 0 and not own
    keys = [key for key in keys if key != "num_nextn_predict_layers"]
    said = [f"num_nextn_predict_layers {str(more)[:20]}: {MTP}"] if deeper else []
    said += [f"layer_types: {str(kind)[:40]!r} has no formula" for kind in _strange(text)]
    return (*said_of_keys(keys), *said[:3])


def _strange(text: Mapping[str, Any]) -> list[object]:
    """Kinds of layers that no family knows."""
    kinds = text.get("layer_types")
    each = kinds if isinstance(kinds, list) else []
    return list(dict.fromkeys(k for k in each if isinstance(k, str) and k not in LAYER_TYPES))


def printable(text: object) -> str:
    """The first characters of a text of an input, escaped where they are no plain ones.

    >>> printable("index_topk")
    'index_topk'
    """
    short = str(text)[:40]
    return short if short.isprintable() else repr(short)


def said_of_keys(keys: Collection[str]) -> tuple[str, ...]:
    """The line that lists keys that no formula reads; none without any.

    >>> said_of_keys(["index_topk"])
    ('key of config.json that no formula reads: index_topk',)
    """
    if not keys:
        return ()
    each = [printable(key) for key in keys]
    more = f" and {len(each) - _LISTED} more" if len(each) > _LISTED else ""
    what = "key" if len(each) == 1 else "keys"
    return (f"{what} of config.json that no formula reads: {', '.join(each[:_LISTED])}{more}",)
