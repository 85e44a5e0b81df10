"""Fake tensors: shapes, formats and devices without numbers, in place of a module's own tensors."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from roofcast.simulator.importers.cuda_answers import load_compiler
from roofcast.simulator.importers.lazy import Uninitialized
from roofcast.simulator.importers.quick_ops import Kernels
from roofcast.simulator.importers.quick_rules import LEFT
from roofcast.simulator.importers.scripted import is_scripted, substituted
from roofcast.simulator.importers.torch_extra import (
    CPU,
    FakeTensor,
    FakeTensorMode,
    TorchDispatchMode,
    aten,
    tensors,
    torch,
)

LARGE = 1 << 16  # elements: larger tensors are fake from the start
# what FakeTensorMode's constructor sets that `Kernels` needs not
LATE = frozenset(
    "allow_fallback_kernels allow_non_fake_inputs allow_scalar_outputs cache_crosscheck_enabled"
    " cache_enabled fake_tensor_converter nt_tensor_id_counter nt_tensor_id_initial_count"
    " propagate_real_tensors shape_env static_shapes _stack _stack_trace".split()
)


class LateFakes(FakeTensorMode):
    """FakeTensorMode that loads PyTorch's compiler, a second of imports, only where its settings
    are asked for: not for the ops that `Kernels` runs.
    """

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.enter_stack = []
        self.in_kernel_invocation = self.allow_meta = False
        self._allow_unsafe_data_ptr_access = True  # copy.deepcopy asks for it
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __getattr__(self, name: str) -> Any:
        if name not in LATE:
            raise AttributeError(name)
        load_compiler()
        own = dict(vars(self))
        super().__init__(allow_non_fake_inputs=True)
        vars(self).update(own)
        return getattr(self, name)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled, and PyTorch's guard against that costs time at each op."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.dispatch(func, types, args, kwargs)


class Constructing(TorchDispatchMode):
    """Makes large tensors fake and runs any op on a fake tensor as fake; all others stay real."""

    def __init__(self) -> None:
        super().__init__()
        self.mode = LateFakes()
        self.kernels = Kernels(self.mode, CPU)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """As of `LateFakes`."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = tensors((args, kwargs))
        if func is aten._local_scalar_dense.default and isinstance(given[0], FakeTensor):
            return 0  # constructors ask whether any weight is too large: none is
        fake = any(isinstance(a, FakeTensor) for a in given)
        if not fake and (given or _requested_size(args) <= LARGE):
            return func(*args, **kwargs)
        out = self.kernels.run(func, args, kwargs)
        if out is not LEFT:
            return out
        with self.mode:
            return func(*args, **kwargs)


def _requested_size(args: Sequence[Any]) -> int:
    """Elements of the tensor that a factory function is asked for; 0 if that is not an argument."""
    shape = args[0] if args else None
    if isinstance(shape, (list, tuple)) and all(isinstance(n, int) for n in shape):
        return math.prod(shape)
    return 0


@contextlib.contextmanager
def constructing() -> Iterator[None]:
    """Modules that are constructed inside occupy no memory for large weights."""
    with Constructing():
        yield


class OneDevice(LateFakes):
    """Fake tensors that all claim one device, whatever device C++ asks for."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device
        self.kernels = Kernels(self, device)

    def dispatch(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one op on fake tensors, by its shape rule in `SHAPES` or by PyTorch's."""
        kwargs = kwargs or {}
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": self.device}
        if func in SHAPES:
            with self:
                return SHAPES[func](*args, **kwargs)
        out: Any = self.kernels.run(func, args, kwargs)
        if out is LEFT:
            out = super().dispatch(func, types, args, kwargs)
        weight = args[MIXED[func]] if func in MIXED and self.device.type == "cpu" else None
        if weight is not None and weight.dtype != args[0].dtype:
            with self:
                return out[0], *(t.to(weight.dtype) for t in out[1:])
        return out


# norms whose statistics a CPU keeps in the format of their weight -> position of the weight
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


