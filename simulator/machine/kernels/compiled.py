"""The one place that imports numba, after setting what must be set before it; every kernel is
compiled from here.

Set first, where the user has not set them:
    OMP_WAIT_POLICY=PASSIVE   libgomp's threads otherwise spin at the end of a parallel loop: with
                              one more process on the machine a
                              loop of 5 microseconds then takes a scheduler slice of 10 to 20
                              milliseconds
    NUMBA_CPU_NAME, _FEATURES the host's, less prefer-256-bit: LLVM otherwise leaves half of a
    512-bit unit unused
    NUMBA_CACHE_DIR           a folder of the user's, named for the kernels' source: numba alone
                              would not notice a changed callee
They are read when numba is imported, and again here; import this before anything else compiles.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import types
from pathlib import Path
from typing import Any, NamedTuple


def _cache() -> Path:
    """Where compiled kernels are kept: the user's cache folder, or where that cannot be written,
    one for this run.
    """
    import platformdirs

    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    folder = (
        Path(platformdirs.user_cache_dir("roofcast"))
        / f"numba-{hashlib.sha256(sources).hexdigest()[:12]}"
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        # one that nobody else can have put code into
        private = tempfile.mkdtemp(prefix="roofcast-")
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        return Path(private)


def _features() -> str:
    """What LLVM finds the host to have, without the preference for narrow vectors."""
    from llvmlite import binding

    found = binding.get_host_cpu_features().flatten()
    return f"{found},-prefer-256-bit" if "+avx512f" in found else found


def _numba() -> Any:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "NUMBA_CACHE_DIR" not in os.environ:
        os.environ["NUMBA_CACHE_DIR"] = str(_cache())
    if "NUMBA_CPU_NAME" not in os.environ and "NUMBA_CPU_FEATURES" not in os.environ:
        from llvmlite import binding

        os.environ.update(
            NUMBA_CPU_NAME=binding.get_host_cpu_name(), NUMBA_CPU_FEATURES=_features()
        )
    import numba

    # in case something imported it before: before its first compilation that is not too late
    numba.config.reload_config()
    return numba


numba = _numba()
prange = numba.prange

# sums may be reordered; infinities still mean what they do
FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}
_HAS = set(_features().split(","))
VECTOR_BYTES = 64 if "+avx512f" in _HAS else 32 if "+avx2" in _HAS else 16  # of a vector register
REGISTERS = 16 if VECTOR_BYTES == 32 or "+sse2" in _HAS and VECTOR_BYTES == 16 else 32


class Pair(NamedTuple):
    """One kernel compiled twice: `one` runs on the calling thread, `all` spreads its prange loops
    over all threads.
    """

    one: Any
    all: Any


def both(function) -> Pair:
    """`function` for one thread and for all. Its prange loops are the parallel ones; a copy under
    another name keeps their caches apart.
    """
    copy = types.FunctionType(
        function.__code__, function.__globals__, f"{function.__name__}_all", function.__defaults__
    )
    copy.__qualname__, copy.__doc__, copy.__module__ = (
        f"{function.__qualname__}_all",
        function.__doc__,
        function.__module__,
    )
    options = dict(cache=True, fastmath=FAST, error_model="numpy", boundscheck=False)
    return Pair(numba.njit(**options)(function), numba.njit(parallel=True, **options)(copy))


def inner(function):
    """A function that kernels call."""
    return numba.njit(cache=True, fastmath=FAST, error_model="numpy")(function)


def exact(function):
    """A function that is made part of every loop that calls it; its sums and products stay in the
    order they are written in.
    """
    return numba.njit(cache=True, error_model="numpy", forceinline=True)(function)


def outer(function):
    """A kernel of one thread and any float format, called from Python. No infinities reach it, so
    it may be as free as LLVM likes.
    """
    return numba.njit(cache=True, fastmath=True, error_model="numpy")(function)
