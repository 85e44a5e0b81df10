"""The third roof: joules. A kernel costs energy by FLOP, by byte and while time passes; a board at
its limit lowers its clock until a kernel's power fits, which lengthens what the clock bounds.

    x    = clock / highest clock
    v(x) = voltage / that at the highest clock
         = lowest + (1 - lowest) max(x - knee, 0) / (1 - knee)
    A(x) = v^2 (e_F F + e_V (V + 2 S) + active W x t(x)) + e_B B        energy above idle [J]
    t    = min over x of max(t(x), A(x) / (limit - idle W))
    E    = A + idle W t

F FLOPs of matrix units, V of vector units, S special functions, B bytes of main memory; t(x) the
time formula with every rate that is cycles scaled by x, and memory bandwidth not; W the TDP of the
largest board with the same chip: silicon leaks alike whatever limit its board has. t(x) falls and A
rises with x, so that the minimum is where both meet, E / t never passes the limit, and neither a
higher limit nor a faster unit ever makes a kernel slower. Below SLOWEST clocks the kernel pauses
instead. Switching energy is C V^2 and leakage is paid by time [weste2011]; that the limit acts on
kernels, not on the mean of a step, is what boards show (scenarios/fits/power.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from roofcast.hwdb import constants
from roofcast.hwdb.constants import Power
from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.formats import WIDTH
from roofcast.hwdb.records import Device
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.times.rates import Rates, as_built, family_name

SLOWEST = 0.4  # share of the highest clock below which kernels pause instead of running slower
# lowest voltages and their knees that measured steps allow beside the fitted ones: V100 and P100
# are as well described by a knee of 0.84, long steps of H100 by one of 0.60
LOWEST, KNEE = (0.65, 0.77), (0.60, 0.84)
CYCLES = ("matrix", "vector", "special", "clock", "feed")  # rates that scale with the clock
NEWTON = 6  # steps; each clock is bracketed by two computed ones, where the balance is smooth


class Board(NamedTuple):
    """What a board's power depends on. SI units."""

    limit: float  # the cap, else the TDP [W]
    idle: float  # leakage, memory and board at rest, with clocks up [W]
    active: float  # clock tree and issue at the highest clock, while a kernel runs [W]
    communicating: float  # idle, and what collectives add while nothing else runs [W]
    matrix: dict[str, float]  # by format [J/FLOP]
    vector: float  # [J/FLOP]
    byte: float  # of main memory [J/B]
    cached: float  # of keys and values that a decoding kernel reads [J/B]
    assumptions: tuple[str, ...]


class Energy(NamedTuple):
    """Energy of kernels at the highest clock and voltage, one value per kernel [J]."""

    switching: np.ndarray  # falls with the square of the voltage
    memory: np.ndarray  # does not


class Held(NamedTuple):
    """Kernels under the limit of their board."""

    seconds: np.ndarray
    joules: np.ndarray
    clock: np.ndarray  # share of the highest


@functools.lru_cache(maxsize=256)
def board_of(device: Device, c: Power) -> Board | None:
    """The board of a device, or None where its power, or the energies of its family, are unknown,
    and where the device is a module whose power others share (LPDDR memory).

    Raises BadInput where the limit is below what the board needs at rest.
    """
    limit = device.power.cap or device.power.tdp
    family = constants.family(family_name(device))
    module = device.memory.type.startswith("LPDDR")
    if not limit or device.kind != "gpu" or not family.joule_per_flop or module:
        return None
    built = as_built(device)
    chip = float(device.power.chip_tdp or built.power.tdp or limit)
    assumed = []
    gddr = built.memory.type.startswith("GDDR")
    idle = (c.idle_gddr if gddr else c.idle) * chip
    if limit <= idle:
        raise BadInput(
            f"{device.id}: a power limit of {float(limit):g} W is not above the {idle:.0f} W that"
            f" the board takes at rest; give more, at most its {built.power.tdp or limit:g} W"
        )
    if gddr:
        assumed.append(
            f"{device.id}: power at rest of boards with GDDR memory is not measured: {idle:.0f} W"
            " assumed"
        )
    sixteen = family.joule_per_flop["bf16"].value
    matrix = {
        name: _as_fast(device, built, "peak_flops", name)
        * (family.joule_per_flop[name].value if name in family.joule_per_flop
           else sixteen * width / WIDTH["bf16"])
        for name, width in WIDTH.items()
    }  # fmt: skip
    assert family.joule_per_vector_flop is not None, "families with energies have this one"
    vector = family.joule_per_vector_flop.value * _as_fast(device, built, "vector_flops", "fp32")
    faster = float(built.memory.bandwidth) / float(device.memory.bandwidth)
    byte, word = _byte(built, c)
    assumed += [f"{device.id}: {word}"] if word else []
    return Board(
        limit=float(limit),
        idle=idle,
        active=c.active * chip,
        communicating=c.communicating * chip,
        matrix=matrix,
        vector=vector,
        byte=byte * faster,
        cached=max(c.cached, byte) * faster,
        assumptions=tuple(assumed),
    )


