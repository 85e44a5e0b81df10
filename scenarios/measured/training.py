"""Measured training runs on many devices, from a CSV, as scenarios beside their measured times and
memory.

Columns as published/README.md lists them; further ones are ignored. What a row leaves out gets the
default stated there, and the row says so. A row that cannot be asked for says why.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, RoofcastError
from roofcast.scenarios.measured.architectures import model_of, names, number
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.parallel.fabric import REFERENCE
from roofcast.simulator.software import stack as stacks

HERE = Path(__file__).parent / "published"
REQUIRED = ("n_devices", "device", "seq_len", "global_batch_seqs")
SHORT = (
    "n_devices",
    "global_batch_seqs",
    "micro_batch",
    "hidden",
    "heads",
    "layers",
    "seq_len",
    "tp",
    "dp",
    "pp",
    "measured_s",
)
# of a table that has no more columns than these: GPT on one node, as Megatron-DeepSpeed ran it in
# 2022
SHORT_DEFAULTS = {
    "source_name": "Megatron-DeepSpeed single node",
    "tier": "A",
    "device": "A100-SXM4-80GB",
    "activation": "gelu",
    "recompute": "full",
    "flash_attention": "no",
    "framework": "Megatron-DeepSpeed 2022",
    "dtype": "fp16",
    "zero_stage": "0",
    "sp": "no",
    "vocab": "51200",
    "tied_embeddings": "yes",
}
PRECISION = (
    ("nvfp4", "nvfp4"),
    ("fp8", "fp8"),
    ("fp16", "fp16"),
    ("float16", "fp16"),
    ("fp32", "fp32"),
    ("tf32", "tf32"),
)
GBIT = {"edr": 100, "hdr": 200, "ndr": 400, "xdr": 800}
# what CUDA graphs hold: nothing, all but experts, a step
GRAPHED = {"none": "te-nemo-2024", "partial": "te-nemo-graphs", "full": "megatron-bridge-2026"}
TRANSFORMER_ENGINE = 2022  # devices of that year and later run Megatron on it
MOST_TOKENS = 16384  # of a micro-batch where none is given and there is no pipeline
BLIND = "# Blind:"  # how the first line of a table starts whose rows nothing is ever fitted to


class LlmRun(NamedTuple):
    """One measured run."""

    id: str
    source: str
    tier: str
    family: str  # dense | moe
    scenario: Scenario | None  # None where the row cannot be asked for
    refused: str  # why not
    excluded: str  # why it does not count in the summary, though it can be asked for
    measured_s: float | None
    memory_gib: float | None
    memory_kind: str  # allocated | reserved | nvidia-smi: what was measured
    oom: bool  # it ran out of memory
    assumptions: tuple[str, ...]
    row: dict[str, str]


def published() -> list[LlmRun]:
    """Every run that comes with the project and may be fitted to."""
    return [run for path in sorted(HERE.glob("*.csv")) if not is_blind(path) for run in read(path)]


def is_blind(path: str | Path) -> bool:
    """Does the first line of a table say that it is kept for blind tests?"""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(BLIND)
    except OSError:
        return False  # whoever reads it next says why


def claims(columns) -> bool:
    """Do these columns describe runs over many devices?"""
    return all(c in columns for c in REQUIRED) or all(c in columns for c in SHORT)


def read(path: str | Path) -> list[LlmRun]:
    """Every row of a CSV of measured runs; lines that start with # are comments."""
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(line for line in file if not line.startswith("#"))
            columns = reader.fieldnames or ()
            short = all(c in columns for c in SHORT) and "device" not in columns
            missing = [c for c in REQUIRED if c not in columns]
            if missing and not short:
                raise BadInput(
                    f"{path}: no column {missing[0]!r}; wanted: {', '.join(REQUIRED)}, iter_time_s"
                    " (scenarios/measured/published/README.md has all)"
                )
            return [run(longer(row, i) if short else row) for i, row in enumerate(reader, 1)]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: not a CSV of measured runs ({error})") from None


