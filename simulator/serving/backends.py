"""Which serving profile holds for a device: what people run on it where nothing is said, and the
back-end of a program that has several.
"""

from __future__ import annotations

from roofcast.hwdb.records import Device

STACK = "vllm"  # on GPUs and NPUs of servers
OF_KINDS = {"cpu": "llama.cpp-cpu", "tpu": "jetstream"}  # where no maker has its own
OF_MAKERS = {"Apple gpu": "llama.cpp-metal", "AWS npu": "neuronx", "Intel Habana npu": "gaudi"}
# GPUs of other makers than NVIDIA for one's own machine: without HBM
OWN_MACHINE = {"AMD gpu": "llama.cpp-rocm", "Intel gpu": "llama.cpp-sycl"}
BACKENDS = {  # of programs: profiles by maker and kind of device, or by kind
    "llama.cpp": {
        "Apple gpu": "llama.cpp-metal",
        "AMD gpu": "llama.cpp-rocm",
        "Intel gpu": "llama.cpp-sycl",
        "cpu": "llama.cpp-cpu",
    },
    "vllm": {
        "AWS npu": "neuronx",
        "Intel Habana npu": "gaudi",
        "cpu": "vllm-cpu",
        "tpu": "vllm-tpu",
    },
}
CUDA = ("llama.cpp", "llama.cpp-2024")  # profiles of llama.cpp on CUDA


def usual(device: Device) -> str:
    """The serving profile that is taken where none is given.

    >>> from roofcast import hwdb
    >>> [usual(hwdb.device(name)) for name in ("h100-sxm5", "m4-max", "strix-halo", "tpu-v6e")]
    ['vllm', 'llama.cpp-metal', 'llama.cpp-rocm', 'jetstream']
    """
    made = _made(device)
    if made in OF_MAKERS:
        return OF_MAKERS[made]
    if made in OWN_MACHINE and not device.memory.type.startswith("HBM"):
        return OWN_MACHINE[made]
    return OF_KINDS.get(device.kind, STACK)


def on(stack: str, device: Device) -> str:
    """The profile of a program as it runs on a device: llama.cpp has a back-end for each maker's
    GPUs and for CPUs, vLLM one for each kind. A profile that has no other is itself.

    >>> from roofcast import hwdb
    >>> on("llama.cpp", hwdb.device("m4-max")), on("vllm", hwdb.device("xeon-8480"))
    ('llama.cpp-metal', 'vllm-cpu')
    >>> on("llama.cpp-vulkan", hwdb.device("m4-max")), on("vllm", hwdb.device("mi300x"))
    ('llama.cpp-vulkan', 'vllm')
    """
    program = "llama.cpp" if stack in CUDA else "vllm" if _is_vllm(stack) else stack
    others = BACKENDS.get(program, {})
    return others.get(_made(device)) or others.get(device.kind) or stack


def stack_of(asked: str | None, device: Device) -> str:
    """The profile that a device is served with, where one is asked for or none."""
    return on(asked, device) if asked else usual(device)


def _is_vllm(stack: str) -> bool:
    """Whether a profile is of vLLM on CUDA or ROCm, of any year."""
    return stack == STACK or stack.startswith(("vllm-0.", "vllm-20"))


def _made(device: Device) -> str:
    return f"{device.vendor} {device.kind}"
