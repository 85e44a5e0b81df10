"""From a scenario to a recipe: defaults for what was left out, each listed as an assumption, and
refusals of invalid values.
"""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput, unknown
from roofcast.hwdb.records import Device
from roofcast.hwdb.units import quantity
from roofcast.simulator.choices import (
    ATTENTION,
    MEMORY_FORMATS,
    MODES,
    OFFLOAD,
    OFFLOAD_TO,
    with_optimizer,
)
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.forecast.sparsity import with_sparsity
from roofcast.simulator.forecast.tuned import tuning_of
from roofcast.simulator.models.released import told_of
from roofcast.simulator.software import stack as stacks
from roofcast.simulator.software.stack import Stack
from roofcast.simulator.times.offload import one_drive
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.ops.optimizer import optimizer
from roofcast.simulator.work.policies import named
from roofcast.simulator.work.precision import precision, quantization
from roofcast.simulator.work.recompute import policy
from roofcast.simulator.work.step import Recipe

COMPILED = {  # vendor of an NPU -> stack; of any other NPU: compiled-graph
    "AWS": "neuron",  # NeuronX, the only compiler
    "Intel Habana": "optimum-habana",  # SynapseAI's lazy mode
    "Huawei": "pytorch-eager",  # torch_npu
    "Cambricon": "pytorch-eager",  # torch_mlu
}
SLOWEST, FASTEST = 1e6, 1e12  # NVMe drives of a device, as they may be given [B/s]
DEFAULT_BATCH = {"sequence": 1, "image": 32, "table": 1024}


def recipe_of(s: Scenario, model: Model, device: Device | None) -> tuple[Recipe, list[str]]:
    """The recipe of a scenario, and the assumptions it rests on.

    device: chooses the default precision and stack; None where both are given. Raises BadInput or
    UnknownName for what cannot be.
    """
    assumptions: list[str] = []
    _known_values(s, model)
    if s.recompute in named() and named()[s.recompute].offloaded:
        assumptions.append(
            f"recompute {s.recompute}: what it keeps is counted in device memory, not in host"
            " memory, and its copies are not timed"
        )
    # a traced module has a batch of its own
    batch = s.batch if s.batch is not None else model.batch
    if batch is None:
        batch = DEFAULT_BATCH[model.takes] * _micro_batches(s)
        assumptions.append(f"batch {batch} (not given)")
    _positive("batch", batch)
    size = _size(s, model, assumptions)
    precision_name = _precision(s, model, device, assumptions)
    stack = _stack(s, device, assumptions).changed(s.attention, s.memory_format)
    lacks = without_few_bits(precision_name, model, stack, device) if s.mode == "infer" else ""
    if lacks:
        assumptions.append(f"{lacks}; forecast as if it had them")
    recipe = Recipe(
        mode=s.mode,
        batch=batch,
        size=size,
        precision=_with_master(precision_name, stack, s.mode, assumptions),
        stack=stack,
        optimizer=_optimizer(s, stack, assumptions),
        recompute=s.recompute,
        offload=with_optimizer(s.offload),
        nvme=_drives(s, assumptions),
        tuning=with_sparsity(
            s,
            model,
            device,
            precision_name,
            tuning_of(s, model, precision_name, assumptions),
            assumptions,
        ),
    )
    return recipe, assumptions


def _known_values(s: Scenario, model: Model) -> None:
    """Refuses values that no scenario can have."""
    _one_of("mode", s.mode, MODES)
    policy(s.recompute)
    for what in s.offload:
        _one_of("offload", what, OFFLOAD)
    _one_of("offload_to", s.offload_to or "host", OFFLOAD_TO)
    if s.attention is not None:
        _one_of("attention", s.attention, ATTENTION)
    if s.memory_format is not None:
        _one_of("memory_format", s.memory_format, MEMORY_FORMATS)
        if model.takes != "image":
            raise BadInput(
                f"memory_format {s.memory_format}: {model.name} reads no images; leave it out"
            )


