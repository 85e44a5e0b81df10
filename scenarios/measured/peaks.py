"""What a measured peak of memory counts, and the part of a forecast that answers to it.

allocated    torch.cuda.max_memory_allocated: tensors, and the workspaces of cuBLAS
reserved     torch.cuda.max_memory_reserved: these, and the slack of PyTorch's allocator
other words  all that the device holds, as nvidia-smi prints it

PyTorch allocates the workspace of each cuBLAS handle through its own allocator, and keeps it. A
thread has a handle of its own: the one that calls the forward pass, and autograd's, which runs the
backward pass. Sizes: parseChosenWorkspaceSize in ATen/cuda/CublasHandlePool.cpp of PyTorch 2.13,
where CUBLAS_WORKSPACE_CONFIG is not set.
"""

from roofcast import hwdb
from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.software import stack as stacks

MIB = 2.0**20
PLAIN = (2 * 4096 + 8 * 16) * 1024.0  # bytes of a workspace: two of 4 MiB and eight of 16 KiB
LARGE = {  # bytes of a workspace, by family of devices where it is another
    "hopper": 32 * MIB,
    "blackwell": 32 * MIB,
    "cdna1": 32 * MIB,
    "cdna2": 32 * MIB,
    "cdna3": 128 * MIB,
    "cdna4": 128 * MIB,
}


def workspaces(device: str, mode: str) -> float:
    """Bytes of cuBLAS's workspaces that PyTorch's allocator counts; 0 where there is no GPU of a
    maker whose PyTorch has them.
    """
    try:
        d = hwdb.device(device)
    except RoofcastError:
        return 0.0
    if d.kind != "gpu" or d.vendor not in ("NVIDIA", "AMD"):
        return 0.0
    return LARGE.get(d.family or "", PLAIN) * (2 if mode == "train" else 1)


def counted(f: Forecast, kind: str, outputs_held: bool = False) -> float:
    """Bytes of the forecast peak as a measurement of `kind` counts it.

    outputs_held: the caller still holds the results of a forward pass while the next one runs, as a
    loop does that assigns them to a name.
    """
    m = f.memory
    again = (m.output_bytes or 0.0) if outputs_held else 0.0
    if kind not in ("allocated", "reserved"):
        return m.peak_bytes + again
    tensors = m.peak_bytes - m.framework_bytes + again + workspaces(f.device, f.mode)
    if kind == "allocated":
        return tensors
    slack = stacks.stack(f.stack).slack * (m.activations_bytes + m.transient_bytes)
    return tensors + min(slack, m.framework_bytes)
