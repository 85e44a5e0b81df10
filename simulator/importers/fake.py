"""A CUDA device made of words: PyTorch's own dispatch, autograd and autocast run as on a GPU, on
tensors without numbers.

A fake tensor that claims to live on `cuda` carries CUDA's dispatch keys, so autograd formulas,
autocast lists and the formats of kept statistics are CUDA's. Only PyTorch's C++ asks for a device
guard, which a build without CUDA lacks. So Python is told `cuda`, and C++ is told `cpu`, but where
its answer decides what runs: inside autocast's casts, and inside the few functions of CUDA_WITHIN,
which choose another kernel on a GPU (dropout with a mask of bools, fused cells of recurrent nets).
Attention is the kernel asked for, as a GPU build would choose it. Nothing here depends on the build
of PyTorch or on a GPU being there.

What still differs from a GPU: cuDNN's recurrent layers (here one fused cell a step), cuDNN's
reserve of batch norm, the fused kernels of `rms_norm` and of nn.TransformerEncoder's inference
path, attention by cuDNN.
"""

from __future__ import annotations

import contextlib
import math
from unittest import mock

from roofcast.hwdb.errors import BadInput

try:
    import torch
except ImportError:
    raise BadInput(
        "tracing a module needs PyTorch, which is not installed: pip install 'roofcast[torch]'"
    ) from None

import torch.nn.functional as F
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

aten = torch.ops.aten
CPU, CUDA, META = torch.device("cpu"), torch.device("cuda:0"), torch.device("meta")
DEVICE_OF = torch.ops.prim.device.default
GENERATION = (9, 0)  # what a module hears that asks for the GPU's capability: Hopper's
LARGE = 1 << 16  # elements: larger tensors are fake from the start
CUDA_WITHIN = frozenset(
    (  # functions whose C++ picks another kernel on a GPU
        "dropout",
        "softmax",
        "log_softmax",
        "lstm",
        "gru",
        "rnn_tanh",
        "rnn_relu",
        "lstm_cell",
        "gru_cell",
        "rnn_tanh_cell",
        "rnn_relu_cell",
    )
)
ATTENTION = F.scaled_dot_product_attention


class Constructing(TorchDispatchMode):
    """Makes large tensors fake, and runs what touches a fake one as fake; everything else is
    real.
    """

    def __init__(self, mode: FakeTensorMode):
        super().__init__()
        self.mode = mode

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [a for a in tree_iter((args, kwargs)) if isinstance(a, torch.Tensor)]
        if func is aten._local_scalar_dense.default and isinstance(given[0], FakeTensor):
            return 0  # "is any of these weights too large?": none is
        if any(isinstance(a, FakeTensor) for a in given) or (
            not given and _asked_size(args) > LARGE
        ):
            with self.mode:
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def _asked_size(args) -> int:
    first = args[0] if args else None
    return (
        math.prod(first)
        if isinstance(first, (list, tuple)) and all(isinstance(n, int) for n in first)
        else 0
    )


@contextlib.contextmanager
def constructing():
    """Modules made inside have no weights to speak of."""
    with Constructing(FakeTensorMode(allow_non_fake_inputs=True)):
        yield


class OneDevice(FakeTensorMode):
    """Fake tensors that all claim one device, whichever C++, told another, asks for."""

    def __init__(self, device):
        super().__init__(allow_non_fake_inputs=True)
        self.device = device

    def dispatch(self, func, types, args=(), kwargs=None):
        """One op on fake tensors: its own shape rule where there is one, and PyTorch's
        otherwise.
        """
        kwargs = kwargs or {}
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": self.device}
        if func in SHAPES:
            with self:
                return SHAPES[func](*args, **kwargs)
        out = super().dispatch(func, types, args, kwargs)
        weight = args[MIXED[func]] if func in MIXED and self.device.type == "cpu" else None
        if weight is not None and weight.dtype != args[0].dtype:
            with self:
                return out[0], *(t.to(weight.dtype) for t in out[1:])
        return out


# a CPU keeps the statistics of these in the format of their weight; place of the weight
MIXED = {
    aten.native_layer_norm.default: 2,
    aten.native_group_norm.default: 1,
    aten.native_batch_norm.default: 1,
}