def _as_fast(device: Device, built: Device, table: str, name: str) -> float:
    """Energy per FLOP of a hypothetical rate, over that of the device as built: an imagined peak
    inherits the fraction that is reached, not the watts.
    """
    old, new = getattr(built, table).get(name), getattr(device, table).get(name)
    return float(old) / float(new) if old and new else 1.0


def _byte(device: Device, c: Power) -> tuple[float, str]:
    """Energy of a byte of main memory [J], and in words where it is assumed."""
    kind = device.memory.type.upper()
    if kind.startswith("HBM"):
        return c.hbm, ""
    return c.other_memory, f"energy of a byte of {device.memory.type or 'its memory'} assumed"


def voltage(clock: np.ndarray | float, c: Power) -> np.ndarray:
    """Voltage at a share of the highest clock, as a share of that at the highest clock.

    >>> float(voltage(1.0, constants.kernels().power))
    1.0
    """
    above = np.maximum(np.asarray(clock) - c.knee, 0.0) / (1.0 - c.knee)
    return c.lowest_voltage + (1.0 - c.lowest_voltage) * above


def clocks(c: Power) -> np.ndarray:
    """Shares of the highest clock at which kernels are timed; what lies between is interpolated."""
    return np.array([1.0, (1.0 + c.knee) / 2.0, c.knee, (c.knee + SLOWEST) / 2.0, SLOWEST])


def at_clocks(rates: Rates, clock: Any) -> Rates:
    """The rates at shares of the highest clock: everything that is cycles, and not memory.

    clock: shares, for which formulas give a row each; a column of them, or one share.
    """
    x = np.asarray(clock)[:, None] if np.ndim(clock) == 1 else clock
    cycles = {name: getattr(rates, name) * x for name in CYCLES}
    return rates._replace(**cycles)


def held(seconds: np.ndarray, work: Energy, board: Board, c: Power) -> Held:
    """Kernels at the clocks that the limit of the board leaves them.

    seconds: of each kernel at `clocks`, the first axis.
    """
    return held_from(seconds[0], lambda over: seconds[:, over], work, board, c)


def held_from(
    highest: np.ndarray,
    slower: Callable[[np.ndarray], np.ndarray],
    work: Energy,
    board: Board,
    c: Power,
) -> Held:
    """The same from the seconds of each kernel at the highest clock. slower: those at `clocks`, the
    first axis, of the kernels with these places alone: the ones that the limit slows down.
    """
    spare = board.limit - board.idle
    above = _above_idle(1.0, highest, work, board, c)
    x, t, a = np.ones(len(highest)), highest.copy(), above.copy()
    over = np.flatnonzero(above > spare * highest)
    if len(over):
        mine = Energy(work.switching[over], work.memory[over])
        times = slower(over)
        by_clock = _above_idle(clocks(c)[:, None], times, mine, board, c)
        x[over], t[over] = _balanced(times, by_clock, mine, board, c)
        a[over] = _above_idle(x[over], t[over], mine, board, c)
        t = np.maximum(t, a / spare)
    return Held(t, a + board.idle * t, x)


