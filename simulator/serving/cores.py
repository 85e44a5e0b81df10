"""The clock of a CPU whose cores all work: printed rates are at its base clock."""

from __future__ import annotations

import math

from roofcast.hwdb.records import Device
from roofcast.simulator.times.rates import Rates

# highest clock over base clock of the i9-10940X, 4.8 and 3.3 GHz, to whose nets the fraction of
# the rate at base clock was fitted (hwdb/families/any-cpu.toml)
FITTED_AT = 4.8 / 3.3


def common_clock(device: Device) -> float:
    """Clock of all cores together, over the base clock: the geometric mean of base and highest.

        sqrt(highest / base)

    Assumed. Base clocks are what the printed power always allows, the highest is that of one core.
    An i9-10940X runs all of its cores at 4.1 GHz [base 3.3, highest 4.8], a Xeon 8480+ at 3.0
    [2.0, 3.8] (recalled: Intel's tables of turbo clocks), 4.0 and 2.8 by this rule. 1.0 where a
    clock is unknown.

    >>> from roofcast import hwdb
    >>> round(common_clock(hwdb.device("xeon-8480")), 2), common_clock(hwdb.device("graviton4"))
    (1.38, 1.0)
    """
    if not device.clock or not device.base_clock:
        return 1.0
    return math.sqrt(max(device.clock / device.base_clock, 1.0))


def at_common_clock(rates: Rates, device: Device) -> Rates:
    """Rates of a printed CPU at that clock; those of a measured one are as measured. The fraction
    of a product's rate that a library reaches is of the clock that it was fitted at.
    """
    if rates.measured:
        return rates
    faster = common_clock(device)
    matrix = rates.matrix * faster / math.sqrt(FITTED_AT)
    return rates._replace(matrix=matrix, vector=rates.vector * faster)
