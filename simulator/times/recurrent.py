"""Seconds of recurrent layers: one small product a time step, each waiting for the one before."""

from __future__ import annotations

from roofcast.hwdb.constants import Kernels
from roofcast.simulator.times.matmul import matmul
from roofcast.simulator.times.rates import Rates
from roofcast.simulator.times.stream import stream


def recurrent(steps, batch, features, hidden, bytes, vector, special, rates: Rates, c: Kernels):
    """Seconds of one direction of one layer over `steps` time steps. Arguments broadcast.

        t = steps (matmul(batch, features, hidden) + stream(bytes, vector, special of one step))

    features: gates times hidden. bytes, vector FLOPs and special functions are those of the whole
    sequence; the weights are read again at each step. The product with the input has no such chain
    and is a matmul of its own.
    """
    width = max(rates.width, 2.0)
    product = matmul(batch, features, hidden, 1.0, width, width, rates, c)
    return steps * (
        product + stream("elementwise", bytes / steps, vector / steps, special / steps, rates, c)
    )
