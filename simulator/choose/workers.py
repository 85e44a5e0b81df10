"""Who forecasts the chunks of a sweep: processes of this machine, or a Dask cluster. A chunk whose
worker is lost is given to another; nothing that was finished is forecast again.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.simulator.choose.sweep import COLUMNS, Chunk, Rows, Runner, run

TRIES = 3  # workers that may be lost over one chunk
LOST = "its worker was lost each time, probably for lack of memory"
CONNECT_S = 10.0  # seconds to wait for a scheduler


def processes(workers: int) -> Runner:
    """A runner over so many processes of this machine."""

    def on_processes(todo: Sequence[Chunk]) -> Iterator[tuple[int, Rows]]:
        left = {chunk.number: chunk for chunk in todo}
        tries = dict.fromkeys(left, 0)
        while left:
            pool = _pool(workers)
            try:
                futures = {pool.submit(run, chunk): chunk.number for chunk in left.values()}
                for future in as_completed(futures):
                    number, rows = futures[future], future.result()
                    del left[number]
                    yield number, rows
            except BrokenProcessPool:
                pass
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
            # the first of those that are left were at work when a process was lost
            for number in list(left)[:workers]:
                tries[number] += 1
                if tries[number] == TRIES:
                    yield number, lost(left.pop(number))

    return on_processes


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # threads of numerical libraries do not fork
    return ProcessPoolExecutor(workers, mp_context=context)


def lost(chunk: Chunk) -> Rows:
    """Rows of a chunk that no worker finished."""
    names = [axis.name for axis in chunk.axes]
    return [
        {**dict(zip(names, point, strict=True)), **dict.fromkeys(COLUMNS), "refused": LOST}
        for point in chunk.points
    ]


def cluster(address: str) -> Runner:
    """A runner over the workers of the Dask scheduler at that address, tcp://HOST:PORT.

    Raises BadInput where Dask is not installed or nobody answers.
    """
    try:
        from dask.distributed import Client
    except ImportError:
        raise BadInput(
            "--dask needs dask.distributed; install it with: pip install 'roofcast[dask]'"
        ) from None
    try:
        client: Any = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError, TimeoutError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
        raise BadInput(f"--dask {quoted(address)}: no scheduler answers ({reason[:80]})") from None

    def on_cluster(todo: Sequence[Chunk]) -> Iterator[tuple[int, Rows]]:
        from dask.distributed import KilledWorker
        from dask.distributed import as_completed as finished

        with client:
            futures = {f.key: (f, chunk) for chunk in todo for f in [_submitted(client, chunk)]}
            for future in finished([f for f, _ in futures.values()]):
                chunk = futures[future.key][1]
                try:
                    yield chunk.number, future.result()
                except KilledWorker:
                    yield chunk.number, lost(chunk)
                future.release()

    return on_cluster


def _submitted(client: Any, chunk: Chunk) -> Any:
    return client.submit(run, chunk, pure=False, retries=TRIES)