def longer(row: dict[str, str], i: int) -> dict[str, str]:
    """A row of the short columns with the long ones filled in."""
    return {
        **SHORT_DEFAULTS,
        **row,
        "id": row.get("id") or f"SN{i:04d}",
        "iter_time_s": row["measured_s"],
        "model_name": "gpt",
    }


def run(row: dict[str, str]) -> LlmRun:
    """One row as a scenario, or the reason why it is none."""
    get = lambda key: (row.get(key) or "").strip()  # noqa: E731
    said: list[str] = []
    scenario, refused = None, ""
    try:
        scenario = scenario_of(row, said)
    except RoofcastError as error:
        refused = str(error)
    family = get("family") or ("moe" if get("experts") not in ("", "0", "1", "1.0") else "dense")
    return LlmRun(
        get("id"),
        get("source_name"),
        get("tier"),
        family,
        scenario,
        refused,
        get("exclude"),
        _figure(get("iter_time_s")),
        _figure(get("peak_mem_gib")),
        get("memory_kind") or memory_kind(get("framework")),
        get("oom").lower() in ("yes", "true", "1"),
        tuple(said),
        row,
    )


def _figure(text: str) -> float | None:
    """A positive number; None where there is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0.0 < value < float("inf") else None


def memory_kind(framework: str) -> str:
    """What a framework's own tables print as memory.

    >>> memory_kind("torchtune"), memory_kind("Megatron-DeepSpeed Feb-2022"), memory_kind("")
    ('allocated', 'nvidia-smi', 'reserved')
    """
    words = framework.lower()
    if "torchtune" in words or "litgpt" in words:
        return "allocated"
    return "nvidia-smi" if "deepspeed" in words else "reserved"


def scenario_of(row: dict[str, str], said: list[str]) -> Scenario:
    """A row as the question it asks."""
    get = lambda key: (row.get(key) or "").strip()  # noqa: E731
    for key in ("n_devices", "seq_len", "global_batch_seqs"):
        if not number(row, key):
            raise BadInput(f"{key}: not given")
    if re.search(
        r"METHOD=(q?lora|dora)|\bq?lora\b", get("notes") + get("model_name"), re.IGNORECASE
    ):
        raise BadInput(
            "fine-tuning of adapters: weight gradients of the frozen layers are not computed; give"
            " a full training run"
        )
    device, devices, chips = device_of(get("device"), number(row, "n_devices"))
    sequence, batch = number(row, "seq_len"), number(row, "global_batch_seqs")
    stack, attention = stack_of(row, device, said)
    tp, pp, cp = (number(row, key) or 1 for key in ("tp", "pp", "cp"))
    if chips > 1 and tp % chips == 0:
        tp //= chips
    precision = precision_of(get("dtype"), said)
    zero = zero_of(row, stack, tp, pp, cp, said)
    vpp = number(row, "vpp") or 1
    if not get("vpp") and pp > 1:
        said.append("no virtual stages (not given)")
    dp = devices // max(tp * pp * cp, 1)
    micro = number(row, "micro_batch")
    if not micro:
        each = max(batch // max(dp, 1), 1)
        micro = (
            1
            if pp > 1
            else max(
                (d for d in range(1, each + 1) if each % d == 0 and d * sequence <= MOST_TOKENS),
                default=1,
            )
        )
        said.append(f"micro-batch of {micro} (not given)")
    written_out = (attention or stacks.stack(stack).implementations.get("attention")) == "eager"
    # Megatron's default of those years
    model = model_of(row, sequence, said, dropout=0.1 if written_out else 0.0)
    alike = {
        "model": model,
        "device": device,
        "batch": batch,
        "sequence": sequence,
        "precision": precision,
        "stack": stack,
        "attention": attention,
        "offload": tuple(get("offload").split()),
        "optimizer": optimizer_of(get("optimizer")),
        "recompute": recompute_of(get("recompute"), said),
    }
    if devices == 1 and micro == batch:
        return Scenario(**alike)
    sp = sequence_parallel(get("sp"), stack, tp, sequence // cp, said)
    return Scenario(
        **alike,
        devices=devices,
        system=system_of(row, device),
        tp=tp,
        sp=sp,
        pp=pp,
        vpp=vpp,
        dp=dp,
        cp=cp,
        ep=number(row, "ep") or 1,
        zero=zero,
        shard=number(row, "shard") if zero else None,
        etp=number(row, "etp"),
        micro_batch=micro,
        schedule=get("schedule")
        or ("dualpipe" if "dualpipe" in get("framework").lower() else None),
    )


def _word(text: str, table: dict[str, str]) -> str | None:
    """What the first key that stands in the text means."""
    words = text.lower()
    return next((value for key, value in table.items() if key in words), None)


def device_of(name: str, devices: int) -> tuple[str, int, int]:
    """Our name of a device, how many there are, and how many of the table's make one of ours (two
    NeuronCores are a Trainium chip).
    """
    plain = re.sub(r"\s*\(.*?\)\s*", " ", name.replace("(R)", "")).strip()
    found = _word(plain, names()["devices"]) or re.sub(
        r"^(nvidia|amd|intel|google)\s+", "", plain.lower()
    ).replace(" ", "-")
    hwdb.device(found)
    if "neuroncore" in name.lower() and devices % 2 == 0:
        return found, devices // 2, 2
    return found, devices, 1


def precision_of(text: str, said: list[str]) -> str:
    """What the matrix products run in. Weights and activations are 16 bits wide unless all is
    fp32.
    """
    words = text.lower()
    found = next(
        (
            ours
            for word, ours in PRECISION
            if word in words and not (word in ("fp32", "tf32") and "bf16" in words)
        ),
        None,
    )
    if found is None:
        found = "fp8" if "mxfp8" in words else "bf16"
        if not words:
            said.append("bf16 (not given)")
    return found


def optimizer_of(text: str) -> str:
    """Ours for what a table calls its optimizer; AdamW where it does not say."""
    words = text.lower().replace("-", "")
    return next(
        (
            o
            for word, o in (
                ("8bit", "adam8bit"),
                ("adafactor", "adafactor"),
                ("lion", "lion"),
                ("sgd", "momentum"),
            )
            if word in words
        ),
        "adamw",
    )


def recompute_of(text: str, said: list[str]) -> str:
    """none | selective | full; none where a table is silent."""
    words = text.lower()
    if words in ("none", "selective", "full") or ":" in words:
        return words
    if words and words not in ("unknown", "?"):
        return (
            "full"
            if "full" in words or words == "yes"
            else "selective"
            if "selective" in words
            else "none"
        )
    said.append("no recomputation (not given)")
    return "none"


def stack_of(row: dict[str, str], device: str, said: list[str]) -> tuple[str, str | None]:
    """The profile of a row's software, and its attention where that is not the profile's."""
    get = lambda key: (row.get(key) or "").strip()  # noqa: E731
    flash = get("flash_attention").lower()
    own = get("stack")
    found = own or _word(
        (
            f"{get('source_name')}; {get('framework')}"
            if "mlperf" in get("source_name").lower()
            else get("framework")
        ),
        names()["stacks"],
    )
    if found is None:
        kind, family = hwdb.device(device).kind, hwdb.device(device).family
        found = (
            "maxtext"
            if kind == "tpu"
            else (
                ("neuron" if family == "trainium" else "pytorch-compiled")
                if kind == "npu"
                else "fsdp-eager"
                if get("zero_stage").startswith("3")
                else "te-nemo-2024"
            )
        )
        said.append(
            f"stack {found} (framework {get('framework')!r})"
            if get("framework")
            else f"stack {found} (not given)"
        )
    if (
        found == "megatron-2021"
        and not own
        and (hwdb.device(device).year or 0) >= TRANSFORMER_ENGINE
    ):
        found = "megatron"
    if found in GRAPHED.values() and get("cuda_graphs").lower() in GRAPHED:
        found = GRAPHED[get("cuda_graphs").lower()]
    if found == "te-nemo-2024" and number(row, "tp") not in (None, 1) and flash == "no":
        found = "megatron-2021"
    stacks.stack(found)
    usual = stacks.stack(found).implementations.get("attention", "flash")
    wanted = "eager" if flash == "no" else "flash" if flash.startswith("yes") else None
    return found, wanted if wanted and wanted != usual else None


def zero_of(row: dict[str, str], stack: str, tp: int, pp: int, cp: int, said: list[str]) -> int:
    """ZeRO stage: the column's, else what the stack does."""
    text = (row.get("zero_stage") or "").strip()
    if text[:1] in ("0", "1", "2", "3"):
        return int(text[0])
    if (row.get("fsdp") or "").strip().lower() in ("yes", "1", "true"):
        return 3
    sharded = stack.startswith(("fsdp", "maxtext", "deepspeed-zero3")) and pp == 1
    zero = 3 if sharded else 0 if stack.startswith(("megatron-2021", "megatron-2022")) else 1
    said.append(f"ZeRO {zero} (not given)")
    return zero