def _precision(s: Scenario, model: Model, device: Device | None, assumptions: list[str]) -> str:
    name, integer = s.precision, device is not None and _integer_only(device)
    stored = model.storage if s.mode == "infer" and s.weights is None else None
    if name is None:
        assert device is not None, "a scenario without a device names its precision"
        name = default_precision(device)
        of_all = "weights, gradients and optimizer states in it, no fp32 master weights"
        of_all = of_all if s.mode == "train" else "weights too"
        whole = "" if "amp" in name or integer or stored else f": {of_all}"
        why = f": {device.id} multiplies no other format" if integer else ""
        if stored is not None and _multiplies(device, stored.precision):
            name, why = stored.precision or name, ": the checkpoint's own"
        assumptions.append(f"precision {name} (not given){whole}{why}")
    if stored is not None and precision(name).matrices in (None, stored.precision):
        told = f"weights as released (not given; {told_of(model)})"
        assumptions.append(f"{told}; --weights bf16: 16 bits")
    if device is not None and integer and (s.mode == "train" or precision(name).product != "int8"):
        what = "a training step" if s.mode == "train" else f"precision {name}"
        raise BadInput(
            f"{what} on {device.id}: it multiplies int8 only; use --mode infer --precision int8,"
            " or another device"
        )
    if s.mode == "train" and not precision(name).trains:
        raise BadInput(
            f"precision {name}: quantised weights are for inference; use --mode infer, or another"
            " precision"
        )
    if name == "int8" and device is not None and _lacks_sixteen_bits(device):
        name = "int8-fp32"
        assumptions.append(f"precision int8: {device.id} multiplies no 16-bit format; int8-fp32")
    if s.mode == "infer" and (stored is None or stored.precision != name):
        assumptions += quantization(name, model.takes == "image")
    return name


def without_few_bits(name: str, model: Model, stack: Stack, device: Device | None) -> str:
    """Why a stack has no convolutions in the few bits of a precision; "" where it has them, and for
    nets without images.
    """
    fused = stack.implementations.get("epilogue") == "fused"
    if fused or model.takes != "image" or precision(name).filters is None:
        return ""
    cpu = device is not None and device.kind == "cpu"
    other = "onednn, as OpenVINO has" if cpu else "nvidia-tuned, as TensorRT has"
    return f"{stack.name} has no {precision(name).filters} convolutions; use --stack {other}"


def _multiplies(device: Device, name: str | None) -> bool:
    """Does a device multiply in the format of a policy?"""
    return name is not None and precision(name).product in device.peak_flops


def _with_master(name: str, stack: Stack, mode: str, assumptions: list[str]) -> str:
    """The precision of a stack with fp32 master weights. Its mixed precision is 16-bit weights
    beside the masters, however it is asked: torch.autocast's copies of fp32 weights are not made.
    """
    lower = precision(name).autocast
    if mode != "train" or not stack.master or lower is None:
        return name
    assumptions.append(
        f"precision {name}: mixed precision of {stack.name}, {lower} weights beside fp32 master"
        " weights"
    )
    return lower


def _lacks_sixteen_bits(device: Device) -> bool:
    """Does a device with int8 multiply fp32, but neither bf16 nor fp16?"""
    rates = device.peak_flops
    return "fp32" in rates and "bf16" not in rates and "fp16" not in rates


def _integer_only(device: Device) -> bool:
    """Does a device have no unit for floating-point numbers?"""
    return set(device.peak_flops) == {"int8"} and not device.vector_flops


def _stack(s: Scenario, device: Device | None, assumptions: list[str]) -> Stack:
    if s.stack is not None:
        return stacks.stack(s.stack)
    name = default_stack(device)
    assumptions.append(f"stack {name} (not given)")
    return stacks.stack(name)


def _optimizer(s: Scenario, stack: Stack, assumptions: list[str]) -> str | None:
    """The optimizer; None in inference, and where forward and backward alone are asked for, as
    kernel benchmarks time a training step.
    """
    name = s.optimizer
    if s.mode == "infer":
        train = "leave it out or use --mode train"
        if name is not None:
            raise BadInput(f"optimizer: an inference step has none; {train}")
        if s.recompute != "none":
            raise BadInput(
                f"recompute {s.recompute}: inference keeps nothing to recompute; {train}"
            )
        if s.offload:
            raise BadInput(
                f"offload {s.offload[0]}: of a training step, and this is inference; {train}"
            )
        return None
    if name is None:
        name = "adamw"
        how = stack.implementations.get("optimizer")
        kernels = f": {how} kernels" if how in ("foreach", "fused") else ""
        assumptions.append(f"optimizer adamw (not given){kernels}")
    if name == "none":
        if "optimizer" in s.offload:
            raise BadInput("offload optimizer: there is none; leave it out, or give --optimizer")
        return None
    if optimizer(name).paged:
        assumptions.append(
            f"optimizer {name}: its states lie in host memory and page in for the update; they are"
            " not counted on the device, and the time to page them is left out"
        )
    return name


