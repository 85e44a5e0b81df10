"""Where a trace's sums of gradients stand among its kernels: as on the tape of a named model.

A tensor that several ops read receives several gradients. Autograd adds them as they arrive, last
that of the op that read the tensor first; the tape notes the sum at the op that read it last.
"""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.simulator.importers.record import Launch


def places(launches: Sequence[Launch]) -> list[int]:
    """For every launch, the forward kernels up to the op at which it stands."""
    forward = [k for k in launches if k.phase == "forward"]
    readers: dict[int, list[int]] = {}  # storage -> numbers of the kernels that read it
    writers: dict[int, list[int]] = {}
    for number, k in enumerate(forward, 1):
        for v in k.inputs:
            readers.setdefault(v.storage, []).append(number)
        for v in k.outputs:
            writers.setdefault(v.storage, []).append(number)
    return [
        _last_reader(k, forward, readers, writers)
        if k.phase == "backward" and k.name in ("add", "add_") and 0 < k.after <= len(forward)
        else k.after
        for k in launches
    ]


def _last_reader(
    k: Launch,
    forward: Sequence[Launch],
    readers: dict[int, list[int]],
    writers: dict[int, list[int]],
) -> int:
    """The last kernel that reads the tensor of which k adds gradients, before it is overwritten."""
    for v in forward[k.after - 1].inputs:
        if v.grad and v.kind == "activation" and v.bytes == k.written:
            again = min((n for n in writers.get(v.storage, ()) if n >= k.after), default=None)
            return max(n for n in readers[v.storage] if again is None or n <= again)
    return k.after
