"""A pretended CUDA device: PyTorch dispatches as on a GPU, on tensors without numbers.

A fake tensor that claims to be on `cuda` carries CUDA's dispatch keys, so autograd formulas,
autocast lists and the formats of kept statistics are CUDA's. Only PyTorch's C++ asks for a device
guard, which a build without CUDA lacks. Python code is therefore told `cuda`, and C++ is told `cpu`
except where the answer selects a kernel: inside autocast's casts, and inside the functions of
CUDA_WITHIN, which run another kernel on a GPU (dropout with a bool mask, fused recurrent cells).
Attention runs the requested kernel, as a CUDA build would select it. Nothing here depends on the
build of PyTorch or needs a GPU.

Recurrent layers run as a library's (`library_recurrent`). Remaining differences from a GPU: cuDNN's
reserve space of recurrent layers and of batch norm, the fused kernels of `rms_norm` and of
nn.TransformerEncoder's inference path, attention by cuDNN.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar
from unittest import mock

import roofcast.simulator.importers.library_recurrent as library_recurrent
from roofcast.simulator.importers.cuda_answers import one_gpu, replaced
from roofcast.simulator.importers.marked import Watch, watched
from roofcast.simulator.importers.sdpa import attention
from roofcast.simulator.importers.torch_extra import (
    CPU,
    CUDA,
    DEVICE_OF,
    META,
    F,
    FakeTensor,
    FakeTensorMode,
    TorchFunctionMode,
    fake_tensor,
    torch,
)

P = ParamSpec("P")
R = TypeVar("R")

# functions whose C++ selects another kernel on a GPU
CUDA_WITHIN = frozenset(
    "dropout softmax log_softmax lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell"
    " rnn_relu_cell".split()
)
ATTENTION = F.scaled_dot_product_attention


class DeviceAnswers:
    """What C++ is told about the device of a tensor while a trace runs; one object per trace."""

    def __init__(self, mode: FakeTensorMode, gpu: bool):
        self.mode = mode
        self.gpu = gpu
        self.autocast = False  # was enabled when the last function of torch was called
        self.within = 0  # depth of calls to functions of CUDA_WITHIN
        self.below = 0  # depth inside the kernel of an op
        self.attending = 0  # depth of calls to scaled_dot_product_attention
        self.fresh: frozenset[int] = frozenset()  # ids of results about to enter autograd's graph
        self.backward = False
        self.roots: list[torch.autograd.graph.GradientEdge] = []
        self.watch: Watch | None = None  # of sizes that code reads, where that matters

    def root(self, t: Any) -> None:
        """Create autograd's gradient edge of a leaf now, while C++ is told cpu.

        Inside a cast it would be told cuda.
        """
        if isinstance(t, torch.Tensor) and t.is_leaf and t.requires_grad:
            self.roots.append(torch.autograd.graph.get_gradient_edge(t))

    def device(self, tensor: FakeTensor) -> torch.device:
        """The device reported for a fake tensor."""
        if self.mode.in_kernel_invocation:
            return META
        if not self.gpu or tensor.fake_device.type != "cuda":
            return CPU
        if self.below or (self.backward and torch._C._current_autograd_node() is None):
            return CPU
        if id(tensor) in self.fresh:  # autograd asks once and keeps the answer
            self.fresh -= {id(tensor)}
            return CPU
        # autocast is off inside its own kernels
        casting = self.autocast and not torch.is_autocast_enabled("cuda")
        return CUDA if self.within or casting else CPU


class Functions(TorchFunctionMode):
    """Intercepts each call of a torch function before it reaches C++."""

    def __init__(self, answers: DeviceAnswers, sdpa: Callable[..., torch.Tensor]):
        super().__init__()
        self.answers, self.sdpa = answers, sdpa

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is ATTENTION:
            return self.sdpa(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in library_recurrent.NAMES:
            out = library_recurrent.layer(name, args)
            if out is not None:
                return out
        if name == "cuda" and args:
            return args[0].to(CUDA)
        if name == "to" and len(args) > 1 and _is_cuda(args[1]):
            args = (args[0], CUDA, *args[2:])
        if name in CUDA_WITHIN:
            func = within(self.answers, func)
        before, self.answers.autocast = self.answers.autocast, torch.is_autocast_enabled("cuda")
        try:
            out = watched(self.answers.watch, name, func, args, kwargs)
        finally:
            self.answers.autocast = before
        if name in ("requires_grad_", "__set__") or kwargs.get("requires_grad"):
            self.answers.root(args[0] if out is None else out)
        return out


def within(answers: DeviceAnswers, func: Callable[P, R]) -> Callable[P, R]:
    """`func`, inside which C++ is told that tensors are on a GPU."""

    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        answers.within += 1
        try:
            return func(*args, **kwargs)
        finally:
            answers.within -= 1

    return wrapped


def attending(answers: DeviceAnswers, func: Callable[P, R]) -> Callable[P, R]:
    """scaled_dot_product_attention as `func` runs it, whose ops are one op of the model."""

    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        answers.attending += 1
        try:
            return func(*args, **kwargs)
        finally:
            answers.attending -= 1

    return wrapped


class OnCpu(TorchFunctionMode):
    """Runs code that names a CUDA device on the CPU, and attention by `sdpa`, however it was
    imported.
    """

    def __init__(
        self, sdpa: Callable[..., torch.Tensor] = ATTENTION, answers: DeviceAnswers | None = None
    ):
        super().__init__()
        self.sdpa, self.answers = sdpa, answers

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is ATTENTION:
            return self.sdpa(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "cuda" and args:
            return args[0]
        if _is_cuda(kwargs.get("device")):
            kwargs = {**kwargs, "device": CPU}
        if name == "to" and len(args) > 1 and _is_cuda(args[1]):
            args = (args[0], CPU, *args[2:])
        watch = self.answers.watch if self.answers is not None else None
        return watched(watch, name, func, args, kwargs)


def _is_cuda(device: Any) -> bool:
    """Whether an argument names a CUDA device: a torch.device, a text or an index."""
    if isinstance(device, (str, torch.device)):
        return str(device).split(":")[0] == "cuda"
    return isinstance(device, int) and not isinstance(device, bool)


@contextlib.contextmanager
def as_cpu(answers: DeviceAnswers, attention_kernel: str) -> Iterator[None]:
    """Inside, attention runs as a CPU runs it, or composed for "eager"."""
    eager = functools.partial(attention, attention_kernel)
    sdpa = attending(answers, eager if attention_kernel == "eager" else ATTENTION)
    with replaced(F, "scaled_dot_product_attention", sdpa), one_gpu(), OnCpu(sdpa, answers):
        yield


@contextlib.contextmanager
def as_cuda(answers: DeviceAnswers, attention_kernel: str) -> Iterator[None]:
    """Inside, a build without CUDA behaves as one with it; everything is undone at the end."""
    sdpa = attending(answers, functools.partial(attention, attention_kernel))
    patches: list[contextlib.AbstractContextManager[Any]] = [
        mock.patch.object(fake_tensor.log, "disabled", True),  # failures are reported once, by us
        mock.patch.dict(
            fake_tensor._DISPATCH_META_HANDLERS, {DEVICE_OF: lambda args: answers.device(args[0])}
        ),
        replaced(F, "scaled_dot_product_attention", sdpa),
        replaced(F, "dropout", within(answers, F.dropout)),
        replaced(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_gpu())
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(Functions(answers, sdpa))
        yield


@contextlib.contextmanager
def autocast(device: str, low: torch.dtype | None) -> Iterator[None]:
    """Enable autocast to `low` without checking that the device exists; None: leave it as it is."""
    if low is None:
        yield
        return
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, low)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