def _micro_batches(s: Scenario) -> int:
    """Micro-batches of a step over several devices, where no batch is given: one per data-parallel
    rank, four per pipeline stage.
    """
    tp, cp, pp = (d if isinstance(d, int) and d > 0 else 1 for d in (s.tp, s.cp, s.pp))
    ranks = s.dp or max((s.devices or 1) // (tp * cp * pp), 1)
    if not isinstance(ranks, int) or ranks < 1:
        return 1
    return ranks * (4 * pp if pp > 1 else 1)


def default_stack(device: Device | None) -> str:
    """The stack that a device is used with: a compiled program on TPUs and on NPUs, but for those
    whose PyTorch launches kernels one by one; eager PyTorch on GPUs and CPUs.
    """
    if device is None or device.kind not in ("tpu", "npu"):
        return "pytorch-eager"
    return COMPILED.get(device.vendor, "jax-xla" if device.kind == "tpu" else "compiled-graph")


def default_precision(device: Device) -> str:
    """bf16 where the device multiplies it, else mixed fp16, else fp32; int8 where it multiplies
    nothing else.
    """
    if _integer_only(device):
        return "int8"
    if device.kind != "cpu" and "bf16" in device.peak_flops:
        return "bf16"
    return "amp-fp16" if device.kind != "cpu" and "fp16" in device.peak_flops else "fp32"


def _size(s: Scenario, model: Model, assumptions: list[str]) -> int | None:
    """Tokens of a sample, or pixels of an image's side."""
    if model.takes == "table":
        if s.sequence is not None or s.image is not None:
            raise BadInput(
                f"{model.name} reads neither sequences nor images; leave --seq and --image out"
            )
        return model.size
    reads = model.takes
    size, other = (s.sequence, s.image) if reads == "sequence" else (s.image, s.sequence)
    if other is not None:
        wrong, option = ("image", "--seq") if reads == "sequence" else ("sequence", "--image")
        raise BadInput(f"{wrong} {other}: {model.name} reads {reads}s; use {option}")
    if size is None:
        word = "sequence of {} tokens" if reads == "sequence" else "images of {0} x {0}"
        assumptions.append(word.format(model.size) + " (not given)")
        return model.size
    _positive(reads, size)
    longest = getattr(model.config, "context", None)
    if reads == "sequence" and longest and size > longest:
        assumptions.append(
            f"a sequence of {size} is longer than the {longest} positions of {model.name}'s config"
        )
    return size


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown(what, value, known, f"known: {', '.join(known)}")


def _drives(s: Scenario, assumptions: list[str]) -> float | None:
    """Bandwidth per device of the NVMe drives that a scenario offloads to [B/s]; None: there are
    none. Raises BadInput for drives that hold nothing, or bandwidths that cannot be.
    """
    given = s.nvme_bandwidth
    if s.offload_to != "nvme":
        if given is not None:
            raise BadInput(
                f"nvme_bandwidth {given}: nothing is offloaded to drives; use --offload-to nvme, or"
                " leave it out"
            )
        return None
    if not {"parameters", "optimizer"} & set(s.offload):
        raise BadInput(
            "offload_to nvme: of parameters and optimizer states, neither of which is offloaded"
            " (activations go to host memory); use --offload parameters, or leave it out"
        )
    if given is None:
        found = one_drive()
        assumptions.append(
            f"nvme_bandwidth {found / 1e9:.1f} GB/s per device (not given): one PCIe 4.0 x4 drive"
            " for each device"
        )
        return found
    try:
        found = quantity(given, "B/s")
    except BadInput as error:
        raise BadInput(f"nvme_bandwidth: {error}") from None
    if not SLOWEST <= found <= FASTEST:
        raise BadInput(
            f"nvme_bandwidth {given}: a bandwidth per device from 1 MB/s to 1 TB/s is wanted, for"
            ' example "6 GB/s"'
        )
    return found


def _positive(what: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"{what} {value}: a whole number of at least 1 is wanted")
