"""Ops on fake tensors without the Python that FakeTensorMode runs around each of them.

FakeTensorMode decides anew at every call how an op is run, and looks it up among all calls so far.
Here that is decided once per op: it is a rule of ours (`quick_rules`), PyTorch's kernel for tensors
without numbers where FakeTensorMode would call that one, or FakeTensorMode itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from roofcast.simulator.importers.cuda_answers import load_compiler
from roofcast.simulator.importers.quick_rules import LEFT, PLAIN, RULES, Rule, op
from roofcast.simulator.importers.torch_extra import (
    META,
    FakeTensor,
    FakeTensorMode,
    fake_tensor,
    torch,
)


class Route(NamedTuple):
    """How an op is run: by a rule, then by the kernel; else by FakeTensorMode."""

    rule: Rule | None
    kernel: Any  # the op whose kernel is called; None: none
    maker: bool  # it makes a tensor on the device that it is told
    compiled: bool  # no Python of PyTorch runs in the kernel


class Kernels:
    """Runs ops on the fake tensors of one mode and one device."""

    def __init__(self, mode: FakeTensorMode, device: torch.device):
        self.mode, self.device = mode, device
        # what every fake tensor holds: that of one made by PyTorch
        self.fields = dict(vars(FakeTensor(mode, torch.empty((), device=META), device)))
        self.plain = device.type == "cpu"  # the device of what is made where none is named

    def run(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of an op, or LEFT."""
        route = ROUTES.get(func)
        if route is None:
            route = ROUTES[func] = _route(self.mode, func)
        if route is SLOW or self.mode.in_kernel_invocation:
            return LEFT
        given = self._takes(args) + (self._takes(kwargs.values()) if kwargs else 0)
        if given < 0:
            return LEFT
        device = kwargs.get("device")
        if device is not None and device != self.device:
            return LEFT
        if not given and not (route.maker and (device is not None or self.plain)):
            return LEFT
        try:
            if route.rule is not None:
                made = route.rule(*args, **kwargs)
                if made is not LEFT:
                    return self._wrapped(made)
            if route.kernel is None:
                return LEFT
            if not route.compiled:
                load_compiler()
            if device is not None or route.maker:
                kwargs = {**kwargs, "device": META}
            return self._wrapped(self._called(route.kernel, args, kwargs))
        except Exception:
            return LEFT  # FakeTensorMode says what is wrong

    def _takes(self, values: Any) -> int:
        """The number of tensors among arguments; far below 0 where one is none of this mode."""
        count = 0
        for a in values:
            kind = type(a)
            if kind is FakeTensor:
                if (
                    a.fake_mode is not self.mode
                    or a.constant is not None
                    or a._fake_device != self.device
                    or a.layout is not torch.strided
                ):
                    return FOREIGN
                count += 1
            elif kind is list or kind is tuple:
                count += self._takes(a)
            elif kind not in NO_TENSOR and isinstance(a, (torch.Tensor, torch.SymInt)):
                return FOREIGN
        return count

    def _called(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of PyTorch's kernel for tensors without numbers, on the tensors themselves."""
        mode: Any = self.mode
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
        torch._C._set_warn_deprecated_on_mutable_data_ptr(out)
        vars(out).update(self.fields)
        return out


FOREIGN = -(1 << 30)
NO_TENSOR = PLAIN | {torch.dtype, torch.device}
SLOW = Route(None, None, False, False)
ROUTES: dict[Any, Route] = {}

# views that PyTorch's Python makes of others, and ops whose kernels give the same
VIEWS: dict[Any, Any] = {
    op(name): op(name.removeprefix("_unsafe_"))
    for name in "view _unsafe_view select.int slice.Tensor split.Tensor squeeze squeeze.dim".split()
}
MAKERS = frozenset(
    op(name)
    for name in "empty.memory_format empty_strided empty_like ones_like zeros_like full_like"
    " new_empty new_zeros new_ones new_full new_empty_strided zeros ones full".split()
)


def _route(mode: FakeTensorMode, func: Any) -> Route:
    """How an op is run."""
    maker = func in MAKERS
    kernel = VIEWS.get(func) or (func if maker or _goes_to_kernel(mode, func) else None)
    rule = RULES.get(func)
    if kernel is None:
        return SLOW if rule is None else Route(rule, None, maker, False)
    kernels = torch._C._dispatch_dump_table(kernel.name()).splitlines()
    python = any(line.startswith("Meta:") and ".py:" in line for line in kernels)
    return Route(rule, kernel, maker, not python and (kernel.is_view or maker))


def _goes_to_kernel(mode: FakeTensorMode, func: Any) -> bool:
    """Whether FakeTensorMode calls the kernel for tensors without numbers: it has no rule of its
    own for the op, nor is the op put together from others.
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
    if func in special or any(check(func) for check, _ in fake_tensor.op_implementations_checks):
        return False
    if torch._library.simple_registry.singleton.find(name).fake_impl.kernel is not None:
        return False
    return bool(fake_tensor.has_meta(func))
