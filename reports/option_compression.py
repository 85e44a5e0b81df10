"""Options on compression: zeros among the weights, a smaller net, a teacher."""

from __future__ import annotations

from collections.abc import Callable

import click

from roofcast.reports.completion import completing
from roofcast.reports.option_types import Whole

COMPRESSION: dict[str, Callable[[Callable], Callable]] = {
    "sparsity": click.option(
        "--sparsity",
        metavar="HOW",
        help=(
            "Zeros among the weights, for inference: 2:4 (two of every four, which GPUs from Ampere"
            " and CDNA 3 on skip), or scattered ones, 50% (no kernel skips them: time and"
            " memory stay; the size if stored compressed is told). Default: none."
        ),
    ),
    "prune": click.option(
        "--prune",
        metavar="PART=P%,..",
        help=(
            "A smaller net: remove heads=25%, ffn=25%, layers=25%, experts=50% or channels=25% (of"
            " convolutional nets); several with commas. Default: the whole net."
        ),
    ),
    "teacher": click.option(
        "--teacher",
        metavar="MODEL",
        shell_complete=completing("model"),
        help=(
            "Distillation: a frozen model whose logits for the same batch MODEL is trained on, on"
            " the same devices or on --teacher-on. Default: none."
        ),
    ),
    "teacher_on": click.option(
        "--teacher-on",
        metavar="DEVICE",
        shell_complete=completing("device"),
        help="Other devices that the teacher runs on; its logits are sent. Default: the same.",
    ),
    "teacher_devices": click.option(
        "--teacher-devices", type=Whole(), metavar="N", help="How many of them. Default: 1."
    ),
    "teacher_top_k": click.option(
        "--teacher-top-k",
        type=Whole(),
        metavar="K",
        help="Of each token, the K largest logits alone are sent and compared. Default: all.",
    ),
}