def _grouped_mm(a, b, offs=None, bias=None, out_dtype=None):
    """As a GPU runs it in every format; PyTorch's rule takes only bf16."""
    groups = offs.shape if a.dim() == b.dim() == 2 else a.shape[:-2] if b.dim() == 3 else ()
    return a.new_empty((*groups, a.shape[-2], b.shape[-1]), dtype=out_dtype or a.dtype)


SHAPES = {  # ops that PyTorch cannot run on fake tensors
    aten._thnn_fused_gru_cell.default: _gru_cell,
    aten._thnn_fused_gru_cell_backward.default: _gru_cell_backward,
    aten._grouped_mm.default: _grouped_mm,
}


class _Substitutes:
    """A fake (or random) tensor for each tensor of a module."""

    def __init__(self, device: torch.device, dtype: torch.dtype, real: bool):
        self.device, self.dtype, self.real = device, dtype, real
        self.made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # id -> substitute, original

    def of(self, t: torch.Tensor) -> torch.Tensor:
        """The substitute of t; floating-point tensors take the format `dtype`."""
        if isinstance(t, Uninitialized):
            return t
        if id(t) not in self.made:
            with torch._C.DisableTorchFunction():
                made = self._make(t, self.dtype if t.dtype.is_floating_point else t.dtype)
                if isinstance(t, torch.nn.Parameter):
                    made = torch.nn.Parameter(made, requires_grad=t.requires_grad)
            if isinstance(t, torch.nn.Parameter):
                pass  # its gradient's edge is made with those of all parameters
            elif t.requires_grad and t.is_leaf and made.is_leaf:
                made = made.requires_grad_()
            self.made[id(t)] = (made, t)
        return self.made[id(t)][0]

    def _make(self, t: torch.Tensor, to: torch.dtype) -> torch.Tensor:
        if self.real and not isinstance(t, FakeTensor) and not t.is_meta:
            return t.detach().to(to)
        made = torch.empty_strided(t.shape, t.stride(), dtype=to, device=self.device)
        if not self.real:
            return made
        return made.normal_(0, 0.02) if to.is_floating_point else made.zero_()

    def within(self, value: Any) -> Any:
        """A tensor, or a plain list or tuple of tensors, substituted; anything else as it is."""
        if isinstance(value, torch.Tensor):
            return self.of(value)
        if type(value) in (list, tuple):
            return type(value)(self.of(v) if isinstance(v, torch.Tensor) else v for v in value)
        return value


@contextlib.contextmanager
def weightless(
    module: torch.nn.Module, device: torch.device, dtype: torch.dtype, real: bool = False
) -> Iterator[None]:
    """Inside, the module holds fake tensors in place of its own; they are put back at the end.

    Floating-point weights and buffers take `dtype`, as with module.to(dtype). With `real`, the
    tensors have numbers: the module's own, or random ones if its own are fake.
    """
    substitutes = _Substitutes(device, dtype, real)
    undo: list[tuple[dict[str, Any], dict[str, Any]]] = []
    scripted = contextlib.ExitStack()
    try:
        for m in module.modules():
            if is_scripted(m):
                scripted.enter_context(substituted(m, substitutes.of))
                continue
            tables: list[dict[str, Any]] = [m._parameters, m._buffers]
            own = {k: v for k, v in vars(m).items() if _holds_tensors(v)}
            undo += [(table, dict(table)) for table in tables] + [(vars(m), own)]
            for table in tables:
                table.update({k: substitutes.of(v) for k, v in table.items() if v is not None})
            vars(m).update({k: substitutes.within(v) for k, v in own.items()})
        yield
    finally:
        scripted.close()
        for table, before in undo:
            table.update(before)


def _holds_tensors(value: Any) -> bool:
    """Whether this is a tensor, or a plain list or tuple with tensors in it."""
    return isinstance(value, torch.Tensor) or (
        type(value) in (list, tuple) and any(isinstance(v, torch.Tensor) for v in value)
    )