def _gru_cell(gates_x, gates_h, h, bias_x=None, bias_h=None):
    return torch.empty_like(h), h.new_empty(h.shape[0], 5 * h.shape[1])


def _gru_cell_backward(grad, workspace, has_bias):
    gates = grad.new_empty(grad.shape[0], 3 * grad.shape[1])
    bias = [gates.new_empty(gates.shape[1]) for _ in "xh"] if has_bias else (None, None)
    return gates, torch.empty_like(gates), torch.empty_like(grad), *bias


SHAPES = {  # ops for which PyTorch has no fake form
    aten._thnn_fused_gru_cell.default: _gru_cell,
    aten._thnn_fused_gru_cell_backward.default: _gru_cell_backward,
}


class Words:
    """What C++ is told about devices while a trace runs; one a trace."""

    def __init__(self, mode: FakeTensorMode, gpu: bool):
        self.mode = mode
        self.gpu = gpu
        self.autocast = False  # was it on when the last function of torch was called
        self.within = 0  # inside a function of CUDA_WITHIN
        self.below = 0  # inside the kernel of an op
        # tensors that autograd is about to write into its graph
        self.fresh: frozenset = frozenset()
        self.backward = False
        self.roots: list = []

    def root(self, t):
        """Autograd's end of a leaf, made while C++ hears cpu: inside a cast it would hear cuda."""
        if isinstance(t, torch.Tensor) and t.is_leaf and t.requires_grad:
            self.roots.append(torch.autograd.graph.get_gradient_edge(t))

    def device(self, tensor) -> torch.device:
        """Which device a fake tensor says it is on: the GPU inside ops and autocast, the CPU to all
        other code.
        """
        if self.mode.in_kernel_invocation:
            return META
        if not self.gpu or tensor.fake_device.type != "cuda":
            return CPU
        if self.below or (self.backward and torch._C._current_autograd_node() is None):
            return CPU
        if id(tensor) in self.fresh:  # autograd asks once, and keeps what it hears
            self.fresh -= {id(tensor)}
            return CPU
        # autocast is off inside its own kernels
        casting = self.autocast and not torch.is_autocast_enabled("cuda")
        return CUDA if self.within or casting else CPU