def sequence_parallel(text: str, stack: str, tp: int, tokens: int, said: list[str]) -> bool:
    """Sequence parallelism: as the column says; where it is silent, with tensor parallelism on
    stacks since 2022.
    """
    if tp == 1:
        return False
    if text.lower() in ("yes", "no", "true", "false", "1", "0"):
        return text.lower() in ("yes", "true", "1")
    sp = not stack.startswith(("megatron-2021", "megatron-2022", "deepspeed")) and tokens % tp == 0
    said.append(f"{'with' if sp else 'no'} sequence parallelism (not given)")
    return sp


def system_of(row: dict[str, str], device: str):
    """The node a row ran on: named, known by its words, or the device's usual one with the NICs
    that the row tells. None: the usual one.
    """
    get = lambda key: (row.get(key) or "").strip()  # noqa: E731
    if get("system"):
        return get("system")
    known = _word(
        f"{get('intra_interconnect')} {get('inter_interconnect')} {get('device')}",
        names()["systems"],
    )
    if known:
        return known
    usual = REFERENCE.get(device)
    if usual is None:
        return None
    system = hwdb.system(usual)
    if not system.nics or device.startswith("tpu"):
        return None
    node = number(row, "node_size") or int(system.count)
    told = nic_bytes(get("inter_interconnect"), int(system.count) if node > system.count else node)
    have = float(system.nics.count * system.nics.bandwidth)
    if told is None or 0.9 < told / have < 1.1:
        return None
    bandwidth = hwdb.Figure(told / float(system.nics.count), system.nics.bandwidth.source)
    return msgspec.structs.replace(
        system, nics=msgspec.structs.replace(system.nics, bandwidth=bandwidth)
    )


