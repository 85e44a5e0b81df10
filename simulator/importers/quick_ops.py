"""Ops on fake tensors without the Python that FakeTensorMode runs around each of them.

FakeTensorMode decides anew at every call how an op is run, and looks it up among all calls so far.
Here that is decided once per op, and nothing is looked up. The result is the same: PyTorch's own
kernel for tensors without numbers is called, or, for the norms of rows, a rule that gives what
PyTorch's own Python gives. Whatever is not certainly the same is left to FakeTensorMode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from roofcast.simulator.importers.torch_extra import (
    META,
    FakeTensor,
    FakeTensorMode,
    aten,
    fake_tensor,
    torch,
)

LEFT: Any = object()  # the op is left to FakeTensorMode
CPU_WIDE = (torch.float32, torch.float64)


class Kernels:
    """Runs ops on the fake tensors of one mode and one device."""

    def __init__(self, mode: FakeTensorMode, device: torch.device):
        self.mode, self.device = mode, device
        # what every fake tensor holds: that of one made by PyTorch
        self.fields = dict(vars(FakeTensor(mode, torch.empty((), device=META), device)))

    def run(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of an op, or LEFT."""
        how = ROUTES.get(func)
        if how is None:
            how = ROUTES[func] = _route(self.mode, func)
        if how == SLOW or self.mode.in_kernel_invocation:
            return LEFT
        given: list[FakeTensor] = []
        if not self._takes(args, given) or not self._takes(kwargs.values(), given):
            return LEFT
        if how == MAKER:
            if not given and kwargs.get("device") is None:
                return LEFT
            kwargs = {**kwargs, "device": META}
        elif how == CONTIGUOUS and not all(t.is_contiguous() for t in given):
            return LEFT
        elif kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": META}
        if how == RULE:
            made = RULES[func](self, *args, **kwargs)
            return made if made is LEFT else self._wrapped(made)
        try:
            return self._wrapped(self._called(func, args, kwargs))
        except Exception:
            return LEFT  # FakeTensorMode says what is wrong

    def _takes(self, values: Any, given: list[FakeTensor]) -> bool:
        """Whether all tensors among arguments are fake ones of this mode; they go into `given`."""
        for a in values:
            kind = type(a)
            if kind is FakeTensor:
                if (
                    a.fake_mode is not self.mode
                    or a.constant is not None
                    or a._fake_device != self.device
                    or a.layout is not torch.strided
                ):
                    return False
                given.append(a)
            elif kind is list or kind is tuple:
                if not self._takes(a, given):
                    return False
            elif kind not in PLAIN and isinstance(a, (torch.Tensor, torch.SymInt)):
                return False
        return True

    def _called(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of PyTorch's kernel for tensors without numbers, on the tensors themselves."""
        mode = self.mode
        with torch._C._DisableTorchDispatch(), torch._C._PreserveDispatchKeyGuard():
            mode.in_kernel_invocation = True
            torch._C._set_meta_in_tls_dispatch_include(True)
            try:
                return func(*args, **kwargs)
            finally:
                mode.in_kernel_invocation = False

    def _wrapped(self, made: Any) -> Any:
        """Tensors without numbers as fake ones of the device; the operands themselves stay."""
        if isinstance(made, torch.Tensor):
            return made if type(made) is FakeTensor else self.fake(made)
        if isinstance(made, (tuple, list)):
            fakes: dict[int, Any] = {}  # a tensor that is returned twice stays one
            for t in made:
                if id(t) not in fakes:
                    fakes[id(t)] = self._wrapped(t)
            return type(made)(fakes[id(t)] for t in made)
        return made

    def fake(self, t: torch.Tensor) -> FakeTensor:
        """A fake tensor as FakeTensor's constructor makes one."""
        out: Any = torch.Tensor._make_subclass(
            FakeTensor,
            t,
            t.requires_grad,
            dispatch_device=True,
            device_for_backend_keys=self.device,
        )
        torch._C._set_throw_on_mutable_data_ptr(out)
        vars(out).update(self.fields)
        return out


PLAIN = frozenset((int, float, bool, str, type(None), torch.dtype, torch.device))
SLOW, KERNEL, MAKER, CONTIGUOUS, RULE = "slow", "kernel", "maker", "contiguous", "rule"
ROUTES: dict[Any, str] = {}  # op -> how it is run


def _route(mode: FakeTensorMode, func: Any) -> str:
    """How an op is run."""
    if func in RULES:
        return RULE
    if func in SAME_IF_CONTIGUOUS:
        return CONTIGUOUS
    if func in MAKERS:
        return MAKER
    if func in VIEWS or _goes_to_kernel(mode, func):
        return KERNEL
    return SLOW


def _goes_to_kernel(mode: FakeTensorMode, func: Any) -> bool:
    """Whether FakeTensorMode calls the kernel for tensors without numbers: it has neither rules of
    its own for the op, nor is the op put together from others.
    """
    from torch._decomp import decomposition_table, meta_table

    if not isinstance(func, torch._ops.OpOverload) or func.namespace != "aten":
        return False
    name, composed = func.name(), torch._C.DispatchKey.CompositeImplicitAutograd
    if func not in meta_table and not mode.cpp_meta_supports_symint(func):
        if func in decomposition_table and fake_tensor.torch_decomp_decompositions(func):
            return False
        if torch._C._dispatch_has_kernel_for_dispatch_key(name, composed):
            return False
    special = (
        *fake_tensor._DISPATCH_META_HANDLERS,
        *fake_tensor._DISPATCH_HANDLE_DIRECTLY,
        *mode.lift_fns,
    )
    if func in special or torch._C._should_allow_numbers_as_tensors(func._schema.name[6:]) :
        pass
    if func in special or any(check(func) for check, _ in fake_tensor.op_implementations_checks):
        return False
    if torch._library.simple_registry.singleton.find(name).fake_impl.kernel is not None:
        return False
    return bool(fake_tensor.has_meta(func))


# ops that PyTorch's Python makes of others, and whose kernels give the same for dense operands
SAME_IF_CONTIGUOUS: frozenset[Any] = frozenset(
    (
        aten.threshold_backward.default,
        aten.gelu_backward.default,
        aten.silu_backward.default,
        aten.sigmoid_backward.default,
        aten.tanh_backward.default,
    )
)
VIEWS: frozenset[Any] = frozenset(
    (aten.view.default, aten.select.int, aten.slice.Tensor, aten.addmm.default)
)
MAKERS: frozenset[Any] = frozenset(
    (
        aten.empty.memory_format,
        aten.empty_strided.default,
        aten.empty_like.default,
        aten.ones_like.default,
        aten.zeros_like.default,
        aten.full_like.default,
        aten.new_empty.default,
        aten.new_zeros.default,
        aten.new_ones.default,
        aten.new_full.default,
        aten.new_empty_strided.default,
        aten.zeros.default,
        aten.ones.default,
        aten.full.default,
    )
)


def _meta(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device=META)


def _layer_norm(on: Kernels, x, shape, weight, bias, eps):
    """native_layer_norm: statistics in fp32, those of a CPU in the format of the operand."""
    if any(t is not None and t.dtype != x.dtype for t in (weight, bias)) or not x.numel():
        return LEFT
    outer = (*x.shape[: x.dim() - len(shape)], *(1 for _ in shape))
    wide = torch.float32 if x.dtype in HALF and on.device.type != "cpu" else x.dtype
    return _meta(x.shape, x.dtype), _meta(outer, wide), _meta(outer, wide)


def _layer_norm_backward(on: Kernels, dy, x, shape, mean, rstd, weight, bias, mask):
    """native_layer_norm_backward: a gradient for each operand that needs one."""
    if not x.numel():
        return LEFT
    found = zip(mask, (x, weight, bias), strict=True)
    return tuple(_meta(t.shape, t.dtype) if needed and t is not None else None for needed, t in found)


HALF = (torch.bfloat16, torch.float16)
RULES: dict[Any, Callable[..., Any]] = {
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
}
