"""Compilation of the kernels: the only place that imports numba, after setting its environment.

Import this module before anything else compiles. It sets, unless the user has:

    OMP_WAIT_POLICY=PASSIVE   Threads of libgomp otherwise spin at the end of a parallel loop. With
                              one more process on the machine, a loop of 5 microseconds then takes
                              a scheduler slice of 10 to 20 milliseconds.
    NUMBA_CPU_NAME, NUMBA_CPU_FEATURES
                              Those of the host, without prefer-256-bit: LLVM otherwise leaves half
                              of a 512-bit unit unused.
    NUMBA_CACHE_DIR           A folder in the user's cache whose name depends on the source of all
                              kernels: numba does not notice that a called function has changed.

numba reads them when it is imported, and again in this module.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple


def _cache() -> Path:
    """Folder of the compiled kernels: in the user's cache, or a temporary one if that fails."""
    import platformdirs

    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    name = f"numba-{hashlib.sha256(sources).hexdigest()[:12]}"
    folder = Path(platformdirs.user_cache_dir("roofcast")) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        # mkdtemp: other users must not be able to put code into it
        private = tempfile.mkdtemp(prefix="roofcast-")
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        return Path(private)


def _features() -> str:
    """The host's CPU features as LLVM lists them, without the preference for narrow vectors."""
    from llvmlite import binding

    found = binding.get_host_cpu_features().flatten()
    return f"{found},-prefer-256-bit" if "+avx512f" in found else found


def _numba() -> ModuleType:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "NUMBA_CACHE_DIR" not in os.environ:
        os.environ["NUMBA_CACHE_DIR"] = str(_cache())
    if "NUMBA_CPU_NAME" not in os.environ and "NUMBA_CPU_FEATURES" not in os.environ:
        from llvmlite import binding

        os.environ["NUMBA_CPU_NAME"] = binding.get_host_cpu_name()
        os.environ["NUMBA_CPU_FEATURES"] = _features()
    import numba

    # if numba was imported earlier: before its first compilation this is not too late
    numba.config.reload_config()
    return numba


numba = _numba()
prange = numba.prange

# sums may be reordered; infinities keep their meaning
FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}
_HAS = set(_features().split(","))
VECTOR_BYTES = 64 if "+avx512f" in _HAS else 32 if "+avx2" in _HAS else 16  # of a vector register
REGISTERS = 16 if VECTOR_BYTES == 32 or "+sse2" in _HAS and VECTOR_BYTES == 16 else 32


class Pair(NamedTuple):
    """One kernel compiled twice (numba dispatchers)."""

    one: Any  # runs on the calling thread
    all: Any  # spreads its prange loops over all threads


def both(function: Callable[..., Any]) -> Pair:
    """Compile a kernel for one thread and for all threads, which share its prange loops."""
    options = dict(cache=True, fastmath=FAST, error_model="numpy", boundscheck=False)
    every = numba.njit(parallel=True, **options)(_renamed(function))
    return Pair(numba.njit(**options)(function), every)


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call."""
    return numba.njit(cache=True, fastmath=FAST, error_model="numpy")(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function that is inlined into every caller; its arithmetic is not reordered."""
    return numba.njit(cache=True, error_model="numpy", forceinline=True)(function)


def threads_set() -> int:
    """The number of threads that the caller set for this process; 1 where none is set."""
    return int(os.environ.get("NUMBA_NUM_THREADS", "1"))


def any_float(function: Callable[..., Any]) -> Any:
    """Compile a kernel for any float format and the threads of this process (`threads_set`), which
    share its prange loops.

    No infinities may reach it: all of LLVM's fast-math flags are on.
    """
    if threads_set() == 1:
        return in_turn(function)
    options = dict(cache=True, fastmath=True, error_model="numpy")
    return numba.njit(parallel=True, **options)(_renamed(function))


def in_turn(function: Callable[..., Any]) -> Any:
    """`any_float` on the calling thread, for loops whose rows are added to one result."""
    return numba.njit(cache=True, fastmath=True, error_model="numpy")(function)


def _renamed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A copy under another name, so that variants of a kernel have separate caches."""
    name = f"{function.__name__}_all"
    copy = FunctionType(function.__code__, function.__globals__, name, function.__defaults__)
    copy.__qualname__ = f"{function.__qualname__}_all"
    copy.__doc__, copy.__module__ = function.__doc__, function.__module__
    return copy


def intrinsic(build: Callable[..., Any]) -> Any:
    """numba's `intrinsic`: a function whose LLVM instructions `build` emits."""
    return numba.extending.intrinsic(build)
