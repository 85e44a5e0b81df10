"""What of a model trains: adapters beside frozen weights [hu2021], frozen parts, and the format in
which frozen weights are stored [dettmers2023].
"""

from __future__ import annotations

import re
from functools import lru_cache

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.hwdb.formats import is_stored
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.work.storage import ROUTER, Scheme, Storage
from roofcast.simulator.work.traced import Node, Weight

ALL, ATTENTION, MLP = "all", "attention", "mlp"
LETTERS = {  # other names of the projections of attention
    "q": ("q_proj", "query"),
    "k": ("k_proj", "key"),
    "v": ("v_proj", "value"),
    "o": ("o_proj", "out_proj"),
    "q_proj": ("query",),
    "k_proj": ("key",),
    "v_proj": ("value",),
}
# diffusers' `attentions` are whole transformers, with MLPs
_OF_ATTENTION = re.compile(r"attn|attention(?!s\.)", re.IGNORECASE)
UNADAPTED = {  # ops whose weights `all` leaves out
    "experts": "lora: experts have no adapters, since transformers holds those of a layer in one"
    " tensor, which is no linear layer to PEFT",
    "conv": "lora: convolutions have no adapters, linear layers alone have",
}
EXPRESSION = re.compile(r"[*+?\[\](){}|^$\\]")  # a list of names has none of these
_LONGEST = 200  # characters of a pattern
_SHOWN = 12  # names in a message

# bitsandbytes' NF4: an 8-bit maximum per 64 weights, and an fp32 scale per 256 maxima
NF4 = Scheme(4, 8.0, flat=64, above=32.0)
# llama.cpp's blocks of 256: Q4_K, 144 bytes; Q6_K, 210 bytes (ggml-common.h)
Q4_K, Q6_K = Scheme(4.5, flat=256), Scheme(6.5625, flat=256)
HELD: dict[str, Storage | None] = {
    "nf4": Storage("nf4", "4 bits, blocks of 64, double quantization", NF4, everywhere=True),
    "int8": Storage("int8", "8 bits, a scale per row", Scheme(8, 32.0), everywhere=True),
    "fp8": Storage("fp8", "8 bits, a scale per matrix", Scheme(8, matrix=32.0), everywhere=True),
    "bf16": None,
    "int4": Storage("int4", "4 bits, groups of 128", Scheme(4, 20.0, 128), everywhere=True),
    "nvfp4": Storage("nvfp4", "4 bits, groups of 16", Scheme(4, 8.0, 16, matrix=32.0),
                     everywhere=True),
    "mxfp4": Storage("mxfp4", "4 bits, groups of 32", Scheme(4, 8.0, 32), everywhere=True),
    # llama.cpp's llama_tensor_get_type: Q6_K for the head, and in half of the layers for the values
    # of attention and the last matrix of the MLP
    "q4_k_m": Storage("q4_k_m", "4.5 bits, some 6.56 (llama.cpp's Q4_K_M)", Q4_K, everywhere=True,
                      head=True, finer=Q6_K, fine=("v_proj", "down_proj"), tables=True),
}  # fmt: skip


class Tuning(NamedTuple):
    """What trains, and how the other weights are held."""

    rank: int | None = None  # of LoRA's adapters; None: no adapters
    targets: str = ALL  # all | attention | mlp | names of layers | a regular expression
    precision: str | None = None  # format of adapters; None: that of the weights
    dropout: float = 0.0  # probability before an adapter
    freeze: str | None = None  # regular expression of names whose weights do not train
    train: str | None = None  # of names whose weights train, whatever else says
    weights: str | None = None  # format of frozen weights: a key of HELD
    dora: bool = False  # adapters with a trained magnitude of each output [liu2024dora]
    prompt: int = 0  # virtual tokens in front of the embedded ones [lester2021]
    prefix: int = 0  # in front of the keys and values of every layer [li2021]
    # of inference
    sparse: bool = False  # matrices hold 2 of every 4 weights
    zeros: float = 0.0  # fraction of scattered zeros among all weights
    asked: tuple[str, ...] = ()  # the targets that were asked for by name

    def trains(self, name: str) -> bool:
        """Whether the weights of the op called `name` train, without its adapter."""
        if self.train is not None and _search(self.train, name):
            return True
        if self.rank is not None or self.prompt or self.prefix:
            return False
        if self.freeze is not None:
            return not _search(self.freeze, name)
        return self.train is None

    def adapts(self, node: Node, head: bool) -> bool:
        """Whether a linear layer has an adapter; `head`: it makes the logits of the model."""
        if self.rank is None:
            return False
        if self.targets in (ALL, ATTENTION, MLP):
            if head or node.op == ROUTER:
                return False
            of_attention = _OF_ATTENTION.search(node.name) is not None
            if self.targets == MLP:
                return bool(node.layer) and not of_attention
            return self.targets == ALL or of_attention
        return named_by(self.targets, node.name)


@lru_cache(16384)
def named_by(targets: str, name: str) -> bool:
    """Whether a list of names, or a regular expression, names a layer.

    >>> named_by("q,v", "layers.self_attn.q_proj"), named_by("q_proj", "layers.self_attn.k_proj")
    (True, False)
    >>> named_by(r"(up|down)_proj$", "layers.mlp.up_proj")
    True
    """
    if EXPRESSION.search(targets):
        return _search(targets, name)
    last = name.rpartition(".")[2]
    for target in filter(None, map(str.strip, targets.split(","))):
        if last in (target, *LETTERS.get(target, ())) or f".{name}".endswith(f".{target}"):
            return True
    return False