def under_a_cap(
    device: Device, board: Board, seconds: np.ndarray, energy: Energy, count: np.ndarray, c: Power
) -> tuple[str, ...]:
    """What a cap costs under other voltage curves, as an assumption; empty where there is no cap.

    Seconds are compared with those at the TDP, since rates at the TDP were measured.
    """
    tdp = device.power.tdp
    if not device.power.cap or not tdp or device.power.cap >= tdp:
        return ()
    slower = []
    for lowest, knee in zip((*LOWEST, c.lowest_voltage), (*KNEE, c.knee), strict=True):
        curve = msgspec.structs.replace(c, lowest_voltage=lowest, knee=knee)
        times = np.stack([_between(x, seconds, c) for x in clocks(curve)])
        capped, free = (
            float((held(times, energy, board._replace(limit=w), curve).seconds * count).sum())
            for w in (board.limit, float(tdp))
        )
        slower.append(capped / free)
    return (
        f"{device.id}: under {board.limit:g} W kernels take {min(slower):.2f} to {max(slower):.2f}"
        f" times as long as at its {float(tdp):g} W: the voltage at low clocks is known from V100"
        " and P100 only",
    )


def _between(x: float, seconds: np.ndarray, c: Power) -> np.ndarray:
    """Seconds at a clock, from those at `clocks`: linear in 1 / clock between two of them."""
    nodes = 1.0 / clocks(c)
    i = min(int(np.searchsorted(nodes, 1.0 / x, side="right")), len(nodes) - 1)
    part = (1.0 / x - nodes[i - 1]) / (nodes[i] - nodes[i - 1])
    return seconds[i - 1] + part * (seconds[i] - seconds[i - 1])


def joules_at(
    x: np.ndarray | float, t: np.ndarray, work: Energy, board: Board, c: Power
) -> np.ndarray:
    """E of the head of this file at shares x of the highest clock, whatever the limit [J]."""
    return _above_idle(x, t, work, board, c) + board.idle * t


def _above_idle(
    x: np.ndarray | float, t: np.ndarray, work: Energy, board: Board, c: Power
) -> np.ndarray:
    """A(x) of the head of this file [J]."""
    v = voltage(x, c)
    return v * v * (work.switching + board.active * x * t) + work.memory


def _balanced(
    seconds: np.ndarray, above: np.ndarray, work: Energy, board: Board, c: Power
) -> tuple[np.ndarray, np.ndarray]:
    """Clock and seconds of kernels above the limit, where their power is the limit.

    Between two of the clocks t(x) = a + b / x; the balance A(x) - spare t(x) rises with x.
    """
    nodes, spare = clocks(c), board.limit - board.idle
    under = above <= spare * seconds  # per clock and kernel
    low = np.where(under.any(axis=0), under.argmax(axis=0), len(nodes) - 1)
    columns = np.arange(seconds.shape[1])
    bottom, top = nodes[low], nodes[low - 1]
    t_low, t_high = seconds[low, columns], seconds[low - 1, columns]
    b = (t_low - t_high) / (1.0 / bottom - 1.0 / top)
    a = t_high - b / top
    x = 0.5 * (bottom + top)
    slope = np.where(bottom >= c.knee, (1.0 - c.lowest_voltage) / (1.0 - c.knee), 0.0)
    for _ in range(NEWTON):
        v, busy = voltage(x, c), work.switching + board.active * (a * x + b)
        balance = v * v * busy + work.memory - spare * (a + b / x)
        rise = 2.0 * v * slope * busy + v * v * board.active * a + spare * b / (x * x)
        x = np.clip(x - balance / np.maximum(rise, 1e-300), bottom, top)
    return x, a + b / x


def long_product(device: Device, rates: Rates, c: Power) -> float:
    """Rate of an endless product on the device, as a fraction of its printed peak."""
    board = board_of(device, c)
    if board is None:
        return rates.sustained
    full = 1.0 / (rates.sustained * rates.matrix)
    flop = board.matrix[rates.format] if rates.tensor else board.vector
    energy = Energy(np.array([flop]), np.zeros(1))
    seconds = held(full / clocks(c)[:, None], energy, board, c).seconds
    return float(rates.sustained * full / seconds[0])


def limited(
    device: Device, board: Board, clock: np.ndarray, seconds: np.ndarray
) -> tuple[str, ...]:
    """What the limit of a board does to the clock, as an assumption; empty where nothing."""
    slowed = clock < 1.0
    if not slowed.any():
        return ()
    mean = float((clock * seconds)[slowed].sum() / seconds[slowed].sum())
    share = float(seconds[slowed].sum() / seconds.sum())
    return (
        f"{device.id}: at its power limit of {board.limit:g} W the clock falls to {mean:.2f} of the"
        f" boost clock, in kernels that take {100 * share:.0f} % of the time",
    )