class Functions(TorchFunctionMode):
    """Sees each call of a torch function before C++ does."""

    def __init__(self, words: Words, attention: str):
        super().__init__()
        self.words = words
        self.attention = attention

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is ATTENTION:
            return attention(self.attention, *args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in CUDA_WITHIN:
            func = within(self.words, func)
        before, self.words.autocast = self.words.autocast, torch.is_autocast_enabled("cuda")
        try:
            out = func(*args, **kwargs)
        finally:
            self.words.autocast = before
        if name in ("requires_grad_", "__set__") or kwargs.get("requires_grad"):
            self.words.root(args[0] if out is None else out)
        return out


def within(words: Words, func):
    """`func`, told that it runs on a GPU."""

    def told(*args, **kwargs):
        words.within += 1
        try:
            return func(*args, **kwargs)
        finally:
            words.within -= 1

    return told


def attention(
    how: str, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """scaled_dot_product_attention as a GPU build runs it: flash where it can (16 bits, no mask,
    heads of at most 256), efficient otherwise, the composed form for `eager` and where a head's
    numbers do not lie side by side.
    """
    composed = how == "eager" or any(t.stride(-1) != 1 and t.shape[-1] != 1 for t in (q, k, v))
    if composed:
        return aten._scaled_dot_product_attention_math(
            q, k, v, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
        )[0]
    if torch.is_autocast_enabled("cuda"):
        low = torch.get_autocast_dtype("cuda")
        q, k, v, attn_mask = (
            t.to(low) if t is not None and t.dtype.is_floating_point else t
            for t in (q, k, v, attn_mask)
        )
    width = q.shape[-1]
    if (
        how == "flash"
        and q.dtype in (torch.bfloat16, torch.float16)
        and attn_mask is None
        and width <= 256
        and width == v.shape[-1]
    ):
        scale = 1 / math.sqrt(width) if scale is None else scale
        pad = -width % 8
        if pad:
            q, k, v = (F.pad(t, (0, pad)) for t in (q, k, v))
        out = aten._scaled_dot_product_flash_attention(
            q, k, v, dropout_p, is_causal, False, scale=scale
        )[0]
        return out[..., :width] if pad else out
    if enable_gqa and k.shape[1] != q.shape[1]:
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    if attn_mask is not None:
        attn_mask = _additive(attn_mask, q).expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
    statistics = q.requires_grad or k.requires_grad or v.requires_grad
    return aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, statistics, dropout_p, is_causal, scale=scale
    )[0]


def _additive(mask, q):
    """The mask as the efficient kernel takes it: added to the scores, rows padded to a multiple of
    16.
    """
    mask = (
        torch.where(mask, 0.0, float("-inf")).to(q.dtype)
        if mask.dtype == torch.bool
        else mask.to(q.dtype)
    )
    length = mask.shape[-1]
    return (
        F.pad(mask, (0, -length % 16))[..., :length]
        if length % 16 and not mask.requires_grad
        else mask
    )


@contextlib.contextmanager
def told(words: Words, attention_kernel: str):
    """Everything that makes a build without CUDA behave as one with it; all of it undone at the
    end.
    """
    if not words.gpu:
        yield
        return
    sdpa = lambda *a, **k: attention(attention_kernel, *a, **k)  # noqa: E731
    patches = [
        mock.patch.object(fake_tensor.log, "disabled", True),  # what fails is said once, by us
        mock.patch.dict(
            fake_tensor._DISPATCH_META_HANDLERS, {DEVICE_OF: lambda args: words.device(args[0])}
        ),
        mock.patch.object(F, "scaled_dot_product_attention", sdpa),
        mock.patch.object(F, "dropout", within(words, F.dropout)),
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        mock.patch("torch.cuda.is_bf16_supported", lambda *a, **k: True),
        mock.patch("torch.cuda.get_device_capability", lambda *a, **k: GENERATION),
    ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(Functions(words, attention_kernel))
        yield


@contextlib.contextmanager
def autocast(device: str, low):
    """Autocast's state, set without asking whether the device is there."""
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


@contextlib.contextmanager
def weightless(module, device, dtype, real: bool = False):
    """The module with fake tensors in place of its own, which come back untouched; `real`: with
    random numbers in place of fake ones.

    Floating weights and buffers take `dtype`, as module.to(dtype) does.
    """
    memo: dict[int, tuple] = {}

    def fake(t):
        if id(t) not in memo:
            to = dtype if t.dtype.is_floating_point else t.dtype
            made = (
                t.detach().to(to)
                if real and not isinstance(t, FakeTensor)
                else torch.empty_strided(t.shape, t.stride(), dtype=to, device=device)
            )
            if real and isinstance(t, FakeTensor):
                made = made.normal_(0, 0.02) if to.is_floating_point else made.zero_()
            if isinstance(t, torch.nn.Parameter):
                made = torch.nn.Parameter(made, requires_grad=t.requires_grad)
            memo[id(t)] = (made, t)
        return memo[id(t)][0]

    def swapped(value):
        if isinstance(value, torch.Tensor):
            return fake(value)
        return (
            type(value)(fake(v) if isinstance(v, torch.Tensor) else v for v in value)
            if type(value) in (list, tuple)
            else value
        )

    undo = []
    try:
        for m in module.modules():
            undo += [(m._parameters, dict(m._parameters)), (m._buffers, dict(m._buffers))]
            own = {
                k: v
                for k, v in vars(m).items()
                if isinstance(v, (torch.Tensor, list, tuple)) and swappable(v)
            }
            undo.append((vars(m), own))
            for table in (m._parameters, m._buffers):
                table.update({k: fake(v) for k, v in table.items() if v is not None})
            vars(m).update({k: swapped(v) for k, v in own.items()})
        yield
    finally:
        for table, before in undo:
            table.update(before)


def swappable(value) -> bool:
    """A tensor, or a plain list of things some of which are tensors."""
    return isinstance(value, torch.Tensor) or (
        type(value) in (list, tuple) and any(isinstance(v, torch.Tensor) for v in value)
    )


__all__ = [
    "CPU",
    "CUDA",
    "DEVICE_OF",
    "FakeTensor",
    "OneDevice",
    "TorchDispatchMode",
    "Words",
    "aten",
    "autocast",
    "constructing",
    "told",
    "torch",
    "tree_iter",
    "tree_map",
    "weightless",
]
