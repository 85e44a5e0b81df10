"""Options on what trains and how frozen weights are held: fine-tuning."""

from __future__ import annotations

from collections.abc import Callable

import click

from roofcast.reports.option_types import Share, Whole
from roofcast.simulator.choices import ADAPTERS, WEIGHTS

TUNING: dict[str, Callable[[Callable], Callable]] = {
    "lora": click.option(
        "--lora",
        type=Whole(),
        metavar="RANK",
        help=(
            "Train LoRA adapters of this rank beside frozen weights, for example 16, as PEFT runs"
            " them. Default: all weights train."
        ),
    ),
    "lora_targets": click.option(
        "--lora-targets",
        metavar="WHICH",
        help=(
            "Layers with an adapter: all (linear layers but heads and routers), attention, mlp,"
            " names such as q,v or q_proj,v_proj, or a regular expression. Default: all."
        ),
    ),
    "lora_precision": click.option(
        "--lora-precision",
        type=click.Choice(ADAPTERS),
        help="Number format of the adapters. Default: that of --precision.",
    ),
    "lora_dropout": click.option(
        "--lora-dropout",
        type=Share(),
        metavar="P",
        help="Dropout before the adapters, for example 0.05. Default: 0.",
    ),
    "dora": click.option(
        "--dora",
        is_flag=True,
        default=None,
        help="DoRA: adapters with a trained magnitude of each output, as PEFT runs them.",
    ),
    "prompt_tuning": click.option(
        "--prompt-tuning",
        type=Whole(),
        metavar="N",
        help="Train N virtual tokens in front of the sequence; all weights are frozen.",
    ),
    "prefix_tuning": click.option(
        "--prefix-tuning",
        type=Whole(),
        metavar="N",
        help=(
            "Train the keys and values of N virtual tokens in each layer; all weights are frozen."
        ),
    ),
    "freeze": click.option(
        "--freeze",
        metavar="REGEX",
        help="Weights of ops with such a name do not train (names: roofcast count).",
    ),
    "train": click.option(
        "--train",
        metavar="REGEX",
        help="Only weights of ops with such a name train; with --lora, beside the adapters.",
    ),
    "encoders": click.option(
        "--encoders",
        metavar="WHICH",
        help=(
            "Frozen encoders that run in each training step before a diffusion model: vae (latents"
            " of the images), text (embeddings of the prompts), or vae,text. Default: none, both"
            " are cached."
        ),
    ),
    "train_text_encoder": click.option(
        "--train-text-encoder",
        is_flag=True,
        default=None,
        help=(
            "The CLIP text encoders of a diffusion model train with it (with --lora, their"
            " adapters); T5 stays frozen."
        ),
    ),
    "lengths": click.option(
        "--lengths",
        metavar="MEAN,MAX",
        help=(
            "Samples of different lengths [tokens]: mean and longest, or MEAN,DEVIATION,MIN,MAX, or"
            " a file with a length in each line. Micro-batches are padded to their longest sample."
            " --seq truncates them."
        ),
    ),
    "packing": click.option(
        "--packing/--no-packing",
        default=None,
        help="Pack samples of --lengths into whole sequences instead. Default: padded.",
    ),
    "weights": click.option(
        "--weights",
        type=click.Choice(WEIGHTS),
        help=(
            "Format in which weights that do not train are stored (in inference: all weights): nf4"
            " (QLoRA: 4.127 bits), int8, fp8, bf16, int4 (GPTQ, AWQ), nvfp4, mxfp4, q4_k_m"
            " (llama.cpp). Products stay in --precision. Default: in inference as released, else"
            " that of the precision."
        ),
    ),
}
ENCODERS = ("encoders", "train_text_encoder")
# those that do not depend on the lengths of samples, which other commands take too
TUNED = tuple(name for name in TUNING if name not in ("lengths", "packing", *ENCODERS))