def nic_bytes(text: str, node: int) -> float | None:
    """Bytes per second that leave a node, from what a table says of its network; None where it says
    no rate.

    >>> nic_bytes("8x HDR200 InfiniBand (Selene)", 8) / 1e9, nic_bytes("1600Gbps RoCE per node", 8) / 1e9, nic_bytes("InfiniBand", 8)
    (200.0, 200.0, None)
    """
    rates = [
        _part_bytes(part, node)
        for part in re.split(r"[,;]", text.lower())
        if "storage" not in part and "management" not in part
    ]
    return max((r for r in rates if r), default=None)


def _part_bytes(words: str, node: int) -> float | None:
    """The same of one kind of card: so many of a rate, a rate a device, or a rate a node."""
    named = re.search(r"(\d+)\s*x\D*(edr|hdr|ndr|xdr)", words)
    if named:
        return int(named[1]) * GBIT[named[2]] / 8 * 1e9
    several = re.search(r"(\d+)\s*x.*?(\d{2,4})\s*g(?:b|ig)", words)
    if several:
        return int(several[1]) * float(several[2]) / 8 * 1e9
    each = re.search(
        r"(\d{2,4})\s*gb(?:ps|it/s|/s)?\D*?(?:per|/|a)\s*(?:gpu|device|chip|accelerator)", words
    )
    if each:
        return node * float(each[1]) / 8 * 1e9
    whole = re.search(
        r"(\d{2,5})(?:/\d+)?\s*gb(?:ps|it/s|/s)?\D*?(?:per|/|a)\s*(?:node|server|host|instance)",
        words,
    ) or re.search(r"efa\s*(\d{2,5})", words)
    return float(whole[1]) / 8 * 1e9 if whole else None