@lru_cache(16384)
def _search(pattern: str, name: str) -> bool:
    return re.search(pattern, name) is not None


def checked(tuning: Tuning) -> Tuning:
    """The tuning itself. Raises BadInput for values that no model can have."""
    if tuning.rank is not None and tuning.rank < 1:
        raise BadInput(f"lora {tuning.rank}: the rank of an adapter is at least 1, for example 16")
    if not 0.0 <= tuning.dropout < 1.0:
        raise BadInput(
            f"lora_dropout {tuning.dropout:g}: a probability from 0 to below 1 is wanted, for"
            " example 0.05"
        )
    if tuning.dora and tuning.dropout:
        raise BadInput(
            f"lora_dropout {tuning.dropout:g}: with DoRA, PEFT then computes the frozen product"
            " twice, which is not modelled; leave it out"
        )
    for what in ("targets", "freeze", "train"):
        pattern = getattr(tuning, what)
        if pattern is None or (what == "targets" and not EXPRESSION.search(pattern)):
            continue
        option = "lora_targets" if what == "targets" else what
        try:
            if len(pattern) > _LONGEST:
                raise BadInput(f"{option}: a regular expression of at most {_LONGEST} characters")
            re.compile(pattern)
        except re.error as error:
            raise BadInput(
                f"{option} {quoted(pattern)}: not a regular expression ({error}); for example"
                f" {'(q|v)_proj' if what == 'targets' else 'embed|norm'}"
            ) from None
    return tuning


def check_rank(rank: int, rows: int, columns: int, name: str) -> None:
    """Raises BadInput where an adapter would be wider than the layer it adapts."""
    if rank > max(rows, columns):
        raise BadInput(
            f"lora {rank}: above the width of {name}, {columns} inputs and {rows} outputs; use a"
            " smaller rank, for example 16"
        )


def check_matches(
    tuning: Tuning,
    adapted: dict[str, int],
    linears: dict[str, int],
    weights: list[tuple[Node, Weight]],
    model: str,
) -> list[str]:
    """What of that which was asked has no adapters, in sentences. Raises BadInput for a pattern
    that names nothing of the model, with the names there are, and for one that freezes all of it.

    adapted: layers with an adapter; linears: layers that could have one; weights: with the ops that
    they belong to.
    """
    names, ops = {node.name: w.trainable for node, w in weights}, {node.op for node, _ in weights}
    if tuning.rank is not None and not adapted:
        if not linears:
            raise BadInput(f"lora {tuning.rank}: {model} has no linear layer to adapt")
        raise BadInput(
            f"lora_targets {quoted(tuning.targets)}: no linear layer of {model} has that name;"
            f" there are {_listed(list(linears))}"
        )
    for option in ("freeze", "train"):
        pattern = getattr(tuning, option)
        if pattern is not None and not any(_search(pattern, name) for name in names):
            raise BadInput(
                f"{option} {quoted(pattern)}: no weights of {model} have that name; there are"
                f" {_listed(list(names))}"
            )
    if tuning.freeze is not None and not adapted and not any(names.values()):
        raise BadInput(
            f"freeze {quoted(tuning.freeze)}: it names all weights of {model}, so that none trains;"
            f" leave some of {_listed(list(names))} out, add --lora 16, or use --mode infer"
        )
    if HELD.get(tuning.weights or "") and not any(is_stored(w.dtype) for _, w in weights):
        raise BadInput(
            f"weights {tuning.weights}: no matrix of a linear layer of {model} is frozen, and these"
            " alone are stored so; leave it out"
        )
    wide = tuning.rank is not None and tuning.targets in (ALL, MLP)
    unknown = [x for x in tuning.asked if not any(named_by(x, name) for name in linears)]
    return [
        *(said for op, said in UNADAPTED.items() if wide and op in ops),
        *(f"lora_targets: no linear layer has the name {quoted(x)}; left out" for x in unknown),
    ]


def check_prompts(tuning: Tuning, layers: int, model: str) -> None:
    """Raises BadInput where virtual tokens are asked of a model that takes none.

    layers: those with virtual tokens.
    """
    if (tuning.prompt or tuning.prefix) and not layers:
        option, needed = ("prompt_tuning", "embedded tokens")
        if tuning.prefix:
            option, needed = "prefix_tuning", "causal self-attention over whole heads"
        raise BadInput(
            f"{option} {tuning.prompt or tuning.prefix}: {model} has no {needed}; use --lora 16"
        )


def short_name(name: str) -> str:
    """The last part of the name of a layer, with the one before it where that is a number.

    >>> short_name("layers.self_attn.q_proj"), short_name("blocks.attn.to_out.0")
    ('q_proj', 'to_out.0')
    """
    before, _, last = name.rpartition(".")
    return f"{short_name(before)}.{last}" if last.isdecimal() and before else last or name


def _listed(names: list[str]) -> str:
    """Names in a message, those of layers by their last part, each once."""
    short = list(dict.fromkeys(map(short_name, names)))
    more = f" and {len(short) - _SHOWN} more" if len(short) > _SHOWN else ""
    return ", ".join(short[:_SHOWN]) + more
